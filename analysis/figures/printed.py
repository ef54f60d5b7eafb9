"""Numbers that the paper printed of its figures, to stand beside ours."""

from __future__ import annotations

import csv
from importlib.resources import files

_PUBLISHED = files("rna_ray.analysis") / "published" / "figures"


def printed(figure: str) -> list[dict[str, str]]:
    """Return the lines printed of a figure: where each stands in it, its accuracy in %, and its source."""
    return list(csv.DictReader((_PUBLISHED / f"{figure}.csv").read_text(encoding="utf-8").splitlines()))
