"""What a number of the report says of itself when it is asked: its interval, its checks, its units, its command."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rna_ray.analysis import audit, captions, papers
from rna_ray.analysis.cells import BALLS, Cell, length
from rna_ray.analysis.certified import Certified, Printed
from rna_ray.analysis.sheet import Item

_ID = 12  # as many letters of a unit's id as people are shown elsewhere
_FAILS = "does not pass every check of an honest evaluation"


@dataclass(frozen=True, kw_only=True)
class Detail:
    """What stands in the box of one item."""

    says: Sequence[str] = ()
    """What its signs mean, in sentences."""
    facts: Sequence[tuple[str, str]] = ()
    """What is known of it: a name and a value."""
    judged: Sequence[audit.Judgement] = ()
    """Checks of the audit, those that failed first."""
    units: Sequence[str] = ()
    """The units whose rows it rests on, by the letters of their ids that people are shown."""
    command: str = ""
    """What gives these rows, or who printed it."""


def detail(item: Item, store: str, whole_row: str = "") -> Detail | None:
    """Return what there is to say of an item, None where it stands for itself.

    `whole_row` is the command behind an item that sums up its row.
    """
    says = [f"{item.mark} {captions.MEANINGS.get(item.mark, _FAILS)}."] if item.mark else []
    says += [f"Bold: {captions.BEST}."] if item.bold else []
    if item.of is None:
        return _summed(item, says, whole_row)
    facts, view, units = _FACTS[type(item.of)](item.of)
    judged = sorted(item.judged, key=lambda one: _URGENT.index(one.status))
    shown = [unit[:_ID] for unit in units]
    return Detail(
        says=says, facts=facts, judged=judged, units=shown, command=_rows(view, units, store) if units else ""
    )  # fmt: skip


_URGENT: Sequence[audit.Status] = ("failed", "not measured", "passed")


def _summed(item: Item, says: Sequence[str], whole_row: str) -> Detail | None:
    """Return the detail of what was made of no rows of its own: of its checks those that failed, as all are many."""
    if not item.judged:
        return Detail(says=says) if says else None
    counts = audit.count(item.judged)
    told = f"{counts.passed} checks passed, {counts.failed} failed, {counts.not_measured} were not measured."
    failed = [one for one in item.judged if one.status == "failed"]
    return Detail(says=[*says, told], judged=failed, command=whole_row)


def command(store: str, *words: str) -> str:
    """Return a command on this store, as one types it."""
    return " ".join(map(_quoted, ["rna-ray", *words, "--store", store]))


def _quoted(word: str) -> str:
    """Return a word for a shell: SQL with its own quotes in double ones, which read better than what shlex makes."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!\n') else shlex.quote(word)


def _rows(view: str, units: Sequence[str], store: str) -> str:
    ids = ", ".join("'" + unit.replace("'", "''") + "'" for unit in units)
    return command(store, "query", f"SELECT * FROM {view} WHERE unit_id IN ({ids})")


Known = tuple[list[tuple[str, str]], str, Sequence[str]]  # facts, the view of its rows, the units that wrote them


def _cell(cell: Cell) -> Known:
    facts = [
        ("interval, 95 %", _range(cell.low, cell.high)),
        ("interval over seeds", _range(cell.seed_low, cell.seed_high)),
        ("images", f"{cell.n:,}"),
        ("draws an image", _count(cell.draws)),
        ("seeds", _count(cell.seeds)),
        ("standard error of paths", _points(cell.se_paths)),
        ("standard error of images", _points(cell.se_examples)),
        ("attack within", cell.ball or ""),
        ("data", cell.data or ""),
        ("checkpoint", cell.checkpoint or ""),
        ("units missing", _count(cell.missing or None)),
    ]
    return _known(facts), "examples", cell.units


def _certified(one: Certified) -> Known:
    facts = [
        ("images", f"{one.n:,}"),
        ("seeds", _count(one.seeds)),
        ("noise", "" if one.noise_255 is None else f"{one.noise_255:g}/255"),
        ("draws", _count(one.draws)),
        ("selection draws", _count(one.selection)),
        ("data", one.data or ""),
        ("checkpoint", one.checkpoint or ""),
        ("units missing", _count(one.missing or None)),
    ]
    return _known(facts), "certificates", one.units


def _line(line: papers.Line) -> Known:
    ball = f"{BALLS[line.threat]} ε = {length(line.eps_255, line.eps_space)}" if line.eps_255 is not None else ""
    return _known([("printed in", line.source), ("network", line.model), ("data", line.data), ("within", ball)]), "", ()


def _printed(one: Printed) -> Known:
    return [("printed in", one.source), ("data", one.data)], "", ()


def _row(row: papers.Row) -> Known:
    return [("printed in", "; ".join(dict.fromkeys(line.source for line in row.lines)))], "", ()


_FACTS: dict[type, Callable[[Any], Known]] = {
    Cell: _cell, Certified: _certified, papers.Line: _line, Printed: _printed, papers.Row: _row,
}  # fmt: skip


def _known(facts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in facts if value]


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"


def _points(error: float | None) -> str:
    return f"{100 * error:.2f} points" if error else ""


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
