"""Identical means bit-identical, for what is a result."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rna_ray.store import differences, open_store
from rna_ray.store.compare import _bits


@pytest.fixture
def pair(tmp_path: Path):
    return open_store(tmp_path / "a"), open_store(tmp_path / "b")


def test_stores_that_differ_only_in_how_they_ran_are_identical(pair, rows) -> None:
    for store, seconds, order in zip(pair, (1.0, 2.0), ([0, 1, 2], [2, 0, 1]), strict=True):
        views = {
            "trials": rows("trials", unit_id="t", seconds=seconds, host=f"h{seconds}", attempt=int(seconds)),
            "epochs": rows("epochs", 3, unit_id="t", seconds=seconds).take(order),
        }
        store.commit("t", views, record="trials")
        store.put_plan("s", rows("plans", sweep="s", spec=str(seconds)))
    assert differences(*pair) == []
    assert len(differences(*pair, ignore=())) == 4  # seconds, host and attempt of the trial, seconds of its epochs


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [(float("nan"), float("nan"), True), (0.0, -0.0, False), (1.0, float(np.nextafter(1, 2, dtype="f4")), False)],
)
def test_floats_are_compared_by_their_bits(pair, evaluated, left: float, right: float, same: bool) -> None:
    for store, value in zip(pair, (left, right), strict=True):
        evaluated(store, "u1", n=3, margin=[0.5, value, value])
    found = differences(*pair)
    if same:
        assert found == []
    else:
        assert found == [f"examples u1 example 1 margin: {left!r} != {right!r} (and 1 more rows)"]


def test_lists_missing_rows_and_missing_units_are_named(pair, evaluated) -> None:
    a, b = pair
    evaluated(a, "u1", adversarial_predictions=[[1, 2], [3], [4]])
    evaluated(b, "u1", adversarial_predictions=[[1, 2], [3], [5]])
    evaluated(a, "u2", n=2)
    evaluated(b, "u2", n=3)
    evaluated(b, "u3")
    assert differences(a, b) == [
        f"evaluations u3: only in {b.uri}",
        "examples u1 example 2 adversarial_predictions: [4] != [5]",
        "examples u2: 2 rows != 3 rows",
    ]


def test_a_column_that_one_store_did_not_measure_yet_differs_from_one_that_did(pair, rows) -> None:
    for store, right in zip(pair, (None, 57), strict=True):
        views = {"trials": rows("trials", unit_id="t"), "epochs": rows("epochs", 2, unit_id="t", train_correct=right)}
        store.commit("t", views, record="trials")
    path = Path(pair[0].uri) / "epochs" / "t.parquet"
    older = pq.read_table(path).drop_columns(["train_correct"]).replace_schema_metadata(None)
    pq.write_table(older, path)
    assert differences(*pair) == ["epochs t epoch 0 train_correct: None != 57 (and 1 more rows)"]
    assert differences(pair[0], pair[0]) == []


@given(st.floats(width=32), st.floats(width=32))
def test_equal_bits_and_nothing_else_is_equal(left: float, right: float) -> None:
    one, two = (_bits(pa.chunked_array([pa.array([value], pa.float32())])) for value in (left, right))
    assert one.equals(two) == (struct.pack("f", left) == struct.pack("f", right))
