"""Which trainings of a search are stopped early, as other points are ahead: Ray Tune's ASHA, inline and on Ray alike.

The scheduler is told of every epoch, and its answer is kept in the store as a stop. So a run that goes on builds it
anew from the epochs that the store holds, of trainings that are done, stopped, or wait to be resumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from rna_ray.store import Store, weights
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.search import EarlyStopping, Search, worth
from rna_ray.sweep.units import Unit


@dataclasses.dataclass(frozen=True)
class _Entrant:
    """A training, with what the scheduler looks at in a trial."""

    trial_id: str


class Races:
    """One race for each variant and grid point of a search, between the networks of its points."""

    def __init__(self, sweep: str, search: Search, races: Iterable[Iterable[Unit]], store: Store) -> None:
        assert search.early_stopping is not None
        self.stopped: set[str] = set()
        """The units that were stopped in this run."""
        self._sweep, self._by, self._store = sweep, search.by, store
        self._epochs: dict[str, int] = {}
        self._scheduler_of: dict[str, AsyncHyperBandScheduler] = {}
        for units in races:
            epochs = {unit.id: unit.settings["training"]["epochs"] for unit in units}
            scheduler = _scheduler(search.early_stopping, max(epochs.values()))
            for unit_id in epochs:
                scheduler.on_trial_add(None, _Entrant(unit_id))  # type: ignore[arg-type]
            self._epochs |= epochs
            self._scheduler_of |= dict.fromkeys(epochs, scheduler)

    @classmethod
    def of(cls, plan: Plan, store: Store) -> Races:
        """Return the races of a plan that asks for early stopping, as far as the store says that they are run."""
        assert plan.spec.search is not None
        units = {unit.id: unit for unit in plan.units if unit.kind == "train"}
        races: dict[str, list[Unit]] = {}
        for trial in plan.trials:  # a network that several ask for runs in the race of the first
            if (unit := units.pop(trial.network, None)) is not None:
                races.setdefault(trial.race, []).append(unit)
        found = cls(plan.sweep, plan.spec.search, races.values(), store)
        for unit_id, rows in weights.epochs(store, found._epochs).items():
            for row in rows:
                found._ahead(unit_id, row)
        return found

    def epoch(self, unit_id: str, row: Mapping[str, Any]) -> bool:
        """Take note of an epoch; return whether the training is stopped with it, as the store then says."""
        if self._ahead(unit_id, row) or row["epoch"] >= self._epochs[unit_id]:
            return False
        self._store.stop(unit_id, self._sweep, epoch=row["epoch"], compared_by=self._by, value=row[self._by])
        self.stopped.add(unit_id)
        return True

    def _ahead(self, unit_id: str, row: Mapping[str, Any]) -> bool:
        """Tell the scheduler of an epoch; return whether it lets the training go on."""
        result = {"epoch": row["epoch"], "worth": worth(self._by, row)}
        told = self._scheduler_of[unit_id].on_trial_result(None, _Entrant(unit_id), result)  # type: ignore[arg-type]
        return told != TrialScheduler.STOP


def _scheduler(stopping: EarlyStopping, longest: int) -> AsyncHyperBandScheduler:
    return AsyncHyperBandScheduler(
        time_attr="epoch", metric="worth", mode="max", grace_period=stopping.grace, max_t=longest,
        reduction_factor=stopping.factor,
    )  # fmt: skip
