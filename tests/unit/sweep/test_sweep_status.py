from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sweep_base import BASE, Planned

from rna_ray.sweep.status import subtract

TWO = BASE + "grid: {seed: [0, 1]}\n"  # two networks, each with two evaluate units


def test_nothing_done(planned: Planned) -> None:
    plan = planned(TWO)
    status = subtract(plan, set(), {})
    assert status.counts() == {
        "train": {"done": 0, "ready": 2, "waiting": 0, "failed": 0, "blocked": 0, "early": 0},
        "import": {"done": 0, "ready": 0, "waiting": 0, "failed": 0, "blocked": 0, "early": 0},
        "evaluate": {"done": 0, "ready": 0, "waiting": 4, "failed": 0, "blocked": 0, "early": 0},
        "probe": {"done": 0, "ready": 0, "waiting": 0, "failed": 0, "blocked": 0, "early": 0},
        "certify": {"done": 0, "ready": 0, "waiting": 0, "failed": 0, "blocked": 0, "early": 0},
    }
    assert status.to_do == plan.units


def test_what_was_stopped_early_is_not_to_do_nor_what_needs_it_unless_it_is_done(planned: Planned) -> None:
    plan = planned(TWO)
    first, second, *_ = (unit for unit in plan.units if unit.kind == "train")
    status = subtract(plan, {second.id}, {first.id: 3}, early={first.id, second.id})
    assert set(status.early) == {first, *(unit for unit in plan.units if first.id in unit.needs)}
    assert status.done == (second,) and {unit.needs for unit in status.to_do} == {(second.id,)}
    assert not status.failed and not status.blocked


def test_evaluations_are_ready_once_their_network_is_done(planned: Planned) -> None:
    plan = planned(TWO)
    first = plan.units[0]
    status = subtract(plan, {first.id}, {first.id: 2})  # it failed twice before it was done
    assert status.done == (first,)
    assert [unit.needs for unit in status.ready if unit.kind == "evaluate"] == [(first.id,)] * 2
    assert status.to_do == plan.units[1:]


def test_all_done(planned: Planned) -> None:
    plan = planned(TWO)
    status = subtract(plan, {unit.id for unit in plan.units}, {})
    assert status.to_do == () and status.done == plan.units


@pytest.mark.parametrize(
    ("retry", "attempts", "failed"),
    [("none", 1, True), ("failed", 1, False), ("failed", 2, False), ("failed", 3, True), ("all", 9, False)],
)
def test_what_failed_is_tried_again_as_retry_says(planned: Planned, retry: str, attempts: int, failed: bool) -> None:
    plan = planned(TWO)
    first = plan.units[0]
    status = subtract(plan, set(), {first.id: attempts}, retry)  # type: ignore[arg-type]
    assert (status.failed == (first,)) is failed
    assert len(status.blocked) == (2 if failed else 0)  # its evaluations; the other network goes on
    assert all(unit.needs == (first.id,) for unit in status.blocked)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(data=st.data(), retry=st.sampled_from(["failed", "all", "none"]))
def test_each_unit_stands_in_one_place(planned: Planned, data: st.DataObject, retry: str) -> None:
    plan = planned(TWO)
    ids = [unit.id for unit in plan.units]
    done = data.draw(st.sets(st.sampled_from(ids)))
    failed = data.draw(st.dictionaries(st.sampled_from(ids), st.integers(1, 5)))
    status = subtract(plan, done, failed, retry)  # type: ignore[arg-type]
    places = [status.done, status.ready, status.waiting, status.failed, status.blocked, status.early]
    assert sorted(unit.id for place in places for unit in place) == sorted(ids)
    assert {unit.id for unit in status.done} == done
