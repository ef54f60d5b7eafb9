"""A table before it is text: what its cells say, and what each of them rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rna_ray.analysis import audit
from rna_ray.analysis.render import Bold, Grid


@dataclass(frozen=True, kw_only=True)
class Item:
    """One cell of a table."""

    text: str
    """What it says, a number as 57.3."""
    margin: str = ""
    """How far that is certain: ±2.7."""
    note: str = ""
    """What else is to be read with it, such as its n where that is its own."""
    mark: str = ""
    """The sign beside it, which the caption explains: †, ‡ or ✗."""
    bold: bool = False
    number: float | None = None
    """What it sorts by; None sorts it by its text."""
    of: Any = None
    """What it was made of: a Cell, a Certified, or a printed Row or Line; None where it stands for itself."""
    judged: Sequence[audit.Judgement] = ()
    """The checks of the audit that it, or all of its row, was put to."""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.text, self.margin, self.note, self.mark)))


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table: its heading, its rows, and what must be known to read it."""

    header: Sequence[str]
    rows: Sequence[Sequence[Item]]
    caption: str

    @property
    def grid(self) -> Grid:
        """The rows as text."""
        return [[Bold(item) if item.bold else str(item) for item in row] for row in self.rows]


def failing(judged: Sequence[audit.Judgement]) -> str:
    """Return the sign of a cell that fails a check, nothing where it fails none."""
    return audit.FAILED if any(one.status == "failed" for one in judged) else ""


def audited(judged: Sequence[audit.Judgement]) -> Item:
    """Return the cell that sums up the checks of a row; it sorts by how many failed."""
    return Item(text=audit.total(judged), number=audit.count(judged).failed, judged=judged)
