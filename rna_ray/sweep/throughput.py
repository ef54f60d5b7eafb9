"""How fast the finished units of a store were, by the device that computed them: what an estimate of cost rests on."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rna_ray import data
from rna_ray.errors import UserError
from rna_ray.networks import describe
from rna_ray.store.records import RECORDS
from rna_ray.sweep import certifications, cost, evaluations
from rna_ray.sweep.forecast import Usual
from rna_ray.sweep.units import NAMES, Kind, Unit

if TYPE_CHECKING:
    from rna_ray.store import Store
    from rna_ray.sweep.plan import Plan

LOOKED_AT = 200
"""The most units of a kind that are read. Ids are digests, so the first of them in order are as good as drawn."""

TELLING_SECONDS = 1.0
"""Where every unit is over sooner, they say what starting one costs, not how fast it is: of a longer one it would say
far too much."""

Settings = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What the units of one kind on alike networks and one kind of device took."""

    kind: Kind
    of: str
    """What makes their networks as fast as one another, in words."""
    device: str
    """cpu, or the name of the GPU."""
    units: int
    macs_per_second: float
    """Of one core, or of one GPU: of all the units together, in multiply-adds as plans count them."""

    @property
    def gpu(self) -> bool:
        """Whether it was a GPU."""
        return self.device != "cpu"

    @property
    def words(self) -> str:
        """What this is, for people."""
        what = NAMES[self.kind][: None if self.units > 1 else -1]
        return f"{self.units} {what} of {self.of} on {self.device if self.gpu else 'CPU cores'}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Price:
    """What a plan's units of one kind are estimated to cost."""

    device_seconds: float
    """Seconds of one core, or of one GPU."""
    macs_per_second: float
    """Of all of them together."""
    basis: str
    """What that rests on, in words."""
    measured: bool
    """Whether units of this kind were measured on such a device."""


def nearest(kind: str, of: str | None, *, gpu: bool, measured: Sequence[Measured]) -> Measured | None:
    """Return what tells most of how fast units of a kind are, their network in words; None where nothing was measured.

    Such units of such networks, else such units of others, else other units of such networks, else any; of several,
    such as several GPUs, those with the most units.
    """
    here = [one for one in measured if one.gpu == gpu]
    such = [one for one in here if one.kind == kind]
    nearer = ([one for one in such if one.of == of], such, [one for one in here if one.of == of], here)
    return max(next(filter(None, nearer), ()), key=lambda one: one.units, default=None)


def prices(plan: Plan, units: Iterable[Unit], measured: Sequence[Measured]) -> dict[Kind, Price]:
    """Return what units of a plan cost by their kind, each at the rate of what is nearest to it."""
    networks = {unit.id: unit.settings["network"] for unit in plan.units if unit.kind in ("train", "import")}
    macs: dict[Kind, collections.Counter[str]] = {kind: collections.Counter() for kind in NAMES}
    for unit in units:
        network = networks[unit.needs[0]] if unit.needs else unit.settings["network"]
        macs[unit.kind][_of(network, unit.settings)] += plan.costs[unit.id]
    return {kind: _price(kind, of, plan.where.share(kind).gpu > 0, measured) for kind, of in macs.items()}


def _price(kind: Kind, macs: Mapping[str, int], gpu: bool, measured: Sequence[Measured]) -> Price:
    found = {of: nearest(kind, of, gpu=gpu, measured=measured) for of in macs or [""]}
    speeds = {of: one.macs_per_second if one else cost.assumed(gpu=gpu) for of, one in found.items()}
    seconds = sum(count / speeds[of] for of, count in macs.items())
    words = ", ".join(dict.fromkeys(one.words for one in found.values() if one))
    return Price(
        device_seconds=seconds,
        macs_per_second=sum(macs.values()) / seconds if seconds else next(iter(speeds.values())),
        basis=f"measured in this store on {words}" if words else _assumption(gpu),
        measured=any(one.kind == kind and one.gpu == gpu for one in measured),
    )


def _assumption(gpu: bool) -> str:
    device = "GPU" if gpu else "CPU core"
    speed, chip = f"{cost.assumed(gpu=gpu):.0e}".replace("+", ""), device.split()[0]
    return f"an assumption: {speed} multiply-adds a second and {device}, nothing measured in this store on a {chip}"


def usual(plan: Plan, measured: Sequence[Measured]) -> dict[Kind, Usual]:
    """Return how fast a plan's units of each kind are with what they take of a machine, before any was done."""
    found = {}
    for kind, price in prices(plan, plan.units, measured).items():
        share = plan.where.share(kind)
        devices = max(1.0, share.gpu if share.gpu > 0 else float(int(share.cpu)))
        found[kind] = Usual(macs_per_second=devices * price.macs_per_second, measured=price.measured)
    return found


def _of(network: Settings, settings: Settings) -> str:
    """Return in words what decides how many multiply-adds a second a unit does: its network, and its arithmetic."""
    if "name" not in network:
        return "an imported network"
    role = settings["network"] if "probe" in settings else settings
    compiled = "compiled " if role.get("compile") else ""
    return f"{network['name']} of width {network['width']} in {compiled}{role['precision']}"


def measured(store: Store) -> list[Measured]:
    """Return how fast the store's trials, evaluations and certifications were, those of alike networks together.

    Left out are units whose work cannot be told, kinds none of whose units took TELLING_SECONDS, and damaged files.
    """
    work: dict[tuple[Kind, str, str], list[tuple[float, float]]] = collections.defaultdict(list)
    telling = set()
    trials = {row["unit_id"]: row for row in store.read("trials", whole=True).to_pylist()}
    for row in [*_trials(store, trials), *_evaluations(store, trials), *_certifications(store, trials)]:
        if row["macs"] and row["seconds"]:
            devices = row["devices"] or (row["threads"] if row["device"] == "cpu" else 1)  # of an older release
            such = row["kind"], row["of"], row["device"]
            work[such].append((row["macs"], row["seconds"] * devices))
            if row["seconds"] >= TELLING_SECONDS:
                telling.add(such)
    return [
        Measured(kind=such[0], of=such[1], device=such[2], units=len(work[such]), macs_per_second=_rate(work[such]))
        for such in sorted(telling)
    ]


def _rate(work: Sequence[tuple[float, float]]) -> float:
    macs, seconds = map(sum, zip(*work, strict=True))
    return macs / seconds


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
        yield {**trials[unit_id], **work, "of": _of(settings["network"], settings)}


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
        trial, settings = trials.get(row["network_id"]), json.loads(row["settings"])
        if trial and "source" not in settings:  # else two networks took a part each
            trained = json.loads(trial["settings"])
            macs = _image(trained)
            of = _of(trained["network"], settings)
            yield {**row, "kind": kind, "of": of, "macs": macs and macs * passes(settings)}


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
