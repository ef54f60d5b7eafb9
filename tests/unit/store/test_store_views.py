"""SQL sees the rows that count, and nothing else on the machine."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from rna_ray.store import Store, connect
from rna_ray.store.records import SCHEMAS


def test_every_view_is_there_and_typed_in_an_empty_store(store: Store) -> None:
    connection = connect(store)
    for view, schema in SCHEMAS.items():
        found = connection.sql(f"SELECT * FROM {view}").to_arrow_table()
        assert (found.num_rows, found.schema.names) == (0, schema.names)
    assert connection.execute("SELECT typeof(coalesce(max(eps_255), 0.5)) FROM evaluations").fetchone() == ("DOUBLE",)


def test_views_hold_finished_units_only_and_join(store: Store, rows, evaluated) -> None:
    evaluated(store, "u1", n=3, adversarial_correct=[1, 0, 1])
    pq.write_table(rows("examples", 9, unit_id="u2"), Path(store.uri) / "examples" / "u2.parquet")  # no record
    answer = connect(store).execute(
        "SELECT evaluations.unit_id, sum(adversarial_correct), count(*) FROM examples JOIN evaluations USING (unit_id)"
        " GROUP BY ALL"
    )
    assert answer.fetchall() == [("u1", 2, 3)]
    assert connect(store).execute("SELECT count(*) FROM examples").fetchone() == (3,)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{outside}/x.csv'",
        "COPY examples TO '{store}/examples/x.parquet'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{outside}/x.csv'",
        "EXPORT DATABASE '{outside}/x'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM read_parquet('{store}/examples/u1.parquet')",
        "ATTACH '{outside}/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "SELECT * FROM secret",
    ],
)
def test_sql_reaches_no_file_no_extension_and_no_variable(store: Store, tmp_path: Path, evaluated, sql: str) -> None:
    evaluated(store, "u1")
    secret = SCHEMAS["examples"].empty_table()  # DuckDB would otherwise find Python's variables by name
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(duckdb.Error):
        connect(store).execute(sql.format(outside=tmp_path, store=store.uri)).fetchall()
    assert sorted(tmp_path.rglob("*")) == before
    assert secret.num_rows == 0


def test_no_column_needs_quotes(store: Store) -> None:
    connection = connect(store)
    for view, schema in SCHEMAS.items():
        for name in schema.names:  # `at` and `natural`, for two, are words of DuckDB's own
            connection.execute(f"SELECT max({name}) AS {name} FROM {view} GROUP BY {name} ORDER BY {name}").fetchall()
