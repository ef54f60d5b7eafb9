"""One reading statement in, its answer in four forms out."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from rna_ray.analysis import query
from rna_ray.analysis.query import run
from rna_ray.errors import QueryError
from rna_ray.store import Store, connect
from rna_ray.store.records import DETAILS

ANALYSIS = Path(query.__file__).parent


def ask(store: Store, sql: str, format: str = "table") -> bytes:
    out = io.BytesIO()
    run(connect(store), sql, format=format, out=out)
    return out.getvalue()


def test_the_four_forms(small: Store) -> None:
    sql = "SELECT unit_id, count(*) AS n, sum(example) AS total, 0.1 AS x FROM examples WHERE draws = 1 GROUP BY ALL"
    sql += " ORDER BY unit_id LIMIT 1"
    assert ask(small, sql, "table").decode().splitlines() == [
        "unit_id      n   total  x",
        "───────────  ──  ─────  ───",
        "natural-1-0  10  45     0.1",
    ]
    assert ask(small, sql, "csv").decode() == "unit_id,n,total,x\nnatural-1-0,10,45,0.1\n"
    assert json.loads(ask(small, sql, "json")) == [{"unit_id": "natural-1-0", "n": 10, "total": 45, "x": 0.1}]
    assert pq.read_table(io.BytesIO(ask(small, sql, "parquet")))["total"].to_pylist() == [45]


def test_json_is_strict_and_complete(small: Store) -> None:
    sql = (
        "SELECT 'nan'::FLOAT AS a, [1, NULL] AS b, 1 AS c, 2 AS c, {'k': 1.5} AS d, started_at AS e FROM trials LIMIT 1"
    )
    assert json.loads(ask(small, sql, "json")) == [
        {"a": None, "b": [1, None], "c": 1, "c_2": 2, "d": {"k": 1.5}, "e": "2024-05-06T00:00:00+00:00"}
    ]
    assert json.loads(ask(small, "SELECT 1 AS x WHERE false", "json")) == []
    assert ask(small, "SELECT [1, 2] AS l, 'a,b' AS t, NULL AS n", "csv").decode() == 'l,t,n\n"[1, 2]","a,b",\n'


@pytest.mark.parametrize(
    "sql",
    [
        "SHOW TABLES",
        "DESCRIBE trials",
        "EXPLAIN SELECT 1",
        "SUMMARIZE trials",
        "WITH a AS (SELECT 1) FROM a",
        "PIVOT (SELECT attack, draws FROM examples) ON attack USING count(*)",
    ],
)
def test_every_kind_of_reading_is_answered(small: Store, sql: str) -> None:
    assert json.loads(ask(small, sql, "json"))


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEC 1", "the query failed: Parser Error: syntax error"),
        ("SELECT nothing FROM trials", "the query failed: Binder Error.*nothing"),
        ("SELECT * FROM trails", "trails.*Did you mean.*trials"),
        ("SELECT 1; SELECT 2", "a query is one statement, here are 2"),
        ("  -- nothing", "a query is one statement, here are 0"),
        ("CREATE TABLE t AS SELECT 1", "a query only reads, CREATE does not"),
        ("DROP VIEW trials", "a query only reads, DROP does not"),
        ("COPY trials TO 'x.csv'", "a query only reads, COPY does not"),
        ("ATTACH ':memory:' AS m", "a query only reads, ATTACH does not"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.csv'", "Permission Error"),
        ("SELECT * FROM read_csv('/etc/passwd')", "Permission Error"),
        ("SELECT $1", "the query failed"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(small: Store, sql: str, said: str) -> None:
    with pytest.raises(QueryError, match=said) as caught:
        ask(small, sql)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_named(small: Store) -> None:
    [victim] = small.files.filesystem.get_file_info([f"{small.uri}/trials/train-0.parquet"])
    with open(victim.path, "wb") as stream:
        stream.write(b"PAR1 is not enough")
    with pytest.raises(QueryError, match=r"^the store's file .*/trials/train-0\.parquet is damaged: rna-ray verify"):
        ask(small, "SELECT sum(seed) FROM trials")


def test_an_unknown_format_lists_the_known() -> None:
    with pytest.raises(QueryError, match="unknown format 'jsn'; did you mean 'json'"):
        run(duckdb.connect(), "SELECT 1", format="jsn")


def test_a_damaged_page_is_one_sentence_too(small: Store) -> None:
    path = Path(small.uri) / "trials" / "train-0.parquet"
    whole = path.read_bytes()
    for at in (4, 14, 32):  # a page's header, and what is in it
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(QueryError) as error:
            ask(small, "SELECT * FROM trials")
        said = str(error.value)
        assert said.startswith("a file of the store's view trials is damaged (") and "\n" not in said, at


# -- what a join holds -------------------------------------------------------------------------------------------------

_HELD = re.compile(rf"JOIN\s+(?:\(\s*SELECT[^()]*FROM\s+)?({'|'.join(DETAILS)})\b", re.IGNORECASE)
STATEMENTS = [*ANALYSIS.rglob("*.sql"), *ANALYSIS.rglob("*.py")]


@pytest.mark.parametrize("path", STATEMENTS, ids=lambda path: path.relative_to(ANALYSIS).as_posix())
def test_no_join_holds_a_row_for_each_example(path: Path) -> None:
    # A join holds what is written on its right: of 100,000,000 rows that is more than a machine has.
    assert not _HELD.search(path.read_text("utf-8"))


def test_what_a_join_holds_is_what_stands_on_its_right(book: Any) -> None:
    book.trained("BN")
    book.cell("BN", "natural", "none", [[1] * 10])
    connection = connect(book.close())
    for sides in ("examples JOIN evaluations", "evaluations JOIN examples"):
        (_, plan), *_ = connection.execute(
            f"EXPLAIN (FORMAT json) SELECT sum(example), sum(stop) FROM {sides} USING (unit_id)"
        ).fetchall()
        joins = [node for node in _nodes(json.loads(plan)) if "JOIN" in node["name"]]
        (held,) = [json.dumps(node["children"][1]) for node in joins]
        assert ("example" in held) == sides.endswith("examples")


def _nodes(plan: Any) -> Iterator[dict[str, Any]]:
    for node in plan if isinstance(plan, list) else [plan]:
        yield node
        yield from _nodes(node.get("children", []))
