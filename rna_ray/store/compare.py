"""Two stores, row by row and bit by bit: what a unit promises is that these are the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from rna_ray.store.parquet import Store
from rna_ray.store.records import DETAILS, SCHEMAS

IGNORED = (
    "seconds", "images_per_second", "peak_memory", "attempt", "host", "started_at", "commit", "dirty", "earlier_code",
)  # fmt: skip
"""Columns that say how a unit happened to run, not what came out."""

_KEYS = ("unit_id", "epoch", "example")
_BITS = {pa.float32(): pa.int32(), pa.float64(): pa.int64()}


def differences(a: Store, b: Store, ignore: Iterable[str] = IGNORED, *, shared: bool = False) -> list[str]:
    """Return what differs between the results in two stores, one line for each unit and column; empty when identical.

    Floats are compared by their bits, so NaN equals the same NaN and 0.0 differs from -0.0. Plans, failures and
    stops, which tell of intents, accidents and races, are left out; where only what the stores share is of interest, so
    is what one lacks.
    """
    left_out = set(ignore)
    views = [view for view in SCHEMAS if view not in ("plans", "failures", "stops")]
    return [line for view in views for line in _view_differences(view, a, b, left_out, shared)]


def _view_differences(view: str, a: Store, b: Store, ignore: set[str], shared: bool) -> Iterator[str]:
    in_a, in_b = a.counted(view), b.counted(view)
    only = in_a.keys() ^ in_b.keys()
    if view in DETAILS:  # a unit that only one store finished is said once, by its record
        only &= a.done(DETAILS[view]) & b.done(DETAILS[view])
    elif shared:
        only = set()
    for unit_id in sorted(only):
        yield f"{view} {unit_id}: only in {(a if unit_id in in_a else b).uri}"
    for unit_id in sorted(in_a.keys() & in_b.keys()):
        rows = _sorted(a, view, in_a[unit_id]), _sorted(b, view, in_b[unit_id])
        yield from _unit_differences(view, unit_id, *rows, ignore)


def _sorted(store: Store, view: str, stem: str) -> pa.Table:
    table = store.read_file(view, stem)
    return table.sort_by([(key, "ascending") for key in _KEYS if key in table.column_names])


def _unit_differences(view: str, unit_id: str, a: pa.Table, b: pa.Table, ignore: set[str]) -> Iterator[str]:
    if a.num_rows != b.num_rows:
        yield f"{view} {unit_id}: {a.num_rows} rows != {b.num_rows} rows"
        return
    for name in a.column_names:
        if name in ignore or _bits(a[name]).equals(_bits(b[name])):
            continue
        pairs = zip(_bits(a[name]).to_pylist(), _bits(b[name]).to_pylist(), strict=True)
        rows = [row for row, (left, right) in enumerate(pairs) if left != right]
        first = rows[0]
        yield (
            f"{view} {unit_id}{_where(a, first)} {name}: {a[name][first].as_py()!r} != {b[name][first].as_py()!r}"
            + (f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else "")
        )


def _bits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = _BITS.get(column.type)
    return column if kind is None else pa.chunked_array([chunk.view(kind) for chunk in column.chunks], type=kind)


def _where(table: pa.Table, row: int) -> str:
    return "".join(f" {key} {table[key][row].as_py()}" for key in _KEYS[1:] if key in table.column_names)
