"""What an evaluator is handed at once, and what becomes of it where the evaluator dies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError, RayTaskError

from rna_ray.running import pool
from rna_ray.running.deaths import RETRIES
from rna_ray.running.pool import Pool
from rna_ray.running.tasks import TOGETHER, TOGETHER_SECONDS, Done
from rna_ray.sweep.units import Unit, train

COST = 1000


class Ray:
    """What the pool asks of Ray, where each call gives what a test says."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.killed: list[Any] = []
        self.deadly = ""
        """The id of a unit that no evaluator survives."""
        self.broken = ""
        """The id of a unit with which no call ends well, though the evaluator lives on."""
        self.states: dict[str, Any] = {}
        """How units end, where that is not well."""
        self.most = 10**6
        """How many units an evaluator does before its time is up."""

    def remote(self, jobs: list[Any]) -> int:
        self.calls.append([job.unit.id for job in jobs])
        return len(self.calls) - 1

    def get(self, reference: int) -> list[Done]:
        if self.deadly in self.calls[reference]:
            raise RayActorError
        if self.broken in self.calls[reference]:
            raise RayTaskError("perform", "no", ValueError("no"))
        done = self.calls[reference][: self.most]
        return [Done(unit_id=one, kind="evaluate", state=self.states.get(one, "done"), seconds=0.001) for one in done]

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    fake = Ray()
    for name in ("get", "kill"):
        monkeypatch.setattr(pool.ray, name, getattr(fake, name))
    monkeypatch.setattr(
        pool, "lost", lambda job, why: Done(unit_id=job.unit.id, kind="evaluate", state="failed", seconds=0, error=why)
    )
    return fake


class Events:
    """The progress that the pool tells of."""

    def __init__(self) -> None:
        self.begun_: list[str] = []
        self.ended: dict[str, str] = {}

    def begun(self, unit_id: str) -> None:
        self.begun_.append(unit_id)

    def finished(self, done: Done) -> None:
        assert done.unit_id in self.begun_ and done.unit_id not in self.ended
        self.ended[done.unit_id] = done.state


def made(units: list[Unit], ray: Ray, *, evaluators: int = 1, costs: dict[str, int] | None = None) -> Pool:
    """Return a pool with some idle evaluators."""
    tasks = SimpleNamespace(
        priorities={}, costs=dict.fromkeys((unit.id for unit in units), COST) | (costs or {}),
        job=lambda unit: SimpleNamespace(unit=unit),
    )
    machines = SimpleNamespace(gone=lambda node: False, grows=False)
    room = SimpleNamespace(
        weigh=lambda ready: None, machines=machines, evaluators=lambda training: len(found._idle) + len(found._busy)
    )
    stop = SimpleNamespace(asked=False)
    found = Pool(tasks, Events(), units, set(), room, None, stop)  # type: ignore[arg-type]
    actors = [SimpleNamespace(perform=ray) for _ in range(evaluators)]
    found._idle = [pool._Alive(actor, "node") for actor in actors]
    return found


def named(count: int) -> list[Unit]:
    return [train({"name": str(at)}) for at in range(count)]


def rest(busy: Pool) -> None:
    """Collect whatever is handed out until nothing is."""
    while busy._busy:
        busy._collect(next(iter(busy._busy)))
        busy._assign()


def test_the_first_is_handed_out_alone_and_short_ones_together_from_then_on(ray: Ray) -> None:
    units = named(1000)
    busy = made(units, ray)
    busy._assign()
    rest(busy)
    sizes = [len(call) for call in ray.calls]
    assert sizes[:2] == [1, TOGETHER] and max(sizes) == TOGETHER
    assert sizes[-1] == 1 and sizes == [1, *sorted(sizes[1:], reverse=True)]  # never all that are left: others help
    assert [one for call in ray.calls for one in call] == [unit.id for unit in units]
    assert busy.progress.ended == {unit.id: "done" for unit in units}  # type: ignore[attr-defined]


