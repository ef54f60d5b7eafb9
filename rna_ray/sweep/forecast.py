"""How long a run will still take: facts in, seconds out. Pure functions.

What a unit will take follows from its multiply-adds, at the speed of the units that this run has done so far: first of
its kind, then of those that do the very same. Then the units are dealt out to the places that work side by side.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rna_ray.sweep.units import Kind, Unit

START_SECONDS = 2.0
"""About what a unit takes beside its computing: one that should take less says little of how fast others will be."""

WARM_SECONDS = 30.0
"""What may pass in a process's first unit before it computes: torch is imported, networks are compiled."""

GUESS_WEIGHT, MEASURED_WEIGHT = 0.1, 0.5
"""How many units of this run an assumed speed weighs, and one that the store's units had."""

ALIKE_WEIGHT = 0.5
"""How many units that do the very same, or on one network, the speed of all others weighs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """A unit as an estimate sees it."""

    id: str
    kind: Kind
    alike: str
    """What units of about one speed have in common: what they do."""
    macs: float
    """Estimated multiply-adds."""
    needs: tuple[str, ...] = ()

    @classmethod
    def of(cls, unit: Unit, macs: float) -> Work:
        """Return the work of a unit."""
        return cls(id=unit.id, kind=unit.kind, alike=_alike(unit.kind, unit.settings), macs=float(macs),
                   needs=unit.needs)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running:
    """How far a unit is that runs."""

    seconds: float
    """Since it was taken up."""
    fraction: float = 0.0
    """Of a training, what of its epochs is done."""
    pace: float | None = None
    """The seconds that all of its epochs take as the last ones did; None before the first has ended."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usual:
    """How fast units of a kind are before this run has done one."""

    macs_per_second: float
    measured: bool = False
    """Whether units of this kind were measured in the store."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slots:
    """How many units work side by side."""

    trials: int
    evaluators: tuple[int, ...]
    """How many of all other kinds, where none, one, two … networks are left to train; the last holds for more."""


ONE = Slots(trials=1, evaluators=(1, 0))
"""One after the other, trainings first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is left of a run."""

    seconds: float
    """Until all is done."""
    share: float
    """Of all the run's work, what is done: 0 to 1."""


def forecast(
    works: Sequence[Work], *, finished: Mapping[str, float], running: Mapping[str, Running],
    usual: Mapping[Kind, Usual], slots: Slots,
) -> Forecast:
    """Return what is left of these units, which stand in the order in which they are done.

    `finished` says the seconds that those took which this run has done. What will not be done is not among them.
    """
    expected = _expected(works, finished, running, usual)
    left: dict[str, float] = {}
    done = sum(finished.values())
    for work in works:
        if work.id in finished:
            continue
        now = running.get(work.id)
        left[work.id] = _still(now, expected(work)) if now else expected(work)
        if now:
            done += now.seconds
    whole = done + sum(left.values())
    return Forecast(seconds=_makespan(works, left, running, slots), share=done / whole if whole else 1.0)


def _still(now: Running, expected: float) -> float:
    """Return the seconds that a running unit still takes; of one that is late already, a quarter of what it took."""
    if now.pace is not None:
        return max(0.0, now.pace * (1.0 - now.fraction))
    return expected - now.seconds if now.seconds < expected else now.seconds / 4


def _alike(kind: Kind, settings: Mapping[str, Any]) -> str:
    """Return in a word what a unit does, on whatever network."""
    attack = settings.get("attack") or {}
    said = {
        "train": lambda: settings.get("training", {}).get("objective"),
        "evaluate": lambda: f"{attack.get('name')} {settings.get('knowledge')}",
        "probe": lambda: settings.get("probe"),
    }
    return f"{kind} {said[kind]()}" if kind in said else kind


# -- what a unit takes -------------------------------------------------------------------------------------------------

_Seen = tuple[Work, float]  # a unit, and the seconds that it took


def _expected(
    works: Sequence[Work], finished: Mapping[str, float], running: Mapping[str, Running], usual: Mapping[Kind, Usual]
) -> Callable[[Work], float]:
    """Return the function that says what a unit takes."""
    seen: list[_Seen] = [(work, finished[work.id]) for work in works if work.id in finished]
    at_work = [(work, running[work.id]) for work in works if work.id in running]
    seen += [(work, now.pace) for work, now in at_work if now.pace is not None]
    takes = _fitted(seen, usual)
    # One that runs longer than it should is known to be slower, though not yet by how much.
    computing = [(work, now.seconds - WARM_SECONDS) for work, now in at_work if now.pace is None]
    if late := [(work, took) for work, took in computing if took > takes(work)]:
        takes = _fitted(seen + late, usual)
    return takes


