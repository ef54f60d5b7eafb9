"""Two stores become one: nothing that is there is touched, nothing comes in half, contradictions are listed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pytest

from rna_ray.errors import StoreError
from rna_ray.store import Store, differences, layout, merge, open_store
from rna_ray.store.files import Files

Rows = Callable[..., pa.Table]
Evaluated = Callable[..., None]


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return open_store(tmp_path / "other")


def trained(store: Store, rows: Rows, unit_id: str, weights: bytes = b"weights", **given: object) -> None:
    digest = hashlib.sha256(weights).hexdigest()
    store.put(layout.weights_file(unit_id, "last", digest), weights)
    trial = rows("trials", unit_id=unit_id, last_sha256=digest, **given)
    store.commit(unit_id, {"trials": trial, "epochs": rows("epochs", 2, unit_id=unit_id)}, record="trials")


def paths(store: Store) -> dict[str, int]:
    """Return every file of a store with its size."""
    return {
        str(PurePosixPath(info.path).relative_to(store.files.root)): info.size
        for info in store.files.below(PurePosixPath(".")) if info.is_file
    }  # fmt: skip


def test_units_come_with_their_details_and_weights(
    store: Store, other: Store, rows: Rows, evaluated: Evaluated
) -> None:
    trained(store, rows, "n1")
    evaluated(store, "e1")
    trained(other, rows, "n2", b"other weights")
    evaluated(other, "e2", n=5)
    evaluated(other, "e1")  # both did it
    other.put_plan("s", rows("plans", sweep="s", unit_id="n2"))
    before = paths(store)
    assert merge.contradictions(other, store) == []
    merged = merge.merge(other, store)
    assert (dict(merged.units), merged.there, merged.weights, merged.plans) == (
        {"trials": 1, "evaluations": 1}, 1, 1, ("s",),
    )  # fmt: skip
    assert sorted(store.read("trials")["unit_id"].to_pylist()) == ["n1", "n2"]
    assert store.read("examples").num_rows == 3 + 5 and store.read("epochs").num_rows == 4
    assert store.read("examples", ["e2"]).equals(other.read("examples", ["e2"])) and store.sweeps() == ["s"]
    assert before.items() <= paths(store).items()
    assert store.files.read(layout.weights_file("n2", "last", hashlib.sha256(b"other weights").hexdigest()))
    after = paths(store)
    again = merge.merge(other, store)
    assert (dict(again.units), again.there, again.weights, again.plans) == ({}, 3, 0, ())
    assert paths(store) == after


def test_a_unit_that_ends_meanwhile_waits_for_the_next_merge(
    store: Store, other: Store, evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(other, "e1")
    listed = merge.details

    def details(source: Store) -> dict[str, list[str]]:
        found = listed(source)
        evaluated(other, "e2", n=5)  # by who is at work on it
        return found

    monkeypatch.setattr(merge, "details", details)
    assert merge.merge(other, store).units == {"evaluations": 1}
    assert store.done("evaluations") == {"e1"} and store.read("examples").num_rows == 3
    monkeypatch.undo()
    merge.merge(other, store)
    assert store.done("evaluations") == {"e1", "e2"} and store.read("examples").num_rows == 8


def test_into_a_place_where_no_store_was_yet(store: Store, other: Store, rows: Rows) -> None:
    trained(other, rows, "n1")
    other.put_plan("s", rows("plans", sweep="s", unit_id="n1"))
    merge.merge(other, store)
    assert differences(other, store) == [] and open_store(store.uri).sweeps() == ["s"]


def test_other_results_of_one_unit_are_contradictions_other_circumstances_are_not(
    store: Store, other: Store, rows: Rows, evaluated: Evaluated
) -> None:
    trained(store, rows, "n1", torch="2.11", host="here", seconds=1.0)
    trained(other, rows, "n1", torch="2.12", host="there", seconds=2.0)
    evaluated(store, "e1", margin=1.0)
    evaluated(other, "e1", margin=1.0)
    assert merge.contradictions(other, store) == []
    trained(store, rows, "n2")
    trained(other, rows, "n2", b"other weights")
    evaluated(store, "e2", margin=[1.0, 2.0, 3.0])
    evaluated(other, "e2", margin=[1.0, 2.5, 3.5])
    last, margin = merge.contradictions(other, store)
    assert last.startswith("trials n2 last_sha256: ")
    assert margin == "examples e2 example 1 margin: 2.5 != 2.0 (and 1 more rows)"


def test_a_plan_that_is_another_here_stays(store: Store, other: Store, rows: Rows) -> None:
    for one, unit in ((store, "n1"), (other, "n2")):
        trained(one, rows, unit)
        one.put_plan("s", rows("plans", sweep="s", unit_id=unit))
        one.put_plan("same", rows("plans", sweep="same", unit_id="n1"))
    merged = merge.merge(other, store)
    assert (merged.plans, merged.other_plans) == ((), ("s",))
    assert store.read_file("plans", "s")["unit_id"].to_pylist() == ["n1"]


def test_stops_come_along_and_are_no_contradiction(store: Store, other: Store) -> None:
    store.stop("n1", "s", epoch=1, compared_by="natural_loss", value=0.5)
    for unit_id in ("n1", "n2"):
        other.stop(unit_id, "s", epoch=2, compared_by="natural_loss", value=0.4)
    assert merge.contradictions(other, store) == []
    merge.merge(other, store)
    assert {row["unit_id"]: row["epoch"] for row in store.read("stops").to_pylist()} == {"n1": 1, "n2": 2}


def test_failures_are_added_up_once(store: Store, other: Store) -> None:
    def failed(one: Store, attempt: int, day: int) -> None:
        said = {"kind": "train", "error": "E", "message": "m", "traceback": "t", "host": "h"}
        one.put_failure({"unit_id": "n", "attempt": attempt, "failed_at": datetime(2024, 5, day, tzinfo=UTC), **said})

    failed(store, 1, 1)
    failed(other, 1, 2)
    failed(other, 2, 3)
    for taken in (2, 0):
        assert merge.merge(other, store).failures == taken
        assert [(row["attempt"], row["failed_at"].day) for row in store.failures()["n"]] == [(1, 1), (2, 2), (3, 3)]


def test_a_training_in_the_middle_goes_on_in_the_store_that_took_it(store: Store, other: Store, rows: Rows) -> None:
    other.put_plan("s", rows("plans", sweep="s", unit_id="n"))
    path = layout.weights_file("n", "resume", "0" * 64)
    other.put(path, b"state")
    other.put(layout.resume_marker("n"), b"marker")
    assert merge.merge(other, store).weights == 1
    assert (store.files.read(path), store.files.read(layout.resume_marker("n"))) == (b"state", b"marker")
    other.put(layout.resume_marker("n"), b"a later one")
    assert merge.merge(other, store).weights == 0  # what is there stays
    assert store.files.read(layout.resume_marker("n")) == b"marker"


def test_pruned_weights_are_no_hindrance_and_damaged_ones_are_named(store: Store, other: Store, rows: Rows) -> None:
    trained(other, rows, "n1")
    trained(other, rows, "n2", b"whole")
    path = layout.weights_file("n1", "last", hashlib.sha256(b"weights").hexdigest())
    other.files.remove(path)
    damaged = layout.weights_file("n2", "last", hashlib.sha256(b"whole").hexdigest())
    other.put(damaged, b"altered")
    with pytest.raises(StoreError, match=f"the weights .*{damaged.name} are damaged: their SHA-256 is"):
        merge.merge(other, store)
    assert store.done("trials") == {"n1"}
    other.put(damaged, b"whole")
    assert merge.merge(other, store).there == 1
    assert store.done("trials") == {"n1", "n2"} and store.read("epochs").num_rows == 4


def test_a_store_is_not_merged_with_itself(store: Store, rows: Rows) -> None:
    trained(store, rows, "n1")
    with pytest.raises(StoreError, match="are one store: give two"):
        merge.merge(open_store(store.uri), store)


def test_dying_at_any_write_and_repeating_gives_the_same(
    store: Store, other: Store, rows: Rows, evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(other, rows, "n1")
    evaluated(other, "e1")
    other.put_plan("s", rows("plans", sweep="s", unit_id="n1"))
    left = [0]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def write(self: Files, *given: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise InterruptedError
            return real(self, *given)

        return write

    writes = {name: dying(getattr(Files, name)) for name in ("write", "create_all")}

    deaths = 0
    while True:
        for name, write in writes.items():
            monkeypatch.setattr(Files, name, write)
        left[0] = deaths  # no file succeeds, then one, then two, …: into a store in every state
        try:
            merge.merge(other, store)
            break
        except InterruptedError:
            deaths += 1
        monkeypatch.undo()
        assert store.read("epochs").num_rows == 2 * store.read("trials").num_rows
        assert store.read("examples").num_rows == 3 * store.read("evaluations").num_rows
    monkeypatch.undo()
    assert deaths >= 4 and differences(other, store) == []
