"""The sweep files that ship with rna-ray."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from rna_ray.errors import SweepError, unknown


def find(text: str) -> Path:
    """Return the path of a sweep file: the file of that name, else the sweep of that name that ships."""
    path = Path(text)
    if path.is_file():
        return path
    shipped = {Path(str(file)).stem: Path(str(file)) for file in files("rna_ray.sweeps").iterdir() if _is_sweep(file)}
    if path.suffix or path.parent != Path("."):
        if (path.stem in shipped) and path.parent.name == "sweeps":
            return shipped[path.stem]
        raise SweepError(f"{text}: there is no such file; give a sweep file, or one that ships: {', '.join(sorted(shipped))}")
    if text not in shipped:
        raise SweepError(unknown("sweep", text, shipped))
    return shipped[text]


def _is_sweep(file: object) -> bool:
    return str(file).endswith(".yaml")
