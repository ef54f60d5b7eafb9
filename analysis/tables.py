"""Tables for papers and terminals: a query shipped here, or the ablation table of any sweep that the store knows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import duckdb

from rna_ray.analysis import audit, beside, captions, certified, query, render
from rna_ray.analysis.cells import ANSWERS, PRINTED, QUERIES, Cell, ablation, sql
from rna_ray.analysis.comparisons import Comparison, best, compare
from rna_ray.analysis.pivot import Entry, Place, lay_out, pivot
from rna_ray.errors import QueryError, unknown

__all__ = ["ANSWERS", "FORMATS", "Cell", "ablation", "names", "sweeps", "table"]

_PARTS = ("ablation", "audit", "certificates", "certifications", "differences", "scores", "trained")
"""Queries that are no table by themselves."""
_WITHOUT_ROWS = {
    "bound": "no bound probe is in this store yet",
    "distortion": "no evaluation without a bound is in this store yet",
    "smoothness": "no smoothness probe is in this store yet",
}
"""What a query's table says instead of standing empty; in LaTeX as a comment."""
INTERVALS = ("images", "seeds")
"""Over what the intervals of a table are."""
MISSING, MINUS = captions.MISSING, "\N{MINUS SIGN}"


def names() -> list[str]:
    """Return the tables that have a query of their own; the name of a sweep in the store is a table too."""
    stems = (entry.name.removesuffix(".sql") for entry in QUERIES.iterdir() if entry.name.endswith(".sql"))
    return sorted(stem for stem in stems if stem not in _PARTS)


