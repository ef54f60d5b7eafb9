"""The time left of a run, against schedules that are played to their end."""

from __future__ import annotations

import dataclasses
import heapq
import random
import time
from collections.abc import Callable, Iterator

import pytest

from rna_ray.sweep import units
from rna_ray.sweep.forecast import ONE, Forecast, Running, Slots, Usual, Work, forecast

SPEED = 1e9
USUAL = {kind: Usual(macs_per_second=SPEED) for kind in ("train", "import", "evaluate", "probe", "certify")}
BESIDE = Slots(trials=2, evaluators=(4, 3, 2))


def networks(count: int, *, seconds: float = 60.0, entries: dict[str, float], shards: int = 5) -> list[Work]:
    """Return a sweep: trainings of so many seconds each, then the shards of some evaluations of each network."""
    trains = [Work(id=f"t{n}", kind="train", alike="train whitebox", macs=seconds * SPEED) for n in range(count)]
    evaluations = [
        Work(id=f"{train.id} {name} {shard}", kind="evaluate", alike=f"evaluate {name}", macs=each * SPEED,
             needs=(train.id,))
        for train in trains for name, each in entries.items() for shard in range(shards)
    ]  # fmt: skip
    return trains + evaluations


ENTRIES = {"natural none": 0.05, "pgd fixed": 3.0, "pgd eot-10": 20.0}
EPOCHS = 10


@dataclasses.dataclass
class Played:
    """A run as it went: when each unit began and ended."""

    works: list[Work]
    times: dict[str, tuple[float, float]]

    @property
    def total(self) -> float:
        return max(end for _, end in self.times.values())

    def at(self, share: float) -> float:
        """Return when this share of the work was done."""
        whole = sum(end - begin for begin, end in self.times.values())
        low, high = 0.0, self.total
        while high - low > 1e-6 * self.total:
            now = (low + high) / 2
            done = sum(min(max(now - begin, 0.0), end - begin) for begin, end in self.times.values())
            low, high = (now, high) if done < share * whole else (low, now)
        return high

    def seen(self, now: float, slots: Slots, usual: dict = USUAL) -> Forecast:  # type: ignore[type-arg]
        """Return what is forecast at this time, from what can be known of the run then."""
        finished = {one: end - begin for one, (begin, end) in self.times.items() if end <= now}
        kinds = {work.id: work.kind for work in self.works}
        running = {
            one: _running(now - begin, end - begin, kinds[one])
            for one, (begin, end) in self.times.items() if begin <= now < end
        }  # fmt: skip
        return forecast(self.works, finished=finished, running=running, usual=usual, slots=slots)


def _running(passed: float, takes: float, kind: str) -> Running:
    epochs = int(passed / takes * EPOCHS)
    if kind != "train" or not epochs:
        return Running(seconds=passed)
    return Running(seconds=passed, fraction=passed / takes, pace=takes)


def play(works: list[Work], takes: Callable[[Work], float], slots: Slots) -> Played:
    """Play a run through: every time a place is free, it takes the first unit that may be done."""
    times: dict[str, tuple[float, float]] = {}
    waiting, events, now = list(works), [0.0], 0.0
    while waiting or any(end > now for _, end in times.values()):
        now = heapq.heappop(events)
        at_work = [work for work in works if work.id in times and times[work.id][1] > now]
        trained = {work.id for work in works if work.id in times and times[work.id][1] <= now}
        training = sum(work.kind == "train" for work in [*at_work, *waiting])
        free = {
            "train": slots.trials - sum(work.kind == "train" for work in at_work),
            "evaluate": slots.evaluators[min(training, len(slots.evaluators) - 1)]
            - sum(work.kind != "train" for work in at_work),
        }
        for work in list(waiting):
            if free[work.kind] > 0 and trained.issuperset(work.needs):
                free[work.kind] -= 1
                waiting.remove(work)
                times[work.id] = now, now + takes(work)
                heapq.heappush(events, times[work.id][1])
    return Played(works, times)


def errors(played: Played, slots: Slots) -> Iterator[float]:
    """Yield by how much the predicted total was off after a fifth, two and three fifths of the work."""
    for share in (0.2, 0.4, 0.6):
        now = played.at(share)
        yield (now + played.seen(now, slots).seconds) / played.total - 1


def as_assumed(work: Work) -> float:
    return work.macs / SPEED


def scattered(by: float) -> Callable[[Work], float]:
    drawn = random.Random(7)
    factors: dict[str, float] = {}
    return lambda work: as_assumed(work) * factors.setdefault(work.id, drawn.lognormvariate(0.0, by))


def dearer(**factors: float) -> Callable[[Work], float]:
    return lambda work: as_assumed(work) * factors.get(work.kind, 1.0)


def by_network(work: Work) -> float:
    """Return what units take whose networks' norms cost once, one and a half times or twice what they should."""
    network = (work.needs or (work.id,))[0]
    return as_assumed(work) * (1 + int(network[1:]) % 3 / 2)


def with_starts(work: Work) -> float:
    """Return what units take that read a network, compile it and write rows, whatever they compute."""
    return as_assumed(work) / 5 + (2.0 if work.kind == "evaluate" else 10.0)


