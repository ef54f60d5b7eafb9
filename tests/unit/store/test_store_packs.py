"""A pack answers as the files that it copies do, while they are as they were; nothing hangs on its being written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet as pq
import pytest
from object_store import ObjectStore

from rna_ray.errors import DamageError, StoreError
from rna_ray.store import Store, connect, layout, open_store, packs, prune, verify

QUESTION = """
SELECT unit_id, example, adversarial_correct, evaluations.batch FROM examples JOIN evaluations USING (unit_id)"""
UNITS = [f"u{at}" for at in range(5)]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three files are many, and two packs."""
    monkeypatch.setattr(packs, "LOOSE", 3)
    monkeypatch.setattr(packs, "ROWS", 4)


@pytest.fixture
def filled(store: Store, evaluated: Callable[..., None]) -> Store:
    for at, unit in enumerate(UNITS):
        evaluated(store, unit, n=3, adversarial_correct=[at, 0, 1])
    return store


def answers(store: Store) -> list[tuple[Any, ...]]:
    return connect(store).execute(f"{QUESTION} ORDER BY ALL").fetchall()


def read(store: Store, view: str = "examples") -> tuple[int, int]:
    """Return how many packs and how many other files a question about a view would read."""
    found = packs.sources(store, view, store.counted(view).values(), packs.known(store))
    packed = sum(path.parts[0] == layout.PACKS.name for path in found)
    return packed, len(found) - packed


def files(store: Store) -> list[str]:
    return sorted(os.listdir(Path(store.uri, layout.PACKS))) if Path(store.uri, layout.PACKS).exists() else []


def test_a_pack_answers_as_its_files_do_and_what_comes_later_is_read_beside_it(filled: Store, evaluated) -> None:
    before = answers(filled)
    done = packs.compact(filled)
    assert [(one.view, one.files) for one in done] == [("evaluations", 5), ("examples", 5)]
    assert [one.bytes for one in done] == [Path(filled.uri, pack.rows).stat().st_size for pack in packs.known(filled)]
    assert answers(filled) == before and read(filled) == (1, 0) and filled.read("examples").num_rows == 15
    evaluated(filled, "later", n=3)
    assert read(filled) == (1, 1) and len(answers(filled)) == 18
    assert packs.compact(filled) == []  # one more file is not many


@pytest.mark.parametrize(
    ("condition", "count"),
    [("unit_id = 'u1'", 3), ("unit_id IN ('u1', 'u3', 'u9')", 6), ("unit_id > 'u2'", 6), ("unit_id LIKE 'u%'", 15),
     ("unit_id IS NULL", 0), ("unit_id = 'u1' AND example > 0", 2), ("unit_id <> 'u1'", 12),
     ("NOT unit_id IN ('u1')", 12)],
)  # fmt: skip
def test_conditions_on_ids_hold_in_files_and_in_packs(filled: Store, condition: str, count: int) -> None:
    question = f"SELECT count(*) FROM examples WHERE {condition}"
    for _ in range(2):
        assert connect(filled).execute(question).fetchall() == [(count,)]
        packs.compact(filled)


def test_rows_of_a_cell_lie_together_image_by_image(
    filled: Store, rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "ROWS", 9)
    planned = {"u3": "a", "u0": "b", "u4": "b", "u1": "c"}  # and u2 in no plan
    filled.put_plan("s", rows(
        "plans", 4, sweep="s", kind="evaluate", unit_id=list(planned), variant=list(planned.values()),
        position=[0, 5, 1, 9],
    ))  # fmt: skip
    before = answers(filled)
    packs.compact(filled)
    (pack,) = (pack for pack in packs.known(filled) if pack.view == "examples")
    packed = pq.read_table(Path(filled.uri, pack.rows)).select(["unit_id", "example"]).to_pylist()
    of_b = [(unit, at) for at in range(3) for unit in ("u4", "u0")]
    of_others = {unit: [(unit, at) for at in range(3)] for unit in ("u3", "u1", "u2")}
    expected = [*of_others["u3"], *of_b, *of_others["u1"], *of_others["u2"]]
    assert [tuple(row.values()) for row in packed] == expected
    assert answers(filled) == before


