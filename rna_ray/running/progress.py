"""The ledger of a run: which units began and ended, how far the trainings are, and from that the time left."""

from __future__ import annotations

import collections
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rich.console import Console

from rna_ray.running.state import Active, Asked, Failure, State, counts, phase
from rna_ray.running.stop import Stop
from rna_ray.running.tasks import Done
from rna_ray.sweep.forecast import Forecast, Running, Slots, Usual, Work, forecast
from rna_ray.sweep.status import Status
from rna_ray.sweep.units import Kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """What a run knows of its units beside their ids; asked for once, by who first looks, as it takes a moment."""

    asked: Mapping[str, Asked]
    usual: Mapping[Kind, Usual]
    """How fast units of each kind are, before this run has done one."""


@dataclasses.dataclass
class _Training:
    """The epochs of a training, as far as this run saw them end."""

    epoch: int
    ended: float
    """When the last one did."""
    seconds: list[float]

    def pace(self) -> float:
        """Return the seconds of an epoch: of those but the first, which warms up, where there are others."""
        later = self.seconds[1:] or self.seconds
        return sum(later) / len(later)


class Listener(Protocol):
    """Who hears of each event, once the ledger has taken note of it; it must neither raise nor take long."""

    def begun(self, unit_id: str) -> None: ...
    def epoch(self, unit_id: str, row: Mapping[str, Any]) -> None: ...
    def finished(self, done: Done) -> None: ...