def eot_dearer(work: Work) -> float:
    return as_assumed(work) * (1.5 if "eot" in work.alike else 1.0)


RUNS = {
    "as assumed": as_assumed,
    "evaluation ten times dearer": dearer(evaluate=10.0),
    "a machine of a tenth of the speed": dearer(train=10.0, evaluate=10.0),
    "a machine of ten times the speed": dearer(train=0.1, evaluate=0.1),
    "networks of different speed": by_network,
    "units of different speed": scattered(0.5),
    "the time goes into starting": with_starts,
    "one attack dearer than assumed": eot_dearer,
}


SLOTS = {"one": ONE, "two and two": BESIDE, "eight": Slots(trials=8, evaluators=(16, 8))}


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("run", RUNS)
def test_the_predicted_total_is_within_a_quarter_from_a_fifth_on(run: str, slots: str) -> None:
    played = play(networks(9, entries=ENTRIES), RUNS[run], SLOTS[slots])
    told = list(errors(played, SLOTS[slots]))
    assert max(map(abs, told)) < 0.25, told


@pytest.mark.parametrize("slots", ["one", "eight"])
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_where_evaluation_comes_last_the_stores_own_units_say_what_it_takes(kind: str, slots: str) -> None:
    played = play(networks(9, entries=ENTRIES), dearer(**{kind: 10.0}), SLOTS[slots])
    known = {
        one: Usual(macs_per_second=SPEED / 10 if one == kind else SPEED, measured=True) for one in USUAL
    }  # fmt: skip
    now = played.at(0.2)
    assert now + played.seen(now, SLOTS[slots], known).seconds == pytest.approx(played.total, rel=0.02)


def test_before_anything_ended_the_usual_speed_is_taken_and_a_late_unit_is_noticed() -> None:
    works = networks(1, seconds=10.0, entries={"pgd fixed": 5.0}, shards=4)

    def left(running: dict[str, Running]) -> float:
        return forecast(works, finished={}, running=running, usual=USUAL, slots=ONE).seconds

    assert left({}) == pytest.approx(30.0)
    assert left({"t0": Running(seconds=4.0)}) == pytest.approx(26.0)
    assert left({"t0": Running(seconds=30.0)}) == pytest.approx(27.5)  # it may have compiled so long
    assert left({"t0": Running(seconds=100.0)}) > 70.0  # now the others are not taken to be fast either
    assert left({"t0": Running(seconds=4.0, fraction=0.5, pace=8.0)}) == pytest.approx(4.0 + 20.0 * 0.8, rel=0.05)


def test_a_last_long_unit_is_waited_for_however_many_places_are_free() -> None:
    train, *rest = networks(1, seconds=50.0, entries={"natural none": 1.0, "autoattack fixed": 50.0}, shards=1)
    slots = Slots(trials=1, evaluators=(8, 1))
    found = forecast([train, *rest], finished={train.id: 50.0}, running={}, usual=USUAL, slots=slots)
    assert found.seconds == pytest.approx(50.0) and found.share == pytest.approx(50 / 101)


def test_evaluators_beside_the_trials_come_as_these_end() -> None:
    works = networks(2, seconds=10.0, entries={"pgd fixed": 10.0}, shards=2)
    none_beside = forecast(works, finished={}, running={}, usual=USUAL, slots=Slots(trials=1, evaluators=(4, 0)))
    one_beside = forecast(works, finished={}, running={}, usual=USUAL, slots=Slots(trials=1, evaluators=(4, 1)))
    assert none_beside.seconds == pytest.approx(30.0)  # two trainings, then all four at once
    assert one_beside.seconds == pytest.approx(30.0)  # one of the first network's meanwhile, three after
    assert forecast(works, finished={}, running={}, usual=USUAL, slots=ONE).seconds == pytest.approx(60.0)


def test_all_that_is_done_is_all() -> None:
    assert forecast([], finished={}, running={}, usual=USUAL, slots=ONE) == Forecast(seconds=0.0, share=1.0)
    works = networks(1, entries=ENTRIES)
    done = forecast(works, finished={work.id: 1.0 for work in works}, running={}, usual=USUAL, slots=ONE)
    assert done == Forecast(seconds=0.0, share=1.0)


def test_what_units_do_tells_them_apart() -> None:
    network = units.train({"training": {"objective": "blackbox"}})
    settings = {"network": network.id, "attack": {"name": "pgd"}, "knowledge": "fixed"}
    evaluation = units.evaluate(settings, examples=(0, 10))
    assert Work.of(network, 5).alike == "train blackbox" and Work.of(network, 5).macs == 5.0
    assert Work.of(evaluation, 1).alike == "evaluate pgd fixed" and Work.of(evaluation, 1).needs == (network.id,)


def test_a_forecast_of_a_hundred_thousand_units_takes_seconds_at_most() -> None:
    works = networks(1000, entries=ENTRIES, shards=33)
    finished = {work.id: 1.0 for work in works[:50_000]}
    began = time.perf_counter()
    forecast(works, finished=finished, running={}, usual=USUAL, slots=SLOTS["eight"])
    assert time.perf_counter() - began < 20.0