def test_no_more_are_handed_out_together_than_take_a_moment(ray: Ray) -> None:
    units = named(100)
    busy = made(units, ray, costs={units[28].id: 10**9})
    busy._pace = TOGETHER_SECONDS / 8 / COST
    assert len(busy._take()) == 7
    busy._pace = TOGETHER_SECONDS / COST
    assert len(busy._take()) == 1
    busy._pace = 0.001 * TOGETHER_SECONDS / COST
    assert [len(busy._take()) for _ in range(3)] == [20, 1, 17]  # up to the long one, that, and what is due of 71


def test_what_an_evaluator_had_no_time_for_is_what_comes_next(ray: Ray) -> None:
    units = named(100)
    busy = made(units, ray)
    busy._pace, ray.most = 0.001 * TOGETHER_SECONDS / COST, 3
    busy._assign()
    rest(busy)
    assert [one for call in ray.calls for one in call[:3]] == [unit.id for unit in units]
    assert busy.progress.ended == {unit.id: "done" for unit in units}  # type: ignore[attr-defined]


def test_units_whose_evaluator_died_are_done_again_each_alone(ray: Ray) -> None:
    units = named(100)
    busy = made(units, ray, evaluators=2)
    busy._pace = 0.001 * TOGETHER_SECONDS / COST
    ray.deadly = units[5].id
    busy._assign()
    died = ray.calls[0]
    assert ray.deadly in died and len(died) > 6
    while busy._busy or busy._queue:
        busy._idle += [pool._Alive(SimpleNamespace(perform=ray), "node")] * (not busy._idle)
        busy._assign()
        busy._collect(next(iter(busy._busy)))
    again = [call for call in ray.calls[1:] if set(call) & set(died)]
    assert all(len(call) == 1 for call in again)
    assert [call[0] for call in again].count(ray.deadly) == RETRIES
    ended = busy.progress.ended  # type: ignore[attr-defined]
    assert ended == {unit.id: "failed" if unit.id == ray.deadly else "done" for unit in units}
    assert len(ray.killed) == 1 + RETRIES


def test_an_error_of_a_call_is_that_of_one_unit(ray: Ray) -> None:
    units = named(100)
    busy = made(units, ray)
    busy._pace, ray.broken = 0.001 * TOGETHER_SECONDS / COST, units[5].id
    busy._assign()
    assert len(ray.calls[0]) > 6
    rest(busy)
    ended = busy.progress.ended  # type: ignore[attr-defined]
    assert ended == {unit.id: "failed" if unit.id == ray.broken else "done" for unit in units}
    assert not ray.killed and [call for call in ray.calls if ray.broken in call][1:] == [[ray.broken]]


def test_one_that_fails_at_once_says_nothing_of_how_long_the_next_ones_take(ray: Ray) -> None:
    units = named(100)
    busy = made(units, ray)
    ray.states = {units[0].id: "failed"}
    busy._assign()
    rest(busy)
    assert [len(call) for call in ray.calls[:3]] == [1, 1, 49]


def test_evaluators_without_room_leave_as_they_end_a_unit_whatever_is_queued(
    ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = made(named(1000), ray, evaluators=4)
    busy._assign()
    monkeypatch.setattr(busy.room, "evaluators", lambda training: 1)
    for left in (3, 2, 1, 1):
        busy._collect(next(iter(busy._busy)))
        assert len(busy._busy) == left
    assert len(ray.killed) == 3 and busy._queue


def test_whether_a_node_is_gone_is_asked_once_and_its_units_may_go_together_again(
    ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    units, asked = named(100), []
    busy = made(units, ray)
    busy._pace, ray.deadly = 0.001 * TOGETHER_SECONDS / COST, units[5].id
    monkeypatch.setattr(busy.room.machines, "gone", lambda node: not asked.append(node))
    busy._assign()
    busy._collect(next(iter(busy._busy)))
    again = [unit.id for unit, _ in busy._take()]
    assert asked == ["node"] and len(again) > 1 and again[0] == ray.calls[0][0]
