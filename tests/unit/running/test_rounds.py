"""A search in rounds asks for points in view of those before, the same ones however often it was interrupted."""

from __future__ import annotations

import importlib.util
import io
import itertools
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from rna_ray import show
from rna_ray.errors import SweepError, UnreachableError
from rna_ray.running import rounds
from rna_ray.running.run import Summary, _ended, run
from rna_ray.store import Store, open_store
from rna_ray.store.records import SCHEMAS, from_rows
from rna_ray.sweep import spec as specs
from rna_ray.sweep.experiment import SweepSpec
from rna_ray.sweep.plan import Plan, plan
from rna_ray.sweep.status import Retry, standing

SWEEP = """\
name: rates
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4, norm: BN}
training: {objective: natural, epochs: 1, batch: 32, schedule: {name: constant}}
search:
  trials: 6
  over: {training.lr: {low: 0.001, high: 1, log: true}}
  by: natural_loss
  sampler: optuna
  at_once: 2
evaluation: [{attack: natural, examples: 20, batch: 20}]
"""
Load = Callable[..., SweepSpec]
Point = dict[str, Any]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(*sets: str) -> SweepSpec:
        path = tmp_path / "rates.yaml"
        path.write_text(SWEEP, encoding="utf-8")
        return specs.load(path, sets)

    return loaded


def tables(unit_id: str, **of_epoch: Any) -> dict[str, pa.Table]:
    """Return the rows of a network of one epoch, filled in where nothing is said."""
    filled = {pa.string(): "x", pa.bool_(): False, pa.timestamp("us", tz="UTC"): datetime(2024, 5, 6, tzinfo=UTC)}

    def row(view: str, **given: Any) -> pa.Table:
        plain = {c.name: None if c.nullable else filled.get(c.type, 0) for c in SCHEMAS[view]}
        return from_rows(view, [plain | given])

    trial = row("trials", unit_id=unit_id, state="finished")
    return {"trials": trial, "epochs": row("epochs", unit_id=unit_id, epoch=1, **of_epoch)}


def finish(planned: Plan, store: Store, loss: Callable[[Point], float]) -> None:
    """Train all networks of a plan: their losses follow from their points."""
    for trial in planned.trials:
        views = tables(trial.network, natural_loss=loss(dict(trial.row)), held_out=32)
        store.commit(trial.network, views, record="trials")


def remember(planned: Plan, store: Store) -> None:
    row = {"sweep": planned.sweep, "unit_id": "u", "kind": "train", "variant": "v", "axes": "{}"}
    store.put_plan(planned.sweep, from_rows("plans", [row | {"spec": specs.to_json(planned.spec)}]))


def to_the_end(spec: SweepSpec, store: Store, loss: Callable[[Point], float]) -> list[Plan]:
    """Return the plans of all rounds, each with its networks trained."""
    plans = []
    following: SweepSpec | None = spec
    while following is not None:
        plans.append(plan(following))
        remember(plans[-1], store)
        finish(plans[-1], store, loss)
        following = rounds.further(plans[-1], store)
    return plans


def rates(planned: Plan) -> list[float]:
    return [trial.row["training.lr"] for trial in planned.trials]


def far(point: Point) -> float:
    """A loss that is least at a rate of 0.03."""
    return abs(math.log10(point["training.lr"] / 0.03))


def test_each_round_adds_points_until_there_are_as_many_as_asked(load: Load, store: Store) -> None:
    plans = to_the_end(load(), store, far)
    assert [len(one.trials) for one in plans] == [2, 4, 6]
    assert all(rates(later)[: len(rates(one))] == rates(one) for one, later in itertools.pairwise(plans))
    assert rates(plans[0]) == rates(plan(load("search.sampler=random", "search.trials=2")))  # nothing is known yet
    shown = [show.plan(one, standing(one, store)) for one in plans]
    assert [one["to_draw"] for one in shown] == [4, 2, 0]
    assert "points that a run draws once these are done: up to 4" in show.plan_text(shown[0])
    assert len(set(rates(plans[-1]))) == 6 and all(0.001 <= rate <= 1 for rate in rates(plans[-1]))


def test_what_came_out_decides_where_it_looks(load: Load, tmp_path: Path) -> None:
    more = load("search.trials=24", "search.at_once=4")
    found = {}
    for name, best in (("low", 0.003), ("high", 0.3)):
        def loss(point: Point, best: float = best) -> float:
            return abs(math.log10(point["training.lr"] / best))

        last = rates(to_the_end(more, open_store(tmp_path / name), loss)[-1])[12:]
        found[name] = sum(map(math.log10, last)) / len(last)
    assert found["low"] < -1.9 < -1.1 < found["high"]  # of points drawn at random -1.5, ± 0.25


