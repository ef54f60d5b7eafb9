"""One question in SQL, its answer in a form for people, programs or files."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from rna_ray.analysis import render
from rna_ray.errors import QueryError, unknown

_DAMAGED = re.compile(r"Could not open Parquet input source '([^']+)'")  # pyarrow's words
_UNREADABLE = re.compile(r"reading the stream registered as '(\w+)' failed: \w+: (.+)")  # DuckDB's
_OUTSIDE = re.compile(r"no answer|[Ee]rrno|AWS Error|cannot (read|list|look at)")  # its bytes are not to blame
_READS = ("SELECT", "EXPLAIN", "MULTI")  # MULTI: a PIVOT, which first looks up the values that become columns


def run(connection: duckdb.DuckDBPyConnection, sql: str, *, format: str = "table", out: BinaryIO | None = None) -> None:
    """Write the answer to one reading SQL statement to a binary stream (stdout); QueryError where there is none."""
    if format not in FORMATS:
        raise QueryError(unknown("format", format, FORMATS))
    write(lambda: answer(connection, sql), format, out)


def write(rows: Callable[[], pa.Table], format: str, out: BinaryIO | None = None) -> None:
    """Write rows in one of the FORMATS to a binary stream (stdout); Parquet not to a terminal, before it is asked for.

    json is a list of objects; numbers that JSON lacks (NaN, infinities) are null there.
    """
    out = sys.stdout.buffer if out is None else out
    if format == "parquet" and out.isatty():
        raise QueryError("parquet is not for a terminal: send it to a file, as in > answer.parquet")
    out.write(FORMATS[format](rows()))
    out.flush()


def answer(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
    """Return the answer to one reading SQL statement, its columns with distinct names."""
    with _told():
        return _distinct(relation(connection, sql, parameters).to_arrow_table())


def relation(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Any] | None = None
) -> duckdb.DuckDBPyRelation:
    """Return one reading SQL statement as a relation, which is computed when it is looked at."""
    with _told():
        statements = connection.extract_statements(sql)
        if len(statements) != 1:
            raise QueryError(f"a query is one statement, here are {len(statements)}")
        if (kind := statements[0].type.name) not in _READS:
            raise QueryError(f"a query only reads, {kind} does not: use SELECT, DESCRIBE or EXPLAIN")
        return connection.sql(sql, params=dict(parameters) if parameters else None)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what DuckDB and Arrow raise inside the block into a QueryError of one sentence."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise QueryError(reason(error) or f"the query failed: {sentence(error)}") from error


def reason(error: Exception) -> str | None:
    """Return which file of the store is damaged and what to do, where that is why a query failed; else None."""
    again = "rna-ray verify --remove takes it out, and resume does again what is missing then"
    if found := _DAMAGED.search(str(error)):
        if PurePosixPath(found[1]).parent.name == "plans":
            again = "rna-ray run with the sweep's file writes its plan again"
        return f"the store's file {found[1]} is damaged: {again}"
    if (found := _UNREADABLE.search(str(error))) and not _OUTSIDE.search(found[2]):
        return f"a file of the store's view {found[1]} is damaged ({' '.join(found[2].split())}): {again}"
    return None


def _distinct(table: pa.Table) -> pa.Table:
    """Return the table with repeated column names numbered, as in a join's two unit ids."""
    seen: dict[str, int] = {}
    names = []
    for name in table.column_names:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return table.rename_columns(names)


def sentence(error: Exception) -> str:
    """Return the message without the drawing of the query below it."""
    return " ".join(str(error).split("\n\nLINE ")[0].split())


def _grid(table: pa.Table) -> tuple[list[str], list[list[str]]]:
    rows = render.plain_values(table.to_pylist())
    return table.column_names, [[render.shown(value) for value in row.values()] for row in rows]


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


FORMATS: Mapping[str, Callable[[pa.Table], bytes]] = {
    "table": lambda table: render.text(*_grid(table)).encode(),
    "csv": lambda table: render.csv_text(table.column_names, table.to_pylist()).encode(),
    "json": lambda table: render.json_text(table.to_pylist()).encode(),
    "parquet": _parquet,
}
