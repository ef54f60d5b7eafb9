"""What is said while a run goes on: counts, and the time left from the speed so far."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from rna_ray.running import progress as progress_module
from rna_ray.running.progress import Progress
from rna_ray.running.tasks import Done
from rna_ray.sweep import cost, units
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
    return units.train({"training": {"epochs": epochs}, "seed": seed})


def evaluation(network: Unit, start: int = 0) -> Unit:
    return units.evaluate({"network": network.id}, examples=(start, start + 10))


A, B = train(0), train(1)
EVALUATIONS = [evaluation(network, start) for network in (A, B) for start in (0, 10)]
COSTS = {**{unit.id: 100 for unit in (A, B)}, **{unit.id: 50 for unit in EVALUATIONS}}


def made(slots: int = 1, *, ready: tuple[Unit, ...] = (A, B)) -> Progress:
    status = Status(done=(), ready=ready, waiting=tuple(EVALUATIONS), failed=(), blocked=(), costs=COSTS)
    return Progress(status, slots=slots, console=Console(file=io.StringIO(), width=80))


def ended(unit: Unit, seconds: float, error: str = "") -> Done:
    state = "failed" if error else "done"
    return Done(unit_id=unit.id, kind=unit.kind, state=state, seconds=seconds, error=error)


def test_before_anything_ended_the_usual_speed_is_assumed(clock: Clock) -> None:
    assert made().left() == pytest.approx(cost.seconds(400.0))
    assert made(slots=4).left() == pytest.approx(cost.seconds(400.0) / 4)


def test_the_time_left_follows_the_speed_of_each_kind(clock: Clock) -> None:
    progress = made(slots=2)
    progress.finished(ended(A, 20.0))  # 0.2 s a multiply-add
    assert progress.left() == pytest.approx((20.0 + cost.seconds(200.0)) / 2)
    progress.finished(ended(EVALUATIONS[0], 5.0))  # 0.1 s a multiply-add
    assert progress.left() == pytest.approx((20.0 + 3 * 5.0) / 2)
    progress.finished(ended(B, 30.0))
    progress.finished(ended(EVALUATIONS[1], 15.0))
    assert progress.left() == pytest.approx(2 * 10.0 / 2)
    for unit in EVALUATIONS[2:]:
        progress.finished(ended(unit, 10.0))
    assert progress.left() == 0.0 and progress.seconds_computed == 90.0


def test_epochs_of_running_trials_count(clock: Clock) -> None:
    progress = made(ready=(A,))
    for unit in EVALUATIONS:
        progress.finished(ended(unit, 0.0))
    progress.epoch(A.id, {"epoch": 1, "seconds": 3.0})
    assert progress.left() == pytest.approx(9.0)
    progress.epoch(A.id, {"epoch": 2, "seconds": 5.0})
    assert progress.left() == pytest.approx(8.0)
    progress.finished(ended(A, 14.0))
    assert progress.left() == 0.0


def test_the_line_says_what_is_done_what_failed_and_what_is_left(clock: Clock) -> None:
    progress = made()
    assert progress.line() == "trials 0/2 · evaluations 0/4 · 0 s passed, about 0 s left"
    progress.finished(ended(A, 100.0))
    progress.epoch(B.id, {"epoch": 1, "seconds": 25.0})
    clock.now += 130
    progress.finished(ended(EVALUATIONS[0], 25.0, "RuntimeError: no"))
    assert progress.line() == (
        "trials 1/2 · evaluations 1/4 · 1 failed · in training: 25% · 2 min 10 s passed, about 2 min 30 s left"
    )
    assert [done.error for done in progress.failures] == ["RuntimeError: no"]


def test_where_there_is_no_terminal_a_line_is_printed_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0.001)
    progress, seen = made(), threading.Event()
    plain = progress.line
    monkeypatch.setattr(progress, "line", lambda: (plain() + "x" * 100, seen.set())[0])
    with progress.shown():
        assert seen.wait(10)
    written = progress.console.file.getvalue().splitlines()
    assert written and all(line.startswith("trials 0/2") and line.endswith("x" * 100) for line in written)
    assert not any("Thread" in thread.name and "_tick" in thread.name for thread in threading.enumerate())


def test_on_a_terminal_there_are_bars_and_what_is_left(clock: Clock) -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, force_interactive=False)
    status = Status(done=(), ready=(A, B), waiting=tuple(EVALUATIONS), failed=(), blocked=(), costs=COSTS)
    progress = Progress(status, slots=1, console=console)
    with progress.shown():
        for unit in (A, B, *EVALUATIONS[1:]):
            progress.finished(ended(unit, 1.0))
        progress.finished(ended(EVALUATIONS[0], 1.0, "KeyError: 'x'"))
    shown = console.file.getvalue()
    assert "trials" in shown and "2/2" in shown and "4/4" in shown and "about 0 s left" in shown and "1 failed" in shown
