"""Follow a sweep from outside: how it stands, read from its store alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rna_ray.running import drivers
from rna_ray.running.drivers import Driver
from rna_ray.running.state import Active, Asked, Failure, State, asked, counts, phase
from rna_ray.store import Store
from rna_ray.store.parquet import failed_of
from rna_ray.store.records import RECORDS
from rna_ray.sweep.status import ATTEMPTS
from rna_ray.sweep.units import Kind

LOOK_SECONDS = 2.0
"""How often a sweep is looked at; less often where a look takes long."""


class Follower:
    """A sweep of a store, seen again and again; what does not change is read once."""

    def __init__(self, store: Store, sweep: str) -> None:
        self.store, self.sweep = store, sweep
        self._planned_for: list[str] | None = None
        self._asked: Mapping[str, Asked] = {}
        self._failures: dict[tuple[str, int], dict[str, Any]] = {}

    def look(self) -> State:
        """Return how the sweep stands now; StoreError where the store does not answer."""
        at_work = [driver for driver in drivers.at_work(self.store) if driver.sweep == self.sweep]
        units = self._units(at_work)
        kinds: set[Kind] = {unit.kind for unit in units.values()}
        done = set().union(*(self.store.done(RECORDS[kind]) for kind in kinds)) & units.keys()
        active = {one.unit: one for one in _active(at_work) if one.unit in units and one.unit not in done}
        failed = self._failed(at_work, {unit_id for unit_id in units if unit_id not in done})
        early = self.store.stopped(self.sweep)
        where = counts(units, done=done, failed=failed, running=active, early=early)
        now = phase(where, at_work=bool(at_work), stopping=any(driver.state == "stopping" for driver in at_work))
        if at_work and now in ("done", "failed"):  # who is at work may try again what failed, or ask for more
            now = "running"
        return State(
            sweep=self.sweep, counts=where, active=tuple(sorted(active.values(), key=lambda one: -one.seconds)),
            names={unit_id: units[unit_id].name for unit_id in active},
            failures=tuple(_failure(units[unit_id], row) for unit_id, row in failed.items() if unit_id not in active),
            passed=max((max(0.0, driver.passed) for driver in at_work), default=None), left=_left(at_work),
            share=max((driver.share for driver in at_work), default=float(now == "done")), phase=now,
            store=self.store.uri,
        )  # fmt: skip

    def _units(self, at_work: Sequence[Driver]) -> Mapping[str, Asked]:
        """Return the units of the plan, read again where another driver may have written another."""
        ids = [driver.id for driver in at_work]
        if ids != self._planned_for:
            self._asked = asked(self.store.read_file("plans", self.sweep).to_pylist())
            self._planned_for = ids
        return self._asked

    def _failed(self, at_work: Sequence[Driver], to_do: set[str]) -> dict[str, dict[str, Any]]:
        """Return the units that failed and are not to be tried again by who is at work, with what they failed of."""
        last = {unit_id: attempt for unit_id, attempt in self.store.attempts().items() if unit_id in to_do}
        for unit_id, attempt in last.items():
            if (unit_id, attempt) not in self._failures:
                (row,) = self.store.read_file("failures", f"{unit_id}.{attempt}").to_pylist()
                self._failures[unit_id, attempt] = row
        found = {unit_id: self._failures[unit_id, attempt] for unit_id, attempt in last.items()}
        if not at_work:
            return found
        began = min(datetime.fromisoformat(driver.started_at) for driver in at_work)
        return {
            unit_id: row for unit_id, row in found.items() if row["attempt"] >= ATTEMPTS or row["failed_at"] >= began
        }  # fmt: skip


def _active(at_work: Sequence[Driver]) -> list[Active]:
    """Return what drivers are at, for as long as it has taken by now."""
    return [
        Active(unit=one.unit, seconds=one.seconds + max(driver.unseen, 0.0), epoch=one.epoch, epochs=one.epochs)
        for driver in at_work
        for one in driver.active
    ]


def _left(at_work: Sequence[Driver]) -> float | None:
    """Return the seconds that the first to end of them still takes: what one does, the others need not."""
    told = [max(0.0, driver.left - max(driver.unseen, 0.0)) for driver in at_work if driver.left is not None]
    return min(told, default=None)


def _failure(unit: Asked, row: Mapping[str, Any]) -> Failure:
    return Failure(unit=row["unit_id"], kind=unit.kind, name=unit.name, error=failed_of(row))