def _fitted(seen: Sequence[_Seen], usual: Mapping[Kind, Usual]) -> Callable[[Work], float]:
    """Return what units take after what some of them took.

    Ratios to the usual seconds are explained step by step, by their kind, by what units do and by their network, each
    by a mean of logarithms; then the sums of units that do the very same are made to agree.
    """

    def usually(work: Work) -> float:
        return work.macs / usual[work.kind].macs_per_second

    ratios = [_ratio(took, usually(work)) for work, took in seen]
    factors = _kinds(seen, ratios, usual, [usually(work) for work, _ in seen])
    ratios = [ratio - factors[work.kind] for (work, _), ratio in zip(seen, ratios, strict=True)]
    alike = _means([work.alike for work, _ in seen], ratios)
    ratios = [ratio - alike[work.alike] for (work, _), ratio in zip(seen, ratios, strict=True)]
    networks = _means([_network(work) for work, _ in seen], ratios)

    def mostly(work: Work) -> float:
        factor = factors[work.kind] + alike.get(work.alike, 0.0) + networks.get(_network(work), 0.0)
        return usually(work) * math.exp(factor)

    took_all, most_all = collections.Counter[str](), collections.Counter[str]()
    for work, took in seen:
        took_all[work.alike] += took
        most_all[work.alike] += mostly(work)
    # A mean of logarithms lies below the mean, which is what sums are made of.
    upward = {one: (START_SECONDS + took_all[one]) / (START_SECONDS + most_all[one]) for one in took_all}
    return lambda work: mostly(work) * upward.get(work.alike, 1.0)


def _kinds(
    seen: Sequence[_Seen], ratios: Sequence[float], usual: Mapping[Kind, Usual], seconds: Sequence[float]
) -> dict[Kind, float]:
    """Return for each kind the logarithm of how much longer it takes than usual."""
    kinds: dict[Kind, _Mean] = collections.defaultdict(_Mean)
    for (work, _), ratio, usually in zip(seen, ratios, seconds, strict=True):
        kinds[work.kind].add(ratio, usually / (usually + START_SECONDS))
    # How fast this machine is at one thing says something of how fast it is at others, where nothing else does.
    whole = _Mean()
    for mean in kinds.values():
        whole.add(mean.value(0.0), mean.weight)
    found = {}
    for kind, known in usual.items():
        weight, guess = (MEASURED_WEIGHT, 0.0) if known.measured else (GUESS_WEIGHT, whole.value(GUESS_WEIGHT))
        found[kind] = kinds[kind].value(weight, guess)
    return found


def _means(names: Sequence[str], ratios: Sequence[float]) -> dict[str, float]:
    """Return the mean ratio of each name."""
    means: dict[str, _Mean] = collections.defaultdict(_Mean)
    for name, ratio in zip(names, ratios, strict=True):
        means[name].add(ratio, 1.0)
    return {name: mean.value(ALIKE_WEIGHT) for name, mean in means.items()}


def _network(work: Work) -> str:
    return work.needs[-1] if work.needs else work.id


class _Mean:
    """A weighted mean that starts from a guess."""

    def __init__(self) -> None:
        self.weight, self._sum = 0.0, 0.0

    def add(self, value: float, weight: float) -> None:
        self.weight += weight
        self._sum += value * weight

    def value(self, weight: float, guess: float = 0.0) -> float:
        """Return the mean with a guess of this weight among the values."""
        whole = self.weight + weight
        return (self._sum + guess * weight) / whole if whole else guess


def _ratio(took: float, expected: float) -> float:
    return math.log(max(took, 1e-3) / max(expected, 1e-3))


# -- when the last one ends --------------------------------------------------------------------------------------------


def _makespan(
    works: Sequence[Work], left: Mapping[str, float], running: Mapping[str, Running], slots: Slots
) -> float:
    """Return when the last unit ends, if every place takes the next unit that may be done as soon as it is free."""
    todo = sorted((work for work in works if work.id in left), key=lambda work: work.id not in running)
    ends: dict[str, float] = {}
    trials = [0.0] * max(slots.trials, 1)
    _deal([work for work in todo if work.kind == "train"], left, trials, ends)
    trained = sorted(ends.values())
    evaluators = list(_opened(slots, trained))
    _deal([work for work in todo if work.kind == "import"], left, evaluators, ends)
    others = [work for work in todo if work.kind not in ("train", "import")]
    ready = {work.id: max((ends.get(need, 0.0) for need in work.needs), default=0.0) for work in others}
    _deal(sorted(others, key=lambda work: ready[work.id]), left, evaluators, ends, ready)
    return max(ends.values(), default=0.0)


def _opened(slots: Slots, trained: Sequence[float]) -> Iterator[float]:
    """Yield when each evaluator begins; `trained` says when each network that is left to train is trained."""
    for place in range(max(1, *slots.evaluators)):
        enough = [n for n, count in enumerate(slots.evaluators) if count > place]
        most = max(enough, default=0)
        if most == len(slots.evaluators) - 1 or most >= len(trained):
            yield 0.0
        else:
            yield trained[len(trained) - 1 - most]


def _deal(
    works: Iterable[Work], left: Mapping[str, float], places: list[float], ends: dict[str, float],
    ready: Mapping[str, float] | None = None,
) -> None:
    """Let each unit, in order, begin at the first place that is free; note when it ends."""
    heapq.heapify(places)
    for work in works:
        begins = max(places[0], ready[work.id] if ready else 0.0)
        ends[work.id] = begins + left[work.id]
        heapq.heapreplace(places, ends[work.id])
