"""A unit's rows are there at once and last, whatever happens to the writer."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rna_ray.errors import StoreError
from rna_ray.store import Store, connect, layout, open_store
from rna_ray.store.files import Files, open_files
from rna_ray.store.records import SCHEMAS
from rna_ray.store.verify import verify

_WRITER = """
    import os, signal, sys
    import pyarrow.parquet as pq
    from rna_ray.store import open_store

    link = os.link
    def link_or_die(source, target):
        if "evaluations" in str(target):
            os.kill(os.getpid(), signal.SIGKILL)  # the record is written beside, the examples are already in place
        link(source, target)
    os.link = link_or_die

    place, given = sys.argv[1:]
    views = {view: pq.read_table(f"{given}/{view}.parquet") for view in ("evaluations", "examples")}
    open_store(place).commit("u1", views, record="evaluations")
"""


def test_opening_and_asking_create_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a" / "store")
    assert store.done("trials") == set()
    assert store.failures() == {}
    assert store.sweeps() == []
    assert store.read("examples").schema == SCHEMAS["examples"]
    assert not store.exists
    assert list(tmp_path.iterdir()) == []


def test_a_committed_unit_is_done_and_reads_back(store: Store, rows, evaluated) -> None:
    evaluated(store, "u1", n=3)
    evaluated(store, "u2", n=2)
    assert store.done("evaluations") == {"u1", "u2"}
    assert store.done("trials") == set()
    assert store.is_done("u1", "evaluations") and not store.is_done("u3", "evaluations")
    assert not store.is_done("u1", "trials")
    assert store.read("examples", ["u1"]) == rows("examples", 3, unit_id="u1")
    assert store.read("examples").num_rows == 5
    assert json.loads((Path(store.uri) / "store.json").read_text()) == {"schema": 1}


def test_a_record_is_written_plainly_and_rows_are_compressed(store: Store, evaluated) -> None:
    evaluated(store, "u1", n=3)
    for view, how in (("evaluations", "UNCOMPRESSED"), ("examples", "ZSTD")):
        column = pq.read_metadata(Path(store.uri) / view / "u1.parquet").row_group(0).column(0)
        assert column.compression == how


def test_a_finished_unit_is_left_alone(store: Store, evaluated) -> None:
    evaluated(store, "u1", n=3)
    evaluated(store, "u1", n=2)  # a late worker that outlived its driver
    assert store.read("examples").num_rows == 3


def test_a_writer_killed_before_the_record_leaves_nothing_that_counts(tmp_path: Path, rows, evaluated) -> None:
    pq.write_table(rows("evaluations", unit_id="u1"), tmp_path / "evaluations.parquet")
    pq.write_table(rows("examples", 3, unit_id="u1"), tmp_path / "examples.parquet")
    place = tmp_path / "store"
    command = [sys.executable, "-c", textwrap.dedent(_WRITER), str(place), str(tmp_path)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert (place / "examples" / "u1.parquet").exists()
    assert [p.suffix for p in (place / "evaluations").iterdir()] == [".tmp"]

    store = open_store(place)
    assert store.done("evaluations") == set()
    assert store.read("examples").num_rows == 0
    assert connect(store).execute("SELECT count(*) FROM examples").fetchone() == (0,)

    evaluated(store, "u1", n=3)  # the next attempt
    assert store.done("evaluations") == {"u1"}
    assert store.read("examples").num_rows == 3


def test_a_write_that_fails_is_one_sentence_and_leaves_nothing(store: Store, tmp_path: Path, evaluated) -> None:
    evaluated(store, "u1")
    (Path(store.uri) / "evaluations" / "u2.parquet").mkdir()  # the rename must fail, for root too
    store_files = {p for p in Path(store.uri).rglob("*") if p.is_file()}
    with pytest.raises(StoreError, match="cannot write"):
        store.files.write(PurePosixPath("evaluations/u2.parquet"), b"x")
    assert {p for p in Path(store.uri).rglob("*") if p.is_file()} == store_files


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_a_disk_without_hard_links_takes_a_file_once_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*given: Any) -> None:
        raise OSError(number, "no links here")

    monkeypatch.setattr("os.link", link)
    files, one, two = open_files(tmp_path), PurePosixPath("a/one"), PurePosixPath("b/two")
    assert files.create_all([(one, b"1"), (two, b"2")]) == [True, True]
    assert files.create_all([(two, b"3"), (PurePosixPath("b/three"), b"3")]) == [False, True]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "a/one", "b/three", "b/two",
    ]  # fmt: skip
    assert files.read(two) == b"2"


def test_of_several_files_that_have_their_names_all_are_on_the_disk_whatever_befalls_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b" / "two").mkdir(parents=True)
    synced: list[str] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    with pytest.raises(StoreError, match=r"cannot write .*/b/two: "):
        open_files(tmp_path).create_all([(PurePosixPath("a/one"), b"1"), (PurePosixPath("b/two"), b"2")])
    assert (tmp_path / "a" / "one").read_bytes() == b"1" and str(tmp_path / "a") in synced[-2:]


def test_the_file_is_named_for_which_the_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if "two" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, "the disk fails")
        real(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(StoreError, match=r"cannot write .*/two: .*the disk fails"):
        open_files(tmp_path).create_all([(PurePosixPath("one"), b"1"), (PurePosixPath("two"), b"2")])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def several(rows, *unit_ids: str) -> list[tuple[str, dict[str, pa.Table], str]]:
    """Return the rows of units as `commit_all` takes them."""
    return [
        (one, {view: rows(view, unit_id=one) for view in ("evaluations", "examples")}, "evaluations")
        for one in unit_ids
    ]


def test_several_units_are_written_together_and_no_record_before_the_rows_of_all(
    store: Store, rows, evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(store, "u2", n=5)
    plain, written, synced = Files.create_all, [], []

    def create_all(self: Files, files: Any) -> list[bool]:
        written.append([str(path.parent) for path, _ in files])
        return plain(self, files)

    monkeypatch.setattr(Files, "create_all", create_all)
    monkeypatch.setattr("os.fsync", synced.append)
    store.commit_all(several(rows, "u1", "u2", "u3"))
    assert written == [["examples"] * 2, ["evaluations"] * 2]
    assert len(synced) == 2 * (2 + 1)  # each file, and each folder once
    assert store.done("evaluations") == {"u1", "u2", "u3"} and store.read("examples").num_rows == 1 + 5 + 1
    store.commit_all(several(rows, "u1"))
    assert len(written) == 2


@pytest.mark.parametrize("at", range(6))
def test_a_disk_that_is_full_leaves_of_several_units_whole_ones_and_nothing_beside(
    store: Store, rows, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    store.put_plan("s", rows("plans", sweep="s"))
    plain, left = Path.write_bytes, [at]

    def write_bytes(self: Path, data: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            plain(self, data[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(StoreError, match=r"cannot write .*/u\d\.parquet: .*No space left"):
        store.commit_all(several(rows, "u1", "u2", "u3"))
    monkeypatch.undo()
    assert store.done("evaluations") == set() and not store.read("examples").num_rows
    assert not [one for one in Path(store.uri).rglob("*") if one.name.startswith(".")]
    store.commit_all(several(rows, "u1", "u2", "u3"))
    assert len(store.done("evaluations")) == 3 and not verify(store).damaged


def test_tables_of_another_unit_or_view_are_our_own_mistake(store: Store, rows) -> None:
    record = rows("evaluations", unit_id="u1")
    with pytest.raises(ValueError, match="another unit"):
        store.commit("u2", {"evaluations": record}, record="evaluations")
    with pytest.raises(ValueError, match="not the views"):
        store.commit("u1", {"evaluations": record, "epochs": rows("epochs")}, record="evaluations")
    with pytest.raises(ValueError, match="not the views"):
        store.commit("u1", {"examples": rows("examples", unit_id="u1")}, record="evaluations")
    with pytest.raises(StoreError, match=r"unit id '\.\./u1' cannot be stored"):
        store.commit("../u1", {"evaluations": rows("evaluations", unit_id="../u1")}, record="evaluations")
    assert not Path(store.uri).exists()


def test_failures_are_kept_by_attempt(store: Store) -> None:
    for attempt in (2, 1):
        store.fail("u1", kind="train", attempt=attempt, error="OSError", message="m", traceback="t", host="h")
    (first, second) = store.failures()["u1"]
    assert (first["attempt"], second["attempt"], first["error"]) == (1, 2, "OSError")
    assert first["failed_at"].tzinfo is not None
    assert store.done("trials") == set()


def test_a_plan_replaces_the_one_before(store: Store, rows) -> None:
    store.put_plan("s", rows("plans", 3, sweep="s"))
    store.put_plan("s", rows("plans", 2, sweep="s"))
    assert store.sweeps() == ["s"]
    assert store.read("plans").num_rows == 2
    with pytest.raises(StoreError, match=r"sweep name '\.\./s'"):
        store.put_plan("../s", rows("plans"))


def test_weights_go_in_and_out_whole(store: Store, tmp_path: Path) -> None:
    name = layout.checkpoint_file("u1", "last.safetensors")
    (tmp_path / "w").write_bytes(b"weights")
    assert not store.files.exists(name)
    with pytest.raises(StoreError, match=r"cannot read .*last\.safetensors: No such file or directory$"):
        store.get_file(name, tmp_path / "out")
    store.put_file(name, tmp_path / "w")
    store.get_file(name, tmp_path / "deep" / "out")
    assert store.files.exists(name) and not store.files.exists(name.parent)  # a folder is no file
    assert (tmp_path / "deep" / "out").read_bytes() == b"weights" == store.local_path(name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "store", "w"]


def test_a_damaged_file_is_named_when_it_is_read(store: Store, evaluated) -> None:
    evaluated(store, "u1", n=200)
    path = Path(store.uri) / "examples" / "u1.parquet"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[200] ^= 1
    for damaged in (whole[: len(whole) // 2], b"", bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"examples/u1\.parquet is damaged"):
            store.read("examples")
    assert store.read("evaluations").num_rows == 1


def test_a_column_that_an_older_release_did_not_know_reads_as_null(store: Store, evaluated) -> None:
    evaluated(store, "u1")
    path = Path(store.uri) / "evaluations" / "u1.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["flags"]).replace_schema_metadata(), path)
    assert store.read("evaluations")["flags"].to_pylist() == [None]
    assert connect(store).execute("SELECT flags, batch FROM evaluations").fetchall() == [(None, 0)]


def test_epochs_of_an_older_release_read_as_null_beside_those_of_this_one(store: Store, rows) -> None:
    later = ["train_correct", "train_examples", "natural_loss", "adversarial_loss"]
    for unit in ("old", "new"):
        measured = rows("epochs", 2, unit_id=unit, **dict.fromkeys(later, 7))
        store.commit(unit, {"epochs": measured, "trials": rows("trials", unit_id=unit)}, record="trials")
    path = Path(store.uri) / "epochs" / "old.parquet"
    pq.write_table(pq.read_table(path).drop_columns(later).replace_schema_metadata(), path)
    found = connect(store).execute(f"SELECT {', '.join(later)} FROM epochs ORDER BY unit_id, epoch").fetchall()
    assert found == [(7, 7, 7.0, 7.0)] * 2 + [(None,) * 4] * 2
    assert {name: store.read("epochs", ["old"])[name].to_pylist() for name in later} == dict.fromkeys(later, [None] * 2)


def test_paths_may_be_relative_or_of_the_home_folder_or_a_uri(tmp_path: Path, monkeypatch, evaluated) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for number, uri in enumerate(["rel", "./rel", "~/rel", f"file://{tmp_path}/rel", Path("rel")]):
        evaluated(open_store(uri), f"u{number}")
    assert len(open_store(tmp_path / "rel").done("evaluations")) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["rel"]


def test_what_is_no_store_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for uri, said in [
        (tmp_path, "is no store, it holds 'notes.txt'"),
        (tmp_path / "notes.txt", "is a file, not a store"),
        ("", "address is empty"),
        ("nowhere://bucket/x", "cannot open the store 'nowhere://bucket/x'"),
    ]:
        with pytest.raises(StoreError, match=said):
            open_store(uri)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("marker", "said"),
    [('{"schema": 2}', "has schema 2, this release reads up to 1: upgrade"), ("{", "is damaged"), ("[]", "is damaged")],
)
def test_a_newer_or_damaged_marker_is_refused(tmp_path: Path, marker: str, said: str) -> None:
    (tmp_path / "store.json").write_text(marker)
    with pytest.raises(StoreError, match=said):
        open_store(tmp_path)


def test_a_writer_that_opened_the_store_early_still_sees_a_newer_schema(store: Store, evaluated) -> None:
    Path(store.uri).mkdir()
    (Path(store.uri) / "store.json").write_text('{"schema": 2}')
    with pytest.raises(StoreError, match="schema 2"):
        evaluated(store, "u1")


def test_an_empty_folder_becomes_a_store(tmp_path: Path, evaluated) -> None:
    store = open_store(tmp_path)
    evaluated(store, "u1")
    assert store.exists
    assert open_store(tmp_path).done("evaluations") == {"u1"}


def test_two_that_begin_a_store_at_once_both_find_it(
    tmp_path: Path, evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Files.names

    def begun_meanwhile(self: Files, folder: PurePosixPath) -> list[str]:
        monkeypatch.setattr(Files, "names", names)
        evaluated(open_store(tmp_path / "store"), "u1")
        return names(self, folder)

    monkeypatch.setattr(Files, "names", begun_meanwhile)
    assert open_store(tmp_path / "store").done("evaluations") == {"u1"}


def test_a_file_that_appears_as_soon_as_it_was_missed_is_none_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Files, "exists", lambda self, path: True)
    assert open_store(tmp_path).files.find(PurePosixPath("checkpoints/u1/resume.json")) is None