def sweeps(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the names of the sweeps that the store knows."""
    return query.answer(connection, "SELECT DISTINCT sweep FROM plans ORDER BY sweep")["sweep"].to_pylist()


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
    `seeds`, and the audit of each variant; csv and json give the same cells one a row, with all their numbers.
    `against` a variant, cells are differences to that variant's, on the same examples.

    Where the sweep certifies, its certified accuracies at the `radii` (in [0, 1] pixels, such as 0.5 or 36/255) stand
    below, or alone with `certificates`; csv and json are of one kind of rows, these where there are no others.
    """
    if format not in FORMATS:
        raise QueryError(unknown("format", format, FORMATS))
    if answer not in (*ANSWERS, "all"):
        raise QueryError(unknown("answer", answer, (*ANSWERS, "all")))
    if interval not in INTERVALS:
        raise QueryError(unknown("interval", interval, INTERVALS))
    if name in names():
        if against is not None or answer != "expected" or interval != "images" or certificates or radii:
            which = "--answer, --against, --interval, --certified and --radius"
            raise QueryError(f"table {name!r} is a query of its own: {which} are for a sweep's table")
        return _query_table(connection, name, format)
    known = sweeps(connection)
    if name not in known:
        raise QueryError(unknown("table", name, [*names(), *known]))
    found = certified.certified(connection, name)
    if not found and (certificates or radii):
        raise QueryError(f"sweep {name!r} asks for no certification, so --certified and --radius have nothing to show")
    if certificates or certifies_only(connection, name):
        return _certified(name, found, format, radii)
    measured = _ablation(connection, name, format, answer, against, interval)
    whole = format in ("csv", "json") or against is not None or not found
    return measured if whole else f"{measured}\n{_certified(name, found, format, radii)}"


def certifies_only(connection: duckdb.DuckDBPyConnection, sweep: str) -> bool:
    """Return whether a sweep asks for certifications, and for no evaluation."""
    asked = "SELECT DISTINCT kind FROM plans WHERE sweep = $sweep AND kind IN ('certify', 'evaluate')"
    return query.answer(connection, asked, {"sweep": sweep})["kind"].to_pylist() == ["certify"]


def _certified(sweep: str, found: Sequence[certified.Certified], format: str, radii: Sequence[str]) -> str:
    if format in ("csv", "json"):
        rows = certified.rows(sweep, found, radii)
        return FORMATS[format](list(rows[0]), rows, "")
    return FORMATS[format](*certified.grid(sweep, found, radii))


def _ablation(
    connection: duckdb.DuckDBPyConnection, name: str, format: str, answer: str, against: str | None, interval: str
) -> str:
    cells = ablation(connection, name, ANSWERS if answer == "all" else (answer,))
    if against is not None:
        if interval != "images":
            raise QueryError("differences are paired over the images, so --interval seeds does not go with --against")
        return _against(connection, name, cells, against, format)
    marked = {_place(cell) for cell in best(connection, cells)}
    audited = audit.marks(connection, name)
    printed = beside.rows(name, cells)
    if format in ("csv", "json"):
        measured = [_fields(cell) | {"best": _place(cell) in marked} | _counted(cell, audited) for cell in cells]
        rows = beside.inserted(measured, printed)
        return FORMATS[format](list(rows[0]), rows, "")
    texts = {_place(cell): _accuracy(cell, interval) + _failing(cell, audited) for cell in cells}
    texts |= {place: render.Bold(texts[place]) for place in marked}
    entries = {_place(cell): Entry(texts[_place(cell)], cell.n) for cell in cells}
    layout = lay_out(cells, entries)
    over_seeds = interval == "seeds"
    caption = [
        captions.accuracy(name, cells, layout.columns, layout.n, layout.ball, bool(marked), over_seeds=over_seeds)
    ]
    if printed:
        trained = query.answer(connection, sql("trained")).to_pylist()
        unasked, unlike = beside.unasked(printed), beside.unlike(printed)
        caption.append(captions.printed([one.row for one in printed], trained, unasked, unlike, bool(audited)))
    audits = None
    if audited:
        caption.append(captions.audit(name, cells))
        audits = {cell.variant: audit.summed(audited, cell.variant) for cell in cells}
    header, grid = pivot(cells, entries, layout, audits=audits, given=beside.given(printed, audited=bool(audited)))
    return FORMATS[format](header, grid, " ".join(caption))


def _fields(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in PRINTED}


def _counted(cell: Cell, audited: audit.Marks) -> dict[str, int]:
    return audited.get((cell.variant, cell.attack, cell.knowledge), audit.Counts()).columns


def _failing(cell: Cell, audited: audit.Marks) -> str:
    return f" {audit.FAILED}" if _counted(cell, audited)["audit_failed"] else ""


def _query_table(connection: duckdb.DuckDBPyConnection, name: str, format: str) -> str:
    found = query.answer(connection, sql(name))
    rows = found.to_pylist()
    if format in ("csv", "json"):
        return FORMATS[format](found.column_names, rows, "")
    if not rows and name in _WITHOUT_ROWS:
        return f"{'% ' if format == 'latex' else ''}{_WITHOUT_ROWS[name]}\n"
    grid = [[render.shown(value) for value in row.values()] for row in render.plain_values(rows)]
    return FORMATS[format](found.column_names, grid, f"{name}: {_opening(sql(name))}")


def _opening(text: str) -> str:
    """Return the comment that a query begins with: it is the table's caption."""
    lines = itertools.takewhile(lambda line: line.startswith("--"), text.splitlines())
    return " ".join(line.removeprefix("--").strip() for line in lines)


def _against(
    connection: duckdb.DuckDBPyConnection, sweep: str, cells: Sequence[Cell], against: str, format: str
) -> str:
    variants = list(dict.fromkeys(cell.variant for cell in cells))
    if against not in variants:
        raise QueryError(unknown(f"variant of sweep {sweep!r}:", against, variants))
    compared = compare(connection, cells, against)
    if format in ("csv", "json"):
        header = [field.name for field in fields(Comparison)]
        return FORMATS[format](header, [asdict(comparison) for comparison in compared], "")
    others = [cell for cell in cells if cell.variant != against]
    if not others:
        raise QueryError(f"sweep {sweep!r} has no variant but {against!r}, so there is nothing to compare it with")
    entries = {_place(comparison): Entry(_difference(comparison), comparison.n) for comparison in compared}
    layout = lay_out(others, entries)
    without = any(comparison.mean is None for comparison in compared)
    caption = captions.comparison(sweep, against, cells, layout.columns, layout.n, layout.ball, without)
    audited = audit.marks(connection, sweep)
    if not audited:
        return FORMATS[format](*pivot(others, entries, layout), caption)
    summed = {variant: audit.summed(audited, variant) for variant in variants}
    caption = f"{caption} {captions.audit(sweep, cells)}"
    return FORMATS[format](*pivot(others, entries, layout, audits=summed), caption)


def _place(entry: Cell | Comparison) -> Place:
    return entry.variant, entry.answer, (entry.attack, entry.knowledge, entry.nth)


def _accuracy(cell: Cell, interval: str) -> str:
    """Return it as in 57.3 ±2.7; of one seed, nothing is known over seeds."""
    low, high = (cell.seed_low, cell.seed_high) if interval == "seeds" else (cell.low, cell.high)
    if cell.accuracy is None:
        return MISSING
    if low is None or high is None:
        return f"{100 * cell.accuracy:.1f}{_distortion(cell)}"
    half = max(cell.accuracy - low, high - cell.accuracy)
    return f"{100 * cell.accuracy:.1f} ±{100 * half:.1f}{_distortion(cell)}"


def _distortion(cell: Cell) -> str:
    if cell.median_l2 is None or cell.median_linf is None:
        return ""
    return f" [{captions.L2} {cell.median_l2:.2f}, {captions.LINF} {cell.median_linf:.2f}]"


def _difference(comparison: Comparison) -> str:
    """Return it as in -3.8 ±2.6, p 0.004."""
    mean, low, high, p = comparison.mean, comparison.low, comparison.high, comparison.p
    if mean is None or low is None or high is None or p is None:
        return MISSING
    points = f"{100 * mean:+.1f}".replace("-", MINUS)
    points = points[1:] if points[1:] == "0.0" else points
    chance = f"{p:.3f}" if p >= 0.0005 else f"{p:.0e}".replace("-0", "-")
    return f"{points} ±{100 * max(mean - low, high - mean):.1f}, p {chance}"


FORMATS: Mapping[str, Callable[[Sequence[str], Any, str], str]] = {
    "md": render.markdown,
    "latex": render.latex,
    "csv": lambda header, rows, _: render.csv_text(header, rows),
    "json": lambda _, rows, __: render.json_text(rows),
}
