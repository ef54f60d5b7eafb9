"""The rounds of a search that draws points in view of those before (`sampler: optuna`): plan, do, ask for more.

The points stand in the sweep's spec, and so in the rows of its plan. The sampler is kept nowhere: each round builds it
from the points so far and what became of them, with a seed of its own. So a search that is interrupted and resumed asks
for the points that it would have asked for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rna_ray.errors import StoreError, SweepError, UserError
from rna_ray.store import Store, weights
from rna_ray.sweep import search as searching
from rna_ray.sweep import spec as specs
from rna_ray.sweep.experiment import SweepSpec
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.search import Domain, Search
from rna_ray.sweep.status import standing
from rna_ray.sweep.units import canonical, digest

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_TRIES = 100
"""How often a point is drawn until it is one that was not tried before; in a small space all may have been."""


def check(spec: SweepSpec) -> None:
    """Raise SweepError where the sampler is not installed."""
    if spec.search and spec.search.sampler == "optuna" and importlib.util.find_spec("optuna") is None:
        raise SweepError(
            "search.sampler: optuna is not installed; pip install 'rna-ray[optuna]', or write sampler: random"
        )


def continued(spec: SweepSpec, store: Store) -> SweepSpec:
    """Return a spec with the points that the store's plan of its sweep asked for, where that was the same search."""
    if spec.search is None or spec.search.sampler != "optuna" or spec.search.asked:
        return spec
    with contextlib.suppress(StoreError, UserError, LookupError):  # there is none, or another release wrote it
        before = specs.from_json(store.read_file("plans", spec.name)["spec"][0].as_py()).search
        if before is not None and _same(before) == _same(spec.search):
            return _with(spec, before.asked)
    return spec


def further(plan: Plan, store: Store) -> SweepSpec | None:
    """Return a plan's spec with the points of the next round, once all so far have ended; None after the last one."""
    search = plan.spec.search
    if search is None or search.sampler != "optuna":
        return None
    if any(unit.kind == "train" for unit in standing(plan, store, "none", look=False).to_do):
        return None
    networks: dict[str, list[str]] = {}
    for trial in plan.trials:
        networks.setdefault(trial.race, []).append(trial.network)
    worths = _Worths(plan, store)
    asked = {race: searching.points(search, race) for race in networks}
    more = {race: _ask(search, race, asked[race], [worths.of(one) for one in networks[race]]) for race in networks}
    if not any(more.values()):
        return None
    return _with(plan.spec, {race: (*points, *more[race]) for race, points in asked.items()})


def _same(search: Search) -> dict[str, Any]:
    """Return what makes a search another one: not how many points, which were drawn, or which go on."""
    return search.model_dump(mode="json", exclude={"trials", "asked", "early_stopping"})


def _with(spec: SweepSpec, asked: Mapping[str, Sequence[Mapping[str, Any]]]) -> SweepSpec:
    assert spec.search is not None
    return spec.model_copy(update={"search": spec.search.model_copy(update={"asked": asked})})


class _Worths:
    """What became of the points of a sweep, as the store says it."""

    def __init__(self, plan: Plan, store: Store) -> None:
        assert plan.spec.search is not None
        ids = [trial.network for trial in plan.trials]
        self._by = plan.spec.search.by
        self._epochs = weights.epochs(store, ids)
        self._states = {row["unit_id"]: row["state"] for row in store.read("trials", ids, whole=True).to_pylist()}
        self._stopped = store.stopped(plan.sweep)

    def of(self, unit_id: str) -> dict[str, Any]:
        """Return it as optuna takes it: the worth of the best epoch, of all where it was stopped early, or none."""
        worths = {row["epoch"]: searching.worth(self._by, row) for row in self._epochs[unit_id]}
        worths = {epoch: worth for epoch, worth in worths.items() if math.isfinite(worth)}
        if self._states.get(unit_id) == "finished" and worths:
            return {"state": "COMPLETE", "value": max(worths.values())}
        if unit_id in self._stopped and worths:
            return {"state": "PRUNED", "intermediate_values": worths}
        return {"state": "FAIL"}


def _ask(
    search: Search, race: str, points: Sequence[Mapping[str, Any]], outcomes: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the points of a race's next round, none of which was tried before."""
    wanted = min(search.at_once, search.trials - len(points))
    if wanted <= 0:
        return []
    import optuna  # here, as it is an extra, and takes a while

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = int(digest({"search": search.seed, "race": race, "points": len(points)})[:8], 16)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    space = {key: _distribution(domain) for key, domain in search.over.items()}
    for point, outcome in zip(points, outcomes, strict=True):
        study.add_trial(_told(search, point, outcome, space))
    known, found = set(map(canonical, points)), []
    for _ in range(_TRIES * wanted):
        drawn = study.ask(space).params
        point = {key: domain.given(drawn[key]) for key, domain in search.over.items()}
        if (text := canonical(point)) not in known:
            known.add(text)
            found.append(point)
        if len(found) == wanted:
            break
    return found


def _distribution(domain: Domain) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if domain.values is not None:
        return CategoricalDistribution(range(len(domain.values)))
    assert domain.low is not None and domain.high is not None
    if domain.whole:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def _told(
    search: Search, point: Mapping[str, Any], outcome: Mapping[str, Any], space: Mapping[str, BaseDistribution]
) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    params = {key: domain.drawn(point[key]) for key, domain in search.over.items()}
    state = TrialState[outcome["state"]]
    return create_trial(params=params, distributions=dict(space), **{**outcome, "state": state})
