"""The sweep files that ship with rna-ray."""

from __future__ import annotations

import difflib
import stat
from importlib.resources import files
from pathlib import Path

from rna_ray.errors import SweepError


def find(text: str) -> Path:
    """Return the path of a sweep file: the one at this path, else one that ships, by `name` or `sweeps/name.yaml`.

    Raises SweepError where there is neither.
    """
    path = Path(text)
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return path
        why = "this is no file"
    except (FileNotFoundError, NotADirectoryError):
        why = "there is no such file"
    except OSError as error:
        why = f"it cannot be read: {error.strerror}"
    shipped = _shipped()
    if text in shipped or (path.parts[:-1] == ("sweeps",) and path.stem in shipped):
        return shipped[path.stem]
    near = difflib.get_close_matches(path.stem, shipped, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise SweepError(f"{text}: {why}{hint} Give a sweep file, or one that ships: {', '.join(shipped)}")


def _shipped() -> dict[str, Path]:
    found = [Path(str(file)) for file in files("rna_ray.sweeps").iterdir()]
    return {path.stem: path for path in sorted(found) if path.suffix == ".yaml"}
