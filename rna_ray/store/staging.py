"""Data sets that lie on an object store: copied to this machine once, for all its processes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from pyarrow import fs

from rna_ray import data
from rna_ray.errors import DataError
from rna_ray.store import cache
from rna_ray.store.files import Files, open_files

_ROOM = "data"


def folder(name: str, root: str | None) -> str | None:
    """Return the folder on this machine with a data set's files: the given one, or the copy of a remote one.

    The copy is of the files that the data set is read from, and of no other; a remote file of another size or date
    makes another copy. Raises DataError where the data set is not complete there, StoreError where it cannot be copied.
    """
    if root is None or "://" not in root or not data.record(name).needs_root:
        return root
    files = open_files(root)
    if files.local:
        return str(files.root)
    found = _listed(files)
    return str(cache.kept(_ROOM, _key(name, root, found), lambda target: _copy(name, files, found, target), stays=True))


def check(name: str, root: str) -> None:
    """Raise DataError where a data set is not complete in a remote folder: by its files' names, none is copied."""
    _read(name, root, _listed(open_files(root)))


def forget(name: str, root: str) -> None:
    """Remove this machine's copy, as it is damaged."""
    cache.forget(_ROOM, _key(name, root, _listed(open_files(root))))


def remote(root: str | None) -> bool:
    """Return whether a data set's folder is not one of this machine."""
    return root is not None and "://" in root and not open_files(root).local


def _listed(files: Files) -> dict[str, tuple[int, int]]:
    """Return the size and the time of each file below a root, by its relative path."""
    return {
        PurePosixPath(one.path).relative_to(files.root).as_posix(): (one.size, one.mtime_ns)
        for one in files.below(PurePosixPath("."))
        if one.type == fs.FileType.File and one.base_name[:1] != "."
    }


def _key(name: str, root: str, found: Mapping[str, tuple[int, int]]) -> str:
    facts = json.dumps([name, root, sorted(found.items())])
    return f"{name}-{hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()}"


def _copy(name: str, files: Files, found: Mapping[str, tuple[int, int]], target: Path) -> None:
    def copy(path: str) -> None:
        files.copy_out(PurePosixPath(path), target / path)
        if (size := (target / path).stat().st_size) != found[path][0]:
            raise DataError(f"{files.full(PurePosixPath(path))} changed while it was copied: it has {size:,} bytes now")

    target.mkdir()
    files.each(copy, _read(name, files.uri, found))


def _read(name: str, root: str, found: Iterable[str]) -> list[str]:
    """Return the relative paths of the files that the data set is read from: found among empty ones of their names."""
    files = data.record(name).files
    if files is None:  # too many to tell, and all that are there
        return sorted(found)
    with tempfile.TemporaryDirectory(prefix="rna-ray-") as names:
        for path in found:
            place = Path(names, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        try:
            return [path.relative_to(names).as_posix() for path in files(Path(names), False)]
        except DataError as error:
            said = str(error).replace(names, root).removesuffix("; or set data.download=true to fetch it")
            raise DataError(said) from None
