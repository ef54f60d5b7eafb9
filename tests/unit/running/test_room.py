"""How trials and evaluators share a machine while work comes and goes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rna_ray.running import pool
from rna_ray.running.pool import Room
from rna_ray.sweep.forecast import Slots
from rna_ray.sweep.sections import Pool, TrainShare


def _room(trials: int, cpus: float) -> Room:
    """Return the room for some trials of cost 30 and one evaluation of 10, each on a CPU."""
    machine = SimpleNamespace(possible=lambda *shares: [{"CPU": cpus}])
    names = [f"t{n}" for n in range(trials)]
    tasks = SimpleNamespace(
        share=lambda kind: TrainShare(cpu=1), where=SimpleNamespace(evaluate=Pool(cpu=1)),
        cost=lambda kind: 30 * trials, of_kind=lambda kind: names, costs={**dict.fromkeys(names, 30), "e": 10},
        units=[SimpleNamespace(id=name) for name in (*names, "e")],
    )  # fmt: skip
    return Room(tasks, machine)  # type: ignore[arg-type]


def test_the_places_that_work_side_by_side_are_those_that_trials_leave() -> None:
    assert _room(1, 4).slots() == Slots(trials=4, evaluators=(4, 3, 2, 1, 0))


def test_evaluators_get_places_once_there_is_a_trial_s_worth_of_work_until_none_is_left() -> None:
    room = _room(4, 4)
    seen = []
    for ready in (0, 10, 29, 30, 60, 10, 1, 0, 29):
        room.weigh(ready)
        seen.append((room.trials(), room.evaluators(4)))
    assert seen == [(4, 0)] * 3 + [(3, 1)] * 4 + [(4, 0)] * 2
    assert room.slots().trials == 4  # and the estimate of the time left does not jump with that


def test_evaluators_need_not_wait_for_a_long_trial_s_worth_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool.cost, "assumed", lambda *, gpu: 20 / pool.WORTH_SECONDS)
    room = _room(4, 4)
    room.weigh(19)
    assert room.trials() == 4
    room.weigh(20)
    assert room.trials() == 3
