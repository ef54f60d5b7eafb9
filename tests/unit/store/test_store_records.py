"""The contract with analysis: every column described, rows of another shape refused."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest

from rna_ray.store.records import DETAILS, PROVENANCE, RECORDS, SCHEMA_VERSION, SCHEMAS, conform, from_rows

VIEWS = ["trials", "epochs", "evaluations", "examples", "certifications", "certificates", "probes", "measures"]
VIEWS += ["transfers", "failures", "stops", "plans"]


def test_there_is_a_schema_for_every_view_and_each_column_says_what_it_holds() -> None:
    assert SCHEMA_VERSION == 1
    assert list(SCHEMAS) == VIEWS
    for schema in SCHEMAS.values():
        assert "unit_id" in schema.names
        assert len(set(schema.names)) == len(schema.names)
        assert all(column.metadata[b"description"].endswith(b".") for column in schema)


def test_records_and_details_are_views_and_provenance_is_on_every_record() -> None:
    assert {*RECORDS.values(), *DETAILS, *DETAILS.values()} <= set(VIEWS)
    for view in ("trials", "evaluations", "certifications", "probes"):
        assert {column.name for column in PROVENANCE} <= set(SCHEMAS[view].names)


def test_rows_come_in_the_columns_order_with_their_types(rows) -> None:
    table = conform("epochs", rows("epochs", 2).select(["loss", *(n for n in SCHEMAS["epochs"].names if n != "loss")]))
    assert table.schema.equals(SCHEMAS["epochs"], check_metadata=True)
    assert table["natural_correct"].to_pylist() == [None, None]  # optional
    assert from_rows("epochs", []).schema == SCHEMAS["epochs"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"colour": 1}, "no column colour"),
        ({"loss": None}, "loss of view epochs may not be empty, here it is in 1 rows"),
        ({"epoch": 1.5}, "column epoch"),
        ({"epoch": 2**31}, "column epoch"),
        ({"epoch": "one"}, "column epoch"),
        ({"unit_id": 3}, "unit_id of view epochs holds text"),
    ],
)
def test_rows_of_another_shape_are_refused(rows, given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_rows("epochs", [rows("epochs").to_pylist()[0] | given])


def test_tables_that_do_not_fit_are_refused_not_wrapped(rows) -> None:
    table = rows("examples")
    place = table.schema.get_field_index("draws")
    with pytest.raises(ValueError, match="draws of view examples"):
        conform("examples", table.set_column(place, "draws", pa.array([40_000], pa.int64())))
    with pytest.raises(ValueError, match="draws of view examples"):
        conform("examples", table.drop_columns("draws"))


def test_importing_the_store_brings_nothing_heavy() -> None:
    code = "import sys, rna_ray.store; print({'torch', 'ray', 'pydantic', 'pandas', 'duckdb'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
