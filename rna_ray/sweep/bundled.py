"""The sweep files that ship with rna-ray."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from rna_ray.errors import SweepError


def find(text: str) -> Path:
    """Return the path of a sweep file: the one at this path, else one that ships, by `name` or `sweeps/name.yaml`.

    Raises SweepError where there is neither.
    """
    path = Path(text)
    if path.is_file():
        return path
    shipped = _shipped()
    if text in shipped or (path.parts[:-1] == ("sweeps",) and path.stem in shipped):
        return shipped[path.stem]
    raise SweepError(f"{text}: there is no such file; give a sweep file, or one that ships: {', '.join(shipped)}")


def _shipped() -> dict[str, Path]:
    found = [Path(str(file)) for file in files("rna_ray.sweeps").iterdir()]
    return {path.stem: path for path in sorted(found) if path.suffix == ".yaml"}