@pytest.mark.parametrize("how", ["discarded", "done again", "touched", "taken away"])
def test_a_pack_counts_no_more_once_a_file_of_it_is_not_what_it_was(filled: Store, evaluated, how: str) -> None:
    packs.compact(filled)
    path = Path(filled.files.full(layout.rows_file("examples", "u2")))
    if how in ("discarded", "done again"):
        filled.discard("u2", "evaluations")
    if how == "done again":
        evaluated(filled, "u2", n=3, adversarial_correct=[9, 9, 9])
    if how == "touched":
        os.utime(path, ns=(0, 0))
    if how == "taken away":
        path.unlink()
    left = {"discarded": 12, "done again": 15, "touched": 15, "taken away": 12}[how]
    assert read(filled) == (0, left // 3) and len(answers(filled)) == left
    if how == "done again":
        assert ("u2", 0, 9, 0) in answers(filled)
    stale = packs.stale(filled, packs.known(filled))
    assert "examples" in {pack.view for pack in stale}
    packs.compact(filled)
    assert read(filled) == (1, 0) and len(answers(filled)) == left
    assert not {pack.facts.name for pack in stale} & set(files(filled))


def test_many_packs_become_one(filled: Store, evaluated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACKS", 3)
    for more in range(3):
        packs.compact(filled)
        assert read(filled) == (more + 1 if more < 2 else 1, 0)
        for at in range(3):
            evaluated(filled, f"more-{more}-{at}")
    assert len([pack for pack in packs.known(filled) if pack.view == "examples"]) == 1
    assert len(answers(filled)) == 15 + 27


def test_of_two_packs_of_the_same_files_the_larger_is_read(filled: Store, evaluated) -> None:
    packs.compact(filled)
    small = {name: Path(filled.uri, layout.PACKS, name).read_bytes() for name in files(filled)}
    for name in small:
        Path(filled.uri, layout.PACKS, name).unlink()
    evaluated(filled, "later")
    packs.compact(filled)
    for name, data in small.items():  # as where a process dies before it removes what it replaced
        Path(filled.uri, layout.PACKS, name).write_bytes(data)
    assert read(filled) == (1, 0) and len(answers(filled)) == 18
    packs.compact(filled)
    assert not {name for name in small if name in files(filled) and name.endswith(".json")} and read(filled) == (1, 0)


def test_who_chose_a_pack_has_an_hour_to_read_it(filled: Store, evaluated, monkeypatch: pytest.MonkeyPatch) -> None:
    packs.compact(filled)
    connection = connect(filled)
    filled.discard("u0", "evaluations")
    for at in range(3):
        evaluated(filled, f"later-{at}")
    packs.compact(filled)
    assert connection.execute("SELECT count(*) FROM examples").fetchone() == (15,)
    assert len([name for name in files(filled) if name.endswith(".parquet")]) == 4
    monkeypatch.setattr(packs, "LEFT_SECONDS", -1.0)
    packs.compact(filled)
    assert len([name for name in files(filled) if name.endswith(".parquet")]) == 2


def test_a_pack_whose_facts_find_no_room_leaves_no_rows(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Store, name: PurePosixPath, data: bytes) -> None:
        raise StoreError("cannot write: no space left")

    monkeypatch.setattr(Store, "put", full)
    with pytest.raises(StoreError, match="no space left"):
        packs.compact(filled)
    assert files(filled) == []


def test_rows_lie_in_groups_that_are_full(store: Store, evaluated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "ROWS", 7)
    monkeypatch.setattr(packs, "_AT_ONCE", 2)
    for at in range(6):
        evaluated(store, f"u{at}", n=3)
    packs.compact(store)
    (pack,) = [one for one in packs.known(store) if one.view == "examples"]
    found = pq.ParquetFile(Path(store.uri, pack.rows)).metadata
    assert [found.row_group(at).num_rows for at in range(found.num_row_groups)] == [6, 6, 6]


def test_what_fails_leaves_nothing_of_a_pack(filled: Store) -> None:
    path = Path(filled.files.full(layout.rows_file("examples", "u3")))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamageError, match=r"examples/u3\.parquet is damaged"):
        packs.compact(filled)
    assert {name.partition(".")[0] for name in files(filled)} == {"evaluations"}


def test_a_process_that_is_killed_while_it_packs_takes_nothing_along(filled: Store) -> None:
    before = answers(filled)
    # It dies in the middle of the pack of `examples`, as its third group of rows is asked for.
    program = f"""
import os, signal
from rna_ray.store import open_store, packs
packs.LOOSE, packs.ROWS, packs._AT_ONCE, read = 3, 1, 1, packs.Store.read_file
def dying(self, view, stem):
    if (view, stem) == ("examples", "u3"):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, view, stem)
packs.Store.read_file = dying
packs.compact(open_store({filled.uri!r}))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert [name[:10] for name in files(filled) if name.startswith(".")] == [".examples."]
    assert read(filled) == (0, 5) and read(filled, "evaluations") == (1, 0) and answers(filled) == before
    packs.compact(filled)
    assert read(filled) == (1, 0) and answers(filled) == before
    found = verify.verify(filled, now=2e9 * 1e9)
    assert not found.damaged and [one.why for one in found.leftovers] == ["was being written by a process that died"]


def test_a_damaged_pack_is_found_and_taken_out(filled: Store) -> None:
    before = answers(filled)
    packs.compact(filled)
    assert not verify.verify(filled, now=2e18).damaged and not verify.verify(filled, now=2e18).leftovers
    (pack,) = [one for one in packs.known(filled) if one.view == "examples"]
    path = Path(filled.uri, pack.rows)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    found = verify.verify(filled)
    assert [(one.file, one.unit) for one in found.damaged] == [(str(pack.rows), None)]
    assert verify.verify(filled, {"u1"}).damaged == found.damaged and not verify.verify(filled, {"u9"}).damaged
    verify.remove(filled, found)
    assert answers(filled) == before and read(filled) == (0, 5)
    assert not verify.verify(filled, now=2e18).leftovers and not Path(filled.uri, pack.facts).exists()


def test_compacting_takes_a_damaged_pack_out_and_makes_another(filled: Store) -> None:
    before = answers(filled)
    packs.compact(filled)
    (pack,) = [one for one in packs.known(filled) if one.view == "examples"]
    os.truncate(Path(filled.uri, pack.rows), 200)
    assert [one.view for one in packs.compact(filled)] == ["examples"] and answers(filled) == before


@pytest.mark.parametrize(
    "change",
    [lambda said: {**said, "files": dict([*said["files"].items()][1:])}, lambda said: {**said, "files": {"u1": 2}},
     lambda said: {"files": said["files"]}, lambda said: [], lambda said: None],
)  # fmt: skip
def test_facts_that_are_not_those_of_the_pack_count_for_nothing(filled: Store, change: Callable[[Any], Any]) -> None:
    before = answers(filled)
    packs.compact(filled)
    (pack,) = [one for one in packs.known(filled) if one.view == "examples"]
    facts = Path(filled.uri, pack.facts)
    facts.write_text(json.dumps(change(json.loads(facts.read_text()))))
    assert answers(filled) == before and read(filled) == (0, 5)
    damaged = [(str(pack.facts), "is damaged: it does not say what its pack copies")]
    assert [(one.file, one.why) for one in verify.verify(filled).damaged] == damaged
    packs.compact(filled)
    assert answers(filled) == before and read(filled) == (1, 0)


def test_pruning_takes_the_copies_along(filled: Store, rows) -> None:
    filled.put_plan("s", rows("plans", 4, sweep="s", unit_id=UNITS[:4], kind="evaluate"))
    packs.compact(filled)
    prune.do(filled, prune.look(filled, unplanned=True))
    assert packs.known(filled) == [] and len(answers(filled)) == 12


@pytest.mark.slow
def test_a_pack_of_a_remote_store_is_one_object(object_store: ObjectStore, evaluated) -> None:
    store = open_store(object_store.uri("packs"))
    for at, unit in enumerate(UNITS):
        evaluated(store, unit, n=3, adversarial_correct=[at, 0, 1])
    before = answers(store)
    packs.compact(store)
    connection = connect(store)
    with object_store.counted() as requests:
        found = connection.execute(f"{QUESTION} ORDER BY ALL").fetchall()
    assert found == before and len({request.split()[1] for request in requests}) == 2
    assert all("/packs/packs/" in request for request in requests)
