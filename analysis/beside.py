"""The printed rows of a sweep's table: before the first of our variants of the same name, in the same columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rna_ray.analysis import audit, captions, papers
from rna_ray.analysis.cells import PRINTED, Cell, Column
from rna_ray.analysis.papers import Line
from rna_ray.analysis.pivot import Given
from rna_ray.analysis.sheet import Item, audited, failing


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One printed row and its place."""

    row: papers.Row
    variant: str | None
    """The label of the first variant that it stands before; None where the sweep has none of this method."""
    columns: Mapping[Line, Column]
    """Where its numbers stand; those without a column of ours are not here."""
    judged: Mapping[Line, Sequence[audit.Judgement]]
    """The checks of its numbers, each compared with the others of the row."""
    mark: str
    """The sign beside its label."""


def rows(sweep: str, cells: Sequence[Cell]) -> list[Beside]:
    """Return the printed rows for a sweep's cells on the same data, none where no printed table of that name ships."""
    columns: dict[Column, list[Cell]] = {}
    for cell in cells:
        columns.setdefault(cell.column, []).append(cell)
    variants = list(dict.fromkeys(cell.variant for cell in cells))
    judged, known = audit.judge_printed(papers.read(sweep)), {cell.data for cell in cells} - {None}
    return [
        Beside(
            row=row,
            variant=papers.first(row, variants),
            columns={line: found for line in row.lines if (found := papers.column(line, columns))},
            judged={line: judged[line] for line in row.lines},
            mark=captions.GUESSES if papers.guesses(row, cells) else "",
        )
        for row in papers.rows(sweep)
        if not known or row.lines[0].data in known
    ]


def given(printed: Sequence[Beside], *, marked: bool) -> dict[str | None, list[Given]]:
    """Return the rows for people, by the variant that they stand before; `marked`: with the audit's marks."""
    found: dict[str | None, list[Given]] = {}
    for one in printed:
        items = {column: _item(line, one.judged[line] if marked else ()) for line, column in one.columns.items()}
        label = Item(text=one.row.label, mark=one.mark, of=one.row)
        judgements = [judgement for held in one.judged.values() for judgement in held]
        found.setdefault(one.variant, []).append(Given(label, items, audited(judgements)))
    return found


def _item(line: Line, judged: Sequence[audit.Judgement]) -> Item:
    return Item(
        text=line.text, margin=f"±{line.interval}" if line.interval else "", mark=failing(judged), number=line.accuracy,
        of=line, judged=judged,
    )  # fmt: skip


def unasked(printed: Sequence[Beside]) -> list[str]:
    """Return the printed attacks that no column of ours is for."""
    return list(dict.fromkeys(line.attack for one in printed for line in one.row.lines if line not in one.columns))


def unlike(printed: Sequence[Beside]) -> dict[str, str]:
    """Return our columns in which a printed number stands that was made with other options: label → the paper's."""
    found = {}
    for one in printed:
        for line, (attack, _, _) in one.columns.items():
            full = papers.FULL.get(line.attack)
            if full is not None and attack.partition(" ")[0] != full:
                found[attack] = full
    return found


def inserted(measured: Sequence[Mapping[str, Any]], printed: Sequence[Beside]) -> list[dict[str, Any]]:
    """Return a table's rows for programs with the printed ones among them, and a column `source` that tells them."""
    waiting: dict[str | None, list[Beside]] = {}
    for one in printed:
        waiting.setdefault(one.variant, []).append(one)
    found: list[dict[str, Any]] = []
    for row in measured:
        found += [line for one in waiting.pop(row["variant"], ()) for line in _lines(one)]
        found.append({**row, "source": "measured"})
    return found + [line for held in waiting.values() for one in held for line in _lines(one)]


def _lines(one: Beside) -> Iterator[dict[str, Any]]:
    """Yield a row for each number, with the fields of a cell: accuracies in [0, 1], null for what is not printed."""
    for line in one.row.lines:
        unlike = (line.attack, "none" if line.attack == "natural" else "transfer", 1)
        attack, knowledge, nth = one.columns.get(line, unlike)
        stated = {"variant": one.row.label, "attack": attack, "knowledge": knowledge, "nth": nth, "state": "printed"}
        stated |= {name: getattr(line, name) for name in ("accuracy", "eps_255", "eps_space", "threat", "data")}
        counts = audit.count(one.judged[line]).columns
        yield {**dict.fromkeys(PRINTED), **stated, "best": False, **counts, "source": "printed"}
