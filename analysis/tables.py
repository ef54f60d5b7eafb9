"""Tables for papers and terminals: a query shipped here, or the ablation table of any sweep that the store knows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_type_hints

import duckdb
import pyarrow as pa

from rna_ray.analysis import audit, beside, captions, certified, query, render
from rna_ray.analysis.cells import ANSWERS, PRINTED, QUERIES, Cell, ablation, sql
from rna_ray.analysis.comparisons import Comparison, best, compare
from rna_ray.analysis.pivot import Entry, Place, lay_out, pivot
from rna_ray.analysis.sheet import Item, Sheet, audited, failing
from rna_ray.errors import QueryError, unknown

__all__ = [
    "ANSWERS", "FORMATS", "Cell", "ablation", "accuracies", "asked", "certificates", "names", "rows", "sheet", "sweeps",
    "table",
]  # fmt: skip

_PARTS = (
    "ablation", "audit", "certificates", "certifications", "differences", "distances", "means", "promised", "scores",
    "shared", "stopped", "trained", "uneven",
)  # fmt: skip
"""Queries that are no table by themselves."""
_WITHOUT_ROWS = {
    "bound": "no bound probe is in this store yet",
    "distortion": "no evaluation without a bound is in this store yet",
    "smoothness": "no smoothness probe is in this store yet",
}
"""What a query's table says instead of standing empty; in LaTeX as a comment."""
INTERVALS = ("images", "seeds")
"""Over what the intervals of a table are."""
_TYPES: Mapping[Any, pa.DataType] = {
    kind: arrow
    for plain, arrow in ((str, pa.string()), (bool, pa.bool_()), (int, pa.int64()), (float, pa.float64()))
    for kind in (plain, plain | None)
}
MISSING, MINUS = captions.MISSING, "\N{MINUS SIGN}"


def names() -> list[str]:
    """Return the tables that have a query of their own; the name of a sweep in the store is a table too."""
    stems = (entry.name.removesuffix(".sql") for entry in QUERIES.iterdir() if entry.name.endswith(".sql"))
    return sorted(stem for stem in stems if stem not in _PARTS)


