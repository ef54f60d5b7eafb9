"""What a store need not keep goes, what counts stays whole, and rows that are set aside can be read and come back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pytest

from rna_ray.errors import StoreError
from rna_ray.store import Store, connect, differences, layout, merge, open_store, prune
from rna_ray.store.files import Files

Rows = Callable[..., pa.Table]
NETWORKS = {"a" * 32: ("0.2.0", "1111111aaaa"), "b" * 32: ("0.3.0", "2222222bbbb")}
A, B = NETWORKS
EVALUATED = {A: "c" * 32, B: "d" * 32}


def put_weights(store: Store, unit_id: str, name: str, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    store.put(layout.weights_file(unit_id, name, digest), content)
    return digest


@pytest.fixture
def filled(store: Store, rows: Rows) -> Store:
    """Two networks of two versions, each with last and best weights, evaluated by the newer one; both planned."""
    for unit_id, (version, commit) in NETWORKS.items():
        kept = {f"{name}_sha256": put_weights(store, unit_id, name, (name + unit_id).encode() * 30)
                for name in ("last", "best")}  # fmt: skip
        trial = rows("trials", unit_id=unit_id, rna_ray=version, commit=commit, **kept)
        store.commit(unit_id, {"trials": trial, "epochs": rows("epochs", 2, unit_id=unit_id)}, record="trials")
        evaluation = rows(
            "evaluations", unit_id=EVALUATED[unit_id], network_id=unit_id, rna_ray="0.3.0", checkpoint="best"
        )
        examples = rows("examples", 3, unit_id=EVALUATED[unit_id], network_id=unit_id)
        store.commit(EVALUATED[unit_id], {"evaluations": evaluation, "examples": examples}, record="evaluations")
    planned(store, rows, "both", list(NETWORKS), list(EVALUATED.values()))
    return store


def planned(store: Store, rows: Rows, sweep: str, networks: list[str], evaluations: list[str]) -> None:
    units = [*networks, *evaluations]
    kinds = ["train"] * len(networks) + ["evaluate"] * len(evaluations)
    variants = [*networks, *networks[: len(evaluations)]]
    store.put_plan(sweep, rows("plans", len(units), sweep=sweep, unit_id=units, kind=kinds, variant=variants))


def names(store: Store, unit_id: str) -> list[str]:
    return [name.partition("-")[0] for name in store.files.names(layout.CHECKPOINTS / unit_id)]


def counts(store: Store) -> dict[str, int]:
    return {view: store.read(view).num_rows for view in ("trials", "epochs", "evaluations", "examples")}


ALL = {"trials": 2, "epochs": 4, "evaluations": 2, "examples": 6}


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "left"), [("last", ["last"]), ("best", ["best"]), ("none", [])])
def test_of_finished_networks_the_weights_asked_for_stay(filled: Store, keep: prune.Keep, left: list[str]) -> None:
    put_weights(filled, A, "resume", b"state")
    filled.files.write(layout.resume_marker(A), b"{}")
    put_weights(filled, A, "best", b"another attempt's")
    put_weights(filled, "e" * 32, "resume", b"of a network in training")
    before = filled.files.below(PurePosixPath("."))
    found = prune.look(filled, keep=keep)
    assert [(info.path, info.size) for info in filled.files.below(PurePosixPath("."))] == [
        (info.path, info.size) for info in before
    ]  # looking touches nothing
    per_network = 2 - len(left)
    assert (len(found.files), found.units) == (2 * per_network + 3, 2)
    each = 30 * (4 + 32)
    assert found.freed == 2 * per_network * each + len(b"state") + len(b"{}") + len(b"another attempt's")
    assert prune.do(filled, found) is None
    assert names(filled, A) == names(filled, B) == left and names(filled, "e" * 32) == ["resume"]
    assert counts(filled) == ALL
    assert not prune.look(filled, keep=keep)


def test_where_no_best_was_chosen_the_last_weights_stay(store: Store, rows: Rows) -> None:
    digest = put_weights(store, A, "last", b"imported")
    store.commit(A, {"trials": rows("trials", unit_id=A, last_sha256=digest, best_sha256=None)}, record="trials")
    assert not prune.look(store, keep="best")
    assert len(prune.look(store, keep="none").files) == 1


def test_weights_that_a_planned_unit_still_needs_stay(filled: Store, rows: Rows) -> None:
    planned(filled, rows, "more", [A], ["f" * 32])  # an evaluation of A that is not done
    found = prune.look(filled, keep="none")
    assert found.needed == 1
    prune.do(filled, found)
    assert names(filled, A) == ["best", "last"] and names(filled, B) == []


# -- units that no plan asks for ---------------------------------------------------------------------------------------


def test_units_that_no_sweep_asks_for_go_with_all_that_is_theirs(filled: Store, rows: Rows) -> None:
    planned(filled, rows, "both", [A], [EVALUATED[A]])  # the sweep was changed
    filled.put_failure(rows("failures", unit_id=B, attempt=1).to_pylist()[0])
    filled.stop(B, "both", epoch=1, compared_by="natural_loss", value=0.5)
    put_weights(filled, "e" * 32, "resume", b"a network in training that nobody asks for any more")
    filled.files.write(layout.rows_file("examples", "f" * 32), b"details without a record")
    reference = filled.read("examples", [EVALUATED[A]])
    found = prune.look(filled, unplanned=True)
    assert found.units == 4
    prune.do(filled, found)
    left = {PurePosixPath(info.path).relative_to(filled.files.root) for info in filled.files.below(PurePosixPath("."))
            if info.is_file}  # fmt: skip
    assert not [path for path in left if any(unit in str(path) for unit in (B, EVALUATED[B], "e" * 32, "f" * 32))]
    assert counts(filled) == {"trials": 1, "epochs": 2, "evaluations": 1, "examples": 3}
    assert names(filled, A) == ["best", "last"] and filled.read("examples").equals(reference)
    assert not prune.look(filled, unplanned=True)


def test_a_store_that_knows_no_sweep_loses_nothing(filled: Store) -> None:
    filled.files.remove(layout.plan_file("both"))
    with pytest.raises(StoreError, match="knows no sweep, so that every unit of it would go"):
        prune.look(filled, unplanned=True)


# -- invalid rows ------------------------------------------------------------------------------------------------------


def test_rows_of_a_version_are_set_aside_with_what_rests_on_them_and_come_back(filled: Store, tmp_path: Path) -> None:
    before = open_store(tmp_path / "before")
    merge.merge(filled, before)
    filled.put_failure(rows_of_failure(A))
    found = prune.look(filled, made=prune.made_by("<0.3", ()))
    assert list(found.invalid) == [("evaluations", EVALUATED[A]), ("trials", A)]  # measured by 0.3, on 0.2's network
    aside = prune.do(filled, found)
    assert aside is not None
    half = {"trials": 1, "epochs": 2, "evaluations": 1, "examples": 3}
    assert counts(filled) == counts(aside) == half
    assert connect(aside).execute("SELECT unit_id, rna_ray FROM trials").fetchall() == [(A, "0.2.0")]
    assert connect(filled).execute("SELECT unit_id, rna_ray FROM trials").fetchall() == [(B, "0.3.0")]
    assert open_store(aside.uri).read("examples").num_rows == 3  # its address can be given to any command
    assert names(filled, A) == [] and names(aside, A) == ["best", "last"]
    assert not filled.failures() and list(aside.failures()) == [A]  # no attempts count against doing it again
    assert not prune.look(filled, made=prune.made_by("<0.3", ()))
    merge.merge(aside, filled)
    assert differences(before, filled) == [] and names(filled, A) == ["best", "last"]


def rows_of_failure(unit_id: str) -> dict[str, object]:
    said = {"kind": "train", "attempt": 3, "error": "E", "message": "m", "traceback": "t", "host": "h"}
    return {"unit_id": unit_id, "failed_at": datetime(2024, 5, 6, tzinfo=UTC), **said}


def test_a_network_counts_all_code_that_trained_it(filled: Store, rows: Rows) -> None:
    resumed = "e" * 32
    earlier = json.dumps([{"rna_ray": "0.2.9", "commit": "3333333cccc"}])
    trial = rows("trials", unit_id=resumed, rna_ray="0.3.0", commit="4444444", earlier_code=earlier)
    filled.commit(resumed, {"trials": trial}, record="trials")
    for made in (prune.made_by("==0.2.9", ()), prune.made_by(None, ["3333333"]), prune.made_by(None, ["4444444"])):
        assert list(prune.look(filled, made=made).invalid) == [("trials", resumed)]


def test_states_that_faulty_code_trained_are_not_resumed_from(filled: Store) -> None:
    def state(unit_id: str, *made_by: tuple[str, str | None]) -> None:
        digest = put_weights(filled, unit_id, "resume", unit_id.encode())
        code = [{"rna_ray": version, "commit": commit} for version, commit in made_by]
        filled.files.write(layout.resume_marker(unit_id), json.dumps({"sha256": digest, "made_by": code}).encode())

    old, both, new, unknown = ("1" * 32, "2" * 32, "3" * 32, "4" * 32)
    state(old, ("0.2.0", None))
    state(both, ("0.2.0", "5555555"), ("0.3.0", "6666666"))
    state(new, ("0.3.0", "6666666"))
    filled.files.write(layout.resume_marker(unknown), b'{"sha256": "of an older release"}')
    found = prune.look(filled, made=prune.made_by("<0.3", ()))
    gone = {path.parts[1] for path in found.files}
    assert gone == {old, both, unknown} and len(found.files) == 5
    assert {path.parts[1] for path in prune.look(filled, made=prune.made_by(None, ["6666666"])).files} == {both, new}


@pytest.mark.parametrize(
    ("versions", "commits", "sentence"),
    [
        ("0.3", (), "--versions '0.3' is no range of versions"),
        ("", (), "--versions is empty"),
        (None, ["123"], "--commit '123' is no commit"),
        (None, ["nothex!"], "--commit 'nothex!' is no commit"),
    ],
)
def test_what_is_no_version_and_no_commit_is_refused(
    versions: str | None, commits: list[str], sentence: str
) -> None:
    with pytest.raises(StoreError, match=sentence):
        prune.made_by(versions, commits)


# -- accidents ---------------------------------------------------------------------------------------------------------


class Died(Exception):
    pass


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let the process die at the n-th change of a file from now on."""
    left = [10**9]

    def counted(name: str) -> None:
        real = getattr(Files, name)

        def change(self: Files, *given: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Died
            return real(self, *given)

        monkeypatch.setattr(Files, name, change)

    for name in ("write", "create_all", "remove", "move"):
        counted(name)
    yield lambda n: left.__setitem__(0, n)


def whole(store: Store) -> None:
    """Assert that what counts is whole: every record's details, and every evaluation's network or none of either."""
    rows = counts(store)
    assert rows["epochs"] == 2 * rows["trials"] and rows["examples"] == 3 * rows["evaluations"]
    networks = set(store.read("trials")["unit_id"].to_pylist())
    assert set(store.read("evaluations")["network_id"].to_pylist()) <= networks


@pytest.mark.parametrize("what", ["invalid", "unplanned", "weights"])
def test_dying_at_any_change_leaves_what_counts_whole_and_pruning_again_does_the_rest(
    filled: Store, rows: Rows, dying: Callable[[int], None], what: str
) -> None:
    if what == "unplanned":
        planned(filled, rows, "both", [A], [EVALUATED[A]])
    kinds = {"invalid": {"made": prune.made_by("<0.3", ())}, "unplanned": {"unplanned": True},
             "weights": {"keep": "last"}}  # fmt: skip
    deaths = 0
    while found := prune.look(filled, **kinds[what]):
        dying(deaths)  # 0 changes succeed, then one, then two, …: from a store in every state
        try:
            prune.do(filled, found)
        except Died:
            deaths += 1
        dying(10**9)
        whole(filled)
    assert deaths >= 2
    assert counts(filled) == (ALL if what == "weights" else {view: n // 2 for view, n in ALL.items()})
