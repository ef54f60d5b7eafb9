"""Rows by hand: only what a test is about is said, the rest is filled in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rna_ray.store import Store, open_store
from rna_ray.store.records import SCHEMAS, from_rows

Rows = Callable[..., pa.Table]
_FILLED = {pa.string(): "x", pa.bool_(): False, pa.timestamp("us", tz="UTC"): datetime(2024, 5, 6, tzinfo=UTC)}


@pytest.fixture
def rows() -> Rows:
    """`rows(view, n, column=value or list of n values, ...)` is a table of the view."""

    def build(view: str, n: int = 1, **given: Any) -> pa.Table:
        def value(column: pa.Field, row: int) -> Any:
            if column.name in given:
                said = given[column.name]
                return said[row] if isinstance(said, list) else said
            if column.nullable:
                return None
            return [row] if pa.types.is_list(column.type) else _FILLED.get(column.type, row)

        return from_rows(view, [{column.name: value(column, row) for column in SCHEMAS[view]} for row in range(n)])

    return build


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def evaluated(rows: Rows) -> Callable[..., None]:
    """`evaluated(store, unit, n, column=...)` commits an evaluate unit with n examples."""

    def commit(store: Store, unit: str, n: int = 3, **examples: Any) -> None:
        views = {
            "evaluations": rows("evaluations", unit_id=unit),
            "examples": rows("examples", n, unit_id=unit, **examples),
        }
        store.commit(unit, views, record="evaluations")

    return commit