def sweeps(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the names of the sweeps that the store knows."""
    return query.answer(connection, "SELECT DISTINCT sweep FROM plans ORDER BY sweep")["sweep"].to_pylist()


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What is shown of a sweep."""

    answer: str
    against: str | None
    interval: str
    certificates: bool
    radii: Sequence[str]

    @property
    def of_attacks(self) -> bool:
        """Whether anything was chosen that only attacks have."""
        return self.answer != "expected" or self.against is not None or self.interval != "images"

    @property
    def answers(self) -> tuple[str, ...]:
        return ANSWERS if self.answer == "all" else (self.answer,)


def table(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    format: str = "md",
    *,
    answer: str = "expected",
    against: str | None = None,
    interval: str = "images",
    certificates: bool = False,
    radii: Sequence[str] = (),
) -> str:
    """Return a table as md, latex, csv or json; QueryError for a name that is neither a query nor a sweep.

    A sweep gives its variants by its attacks, under one of the ANSWERS or `all`, with intervals over images or over
    `seeds`, and the audit of each variant; csv and json give its `rows`. `against` a variant, cells are differences to
    that variant's, on the same examples.

    Where the sweep certifies, its certified accuracies at the `radii` (in [0, 1] pixels, such as 0.5 or 36/255) stand
    below, or alone with `certificates`.
    """
    if format not in FORMATS:
        raise QueryError(unknown("format", format, (*FORMATS, "parquet")))  # which are `rows`, and no text
    choice = _Choice(answer=answer, against=against, interval=interval, certificates=certificates, radii=radii)
    shown = _shown(connection, name, choice, format)
    if format in PROGRAMS:
        return PROGRAMS[format](_rows(connection, name, choice, shown))
    if shown == "query":
        return _query_table(connection, name, format)
    sheets = []
    if shown != "certified":
        sheets.append((_attacked if against is None else _against)(connection, name, choice))
    if shown != "cells":
        sheets.append(_certified(connection, name, radii))
    return "\n".join(_text(one, format) for one in sheets)


def rows(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    *,
    answer: str = "expected",
    against: str | None = None,
    interval: str = "images",
    certificates: bool = False,
    radii: Sequence[str] = (),
) -> pa.Table:
    """Return a table for programs: the same cells one a row, at full precision, with all their numbers.

    They are of one kind: attacks, differences, or certified accuracies where there are no others, or `certificates`.
    """
    choice = _Choice(answer=answer, against=against, interval=interval, certificates=certificates, radii=radii)
    return _rows(connection, name, choice, _shown(connection, name, choice, "a table's rows"))


_Shown = Literal["query", "cells", "certified", "both"]


def _shown(connection: duckdb.DuckDBPyConnection, name: str, choice: _Choice, format: str) -> _Shown:
    """Return what a table is of; QueryError where it knows no such table, or what was chosen does not go with it."""
    if choice.answer not in (*ANSWERS, "all"):
        raise QueryError(unknown("answer", choice.answer, (*ANSWERS, "all")))
    if choice.interval not in INTERVALS:
        raise QueryError(unknown("interval", choice.interval, INTERVALS))
    if name in names():
        if choice.of_attacks or choice.certificates or choice.radii:
            which = "--answer, --against, --interval, --certified and --radius"
            raise QueryError(f"table {name!r} is a query of its own: {which} are for a sweep's table")
        return "query"
    known = sweeps(connection)
    if name not in known:
        raise QueryError(unknown("table", name, [*names(), *known]))
    kinds = asked(connection, name)
    if (choice.certificates or choice.radii) and "certify" not in kinds:
        raise QueryError(f"sweep {name!r} asks for no certification, so --certified and --radius have nothing to show")
    if choice.certificates or kinds == {"certify"}:
        if choice.of_attacks:
            which = "--answer, --against and --interval"
            raise QueryError(f"{which} are for attacks, and not for certified accuracies alone")
        return "certified"
    if "certify" in kinds and format in PEOPLE and choice.against is None:
        return "both"
    if choice.radii:
        shown = "differences" if choice.against is not None else format
        raise QueryError(f"--radius is for certified accuracies, of which {shown} would show none; add --certified")
    return "cells"


def _rows(connection: duckdb.DuckDBPyConnection, name: str, choice: _Choice, shown: _Shown) -> pa.Table:
    if shown == "query":
        return query.answer(connection, sql(name))
    if shown == "certified":
        return _arrow(certified.rows(name, certified.certified(connection, name), choice.radii))
    cells = ablation(connection, name, choice.answers)
    if choice.against is not None:
        return _arrow([asdict(one) for one in _compared(connection, name, cells, choice)], Comparison)
    marked, judged = {_place(cell) for cell in best(connection, cells)}, audit.judge(connection, name)
    counts = [audit.count(_of(cell, judged)).columns for cell in cells]
    measured = [
        _fields(cell) | {"best": _place(cell) in marked} | audits for cell, audits in zip(cells, counts, strict=True)
    ]
    return _arrow(beside.inserted(measured, beside.rows(name, cells)), Cell)


def _arrow(rows: Sequence[Mapping[str, Any]], kind: type | None = None) -> pa.Table:
    """Return rows as Arrow; a column of nulls alone has the type of the field of `kind`, where it has one."""
    hints = get_type_hints(kind) if kind else {}
    if not rows:
        return pa.table({name: pa.nulls(0, _TYPES[hints[name]]) for name in hints if hints[name] in _TYPES})
    found = pa.Table.from_pylist(list(rows))
    for at, name in enumerate(found.column_names):
        if pa.types.is_null(found.field(at).type) and hints.get(name) in _TYPES:
            found = found.set_column(at, name, found.column(at).cast(_TYPES[hints[name]]))
    return found


def _text(sheet: Sheet, format: str) -> str:
    return PEOPLE[format](sheet.header, sheet.grid, sheet.caption)


def asked(connection: duckdb.DuckDBPyConnection, sweep: str) -> set[str]:
    """Return which kinds of units that tables are made of a sweep asks for: evaluate, certify."""
    kinds = "SELECT DISTINCT kind FROM plans WHERE sweep = $sweep AND kind IN ('certify', 'evaluate')"
    return set(query.answer(connection, kinds, {"sweep": sweep})["kind"].to_pylist())


def certificates(connection: duckdb.DuckDBPyConnection, sweep: str) -> Sheet:
    """Return the table of what a sweep certifies, at the radii that are its own."""
    return _certified(connection, sweep)


def _certified(connection: duckdb.DuckDBPyConnection, sweep: str, radii: Sequence[str] = ()) -> Sheet:
    found = certified.sheet(sweep, certified.certified(connection, sweep), radii)
    return replace(found, caption=" ".join([found.caption, *_stopped(connection, sweep)]))


def accuracies(connection: duckdb.DuckDBPyConnection, sweep: str, judged: audit.Judged) -> Sheet:
    """Return the table of a sweep over fresh draws; `judged` is what the audit found in it."""
    return _accuracies(connection, sweep, ablation(connection, sweep), judged)


def _attacked(connection: duckdb.DuckDBPyConnection, sweep: str, choice: _Choice) -> Sheet:
    cells = ablation(connection, sweep, choice.answers)
    return _accuracies(connection, sweep, cells, audit.judge(connection, sweep), choice.interval)


def _accuracies(
    connection: duckdb.DuckDBPyConnection, name: str, cells: Sequence[Cell], judged: audit.Judged,
    interval: str = "images",
) -> Sheet:  # fmt: skip
    cells = _shown_of(cells)
    marked, printed = {_place(cell) for cell in best(connection, cells)}, beside.rows(name, cells)
    entries = {
        _place(cell): Entry(_accuracy(cell, interval, _of(cell, judged), _place(cell) in marked), cell.n)
        for cell in cells
    }
    layout = lay_out(cells, entries)
    over_seeds = interval == "seeds"
    caption = [
        captions.accuracy(name, cells, layout.columns, layout.n, layout.ball, bool(marked), over_seeds=over_seeds)
    ]
    if printed:
        trained = query.answer(connection, sql("trained")).to_pylist()
        unasked, unlike = beside.unasked(printed), beside.unlike(printed)
        caption.append(captions.printed([one.row for one in printed], trained, unasked, unlike, bool(judged)))
    caption += _stopped(connection, name)
    audits = None
    if judged:
        caption.append(captions.audit(name, cells))
        audits = _audits(cells, judged)
    header, rows = pivot(cells, entries, layout, audits=audits, given=beside.given(printed, marked=bool(judged)))
    return Sheet(header=header, rows=rows, caption=" ".join(caption))


def _shown_of(cells: Sequence[Cell]) -> Sequence[Cell]:
    """Return the cells without those of networks that were all stopped early, where there are others."""
    return [cell for cell in cells if not cell.left_out] or cells


def _stopped(connection: duckdb.DuckDBPyConnection, sweep: str) -> Iterator[str]:
    """Yield what there is to say of networks that were stopped early."""
    if found := query.answer(connection, sql("stopped"), {"sweep": sweep}).to_pylist():
        yield captions.stopped(found)


def _audits(cells: Sequence[Cell], judged: audit.Judged) -> dict[str, Item]:
    variants = dict.fromkeys(cell.variant for cell in cells)
    return {variant: audited(audit.of_variant(judged, variant)) for variant in variants}


def _fields(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in PRINTED}


def _of(cell: Cell, judged: audit.Judged) -> Sequence[audit.Judgement]:
    return judged.get((cell.variant, cell.attack, cell.knowledge), ())


def _query_table(connection: duckdb.DuckDBPyConnection, name: str, format: str) -> str:
    shown = sheet(connection, name)
    if not shown.rows and name in _WITHOUT_ROWS:
        return f"{'% ' if format == 'latex' else ''}{_WITHOUT_ROWS[name]}\n"
    return _text(shown, format)


def sheet(connection: duckdb.DuckDBPyConnection, name: str) -> Sheet:
    """Return the table of a query that ships, over all sweeps of the store; without rows where nothing was measured."""
    found = query.answer(connection, sql(name))
    rows = [[_value(value) for value in row.values()] for row in render.plain_values(found.to_pylist())]
    return Sheet(header=found.column_names, rows=rows, caption=f"{name}: {_opening(sql(name))}")


def _value(value: Any) -> Item:
    counts = isinstance(value, int | float) and not isinstance(value, bool)
    return Item(text=render.shown(value), number=value if counts else None)


def _opening(text: str) -> str:
    """Return the comment that a query begins with: it is the table's caption."""
    lines = itertools.takewhile(lambda line: line.startswith("--"), text.splitlines())
    return " ".join(line.removeprefix("--").strip() for line in lines)


def _compared(
    connection: duckdb.DuckDBPyConnection, sweep: str, cells: Sequence[Cell], choice: _Choice
) -> list[Comparison]:
    """Return the differences to the variant that was chosen."""
    assert choice.against is not None
    if choice.interval != "images":
        raise QueryError("differences are paired over the images, so --interval seeds does not go with --against")
    variants = dict.fromkeys(cell.variant for cell in cells)
    if choice.against not in variants:
        raise QueryError(unknown(f"variant of sweep {sweep!r}:", choice.against, variants))
    return compare(connection, cells, choice.against)


def _against(connection: duckdb.DuckDBPyConnection, sweep: str, choice: _Choice) -> Sheet:
    cells, against = _shown_of(ablation(connection, sweep, choice.answers)), choice.against
    compared = _compared(connection, sweep, cells, choice)
    assert against is not None
    others = [cell for cell in cells if cell.variant != against]
    if not others:
        raise QueryError(f"sweep {sweep!r} has no variant but {against!r}, so there is nothing to compare it with")
    entries = {_place(comparison): Entry(_difference(comparison), comparison.n) for comparison in compared}
    layout = lay_out(others, entries)
    judged = audit.judge(connection, sweep)
    without = any(comparison.mean is None for comparison in compared)
    caption = captions.comparison(sweep, against, cells, layout.columns, layout.n, layout.ball, without)
    caption = " ".join([caption, *_stopped(connection, sweep)])
    if judged:
        caption = f"{caption} {captions.audit(sweep, cells)}"
    header, rows = pivot(others, entries, layout, audits=_audits(others, judged) if judged else None)
    return Sheet(header=header, rows=rows, caption=caption)


def _place(entry: Cell | Comparison) -> Place:
    return entry.variant, entry.answer, (entry.attack, entry.knowledge, entry.nth)


def _accuracy(cell: Cell, interval: str, judged: Sequence[audit.Judgement], bold: bool) -> Item:
    """Return it as in 57.3 ±2.7; of one seed, nothing is known over seeds."""
    low, high = (cell.seed_low, cell.seed_high) if interval == "seeds" else (cell.low, cell.high)
    text, margin = MISSING, ""
    if cell.accuracy is not None:
        text = f"{100 * cell.accuracy:.1f}"
        if low is not None and high is not None:
            margin = f"±{100 * max(cell.accuracy - low, high - cell.accuracy):.1f}"
    return Item(
        text=text, margin=margin, note=captions.distortion(cell), mark=failing(judged), bold=bold, number=cell.accuracy,
        of=cell, judged=judged,
    )  # fmt: skip


def _difference(comparison: Comparison) -> Item:
    """Return it as in -3.8 ±2.6, p 0.004."""
    mean, low, high, p = comparison.mean, comparison.low, comparison.high, comparison.p
    if mean is None or low is None or high is None or p is None:
        return Item(text=MISSING)
    points = f"{100 * mean:+.1f}".replace("-", MINUS)
    points = points[1:] if points[1:] == "0.0" else points
    chance = f"{p:.3f}" if p >= 0.0005 else f"{p:.0e}".replace("-0", "-")
    margin = f"±{100 * max(mean - low, high - mean):.1f}, p {chance}"
    return Item(text=points, margin=margin, number=mean, of=comparison)


PEOPLE: Mapping[str, Callable[[Sequence[str], render.Grid, str], str]] = {
    "md": render.markdown, "latex": render.latex
}
PROGRAMS: Mapping[str, Callable[[pa.Table], str]] = {
    "csv": lambda table: render.csv_text(table.column_names, table.to_pylist()),
    "json": lambda table: render.json_text(table.to_pylist()),
}
FORMATS = (*PEOPLE, *PROGRAMS)
