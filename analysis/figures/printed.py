"""Numbers that the paper printed of its figures and that are no cell of a table, to stand beside ours."""

from __future__ import annotations

import csv
from collections.abc import Collection

from rna_ray.analysis.papers import PUBLISHED


def printed(figure: str, data: Collection[str]) -> list[dict[str, str]]:
    """Return the lines printed of a figure on these data sets: where each stands in it, its accuracy in %, its source.

    The accuracies under ordinary attacks are in `papers`.
    """
    text = (PUBLISHED / "figures" / f"{figure}.csv").read_text(encoding="utf-8")
    return [line for line in csv.DictReader(text.splitlines()) if line["data"] in data]