class Progress:
    """The ledger of a run. Thread-safe: trials report from Tune's loop, evaluations from the pool's thread."""

    def __init__(
        self, status: Status, *, sweep: str, known: Callable[[], Known], slots: Callable[[], Slots], stop: Stop,
        console: Console, store: str = "",
    ) -> None:
        self.console, self.sweep, self.store, self._stop = console, sweep, store, stop
        self.done: collections.Counter[str] = collections.Counter()
        self.failures: list[Done] = []
        self.listeners: list[Listener] = []
        self._status, self._known_of, self._slots = status, known, slots
        self._before = {unit.id for unit in status.done}
        self._given_up = {unit.id for unit in status.failed}  # before this run
        self._kinds = {unit.id: unit.kind for unit in status.to_do}
        self._epochs = {
            unit.id: unit.settings["training"]["epochs"] for unit in status.to_do if unit.kind == "train"
        }
        self._early = {unit.id for unit in status.early}
        self._finished: dict[str, float] = {}  # seconds by id, of failed ones too
        self._trainings: dict[str, _Training] = {}  # those that run, once one of their epochs has ended
        self._begun: dict[str, float] = {}  # when, by the ids of the units that run
        self._held: collections.Counter[str] = collections.Counter()  # seconds by kind, of those that ran
        self._lock, self._started = threading.Lock(), time.monotonic()
        self._told: dict[str, Any] = {}

    # -- events ------------------------------------------------------------------------------------------------------

    def begun(self, unit_id: str) -> None:
        """Take note of a unit that a process takes up, for the first time or once more."""
        with self._lock:
            self._let_go(unit_id)
            self._trainings.pop(unit_id, None)
            self._begun[unit_id] = time.monotonic()
        for listener in self.listeners:
            listener.begun(unit_id)

    def _let_go(self, unit_id: str) -> None:
        if (begun := self._begun.pop(unit_id, None)) is not None:
            self._held[self._kinds[unit_id]] += time.monotonic() - begun

    def epoch(self, unit_id: str, row: Mapping[str, Any]) -> None:
        """Take note of an epoch that a trial finished."""
        with self._lock:
            before = self._trainings.get(unit_id)
            seconds = [*(before.seconds if before else ()), row["seconds"]]
            self._trainings[unit_id] = _Training(row["epoch"], time.monotonic(), seconds)
        for listener in self.listeners:
            listener.epoch(unit_id, row)

    def finished(self, done: Done) -> None:
        """Take note of a unit that ended."""
        with self._lock:
            self._let_go(done.unit_id)
            self._trainings.pop(done.unit_id, None)
            self._finished[done.unit_id] = done.seconds
            self.done[done.kind] += 1
            if done.state == "failed":
                self.failures.append(done)
            if done.state == "early":
                self._early.add(done.unit_id)
        for listener in self.listeners:
            listener.finished(done)

    def stopped_early(self, unit_id: str) -> None:
        """Take note of a training that this sweep goes on with no further."""
        with self._lock:
            seconds = time.monotonic() - self._begun.get(unit_id, time.monotonic())
        self.finished(Done(unit_id=unit_id, kind="train", state="early", seconds=seconds))

    def held(self) -> dict[str, float]:
        """Return the seconds for which units of each kind have held what they take, those that run now among them."""
        with self._lock:
            held, now = collections.Counter(self._held), time.monotonic()
            for unit_id, begun in self._begun.items():
                held[self._kinds[unit_id]] += now - begun
        return dict(held)

    @property
    def seconds_computed(self) -> float:
        """The sum of the seconds that the finished units took."""
        return sum(self._finished.values())

    # -- what is seen of it ------------------------------------------------------------------------------------------

    def state(self) -> State:
        """Return how the sweep stands now, and what is left of this run."""
        known = self._known
        with self._lock:
            finished, failures, now = dict(self._finished), list(self.failures), time.monotonic()
            running = {unit_id: self._running(unit_id, now) for unit_id in self._begun}
            active = [self._active(unit_id, now) for unit_id in self._begun]
            early = set(self._early)
        failed = self._given_up.union(done.unit_id for done in failures)
        done = self._before.union(finished) - failed - early
        found = self._forecast(known, finished, running, failed | early)
        where = counts(known.asked, done=done, failed=failed, running=running, early=early)
        said = State(
            sweep=self.sweep, store=self.store,
            counts=where,
            active=tuple(sorted(active, key=lambda one: -one.seconds)),
            names={unit_id: known.asked[unit_id].name for unit_id in running},
            failures=tuple(_failure(known, done) for done in failures),
            passed=now - self._started, left=found.seconds, share=found.share,
            phase=phase(where, at_work=True, stopping=self._stop.asked),
        )
        self._told = {"active": said.active, "left": said.left, "share": said.share}
        return said

    def told(self) -> dict[str, Any]:
        """Return what others may know of the last state that was looked at (`drivers`)."""
        return self._told

    def _forecast(
        self, known: Known, finished: Mapping[str, float], running: Mapping[str, Running], given_up: set[str]
    ) -> Forecast:
        works = [work for work in self._works if not given_up.intersection((work.id, *work.needs))]
        return forecast(works, finished=finished, running=running, usual=known.usual, slots=self._slots())

    @functools.cached_property
    def _known(self) -> Known:
        return self._known_of()

    @functools.cached_property
    def _works(self) -> list[Work]:
        return [Work.of(unit, self._status.costs[unit.id]) for unit in self._status.to_do]

    def _running(self, unit_id: str, now: float) -> Running:
        seconds, training = now - self._begun[unit_id], self._trainings.get(unit_id)
        if training is None:
            return Running(seconds=seconds)
        epochs, pace = self._epochs[unit_id], training.pace()
        under_way = min((now - training.ended) / pace, 1.0) if pace else 0.0
        return Running(
            seconds=seconds, fraction=min((training.epoch + under_way) / epochs, 1.0), pace=pace * epochs
        )  # fmt: skip

    def _active(self, unit_id: str, now: float) -> Active:
        training = self._trainings.get(unit_id)
        return Active(
            unit=unit_id, seconds=now - self._begun[unit_id], epoch=training.epoch if training else None,
            epochs=self._epochs.get(unit_id),
        )  # fmt: skip


def _failure(known: Known, done: Done) -> Failure:
    asked = known.asked[done.unit_id]
    return Failure(unit=done.unit_id, kind=asked.kind, name=asked.name, error=done.error)
