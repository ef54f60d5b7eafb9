"""The ledger of a run: how its sweep stands after each event, and what that says of the time left."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from rna_ray.running import progress as progress_module
from rna_ray.running.progress import Known, Progress
from rna_ray.running.state import Asked, Count, State, line, lines
from rna_ray.running.stop import Stop
from rna_ray.running.tasks import Done
from rna_ray.sweep import units
from rna_ray.sweep.forecast import ONE, Slots, Usual
from rna_ray.sweep.status import Status
from rna_ray.sweep.units import Unit


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    fake = Clock()
    monkeypatch.setattr(progress_module.time, "monotonic", fake.monotonic)
    yield fake


def train(seed: int, epochs: int = 4) -> Unit:
    return units.train({"training": {"epochs": epochs, "objective": "natural"}, "seed": seed})


def evaluation(network: Unit, start: int = 0) -> Unit:
    settings = {"network": network.id, "attack": {"name": "pgd"}, "knowledge": "fixed"}
    return units.evaluate(settings, examples=(start, start + 10))


A, B = train(0), train(1)
EVALUATIONS = [evaluation(network, start) for network in (A, B) for start in (0, 10)]
COSTS = {**{unit.id: 100 for unit in (A, B)}, **{unit.id: 50 for unit in EVALUATIONS}}
NAMES = {A.id: "BN", B.id: "IN", **{unit.id: f"pgd@fixed of {'BN' if A.id in unit.needs else 'IN'}" for unit in
                                    EVALUATIONS}}  # fmt: skip
KNOWN = Known(
    asked={unit.id: Asked(kind=unit.kind, name=NAMES[unit.id], needs=unit.needs) for unit in (A, B, *EVALUATIONS)},
    usual={kind: Usual(macs_per_second=10.0, measured=True) for kind in units.NAMES},
)


def made(slots: Slots = ONE, *, done: tuple[Unit, ...] = (), stop: Stop | None = None) -> Progress:
    status = Status(
        done=done, ready=tuple(unit for unit in (A, B) if unit not in done), waiting=tuple(EVALUATIONS), failed=(),
        blocked=(), costs=COSTS,
    )  # fmt: skip
    return of(status, slots, stop)


def of(status: Status, slots: Slots = ONE, stop: Stop | None = None) -> Progress:
    return Progress(
        status, sweep="norms", known=lambda: KNOWN, slots=lambda: slots, stop=stop or Stop(),
        console=Console(file=io.StringIO(), width=80),
    )  # fmt: skip


def ended(unit: Unit, seconds: float, error: str = "") -> Done:
    state = "failed" if error else "done"
    return Done(unit_id=unit.id, kind=unit.kind, state=state, seconds=seconds, error=error)


def left(progress: Progress) -> float:
    found = progress.state().left
    assert found is not None
    return found


def test_before_anything_ended_the_usual_speed_is_assumed(clock: Clock) -> None:
    assert left(made()) == pytest.approx(40.0)
    assert left(made(Slots(trials=2, evaluators=(2, 2)))) == pytest.approx(20.0)


def test_the_time_left_follows_the_units_of_this_run(clock: Clock) -> None:
    progress = made()
    progress.finished(ended(A, 20.0))
    progress.finished(ended(EVALUATIONS[0], 10.0))
    assert 45.0 < left(progress) <= 50.0  # twice as long as usual: 20 and three times 10
    for unit in (B, *EVALUATIONS[1:]):
        progress.finished(ended(unit, 10.0))
    assert left(progress) == 0.0 and progress.seconds_computed == 70.0
    assert progress.state().phase == "done"


def test_epochs_of_running_trials_count_and_time_goes_on_within_one(clock: Clock) -> None:
    progress = made(done=(B,))
    for unit in EVALUATIONS:
        progress.finished(ended(unit, 5.0))
    progress.begun(A.id)
    assert left(progress) == pytest.approx(10.0)
    clock.now += 8.0
    progress.epoch(A.id, {"epoch": 1, "seconds": 8.0})  # the first one warms up
    assert left(progress) == pytest.approx(24.0)
    clock.now += 3.0
    progress.epoch(A.id, {"epoch": 2, "seconds": 3.0})
    assert left(progress) == pytest.approx(6.0)
    clock.now += 1.0
    assert left(progress) == pytest.approx(5.0)
    clock.now += 50.0
    assert left(progress) == pytest.approx(3.0)  # the epoch that hangs is not over before it says so
    progress.finished(ended(A, 60.0))
    assert left(progress) == 0.0


def test_a_training_that_is_begun_again_has_no_epochs_yet(clock: Clock) -> None:
    progress = made()
    progress.begun(A.id)
    progress.epoch(A.id, {"epoch": 3, "seconds": 2.0})
    assert [one.epoch for one in progress.state().active] == [3]
    progress.begun(A.id)
    assert [one.epoch for one in progress.state().active] == [None]


def test_what_earlier_runs_gave_up_on_has_failed_and_what_needs_it_is_blocked() -> None:
    needs_a, needs_b = EVALUATIONS[:2], EVALUATIONS[2:]
    given = Status(done=(), ready=(B,), waiting=tuple(needs_b), failed=(A,), blocked=tuple(needs_a), costs=COSTS)
    counts = of(given).state().counts
    assert counts == {"train": Count(failed=1, ready=1), "evaluate": Count(waiting=2, blocked=2, networks=1)}


def test_the_state_says_what_runs_what_waits_and_what_failed(clock: Clock) -> None:
    progress = made()
    progress.finished(ended(A, 100.0))
    progress.begun(B.id)
    clock.now += 25
    progress.epoch(B.id, {"epoch": 1, "seconds": 25.0})
    clock.now += 105
    progress.finished(ended(EVALUATIONS[0], 25.0, "RuntimeError: no"))
    state = progress.state()
    assert state.counts["train"] == Count(done=1, running=1)
    assert state.counts["evaluate"] == Count(failed=1, ready=1, waiting=2, networks=1)
    assert line(state).startswith(
        "norms: trials 1/2 (1 at work) · evaluations 0/4 (1 to do, 2 wait for 1 network, 1 failed) · epochs 1/4 · "
        "2 min 10 s passed, about "
    )
    shown = lines(state)
    assert shown[1] == "  trials       ━━━━━━━━━━━━━━━─────────  1/2 (1 at work)"  # one and a quarter of two
    assert shown[3] == f"  at work  {B.id[:12]}  IN, epoch 1 of 4 done, for 2 min 10 s"
    assert shown[4] == f"  failed   {EVALUATIONS[0].id[:12]}  pgd@fixed of BN: RuntimeError: no"
    assert [done.error for done in progress.failures] == ["RuntimeError: no"]


def test_what_a_failure_blocks_is_not_waited_for(clock: Clock) -> None:
    progress = made()
    progress.finished(ended(A, 10.0, "KeyError: 'x'"))
    progress.finished(ended(B, 10.0))
    state = progress.state()
    assert state.counts["evaluate"] == Count(ready=2, blocked=2) and state.left == pytest.approx(10.0, rel=0.2)
    for unit in EVALUATIONS[2:]:
        progress.finished(ended(unit, 5.0))
    assert progress.state().phase == "failed" and left(progress) == 0.0


def test_what_others_may_know_is_the_last_state_that_was_looked_at(clock: Clock) -> None:
    stop = Stop()
    progress = made(stop=stop)
    assert progress.told() == {}
    progress.begun(A.id)
    state = progress.state()
    assert progress.told() == {"active": state.active, "left": state.left, "share": 0.0}
    stop.ask()
    stopping: State = progress.state()
    assert stopping.phase == "stopping" and "stopping" in line(stopping)
