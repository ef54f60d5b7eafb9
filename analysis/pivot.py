"""From cells to a grid: variants as rows in the order of the plan, attacks and what they know as columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rna_ray.analysis import captions
from rna_ray.analysis.cells import ANSWERS, Cell, Column
from rna_ray.analysis.sheet import Item

Place = tuple[str, str, Column]  # variant, answer, column
_NOTHING = Item(text=captions.MISSING)


@dataclass(frozen=True)
class Entry:
    """What a cell of the printed table shows, and of how many images."""

    item: Item
    n: int


@dataclass(frozen=True)
class Given:
    """A row of the printed table without cells of ours: numbers from elsewhere."""

    label: Item
    items: Mapping[Column, Item]
    audit: Item


@dataclass(frozen=True)
class Layout:
    """Columns in order with their cells (of one answer), and what most of them have in common."""

    columns: Mapping[Column, Sequence[Cell]]
    ns: Mapping[Column, int | None]
    n: int | None
    ball: str | None


def lay_out(cells: Sequence[Cell], entries: Mapping[Place, Entry]) -> Layout:
    """Return the columns in the order of the plan, and what most entries share."""
    one = [cell for cell in cells if cell.answer == cells[0].answer]
    columns = {column: [cell for cell in one if cell.column == column] for column in _ordered(one)}
    n = _usual(entry.n for entry in entries.values() if entry.n)
    of = {column: [entry.n for place, entry in entries.items() if place[2] == column and entry.n] for column in columns}
    ns = {column: _usual(held, among=n) for column, held in of.items()}
    return Layout(columns, ns, n, _usual(cell.ball for cell in one if cell.ball))


def pivot(
    cells: Sequence[Cell], entries: Mapping[Place, Entry], layout: Layout, *,
    audits: Mapping[str, Item] | None = None, given: Mapping[str | None, Sequence[Given]] | None = None,
) -> tuple[list[str], list[list[Item]]]:  # fmt: skip
    """Return header and rows of the table: variants, their answers where there are several, and columns as planned.

    `audits`, one for each variant, become the last column. Rows that are `given` stand before the variant they are
    given for, those for None at the end.
    """
    several = len({cell.answer for cell in cells}) > 1
    labels = [_label(column, layout) for column in layout.columns]
    header = ["variant", *(["answer"] if several else []), "draws", *labels]
    rows: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.variant, cell.answer), []).append(cell)
    order = {cell.variant: at for at, cell in reversed(list(enumerate(cells)))}
    keys = sorted(rows, key=lambda key: (order[key[0]], ANSWERS.index(key[1])))
    waiting, grid = dict(given or {}), []
    for variant, answer in keys:
        grid += [_given(row, layout, several, audits) for row in waiting.pop(variant, ())]
        line = _row(variant, answer, rows[variant, answer], entries, layout, several)
        grid.append(line if audits is None else [*line, audits[variant]])
    grid += [_given(row, layout, several, audits) for row in waiting.pop(None, ())]
    return header if audits is None else [*header, "audit"], grid


def _given(row: Given, layout: Layout, several: bool, audits: object) -> list[Item]:
    items = [row.items.get(column, _NOTHING) for column in layout.columns]
    blank = [_NOTHING] * (2 if several else 1)  # the answer and the draws, which tables do not print
    return [row.label, *blank, *items, *([] if audits is None else [row.audit])]


def _ordered(cells: Sequence[Cell]) -> list[Column]:
    """Return the columns by their place among the cells of a variant, which is the order they were asked for in."""
    place: dict[Column, int] = {}
    within: Counter[str] = Counter()
    for cell in cells:
        place[cell.column] = min(place.get(cell.column, within[cell.variant]), within[cell.variant])
        within[cell.variant] += 1
    return sorted(place, key=lambda column: place[column])


def _usual(values: Iterable[Any], among: Any = None) -> Any:
    """Return the most frequent value (`among` where it ties, else the first), None where there is none."""
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], value == among), default=None)


def _label(column: Column, layout: Layout) -> str:
    """Return attack@knowledge, and what sets the column apart from the caption or from a column of the same name."""
    attack, knowledge, nth = column
    own = _usual(cell.ball for cell in layout.columns[column] if cell.ball)
    notes = [own] if own and own != layout.ball else []
    if not notes and (attack, knowledge, 2) in layout.columns:
        notes.append(own or f"#{nth}")
    if layout.ns[column] not in (None, layout.n):
        notes.append(f"n={layout.ns[column]}")
    label = attack if knowledge in (None, "none", "") else f"{attack}@{knowledge}"
    return label + (f" ({', '.join(notes)})" if notes else "")


def _row(
    variant: str, answer: str, held: Sequence[Cell], entries: Mapping[Place, Entry], layout: Layout, several: bool
) -> list[Item]:
    draws = sorted({cell.draws for cell in held if cell.draws is not None})
    label = Item(text=variant, mark=captions.mark(held))
    answered = Item(text=", ".join(map(str, draws)) or captions.MISSING, number=max(draws, default=None))
    found = {column: entries.get((variant, answer, column)) for column in layout.columns}
    items = [_noted(entry, layout.ns[column]) if entry else _NOTHING for column, entry in found.items()]
    return [label, *([Item(text=answer)] if several else []), answered, *items]


def _noted(entry: Entry, n: int | None) -> Item:
    """Return the item with its n where that is not the column's."""
    if entry.n in (n, 0):
        return entry.item
    return replace(entry.item, note=" ".join(filter(None, (entry.item.note, f"(n={entry.n})"))))
