"""What stands on the page of a store, sweep by sweep: gathered from what tables, figures and the audit already say."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from rna_ray.analysis import audit, figures, tables
from rna_ray.analysis.query import answer
from rna_ray.analysis.report.details import Detail, command, detail
from rna_ray.analysis.sheet import Item, Sheet
from rna_ray.errors import QueryError
from rna_ray.store.records import RECORDS

LARGE = 500_000
"""Bytes: a figure whose SVG is larger stands there as PNG."""
_TITLES = {
    "bound": "The bound of Theorem 3.1 beside the measured transfer",
    "distortion": "Attacks without a radius",
    "smoothness": "Smoothness at each norm layer",
}
_DONE = " UNION ALL ".join(f"SELECT unit_id FROM {view}" for view in dict.fromkeys(RECORDS.values()))
_FAILURES = f"""
SELECT kind, unit_id, max(attempt) AS attempts,
       arg_max(error || ': ' || split_part(message, chr(10), 1), attempt) AS said, unit_id IN ({_DONE}) AS done
FROM (SELECT DISTINCT unit_id FROM plans WHERE sweep = $sweep) JOIN failures USING (unit_id)
GROUP BY ALL ORDER BY kind, unit_id
"""

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """A cell of the page's table."""

    item: Item
    detail: Detail | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the page and the command that prints it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Shown]]
    caption: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure of the page, and the command that draws it."""

    about: str
    uri: str
    """All of it, as a data: URI."""
    width: int
    height: int
    command: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one sweep has to show."""

    state: Document
    """How far it is and what it took, as given."""
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    failed: Sequence[tuple[str, audit.Judgement]]
    """The audit's failed checks, with the variant."""
    audited: audit.Counts
    audit: str
    """The command of the audit."""
    failures: Sequence[Document]
    unsaid: Sequence[str]
    """Why a table is not here."""


def section(connection: duckdb.DuckDBPyConnection, state: Document, store: str) -> Section:
    """Return the section of the sweep that a state is of."""
    sweep, unsaid, judged = state["sweep"], [], {}
    pictures = [_picture(drawing, store) for drawing in figures.drawings(connection, sweep)]
    made: list[Table] = []
    try:
        judged = audit.judge(connection, sweep)
        for table in _tables(connection, sweep, judged, store):
            made.append(table)
    except QueryError as error:  # what it measured does not go into one table: that is to be read here, beside the rest
        unsaid.append(str(error))
    every = [(variant, one) for (variant, _, _), held in judged.items() for one in held]
    return Section(
        state=state,
        tables=made,
        pictures=pictures,
        failed=[(variant, one) for variant, one in every if one.status == "failed"],
        audited=audit.count(one for _, one in every),
        audit=command(store, "audit", sweep, "--all"),
        failures=answer(connection, _FAILURES, {"sweep": sweep}).to_pylist(),
        unsaid=unsaid,
    )


def _tables(
    connection: duckdb.DuckDBPyConnection, sweep: str, judged: audit.Judged, store: str
) -> Iterator[Table]:
    asked = tables.asked(connection, sweep)
    if "evaluate" in asked:
        sheet, audits = tables.accuracies(connection, sweep, judged), command(store, "audit", sweep, "--all")
        yield _table("Accuracy under attack", sheet, store, audits, "table", sweep)
    if "certify" in asked:
        sheet = tables.certificates(connection, sweep)
        yield _table("Certified accuracy", sheet, store, "", "table", sweep, "--certified")


def across(connection: duckdb.DuckDBPyConnection, sweeps: Sequence[str], store: str) -> list[Table]:
    """Return the tables that are no single sweep's, as far as they are of these sweeps."""
    found = []
    for name in tables.names():
        sheet = tables.sheet(connection, name)
        at = sheet.header.index("sweep")
        rows = [row for row in sheet.rows if row[at].text in sweeps]
        if rows:
            title = _TITLES.get(name, name)
            found.append(_table(title, replace(sheet, rows=rows), store, "", "table", name))
    return found


def _table(title: str, sheet: Sheet, store: str, whole_row: str, *words: str) -> Table:
    rows = [[Shown(item, detail(item, store, whole_row)) for item in row] for row in sheet.rows]
    return Table(
        title=title, header=sheet.header, rows=rows, caption=sheet.caption, command=command(store, *words)
    )  # fmt: skip


def _picture(drawing: figures.Drawing, store: str) -> Picture:
    drawn = figures.pictures(drawing.draw)
    width, height = _size(drawn["svg"])
    uri = _uri("png", drawn["png"]) if len(drawn["svg"]) > LARGE else _uri("svg+xml", drawn["svg"])
    about, words = drawing.figure.about, ["figure", drawing.name]
    if not drawing.own:
        about, words = f"Drawn like {about}", [*words, "--sweep", drawing.sweep]
    return Picture(about=about, uri=uri, width=width, height=height, command=command(store, *words))


def _size(svg: bytes) -> tuple[int, int]:
    """Return width and height in CSS pixels, of which a point is 4/3."""
    box = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert box, "matplotlib's pictures say their size"
    return round(float(box[1]) * 4 / 3), round(float(box[2]) * 4 / 3)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
