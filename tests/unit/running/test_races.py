"""Points that are behind are trained no further, in this sweep: decided by ASHA, kept in the store, and never mixed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from rna_ray import show
from rna_ray.running.follow import Follower
from rna_ray.running.races import Races
from rna_ray.running.run import Summary
from rna_ray.running.run import run as run_plan
from rna_ray.store import Store
from rna_ray.sweep.plan import Plan, plan
from rna_ray.sweep.search import EarlyStopping, Search
from rna_ray.sweep.spec import load
from rna_ray.sweep.status import standing
from rna_ray.sweep.units import Unit, train
from rna_ray.training.checkpoint import Checkpoints

SWEEP = """\
name: rates
data: {name: digits, train_examples: 256, held_out: 128}
network: {name: resnet8, width: 4, norm: BN}
training: {objective: natural, epochs: 3, batch: 32, schedule: {name: constant}}
search:
  trials: 8
  over: {training.lr: [0.1, 1.0e-9, 2.0e-9]}      # drawn in the order 2e-9, 0.1, 1e-9
  by: natural_correct
  early_stopping: {grace: 1, factor: 2}
evaluation: [{attack: natural, examples: 50}]
"""


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    def made(*sets: str) -> Plan:
        path = tmp_path / "rates.yaml"
        path.write_text(SWEEP, encoding="utf-8")
        return plan(load(path, sets))

    return made


def run(planned: Plan, store: Store) -> Summary:
    return run_plan(planned, store, address="inline", console=Console(file=io.StringIO()))


# -- decisions ---------------------------------------------------------------------------------------------------------


def unit(name: str, epochs: int = 9) -> Unit:
    return train({"name": name, "training": {"epochs": epochs}})


def searched(**stopping: int) -> Search:
    over = {"training.lr": [1]}
    return Search(trials=1, over=over, by="natural_correct", early_stopping=EarlyStopping(**stopping))


def row(epoch: int, right: int) -> dict[str, int]:
    return {"epoch": epoch, "natural_correct": right, "held_out": 100}


def test_a_point_behind_the_best_third_of_those_before_it_is_stopped_at_a_rung(store: Store) -> None:
    units = [unit(f"{number}") for number in range(4)]
    races = Races("s", searched(grace=1, factor=3), [units], store)
    assert [races.epoch(one.id, row(1, right)) for one, right in zip(units, (50, 60, 55, 70), strict=True)] == [
        False, False, True, False,
    ]  # fmt: skip
    assert not races.epoch(units[0].id, row(2, 1))  # between rungs of 1, 3 and 9 nobody is compared
    assert store.stopped("s") == races.stopped == {units[2].id} and store.stopped("other") == set()
    (said,) = store.read("stops").to_pylist()
    assert (said["epoch"], said["compared_by"], said["value"]) == (1, "natural_correct", 55.0)


def test_variants_and_grid_points_race_apart(store: Store) -> None:
    good, bad = unit("good"), unit("bad")
    races = Races("s", searched(grace=1, factor=2), [[good], [bad]], store)
    assert not races.epoch(good.id, row(1, 90)) and not races.epoch(bad.id, row(1, 10))


def test_the_least_loss_wins(store: Store) -> None:
    search = searched(grace=1, factor=2).model_copy(update={"by": "natural_loss"})
    low, high = unit("low"), unit("high")
    races = Races("s", search, [[low, high]], store)
    assert not races.epoch(low.id, {"epoch": 1, "natural_loss": 0.5})
    assert races.epoch(high.id, {"epoch": 1, "natural_loss": 0.6})


def test_what_has_done_all_its_epochs_is_not_stopped(store: Store) -> None:
    first, short = unit("first"), unit("short", epochs=1)
    races = Races("s", searched(grace=1, factor=2), [[first, short]], store)
    assert not races.epoch(first.id, row(1, 90)) and not races.epoch(short.id, row(1, 10))


# -- a sweep -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_bad_rate_is_stopped_early_and_goes_on_where_it_is_wanted(
    planned: Callable[..., Plan], store: Store
) -> None:
    sweep = planned()
    ended = run(sweep, store)
    places = {"done": 2, "ready": 0, "waiting": 0, "failed": 0, "blocked": 0, "early": 1}
    assert ended.status.counts()["train"] == ended.status.counts()["evaluate"] == places
    (stopped,) = store.stopped("rates")
    assert [trial.variant for trial in sweep.trials if trial.network == stopped] == ["lr=1e-09"]
    assert stopped not in store.done("trials") and Checkpoints(store, stopped).resume() is not None

    assert Follower(store, "rates").look().phase == "done"
    assert show.status("rates", store)["units"]["train"] == {"done": 2, "early": 1, "failed": 0, "total": 3}
    text = show.status_text([show.status("rates", store)], store.uri)
    assert text == "rates: trials 2/3 done, 1 stopped early; evaluations 2/3 done, 1 left out"
    assert [one["stopped_early"] for one in show.plan(sweep, ended.status)["trials"]] == [False, False, True]
    assert run(sweep, store).ran == 0

    # Another sweep wants it whole: it goes on from its checkpoint, and here it is then done too.
    whole = planned("name=whole", "search.early_stopping=null")
    assert run(whole, store).ran == 2
    assert store.read("epochs", [stopped])["epoch"].to_pylist() == [1, 2, 3]
    assert not standing(sweep, store).early and [one.kind for one in standing(sweep, store).to_do] == []
    assert show.status("rates", store)["units"]["train"]["early"] == 0


@pytest.mark.slow
def test_the_sweep_itself_may_want_it_whole_later(planned: Callable[..., Plan], store: Store) -> None:
    run(planned(), store)
    whole = planned("search.early_stopping=null")
    assert len(standing(whole, store).to_do) == 2
    assert len(run(whole, store).status.done) == 6 and not store.stopped("rates")


@pytest.mark.slow
def test_a_race_is_rebuilt_from_what_is_done_stopped_or_waits(planned: Callable[..., Plan], store: Store) -> None:
    sweep = planned()
    slow, good, other = (trial.network for trial in sweep.trials)

    def rows(*right: int) -> list[dict[str, float]]:
        shared = {"loss": 1.0, "held_out": 128, "seconds": 1.0}
        return [shared | {"epoch": at, "natural_correct": one} for at, one in enumerate(right, 1)]

    def epoch(races: Races, unit_id: str, right: int) -> bool:
        return races.epoch(unit_id, rows(right)[0])

    assert not epoch(Races.of(sweep, store), other, 20)  # nobody was there before
    Checkpoints(store, slow).keep_resume({"w": torch.zeros(2)}, {"rows": rows(30), "best": {}, "epoch": 1})
    assert not epoch(Races.of(sweep, store), other, 30) and epoch(Races.of(sweep, store), other, 29)
    ended = run(planned("name=whole", "search.early_stopping=null", "search.over.training.lr=[0.1]"), store)
    assert ended.status.done[0].id == good
    reached = store.read("epochs", [good]).to_pylist()[0]["natural_correct"]
    middle = (30 + reached) // 2
    assert not epoch(Races.of(sweep, store), other, middle + 1)
    assert epoch(Races.of(sweep, store), other, middle - 1)


def test_stops_are_rows_of_their_sweep_and_unit_alone(store: Store) -> None:
    for sweep in ("a.b", "a"):
        store.stop("u1", sweep, epoch=1, compared_by="natural_loss", value=0.5)
    assert store.stopped("a.b") == store.stopped("a") == {"u1"} and store.stopped("b") == set()
    store.go_on("u1", "a")
    assert store.stopped("a") == set() and store.stops() == {("u1", "a.b")}
