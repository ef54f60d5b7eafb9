"""A store, a checkpoint or a name from someone else runs no code, leaves no folder, and reads no other file."""

from __future__ import annotations

import ast
import hashlib
import pickle
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import rna

import rna_ray
from rna_ray.analysis.query import answer
from rna_ray.errors import QueryError, RnaRayError, StoreError
from rna_ray.store import Store, connect, layout, open_store, seal, weights
from rna_ray.store.records import SCHEMAS, from_rows
from rna_ray.store.verify import verify
from rna_ray.training.checkpoint import Checkpoints

ROOT = Path(rna_ray.__file__).parent
SHA256 = hashlib.sha256(b"w").hexdigest()
SECRET = "the secret of another file"
UNPICKLING = ("pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib")
MAY_UNPICKLE = {"data/pickles.py", "running/spawn.py"}
"""One is restricted to arrays, for the Python version of CIFAR; the other reads what a process started itself sends."""


class Payload:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.witness,)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one finished training, whose rows nobody checked."""
    store = open_store(tmp_path / "store")
    (tmp_path / "w").write_bytes(b"w")
    trial = _row("trials", unit_id="u1", settings="{}", last_sha256=SHA256)
    views = {"trials": from_rows("trials", [trial]), "epochs": from_rows("epochs", [_row("epochs", unit_id="u1")])}
    store.commit("u1", views, record="trials")
    store.put_file(layout.weights_file("u1", "last", SHA256), tmp_path / "w")
    planned = _row("plans", sweep="s", unit_id="u1", kind="train", spec="{}", axes="{}")
    store.put_plan("s", from_rows("plans", [planned]))
    return store


def _row(view: str, **given: object) -> dict[str, object]:
    from datetime import UTC, datetime

    filled = {"string": "x", "bool": False, "timestamp[us, tz=UTC]": datetime(2024, 5, 6, tzinfo=UTC)}
    plain = {column.name: filled.get(str(column.type), 0) for column in SCHEMAS[view] if not column.nullable}
    return plain | given


# -- nothing is unpickled ----------------------------------------------------------------------------------------------


def test_no_module_unpickles_but_the_one_that_is_restricted() -> None:
    for path in sorted(ROOT.rglob("*.py")):
        if str(path.relative_to(ROOT)) in MAY_UNPICKLE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & set(UNPICKLING), path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in UNPICKLING, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                said = {one.arg: ast.unparse(one.value) for one in node.keywords}
                assert said.get("weights_only") == "True", path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", path


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_in_the_stead_of_any_file_is_never_loaded(form: str, store: Store, tmp_path: Path) -> None:
    import torch

    witness = tmp_path / "witness"
    if form == "pickle":
        (tmp_path / "p").write_bytes(pickle.dumps(Payload(witness)))
    else:
        torch.save({"x": Payload(witness)}, tmp_path / "p")
    payload = (tmp_path / "p").read_bytes()
    root = Path(store.uri)
    (root / "checkpoints" / "u1" / "resume.json").write_text('{"sha256": "' + "cd" * 32 + '"}')
    (root / layout.weights_file("u1", "resume", "cd" * 32)).write_bytes(payload)
    for path in [path for path in root.rglob("*/*") if path.is_file() and path.name != "resume.json"]:
        path.write_bytes(payload)
    for words in (["status"], ["query", "SELECT * FROM trials"], ["table", "s"], ["resume", "s"], ["audit", "s"]):
        assert rna(*words, "--store", root).one_sentence, words
    assert rna("verify", "--store", root).code == 1
    for checkpoint, sha256 in (("last", SHA256), ("resume", "cd" * 32)):
        with pytest.raises(RnaRayError):
            Checkpoints(store, "u1").read(checkpoint, sha256)
    assert Checkpoints(store, "u1").resume() is None
    assert not witness.exists()
    pickle.loads(pickle.dumps(Payload(witness)))  # it would have worked
    assert witness.exists()


# -- names are no paths and no SQL -------------------------------------------------------------------------------------

NAMES = [
    "../x", "..", ".", "/etc/passwd", "a/b", "x'; DROP VIEW trials; --", 'x"', "x\x00", "x\ny", "", "é", "x" * 151,
    "C:\\x",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leaves_its_folder(name: str, store: Store) -> None:
    for make in (
        lambda: layout.rows_file("trials", name),
        lambda: layout.plan_file(name),
        lambda: layout.failure_file(name, 1),
        lambda: layout.weights_file(name, "last", SHA256),
        lambda: layout.checkpoint_file("u1", name),
    ):
        with pytest.raises(StoreError, match="cannot be stored"):
            make()


@pytest.mark.parametrize("name", [name for name in NAMES if name and "\x00" not in name])
def test_a_sweep_of_such_a_name_is_unknown_or_refused(name: str, store: Store, tmp_path: Path) -> None:
    for command in ("table", "status", "audit", "resume", "verify", "figure"):
        assert rna(command, name, "--store", store.uri).one_sentence, command
    (tmp_path / "one.yaml").write_text(f"name: {name!r}\ndata: {{name: digits}}\n", encoding="utf-8")
    ended = rna("plan", tmp_path / "one.yaml", "--store", store.uri)
    assert ended.one_sentence and "name" in ended.err


def test_rows_that_name_files_elsewhere_are_refused(store: Store, tmp_path: Path) -> None:
    """Whoever can write a record still makes nobody read, write or remove a file outside the store."""
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(b"mine")
    for field in ("../../../outside", "/" + "x" * 63, "ab/../../../../outside", "a\x00b"):
        row = store.read_file("trials", "u1").to_pylist()[0] | {"last_sha256": field}
        path = Path(store.uri) / "trials" / "u1.parquet"
        path.write_bytes(seal.sealed(from_rows("trials", [row]), {"epochs": {"file": field, "sha256": field}})[0])
        with pytest.raises(StoreError, match="cannot be stored"):
            weights.shapes(store, layout.weights_file("u1", "last", field))
        assert [one.file for one in verify(store).damaged] == ["trials/u1.parquet"]
        assert rna("status", "--store", store.uri).code == rna("query", "FROM epochs", "--store", store.uri).code == 0
    assert rna("verify", "--remove", "--store", store.uri).code == 1 and not store.done("trials")
    assert outside.read_bytes() == b"mine"


@pytest.mark.parametrize("place", ["failures", "checkpoints", "checkpoints/u2", "trials/u2.parquet"])
def test_links_out_of_a_store_are_not_followed_when_it_is_cleaned(place: str, store: Store, tmp_path: Path) -> None:
    mine, link = tmp_path / "mine", Path(store.uri) / place
    (mine / "drafts").mkdir(parents=True)
    theses = mine / "thesis.txt", mine / "drafts" / "thesis.parquet"
    for thesis in theses:
        thesis.write_text("x")
    if link.exists():
        link.rename(tmp_path / "before")
    link.symlink_to(mine)
    for words in (["verify", "--remove"], ["prune", "--unplanned", "--yes"], ["prune", "--weights", "none", "--yes"]):
        ended = rna(*words, "--store", store.uri)
        assert ended.one_sentence and f"{link} is a link to {mine}" in ended.err, words
    assert [thesis.read_text() for thesis in theses] == ["x", "x"] and link.is_symlink()


# -- a query reads the views and nothing else --------------------------------------------------------------------------

BREAKS = [
    "SELECT * FROM read_csv('{outside}')", "SELECT * FROM read_csv_auto('{outside}')", "FROM sniff_csv('{outside}')",
    "SELECT * FROM read_text('{outside}')", "SELECT * FROM read_blob('{outside}')", "FROM '{outside}'",
    'SELECT * FROM "{outside}"', "SELECT * FROM read_json('{outside}')", "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM read_parquet('{store}/trials/u1.parquet')",
    "SELECT * FROM parquet_metadata('{store}/trials/u1.parquet')",
    "SELECT * FROM parquet_scan(['{store}/trials/u1.parquet'])", "SELECT * FROM 's3://bucket/x.parquet'",
    "SELECT * FROM 'https://localhost:9/x.csv'", "SELECT getenv('HOME')",
    "SELECT * FROM trials WHERE norm = getenv('HOME')", "COPY trials TO '{folder}/new.csv'",
    "COPY (SELECT 1) TO '{folder}/new.parquet'", "COPY trials FROM '{outside}'",
    "EXPLAIN ANALYZE COPY trials TO '{folder}/new.csv'", "EXPLAIN COPY trials FROM '{outside}'",
    "EXPORT DATABASE '{folder}/new'", "IMPORT DATABASE '{folder}'", "ATTACH '{folder}/new.db'",
    "ATTACH '{outside}' AS x", "INSTALL httpfs", "LOAD httpfs", "LOAD '{outside}'", "SET enable_external_access = true",
    "RESET enable_external_access", "SET lock_configuration = false", "SET temp_directory = '{folder}'",
    "SET VARIABLE x = 1", "PRAGMA enable_profiling", "PRAGMA database_list", "SET home_directory = '{folder}'",
    "CALL pragma_version()", "CREATE SECRET (TYPE s3)", "CREATE TABLE x AS SELECT 1", "CREATE VIEW x AS SELECT 1",
    "CREATE TEMP MACRO x() AS 1", "INSERT INTO trials SELECT * FROM trials", "DELETE FROM trials",
    "UPDATE trials SET norm = 'x'", "DROP VIEW trials", "ALTER VIEW trials RENAME TO x",
    "SELECT 1; COPY trials TO '{folder}/new.csv'", "SELECT 1; SELECT 2", "PREPARE x AS SELECT 1", "EXECUTE x",
    "CHECKPOINT", "USE memory", "VACUUM", "BEGIN", "", ";", "-- nothing", "SELECT * FROM secret",
    "SELECT * FROM SECRET", "SELECT * FROM python_map_function()", "FROM query('COPY trials TO ''{folder}/new.csv''')",
    "FROM query_table('{outside}')", "WITH x AS MATERIALIZED (FROM read_text('{outside}')) FROM x",
    "SELECT (SELECT content FROM read_text('{outside}'))", "PIVOT read_text('{outside}') ON filename",
    "FROM '.tmp/spilled.csv'", "FROM glob('.tmp/*')", "SUMMARIZE '{outside}'", "DESCRIBE '{outside}'",
    "SHOW ALL TABLES; LOAD x",
]  # fmt: skip


@pytest.mark.parametrize("sql", BREAKS)
def test_no_query_reads_or_writes_anything_but_the_views(
    sql: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outside, spilled = tmp_path / "outside.csv", tmp_path / ".tmp" / "spilled.csv"
    spilled.parent.mkdir()  # where DuckDB, left alone, would write what does not fit into memory, and read anything
    for path in (outside, spilled):
        path.write_text(f"x\n{SECRET}\n")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    secret = from_rows("plans", [])  # noqa: F841 - DuckDB would find it by its name
    with pytest.raises(QueryError) as error:
        answer(connect(store), sql.format(outside=outside, folder=tmp_path, store=store.uri))
    assert SECRET not in str(error.value) and "\n" not in str(error.value)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_what_a_query_may_do_it_can(store: Store) -> None:
    connection = connect(store)
    for sql, said in {
        "SELECT count(*) FROM trials": 1,
        "WITH x AS (SELECT 2 AS n) SELECT n FROM x": 2,
        "SELECT count(*) FROM (DESCRIBE trials)": len(SCHEMAS["trials"]),
        "FROM range(3) SELECT max(range)": 2,
    }.items():
        assert answer(connection, sql).to_pylist()[0].popitem()[1] == said
    assert answer(connection, "SELECT current_setting('enable_external_access') AS x").to_pylist() == [{"x": False}]


def test_the_files_of_a_store_are_what_they_were_after_every_command(store: Store) -> None:
    files = {path: path.read_bytes() for path in Path(store.uri).rglob("*") if path.is_file()}
    for words in (["status"], ["query", "SELECT * FROM trials"], ["audit", "s"], ["table", "s"], ["verify"]):
        rna(*words, "--store", store.uri)
    assert {path: path.read_bytes() for path in Path(store.uri).rglob("*") if path.is_file()} == files
    assert pq.read_table(Path(store.uri) / "trials" / "u1.parquet").num_rows == 1
