"""A plan minus what the store holds: what is done, what to do, what waits, and what failed."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from rna_ray.store.records import RECORDS
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.units import NAMES, Unit

if TYPE_CHECKING:
    from rna_ray.store import Store

Retry = Literal["failed", "all", "none"]
ATTEMPTS = 3  # after which `failed` leaves a unit alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """Where each unit of a plan stands, in the plan's order; no unit stands in two places."""

    done: tuple[Unit, ...]
    ready: tuple[Unit, ...]
    """To do, and all that it needs is done."""
    waiting: tuple[Unit, ...]
    """To do, once what it needs is done."""
    failed: tuple[Unit, ...]
    """Failed, and not to be tried again."""
    blocked: tuple[Unit, ...]
    """Needs a unit that failed."""
    costs: Mapping[str, int]

    @property
    def to_do(self) -> tuple[Unit, ...]:
        """The units that a run would do, trains before what needs them."""
        return self.ready + self.waiting

    @property
    def remaining(self) -> int:
        """The estimated multiply-adds of what is to do."""
        return sum(self.costs[unit.id] for unit in self.to_do)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of units of each kind in each place: {"train": {"done": 2, …}, "evaluate": {…}}."""
        places = ("done", "ready", "waiting", "failed", "blocked")
        return {kind: {place: _count(getattr(self, place), kind) for place in places} for kind in NAMES}


def subtract(plan: Plan, done: Collection[str], failed: Mapping[str, int], retry: Retry = "failed") -> Status:
    """Return where each unit of a plan stands.

    `done` holds ids, `failed` the failed attempts by id; a unit that failed before it was done is done. A retry of
    `failed` tries again what failed fewer than three times, `all` whatever failed, `none` nothing.
    """
    places: dict[str, list[Unit]] = collections.defaultdict(list)
    place_of: dict[str, str] = {}
    for unit in plan.units:
        place = _place(unit, done, failed.get(unit.id, 0), retry, {place_of[need] for need in unit.needs})
        place_of[unit.id] = place
        places[place].append(unit)
    names = ("done", "ready", "waiting", "failed", "blocked")
    return Status(**{name: tuple(places[name]) for name in names}, costs=plan.costs)


def standing(plan: Plan, store: Store, retry: Retry = "failed") -> Status:
    """Return where each unit of a plan stands in a store, from the names of its files."""
    done = set().union(*(store.done(RECORDS[kind]) for kind in {unit.kind for unit in plan.units}))
    return subtract(plan, done, {unit_id: len(rows) for unit_id, rows in store.failures().items()}, retry)


def _place(unit: Unit, done: Collection[str], attempts: int, retry: Retry, needs: set[str]) -> str:
    if unit.id in done:
        return "done"
    if attempts and (retry == "none" or (retry == "failed" and attempts >= ATTEMPTS)):
        return "failed"
    if needs & {"failed", "blocked"}:
        return "blocked"
    return "ready" if needs <= {"done"} else "waiting"


def _count(units: Iterable[Unit], kind: str) -> int:
    return sum(unit.kind == kind for unit in units)
