"""Two processes that do the same units at the same time: each counts once, with the rows of one of them alone."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path, PurePosixPath

import pyarrow.parquet as pq
import pytest

from rna_ray.store import Store, connect, footers, open_store, seal
from rna_ray.store.verify import verify

UNITS = 12
EVERY_SECONDS = 0.1
LOOKS = 20_000  # some of them meet the folder as it appears
WRITER = """
    import sys, time
    from pathlib import Path
    import pyarrow as pa
    import pyarrow.parquet as pq
    from rna_ray.store import files, open_store

    place, given, number, remote = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    if remote == "remote":  # as an object store: whole objects, a later one takes the place of an earlier one
        def write(self, path, data):
            with files._appearing(Path(self.full(path))) as stream:
                stream.write(data)
        files.Files.local, files.Files.write = property(lambda self: False), write
        files.Files.exists = lambda self, path: Path(self.full(path)).is_file()
    store = open_store(place)
    tables = {view: pq.read_table(f"{given}/{view}.parquet") for view in ("evaluations", "examples")}

    def of(view, unit, **columns):
        table = tables[view]
        for name, value in {"unit_id": unit, **columns}.items():
            at = table.schema.get_field_index(name)
            field = table.schema.field(at)
            table = table.set_column(at, field, pa.array([value] * table.num_rows, field.type))
        return table

    print("ready", flush=True)
    start, found_to_do = float(input()), 0
    for at in range(int(sys.argv[5])):
        unit = f"u{at}"
        views = {
            "evaluations": of("evaluations", unit, attempt=number), "examples": of("examples", unit, label=number),
        }
        time.sleep(max(0.0, start + at * float(sys.argv[6]) - time.time()))
        found_to_do += not store.is_done(unit, "evaluations")
        store.commit(unit, views, record="evaluations")
    print(found_to_do)
"""


@pytest.mark.slow
@pytest.mark.parametrize("remote", ["local", "remote"])
def test_a_unit_that_two_commit_at_once_counts_once_and_is_not_mixed(remote: str, tmp_path: Path, rows) -> None:
    pq.write_table(rows("evaluations"), tmp_path / "evaluations.parquet")
    pq.write_table(rows("examples", 5), tmp_path / "examples.parquet")
    store = open_store(tmp_path / "store")
    words = [str(tmp_path / "store"), str(tmp_path)]
    after = [remote, str(UNITS), str(EVERY_SECONDS)]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), *words, str(number), *after],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in (1, 2, 3)
    ]  # fmt: skip
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 3
    start = time.time() + EVERY_SECONDS
    for writer in writers:
        print(start, file=writer.stdin, flush=True)
    while any(writer.poll() is None for writer in writers):  # what is read meanwhile is never mixed either
        assert not mixed(store)
        time.sleep(1.0)
    ended = [writer.communicate() for writer in writers]
    assert [err for _, err in ended] == [""] * 3
    assert sum(int(found_to_do) for found_to_do, _ in ended) > UNITS, "they never met"
    assert store.read("evaluations").num_rows == UNITS and store.read("examples").num_rows == 5 * UNITS
    assert not mixed(store)
    assert footers.damaged(store, {f"u{at}": "evaluate" for at in range(UNITS)}) == {}
    found = verify(store, now=time.time() + 7200)
    assert found.damaged == ()
    if remote == "local":  # who came too late took its rows away
        assert found.leftovers == ()


def mixed(store: Store) -> list[tuple[str, int, int]]:
    """Return the units whose details are of another attempt than their record."""
    if not store.exists:
        return []
    query = """
        SELECT unit_id, attempt, label, count(*) FROM evaluations JOIN examples USING (unit_id)
        GROUP BY ALL HAVING attempt <> label OR count(*) <> 5
    """
    return connect(store).execute(query).fetchall()


def test_a_folder_that_comes_and_goes_while_it_is_listed_holds_nothing_and_is_no_error(tmp_path: Path) -> None:
    files = open_store(tmp_path).files
    come_and_go = "import os, sys\nprint(flush=True)\nwhile True: os.mkdir(sys.argv[1]); os.rmdir(sys.argv[1])"
    words = [sys.executable, "-c", come_and_go, str(tmp_path / "examples")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
        try:
            other.stdout.readline()
            for _ in range(LOOKS):
                assert files.names(PurePosixPath("examples")) == files.below(PurePosixPath("examples")) == []
        finally:
            other.kill()


def test_an_attempt_that_finds_details_of_another_leaves_them_until_its_record_is_there(
    store: Store, rows, evaluated
) -> None:
    root = Path(store.uri)
    evaluated(store, "u1", n=3)
    (root / "evaluations" / "u1.parquet").unlink()  # as a writer that died before its record leaves it
    assert store.read("examples").num_rows == 0
    evaluated(store, "u1", n=4)
    (path,) = (root / "examples").iterdir()
    assert path.name.startswith("u1.") and store.read("examples").num_rows == 4
    evaluated(store, "u1", n=5)
    assert store.read("examples", ["u1"]).num_rows == 4 and list((root / "examples").iterdir()) == [path]


def test_of_several_details_the_record_says_which_count(store: Store, rows, evaluated, tmp_path: Path) -> None:
    other = open_store(tmp_path / "other")
    for n in (3, 4):
        evaluated(other, "u1", n=n)
        details = Path(other.uri) / "examples" / "u1.parquet"
        kept = Path(store.uri) / "examples" / f"u1.{n}.parquet"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(details.read_bytes())
        if n == 3:
            other.discard("u1", "evaluations")
    (Path(store.uri) / "store.json").write_text('{"schema": 1}')
    store.files.create_all([(Path("evaluations/u1.parquet"), record_naming("u1.4", rows))])
    assert store.counted("examples") == {"u1": "u1.4"} and store.read("examples").num_rows == 4
    assert connect(store).execute("SELECT count(*) FROM examples").fetchone() == (4,)


def record_naming(stem: str, rows) -> bytes:
    return seal.sealed(rows("evaluations", unit_id="u1"), {"examples": {"file": stem, "sha256": "0" * 64}})[0]
