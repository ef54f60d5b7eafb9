"""A finished network of a store: found by what people call it, and loaded."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from rna_ray.errors import CheckpointError, StoreError, unknown
from rna_ray.networks.build import Network
from rna_ray.networks.source import Source
from rna_ray.running import inputs
from rna_ray.store import Store
from rna_ray.sweep import expand, spec

Checkpoint = Literal["best", "last"]
SHORTEST = 8
"""So many characters of an id are enough to name a unit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Called:
    """A network as a sweep of the store asks for it."""

    unit_id: str
    sweep: str
    variant: str
    axes: str
    """The variant's axes and the seed, as in the plan."""
    spec: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """A finished network, and which of its weights are meant."""

    trial: Mapping[str, Any]
    """Its row in `trials`."""
    called: Called | None
    """What a sweep calls it; None where only its id was given, and no sweep asks for it any more."""
    checkpoint: Checkpoint

    @property
    def unit_id(self) -> str:
        return self.trial["unit_id"]

    @property
    def settings(self) -> dict[str, Any]:
        """All that decided it, as the unit's id counts it."""
        return json.loads(self.trial["settings"])

    @property
    def sha256(self) -> str:
        """The SHA-256 of its weights' file in the store."""
        return self.trial[f"{self.checkpoint}_sha256"]


def find(
    store: Store, which: str, *, sweep: str | None = None, seed: int | None = None,
    checkpoint: Checkpoint | None = None,
) -> Stored:
    """Return the one finished network of this variant, or whose id begins so, given 8 characters or more.

    `checkpoint` is by default the best on held-out images, where there is one, else the last. Raises StoreError where
    there is no such network, or more than one, and CheckpointError where it has no such weights.
    """
    if sweep is not None and sweep not in store.sweeps():
        raise StoreError(unknown(f"sweep of {store.uri}:", sweep, store.sweeps()))
    there = list(_called(store, sweep))
    called = [one for one in there if which == one.variant or _abbreviates(which, one.unit_id)]
    ids = {one.unit_id for one in called}
    if not ids and sweep is None:
        ids = {unit_id for unit_id in store.done("trials") if _abbreviates(which, unit_id)}
    if not ids:
        raise StoreError(unknown(f"network of {store.uri}:", which, {one.variant for one in there}))
    trials = [row for row in store.read("trials", ids).to_pylist() if seed in (None, row["seed"])]
    if len(trials) != 1:
        raise StoreError(_not_one(store, which, trials, called, seed))
    (trial,) = trials
    one = next((one for one in called if one.unit_id == trial["unit_id"]), None)
    found = Stored(trial=trial, called=one, checkpoint=checkpoint or ("best" if trial["best_sha256"] else "last"))
    if found.sha256 is None:
        raise CheckpointError(f"network {which!r} has no {found.checkpoint} weights: of held-out images it had none")
    return found


def _abbreviates(given: str, unit_id: str) -> bool:
    return len(given) >= SHORTEST and unit_id.startswith(given)


def _called(store: Store, sweep: str | None) -> Iterator[Called]:
    columns = [field.name for field in dataclasses.fields(Called)]
    for name in store.sweeps() if sweep is None else [sweep]:
        for row in store.read_file("plans", name).to_pylist():
            if row["kind"] in ("train", "import"):
                yield Called(**{column: row[column] for column in columns})


def _not_one(
    store: Store, which: str, trials: list[dict[str, Any]], called: list[Called], seed: int | None
) -> str:
    if not trials:
        stops = store.stops()
        if called and all((one.unit_id, one.sweep) in stops for one in called):
            sweeps = " and ".join(dict.fromkeys(one.sweep for one in called))
            return f"there is no finished network {which!r}: {sweeps} stopped it early, as others were ahead of it"
        of = "" if seed is None else f" of seed {seed}"
        said = f"there is no finished network {which!r}{of} yet"
        resumed = dict.fromkeys(f"rna-ray resume {one.sweep} --store {shlex.quote(store.uri)}" for one in called)
        return f"{said}; {' or '.join(resumed)} makes what is missing" if resumed else said
    seeds = sorted({row["seed"] for row in trials})
    if len(seeds) == len(trials):
        return f"{which!r} is {len(trials)} networks: say which seed, of {', '.join(map(str, seeds))}"
    said = ", ".join(f"{one.unit_id[:12]} ({one.sweep})" for one in called)
    return f"{which!r} is {len(trials)} networks: say which sweep, or give an id: {said}"


def load(store: Store, found: Stored) -> Network:
    """Return a network in eval mode, on the CPU, its weights' checksum verified.

    An imported one runs the user's own code, from where its sweep finds it.
    """
    lies = _source(found.called)
    with inputs.importing([lies] if lies else []):
        network = inputs.loaded(store, found.settings, found.unit_id, found.checkpoint, found.sha256, lies)
    return network.eval()


def _source(called: Called | None) -> Source | None:
    """Return where an imported network's module lies; None for a network of ours, and where no sweep says it."""
    if called is None:
        return None
    read = spec.from_json(called.spec)
    given = next(one.experiment.network for one in expand.variants(read) if one.label == called.variant)
    return Source(read.within(given.root)) if given.function else None
