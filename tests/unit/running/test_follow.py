"""A sweep as others see it: from its plan, its rows, its failures and the files of its drivers alone."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rna_ray.running import drivers
from rna_ray.running.drivers import Driver
from rna_ray.running.follow import Follower
from rna_ray.running.state import Active, Count, State
from rna_ray.store import Store, open_store
from rna_ray.store.records import SCHEMAS, from_rows

A, B, OF_A, OF_B = "a" * 32, "b" * 32, "c" * 32, "d" * 32
PLAIN = {"sweep": "norms", "axes": "{}", "spec": "{}"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = open_store(tmp_path / "store")
    asked = {"attack": "pgd", "knowledge": "fixed"}
    rows = [
        {**PLAIN, "unit_id": A, "kind": "train", "variant": "BN", "needs": []},
        {**PLAIN, "unit_id": B, "kind": "train", "variant": "IN", "needs": []},
        {**PLAIN, **asked, "unit_id": OF_A, "kind": "evaluate", "variant": "BN", "needs": [A]},
        {**PLAIN, **asked, "unit_id": OF_B, "kind": "evaluate", "variant": "IN", "needs": [B]},
    ]
    opened.put_plan("norms", from_rows("plans", rows))
    return opened


def finish(store: Store, unit_id: str, view: str = "trials", detail: str = "epochs") -> None:
    store.commit(unit_id, {view: row(view, unit_id), detail: row(detail, unit_id)}, record=view)


def row(view: str, unit_id: str) -> pa.Table:
    filled = {pa.string(): "x", pa.bool_(): False, pa.timestamp("us", tz="UTC"): datetime(2024, 5, 6, tzinfo=UTC)}
    lists = {field.name: [0] for field in SCHEMAS[view] if pa.types.is_list(field.type)}
    plain = {field.name: None if field.nullable else filled.get(field.type, 0) for field in SCHEMAS[view]}
    return from_rows(view, [plain | lists | {"unit_id": unit_id}])


def fail(store: Store, unit_id: str, attempt: int = 1) -> None:
    store.fail(unit_id, kind="train", attempt=attempt, error="KeyError", message="'x'\nmore", traceback="", host="h")


def drive(store: Store, *, ago: float = 0.0, **said: object) -> Driver:
    now = datetime.now(UTC)
    one = Driver(
        id="ab12", sweep="norms", host="elsewhere", pid=7, started_at=(now - timedelta(seconds=100)).isoformat(),
        seen_at=(now - timedelta(seconds=ago)).isoformat(),
    )  # fmt: skip
    drivers._write(store, dataclasses.replace(one, **said))  # type: ignore[arg-type]
    return one


def test_a_sweep_that_nobody_works_on_is_left(store: Store) -> None:
    state = Follower(store, "norms").look()
    assert state.phase == "left" and state.passed is None and state.left is None
    assert state.counts == {"train": Count(ready=2), "evaluate": Count(waiting=2, networks=2)}


def test_what_a_driver_says_is_seen_with_the_time_since(store: Store) -> None:
    finish(store, A)
    active = (Active(unit=OF_A, seconds=3.0), Active(unit=B, seconds=9.0, epoch=2, epochs=8))
    drive(store, ago=4.0, active=active, left=60.0, share=0.4)
    state = Follower(store, "norms").look()
    assert state.counts == {"train": Count(done=1, running=1), "evaluate": Count(running=1, waiting=1, networks=1)}
    assert [(one.unit, one.epoch, one.epochs) for one in state.active] == [(B, 2, 8), (OF_A, None, None)]
    assert state.active[0].seconds == pytest.approx(13.0, abs=1.0) and state.left == pytest.approx(56.0, abs=1.0)
    assert state.passed == pytest.approx(100.0, abs=1.0) and state.share == 0.4 and state.phase == "running"
    assert state.names == {B: "IN", OF_A: "pgd@fixed of BN"}


def test_what_ended_since_a_driver_was_seen_does_not_run(store: Store) -> None:
    finish(store, A)
    drive(store, active=(Active(unit=A, seconds=3.0),), state="stopping")
    state = Follower(store, "norms").look()
    assert state.active == () and state.counts["train"] == Count(done=1, ready=1) and state.phase == "stopping"


def test_it_ends_once_all_is_done_or_has_failed(store: Store) -> None:
    follower = Follower(store, "norms")
    finish(store, A)
    finish(store, OF_A, "evaluations", "examples")
    fail(store, B)
    state = follower.look()
    assert state.phase == "failed" and state.counts["evaluate"] == Count(done=1, blocked=1)
    assert [(one.unit, one.name, one.error) for one in state.failures] == [(B, "IN", "KeyError: 'x'")]
    finish(store, B)
    finish(store, OF_B, "evaluations", "examples")
    state = follower.look()
    assert state.phase == "done" and state.share == 1.0 and state.failures == ()


def test_who_is_at_work_may_have_more_to_do_than_is_left(store: Store) -> None:
    fail(store, A, attempt=3)
    fail(store, B, attempt=3)
    assert Follower(store, "norms").look().phase == "failed"
    drive(store)  # a run that tries all again, and has not begun
    assert Follower(store, "norms").look().phase == "running"


def test_a_failure_that_whoever_is_at_work_tries_again_is_to_do(store: Store) -> None:
    fail(store, A)
    fail(store, B, attempt=3)
    drive(store, started_at=(datetime.now(UTC) + timedelta(seconds=1)).isoformat())
    assert Follower(store, "norms").look().counts["train"] == Count(ready=1, failed=1)
    drive(store)
    assert Follower(store, "norms").look().counts["train"] == Count(failed=2)


def test_a_plan_that_another_run_wrote_is_read_again(store: Store) -> None:
    follower = Follower(store, "norms")
    assert follower.look().counts["train"].total == 2
    store.put_plan("norms", from_rows("plans", [{**PLAIN, "unit_id": A, "kind": "train", "variant": "BN"}]))
    drive(store)
    assert follower.look().counts == {"train": Count(ready=1)}


RUNS = """
import sys
from rna_ray.cli import main
from rna_ray.running import display, drivers
drivers.BEAT_SECONDS = display.LOOK_SECONDS = 0.1
sys.argv = ["rna-ray", "run", "long.yaml", "--address", "inline", "--store", sys.argv[1]]
main()
"""
LONG = """
name: long
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4, norm: BN}
training: {objective: natural, epochs: 2000, batch: 32}
evaluation: [{attack: natural, examples: 20}]
"""


@pytest.mark.slow
def test_what_another_process_runs_is_seen_while_it_runs(tmp_path: Path) -> None:
    opened = open_store(tmp_path / "store")
    (tmp_path / "long.yaml").write_text(LONG, encoding="utf-8")
    run = subprocess.Popen(
        [sys.executable, "-c", RUNS, opened.uri], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )  # fmt: skip
    try:
        until(lambda: opened.sweeps(), run)
        follower = Follower(opened, "long")
        seen = until(lambda: _where(follower.look(), lambda state: any(one.epoch for one in state.active)), run)
        assert seen.phase == "running" and seen.left and seen.counts["train"].running == 1
        assert seen.counts["evaluate"] == Count(waiting=1, networks=1) and seen.active[0].epochs == 2000
    finally:
        run.terminate()  # which is Ctrl-C: it writes a checkpoint, and leaves
        said = run.communicate(timeout=240)[1]
    assert run.returncode == 130, said
    assert follower.look().phase == "left"


def _where(state: State, wanted: Callable[[State], bool]) -> State | None:
    return state if wanted(state) else None


def until(look: Callable[[], Any], run: subprocess.Popen[str]) -> Any:
    """Look until there is something, as long as the run lasts."""
    while not (found := look()):
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.05)
    return found
