"""What a run may take at most: wall hours of its own, and GPU hours of its sweep, those of earlier runs counted."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

from rna_ray.running.progress import Progress
from rna_ray.store import Store, views, weights
from rna_ray.store.records import RECORDS
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.sections import Budget
from rna_ray.sweep.units import NAMES, Kind

_TRAINED = """
    SELECT unit_id, device, greatest(seconds, coalesce(trained, 0)) AS seconds FROM trials
    LEFT JOIN (SELECT unit_id, sum(seconds) AS trained FROM epochs GROUP BY unit_id) USING (unit_id)
"""  # the seconds of a resumed trial's row begin anew, those of its epochs do not


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spent:
    """What a unit took."""

    seconds: float
    gpus: float
    """The GPUs that it took all the while."""

    @property
    def gpu_hours(self) -> float:
        """Its GPU hours."""
        return self.gpus * self.seconds / 3600


def spent(kinds: Mapping[str, Kind], gpus: Mapping[str, float], store: Store) -> dict[str, Spent]:
    """Return what each unit of these ids took so far: those that are done, and trainings that wait to be resumed.

    A unit counts the GPUs that its sweep gives one now (`gpus`, by id), or none where a CPU computed it. Attempts that
    failed left no seconds behind and do not count.
    """
    others = " UNION ALL ".join(
        f"SELECT unit_id, device, seconds FROM {view}" for view in dict.fromkeys(RECORDS.values()) if view != "trials"
    )
    rows = views.ask(store, f"{_TRAINED} UNION ALL {others}")
    found = {
        unit_id: Spent(seconds=seconds, gpus=gpus[unit_id] if device != "cpu" else 0.0)
        for unit_id, device, seconds in rows
        if unit_id in kinds
    }
    for unit_id, kind in kinds.items():
        if kind == "train" and unit_id not in found and (seconds := weights.trained_seconds(store, unit_id)):
            found[unit_id] = Spent(seconds=seconds, gpus=gpus[unit_id])
    return found


def spent_gpu_hours(plan: Plan, store: Store) -> float:
    """Return the GPU hours of a sweep's units so far, as `spent` counts them."""
    gpus = {unit.id: plan.where.share(unit.kind).gpu for unit in plan.units}
    if not any(gpus.values()):
        return 0.0
    return sum(one.gpu_hours for one in spent({unit.id: unit.kind for unit in plan.units}, gpus, store).values())


def reached(budget: Budget, *, hours: float, gpu_hours: float) -> str | None:
    """Return the sentence that says which part of a budget is used up, or None where none is."""
    if budget.hours is not None and hours >= budget.hours:
        return f"the run has taken its {budget.hours:g} h (--max-hours, budget.hours)"
    if budget.gpu_hours is not None and gpu_hours >= budget.gpu_hours:
        return f"the sweep has taken its {budget.gpu_hours:g} GPU hours (--max-gpu-hours, budget.gpu_hours)"
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spending:
    """A budget, and what a run takes of it."""

    budget: Budget
    gpus: Mapping[Kind, float]
    """The GPUs that a unit of each kind takes."""
    before: float
    """The GPU hours that earlier runs took."""
    started: float
    """When the run began, by the clock that nobody sets."""

    @classmethod
    def of(cls, plan: Plan, budget: Budget, store: Store, *, started: float | None = None) -> Spending:
        """Return the spending of a run that begins now, or began then."""
        before = spent_gpu_hours(plan, store) if budget.gpu_hours is not None else 0.0
        gpus = {kind: plan.where.share(kind).gpu for kind in NAMES}
        return cls(budget=budget, gpus=gpus, before=before, started=time.monotonic() if started is None else started)

    def reason(self, progress: Progress | None = None) -> str | None:
        """Return why the run is to end now, if it is; without progress, before its first unit."""
        held = progress.held() if progress else {}
        gpu_seconds = sum(self.gpus[kind] * seconds for kind, seconds in held.items())
        hours = (time.monotonic() - self.started) / 3600
        return reached(self.budget, hours=hours, gpu_hours=self.before + gpu_seconds / 3600)
