"""The user's own modules on their way to other machines: gathered here, found there.

Ray brings folders (`py_modules` of a runtime environment) and puts what holds them on a worker's path; under which name
each lies there follows from where it lay here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rna_ray.errors import NetworkError
from rna_ray.networks.source import Source

MOST_BYTES = 64 * 2**20
_LEFT_OUT = ("__pycache__", "site-packages", "node_modules")


def gather(roots: Iterable[str], into: Path) -> list[Path]:
    """Copy every Python file below each root to a folder of its own, and return those.

    Hidden folders and environments are left out. Raises NetworkError where there is more code than a module would need.
    """
    return [_gathered(root, into / _name(root)) for root in sorted(set(roots))]


def arrived(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Return the same sources with the roots that Ray brought to this machine, where it did."""
    return {unit: dataclasses.replace(lies, root=_here(lies.root)) for unit, lies in sources.items()}


def _here(root: str | None) -> str | None:
    if root is None:
        return None
    places = (Path(place, _name(root)) for place in sys.path)
    return next((str(place) for place in places if place.is_dir()), root)


def _name(root: str) -> str:
    return f"rna_ray_own_{hashlib.blake2b(root.encode(), digest_size=8).hexdigest()}"


def _gathered(root: str, target: Path) -> Path:
    target.mkdir(parents=True)
    size = 0
    for file in _python_files(root):
        size += file.stat().st_size
        if size > MOST_BYTES:
            raise NetworkError(
                f"network.root: {root} holds more than {MOST_BYTES // 2**20} MiB of Python files to bring to the other "
                "machines; give the module a folder of its own"
            )
        copy = target / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return target


def _python_files(root: str) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            name for name in folders
            if name[0] != "." and name not in _LEFT_OUT and not Path(folder, name, "pyvenv.cfg").exists()
        )  # fmt: skip
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".py"))
