"""The papers' printed numbers (published/*.csv), and where they stand in the table of the sweep of that name."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from rna_ray.analysis.cells import PIXEL, Cell, Column
from rna_ray.analysis.statistics import mean_interval

PUBLISHED = files("rna_ray.analysis") / "published"
COMPARABLE = ("none", "transfer")
"""What the papers' attackers know: nothing, or one path that is not the one that answers."""

UNBOUNDED = frozenset({"natural", "gaussian", "cw", "deepfool"})
"""The printed attacks that have no ball."""

FULL: Mapping[str, str] = {"cw": "cw-1000", "deepfool": "deepfool-50", "mifgsm": "mifgsm-5"}
"""Our labels of the printed attacks whose options a small scale may change (RNA, Section 5.1)."""

TEST_IMAGES: Mapping[str, int] = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 50_000}
"""How many images a printed accuracy is of, by data set."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One printed accuracy."""

    data: str
    model: str
    """The network in the paper's word; empty where the paper does not say."""
    method: str
    """The name of the sweep's variant, without the protocol."""
    attack: str
    """Our label, without an option that a small scale may change: cw, not cw-1000."""
    eps_255: float | None
    """The radius; None where the attack has none."""
    eps_space: str = PIXEL
    """Where it is measured; a csv that does not say means pixel."""
    threat: str = "linf"
    """The norm of its ball; a csv that does not say means linf, and none for an attack without a ball."""
    text: str
    """The accuracy in %, as printed."""
    interval: str = ""
    """Half of its 95 % interval over restarts, as printed; empty where none is."""
    source: str
    beside: str = ""
    """The name of the variant beside which it stands, where that is another; a csv that does not say means none."""

    @property
    def accuracy(self) -> float:
        """The accuracy in [0, 1]."""
        return round(float(self.text) / 100, 12)

    @property
    def row(self) -> str:
        """What the numbers of one row of one table have in common."""
        return f"{self.source}: {' '.join(filter(None, (self.model, self.method)))}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """The numbers of one method in one printed table."""

    method: str
    """As our variants are called, with the model in front where the table has several."""
    label: str
    """How our table calls the row."""
    lines: tuple[Line, ...]

    @property
    def ours(self) -> str:
        """The name of the variant of ours that is this row's method."""
        return self.lines[0].beside or self.method


def read(name: str | None = None) -> list[Line]:
    """Return the printed numbers of one table, none where none ships; of all tables where no name is given."""
    found = sorted((file for file in PUBLISHED.iterdir() if file.name.endswith(".csv")), key=lambda file: file.name)
    chosen = [file for file in found if name in (None, file.name.removesuffix(".csv"))]
    return [line for file in chosen for line in _lines(file.read_text(encoding="utf-8"))]


def _lines(text: str) -> Iterable[Line]:
    for row in csv.DictReader(text.splitlines()):
        eps = row.pop("eps_255")
        usual = {"eps_space": PIXEL, "threat": "none" if _family(row["attack"]) in UNBOUNDED else "linf"}
        stated = usual | {name: value for name in usual if (value := row.pop(name, ""))}
        yield Line(text=row.pop("accuracy"), eps_255=float(eps) if eps else None, **stated, **row)


def _family(attack: str) -> str:
    return attack.partition("-")[0]


def rows(name: str) -> list[Row]:
    """Return the printed rows for the table of a sweep, in the paper's order; the first source is the table's own."""
    lines = read(name)
    several = len({line.model for line in lines}) > 1
    grouped: dict[str, list[Line]] = {}
    for line in lines:
        grouped.setdefault(line.row, []).append(line)
    made = []
    for held in grouped.values():
        first = held[0]
        method = f"{first.model} {first.method}" if several else first.method
        which = "" if first.source == lines[0].source else f" ({first.source})"
        made.append(Row(method=method, label=f"{method}, printed{which}", lines=tuple(held)))
    return made


def first(row: Row, variants: Iterable[str]) -> str | None:
    """Return the first of our variants' labels that is this row's method, None where there is none."""
    return next((one for one in variants if one == row.ours or one.startswith(f"{row.ours}, ")), None)


def column(line: Line, columns: Mapping[Column, Sequence[Cell]]) -> Column | None:
    """Return our column of the same attack in the same ball, by such an attacker; None where there is none.

    Of several, one of which more is known to be the same.
    """
    alike = {one: known for one, held in columns.items() if (known := _same(line, one, held)) is not None}
    return max(alike, key=lambda one: alike[one], default=None)


def _same(line: Line, column: Column, held: Sequence[Cell]) -> int | None:
    """Return how much of the ball is known to be the same, None where anything is another."""
    attack, knowledge, _ = column
    label, _, options = attack.partition(" ")
    if knowledge not in COMPARABLE or not (label == line.attack or label.startswith(f"{line.attack}-")):
        return None
    stated = dict(option.split("=", 1) for option in options.split(" ") if "=" in option)
    if "attack_mode" in stated or stated.get("eval", "eval") != "eval":  # what the papers did not ask
        return None
    known = 0
    for name in ("eps_255", "eps_space", "threat"):
        found = {getattr(cell, name) for cell in held} - {None}  # none is known before the first unit is done
        if not found and name in stated:
            found = {float(stated[name]) if name == "eps_255" else stated[name]}
        if found and getattr(line, name) not in found:
            return None
        known += bool(found)
    return known


def guesses(row: Row, cells: Sequence[Cell]) -> bool:
    """Return whether the printed natural accuracy is not above chance, where our cells know the classes of the data."""
    classes = {cell.data: cell.classes for cell in cells if cell.classes}
    natural = [line for line in row.lines if line.attack == "natural" and line.data in classes]
    return any(mean_interval(line.accuracy, TEST_IMAGES[line.data])[0] <= 1 / classes[line.data] for line in natural)
