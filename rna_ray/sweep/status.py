"""A plan minus what the store holds: what is done, what to do, what waits, and what failed."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from rna_ray.store import footers
from rna_ray.store.records import RECORDS
from rna_ray.sweep import priorities
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.units import NAMES, Unit

if TYPE_CHECKING:
    from rna_ray.store import Store

Retry = Literal["failed", "all", "none"]
ATTEMPTS = 3  # after which `failed` leaves a unit alone
PLACES = ("done", "ready", "waiting", "failed", "blocked", "early")
"""Where a unit may stand."""


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
    early: tuple[Unit, ...] = ()
    """Trained no further in this sweep, as other points of its search are ahead, or needs such a network."""
    costs: Mapping[str, int]
    damaged: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Units to do again because their rows or weights are not whole, each with the sentence that says why."""
    priorities: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def to_do(self) -> tuple[Unit, ...]:
        """The units that a run would do, the most urgent first, trains before what needs them."""
        return priorities.ordered(self.ready + self.waiting, self.priorities)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of units of each kind in each place: {"train": {"done": 2, …}, "evaluate": {…}}."""
        return {kind: {place: _count(getattr(self, place), kind) for place in PLACES} for kind in NAMES}


def subtract(
    plan: Plan, done: Collection[str], failed: Mapping[str, int], retry: Retry = "failed",
    early: Collection[str] = (),
) -> Status:
    """Return where each unit of a plan stands.

    `done` holds ids, `failed` the failed attempts by id; a unit that failed before it was done is done, and so is one
    that was stopped `early` here and finished elsewhere. A retry of `failed` tries again what failed fewer than three
    times, `all` whatever failed, `none` nothing.
    """
    places: dict[str, list[Unit]] = collections.defaultdict(list)
    place_of: dict[str, str] = {}
    for unit in plan.units:
        needs = {place_of[need] for need in unit.needs}
        place = _place(unit, done, failed.get(unit.id, 0), retry, needs, stopped=unit.id in early)
        place_of[unit.id] = place
        places[place].append(unit)
    return Status(**{name: tuple(places[name]) for name in PLACES}, costs=plan.costs, priorities=plan.priorities)


def standing(
    plan: Plan, store: Store, retry: Retry = "failed", lost: Mapping[str, str] = MappingProxyType({}), *,
    look: bool = True,
) -> Status:
    """Return where each unit of a plan stands in a store, from the names of its files and a look at their ends.

    A unit whose rows are not whole is not done, nor are those that are known to be `lost`, each with its sentence.
    Without the look, which takes a while where there are tens of thousands of files, the names alone count.
    """
    done = set().union(*(store.done(RECORDS[kind]) for kind in {unit.kind for unit in plan.units}))
    finished = {unit.id: unit.kind for unit in plan.units if look and unit.id in done}
    damaged = {**footers.damaged(store, finished), **lost}
    early = store.stopped(plan.sweep) if plan.spec.search and plan.spec.search.early_stopping else ()
    status = subtract(plan, done - damaged.keys(), store.attempts(), retry, early)
    return dataclasses.replace(status, damaged=damaged)


def _place(
    unit: Unit, done: Collection[str], attempts: int, retry: Retry, needs: set[str], *, stopped: bool
) -> str:
    if unit.id in done:
        return "done"
    if stopped:
        return "early"
    if attempts and (retry == "none" or (retry == "failed" and attempts >= ATTEMPTS)):
        return "failed"
    if needs & {"failed", "blocked"}:
        return "blocked"
    if "early" in needs:
        return "early"
    return "ready" if needs <= {"done"} else "waiting"


def _count(units: Iterable[Unit], kind: str) -> int:
    return sum(unit.kind == kind for unit in units)