def test_a_search_that_goes_on_asks_for_the_same_points(load: Load, store: Store, tmp_path: Path) -> None:
    whole = rates(to_the_end(load(), store, far)[-1])
    again = open_store(tmp_path / "again")
    assert rounds.continued(load(), again) == load()
    first = plan(load())
    finish(first, again, far)
    second = plan(rounds.further(first, again) or load())
    remember(second, again)  # and then it is interrupted
    resumed = plan(rounds.continued(load(), again))
    assert rates(resumed) == rates(second) == whole[:4]
    assert rates(plan(specs.from_json(specs.to_json(resumed.spec)))) == whole[:4]
    assert rounds.further(resumed, again) is None  # two are to do still
    assert rates(to_the_end(rounds.continued(load(), again), again, far)[-1]) == whole
    assert len(plan(rounds.continued(load("search.trials=8"), again)).trials) == 6  # and more are asked for then
    assert len(rates(to_the_end(rounds.continued(load("search.trials=8"), again), again, far)[-1])) == 8
    assert not rounds.continued(load("search.seed=1"), again).search.asked  # type: ignore[union-attr]


def test_what_failed_or_was_stopped_early_is_told_so(load: Load, store: Store) -> None:
    planned = plan(load("training.epochs=2", "search.early_stopping={}", "search.by=natural_correct"))
    failed, stopped = (trial.network for trial in planned.trials)
    for attempt in (1, 2, 3):
        store.fail(failed, kind="train", attempt=attempt, error="E", message="m", traceback="t", host="h")
    store.stop(stopped, "rates", epoch=1, compared_by="natural_correct", value=4.0)
    found = rounds.further(planned, store)
    assert found is not None and len(plan(found).trials) == 4


def test_what_failed_is_tried_again_by_the_first_round_alone(
    load: Load, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def did(planned: Plan, store: Store, *, retry: Retry, **given: object) -> Summary:
        tried.append(retry)
        finish(planned, store, far)
        remember(planned, store)
        return Summary(status=standing(planned, store), ran=1, failures=(), seconds=0.0, seconds_computed=0.0)

    monkeypatch.setattr("rna_ray.running.run._run", did)
    run(plan(load()), store, address="inline", retry="all", console=Console())
    assert tried == ["all", "none", "none"]


def test_a_run_that_was_stopped_has_ended_only_where_the_store_says_so(
    load: Load, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(load("evaluation=[]"))
    assert not _ended(planned, store)
    finish(planned, store, far)
    assert _ended(planned, store)

    def silent(self: Store, record: str) -> set[str]:
        raise UnreachableError("cannot list trials: timeout")

    monkeypatch.setattr(Store, "done", silent)
    assert not _ended(planned, store)  # so that it says why it was stopped, and how to go on


def test_a_small_space_ends_once_all_of_it_was_tried(load: Load, store: Store) -> None:
    plans = to_the_end(load("search.over.training.lr=[0.1, 0.2, 0.3]"), store, lambda point: 1.0)
    assert sorted(rates(plans[-1])) == [0.1, 0.2, 0.3]


def test_without_optuna_it_says_what_to_install(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds.check(load())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SweepError, match=r"search.sampler: optuna is not installed; pip install 'rna-ray\[optuna\]'"):
        rounds.check(load())
    rounds.check(load("search.sampler=random"))


@pytest.mark.slow
def test_a_killed_search_goes_on_as_if_nothing_had_happened(load: Load, tmp_path: Path) -> None:
    load()
    words = ["run", tmp_path / "rates.yaml", "--address", "inline", "--store", tmp_path / "killed"]
    main = [sys.executable, "-c", "from rna_ray.cli import main; main()"]
    killed, whole = open_store(tmp_path / "killed"), open_store(tmp_path / "whole")
    driver = subprocess.Popen([*main, *map(str, words)], stderr=subprocess.DEVNULL)
    while len(killed.done("trials")) < 3:  # in the second of three rounds
        assert driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert len(killed.done("trials")) < 6
    for store in (killed, whole):
        run(plan(rounds.continued(load(), store)), store, address="inline", console=Console(file=io.StringIO()))
    assert len(whole.done("trials")) == 6 and killed.done("trials") == whole.done("trials")
    assert killed.done("evaluations") == whole.done("evaluations") and len(whole.done("evaluations")) == 6
