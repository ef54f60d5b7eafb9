"""How fast the finished units of a store were, by the device that computed them: what an estimate of cost rests on."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rna_ray import data
from rna_ray.errors import UserError
from rna_ray.networks import describe
from rna_ray.store.records import RECORDS
from rna_ray.sweep import certifications, cost, evaluations
from rna_ray.sweep.forecast import Usual
from rna_ray.sweep.units import NAMES, Kind

if TYPE_CHECKING:
    from rna_ray.store import Store
    from rna_ray.sweep.plan import Where

LOOKED_AT = 200
"""The most units of a kind that are read. Ids are digests, so the first of them in order are as good as drawn."""

TELLING_SECONDS = 1.0
"""What is over sooner says what starting it costs, not how fast it is: of a longer one it would say far too much."""

Settings = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What the units of one kind on one kind of device took."""

    kind: Kind
    device: str
    """cpu, or the name of the GPU."""
    units: int
    macs_per_second: float
    """Of one core, or of one GPU: the median over the units, in multiply-adds as plans count them."""

    @property
    def gpu(self) -> bool:
        """Whether it was a GPU."""
        return self.device != "cpu"

    @property
    def words(self) -> str:
        """What this is, for people."""
        where = self.device if self.gpu else "CPU cores"
        return f"measured on {self.units} {NAMES[self.kind][: None if self.units > 1 else -1]} on {where} in this store"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate:
    """What an estimate takes a device to do, and why."""

    macs_per_second: float
    basis: str


def rate(kind: str, *, gpu: bool, measured: Sequence[Measured]) -> Rate:
    """Return the rate to estimate units of a kind with: measured on such units, on others, or else assumed.

    Of several GPUs, the one with the most units measured.
    """
    here = [one for one in measured if one.gpu == gpu]
    if chosen := [one for one in here if one.kind == kind] or here:
        found = max(chosen, key=lambda one: one.units)
        return Rate(macs_per_second=found.macs_per_second, basis=found.words)
    assumed, device = cost.assumed(gpu=gpu), "GPU" if gpu else "CPU core"
    speed, chip = f"{assumed:.0e}".replace("+", ""), device.split()[0]
    basis = f"an assumption: {speed} multiply-adds a second and {device}, nothing measured in this store on a {chip}"
    return Rate(macs_per_second=assumed, basis=basis)


def usual(where: Where, measured: Sequence[Measured]) -> dict[Kind, Usual]:
    """Return how fast a unit of each kind is with what it takes of a machine, before any of it was done."""
    found = {}
    for kind in NAMES:
        share = where.share(kind)
        gpu = share.gpu > 0
        devices = max(1.0, share.gpu if gpu else float(int(share.cpu)))
        found[kind] = Usual(
            macs_per_second=devices * rate(kind, gpu=gpu, measured=measured).macs_per_second,
            measured=any(one.kind == kind and one.gpu == gpu for one in measured),
        )
    return found


def measured(store: Store) -> list[Measured]:
    """Return how fast the store's trials, evaluations and certifications were.

    Left out are units whose work cannot be told, those that took less than TELLING_SECONDS, and damaged files.
    """
    rates: dict[tuple[Kind, str], list[float]] = collections.defaultdict(list)
    trials = {row["unit_id"]: row for row in store.read("trials", whole=True).to_pylist()}
    for row in [*_trials(store, trials), *_evaluations(store, trials), *_certifications(store, trials)]:
        if row["macs"] and row["seconds"] >= TELLING_SECONDS:
            cores = row["threads"] if row["device"] == "cpu" else 1
            rates[row["kind"], row["device"]].append(row["macs"] / row["seconds"] / max(cores, 1))
    return [
        Measured(kind=kind, device=device, units=len(found), macs_per_second=statistics.median(found))
        for (kind, device), found in sorted(rates.items())
    ]


def _trials(store: Store, trials: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the finished trainings with the seconds of all their epochs: a resumed trial's own begin anew."""
    finished = [unit_id for unit_id, row in trials.items() if row["state"] == "finished"]
    spent: dict[str, float] = collections.defaultdict(float)
    for row in store.read("epochs", finished, whole=True).select(["unit_id", "seconds"]).to_pylist():
        spent[row["unit_id"]] += row["seconds"]
    for unit_id in finished:
        settings = json.loads(trials[unit_id]["settings"])
        macs = _image(settings)
        work = {"kind": "train", "seconds": spent[unit_id], "macs": macs and cost.training(settings, macs)}
        yield trials[unit_id] | work


def _evaluations(store: Store, trials: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from _of_networks(store, "evaluate", trials, _passes)


def _certifications(store: Store, trials: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from _of_networks(store, "certify", trials, certifications.forward_passes)


def _of_networks(
    store: Store, kind: Kind, trials: Mapping[str, dict[str, Any]], passes: Callable[[Settings], float]
) -> Iterator[dict[str, Any]]:
    """Yield the finished units of a kind that asks a network, each with its multiply-adds."""
    some = sorted(store.done(RECORDS[kind]))[:LOOKED_AT]
    for row in store.read(RECORDS[kind], some, whole=True).to_pylist():
        network, settings = trials.get(row["network_id"]), json.loads(row["settings"])
        known = network and "source" not in settings  # else two networks took a part each
        macs = _image(json.loads(network["settings"])) if known else None
        yield {**row, "kind": kind, "macs": macs and macs * passes(settings)}


def _image(settings: Settings) -> int | None:
    """Return the multiply-adds of one image through a trial's network; None where this release knows it no more."""
    network = settings["network"]
    try:
        info = data.info(settings["data"])
        return _macs(network.get("name", cost.ASSUMED), network.get("width"), info.shape, info.classes)
    except UserError:
        return None


@functools.cache
def _macs(name: str, width: int | None, shape: tuple[int, int, int], classes: int) -> int:
    return describe.describe(name, width=width, image_shape=shape, classes=classes).macs


def _passes(settings: Settings) -> float:
    try:
        return evaluations.forward_passes(settings, data.info(settings["data"]).classes)
    except UserError:
        return 0.0
