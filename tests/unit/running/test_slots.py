"""How many units fit, and how the machine is shared: pure arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rna_ray.errors import ResourceError
from rna_ray.running import slots
from rna_ray.sweep.sections import Share

CPU = Share(cpu=1.0, gpu=0.0)


def share(cpu: float, gpu: float = 0.0) -> Share:
    return Share(cpu=cpu, gpu=gpu)


def nodes(*sizes: tuple[float, float]) -> list[slots.Node]:
    return [{"CPU": cpu, "GPU": gpu} if gpu else {"CPU": cpu} for cpu, gpu in sizes]


@pytest.mark.parametrize(
    ("machines", "one", "fit"),
    [
        ([(2, 0)], share(1), 2),
        ([(2, 0)], share(0.5), 4),
        ([(1, 0)], share(0.1), 10),  # 10 * 0.1 is less than 1 in floating point
        ([(3, 0), (3, 0)], share(2), 2),  # a unit never spans two nodes
        ([(16, 1)], share(1, 0.25), 4),
        ([(16, 2)], share(1, 1), 2),
        ([(8, 0), (1, 1)], share(1, 1), 1),
        ([(8, 0), (1, 1)], share(2, 1), 0),
        ([(4, 2)], share(0, 1), 2),
        ([(4, 0)], share(5), 0),
        ([], share(1), 0),
    ],
)
def test_a_unit_fits_where_one_node_has_all_it_takes(
    machines: list[tuple[float, float]], one: Share, fit: int
) -> None:
    assert slots.count(nodes(*machines), one) == fit


def test_what_no_node_can_hold_is_refused_with_what_there_is() -> None:
    slots.check(nodes((2, 0)), share(2), "train")
    said = (
        r"^resources\.train asks for 1 CPU and 1 GPU a unit, but the largest node of the cluster has 8 CPU and 0 GPU; "
        r"ask for less, or add a larger node$"
    )
    with pytest.raises(ResourceError, match=said):
        slots.check(nodes((2, 0), (8, 0)), share(1, 1), "train")
    with pytest.raises(ResourceError, match=r"resources\.evaluate asks for 3 CPU"):
        slots.check(nodes((2, 0), (2, 0)), share(3), "evaluate")
    with pytest.raises(ResourceError, match=r"has 0 CPU"):
        slots.check([], share(1), "train")


@pytest.mark.parametrize(
    ("fit", "train", "evaluate", "at_once"),
    [
        (1, 1, 1, 1),  # one after the other
        (2, 1, 1, 1),
        (2, 99, 1, 1),  # evaluation of finished trials overlaps with the training of others
        (2, 1, 99, 1),
        (8, 3, 1, 6),
        (8, 1, 3, 2),
        (8, 0, 1, 1),
        (0, 1, 1, 1),
    ],
)
def test_slots_are_divided_as_the_work_is(fit: int, train: float, evaluate: float, at_once: int) -> None:
    found = slots.trials_at_once(nodes((fit, 0)), CPU, CPU, train_cost=train, evaluate_cost=evaluate, wanted=True)
    assert found == at_once


@pytest.mark.parametrize(
    ("machine", "one", "evaluate", "at_once"),
    [
        ((8, 2), share(1, 1), CPU, 2),  # trials take the GPUs, evaluators the CPUs beside them
        ((8, 2), share(1, 1), share(1, 1), 1),
        ((2, 2), share(1, 1), CPU, 1),
        ((3, 0), share(2), CPU, 1),
        ((5, 0), share(2), CPU, 2),
    ],
)
def test_trials_take_all_the_room_where_evaluators_fit_beside_them(
    machine: tuple[float, float], one: Share, evaluate: Share, at_once: int
) -> None:
    assert slots.trials_at_once(nodes(machine), one, evaluate, train_cost=1, evaluate_cost=1, wanted=True) == at_once


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 8))
def test_trials_take_all_the_room_while_evaluators_have_nothing_to_do(fit: int, train: int, evaluate: int) -> None:
    machine = nodes((fit * train, 0))
    assert slots.trials_at_once(
        machine, share(train), share(evaluate), train_cost=1, evaluate_cost=9, wanted=False
    ) == fit  # fmt: skip


@given(st.integers(2, 64), st.floats(1, 1e15), st.floats(1, 1e15))
def test_where_there_are_two_slots_both_get_one(fit: int, train: float, evaluate: float) -> None:
    at_once = slots.trials_at_once(nodes((fit, 0)), CPU, CPU, train_cost=train, evaluate_cost=evaluate, wanted=True)
    assert 1 <= at_once <= fit - 1
    assert slots.evaluators(nodes((fit, 0)), CPU, CPU, trials=at_once, most=None) == fit - at_once


@pytest.mark.parametrize(
    ("machines", "evaluate", "train", "trials", "most", "room"),
    [
        ([(2, 0)], CPU, CPU, 1, None, 1),
        ([(2, 0)], CPU, CPU, 0, None, 2),  # once training ends, all of it
        ([(2, 0)], share(0.5), CPU, 1, None, 2),
        ([(1, 0)], CPU, CPU, 1, None, 0),  # they wait until training ends
        ([(1, 0)], CPU, CPU, 0, None, 1),
        ([(2, 0)], CPU, share(2), 1, None, 0),
        ([(8, 0)], CPU, CPU, 2, 3, 3),
        ([(8, 1)], CPU, share(1, 1), 1, None, 7),
        ([(8, 1)], share(1, 1), share(1, 1), 1, None, 0),
        ([(8, 1)], share(1, 0.5), share(1, 0.5), 1, None, 1),
        ([(4, 0)], CPU, CPU, 9, None, 0),  # more trials than fit leave no room, not less than none
    ],
)
def test_evaluators_take_what_trials_leave(
    machines: list[tuple[float, float]], evaluate: Share, train: Share, trials: int, most: int | None, room: int
) -> None:
    assert slots.evaluators(nodes(*machines), evaluate, train, trials=trials, most=most) == room


@given(st.lists(st.integers(1, 8), min_size=1, max_size=4), st.integers(1, 8), st.integers(1, 8))
def test_when_training_has_ended_evaluators_take_all_that_fit(sizes: list[int], cpu: int, train: int) -> None:
    machines = nodes(*((size, 0) for size in sizes))
    room = slots.evaluators(machines, share(cpu), share(train), trials=0, most=None)
    assert room == slots.count(machines, share(cpu)) and (room > 0) == (max(sizes) >= cpu)


CONFIG = {
    "max_workers": 5,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}},
        "cpu": {"resources": {"CPU": 4}, "max_workers": 3},
        "gpu": {"resources": {"CPU": 8, "GPU": 1}},
    },
}


def test_an_autoscaler_may_add_what_its_configuration_says_beside_the_head() -> None:
    may = slots.growth(CONFIG)
    assert [(one.name, one.most) for one in may.types] == [("cpu", 3), ("gpu", 5)]
    assert may.text() == "up to 3 cpu (4 CPU, 0 GPU), up to 5 gpu (8 CPU, 1 GPU)"


@pytest.mark.parametrize(
    ("alive", "cpus", "gpus"),
    [
        ([], 3, 2),  # three of one and two of the other are five
        (["cpu"], 3, 2),
        (["gpu", "gpu"], 3, 2),
        (["gpu"] * 5, 0, 5),
        (["cpu"] * 9, 9, 0),  # more than it would start itself
    ],
)
def test_what_is_there_counts_towards_what_may_come(alive: list[str], cpus: int, gpus: int) -> None:
    may = slots.growth(CONFIG)
    sizes = {one.name: one.resources for one in may.types}
    found = slots.grown([("head", {"CPU": 0}), *((name, sizes[name]) for name in alive)], may)
    assert found[0] == {"CPU": 0}
    assert sum(node == sizes["cpu"] for node in found) == cpus
    assert sum(node == sizes["gpu"] for node in found) == gpus


def test_a_node_of_unknown_size_is_taken_to_hold_one_unit() -> None:
    may = slots.Growth(types=(slots.NodeType(name="workers", resources={}, most=2),), most=2)
    assert may.text() == "up to 2 workers (it does not say how large)"
    found = slots.grown([(None, {"CPU": 0})], may.guessed(share(4, 1), share(6)))
    assert found == [{"CPU": 0}, {"CPU": 6, "GPU": 1}, {"CPU": 6, "GPU": 1}]
    assert slots.count(found, share(4, 1)) == 2


def test_what_no_autoscaler_may_add_is_refused_with_what_it_may() -> None:
    possible = slots.grown([("head", {"CPU": 0})], slots.growth(CONFIG))
    slots.check(possible, share(8, 1), "train", grows=True)
    said = r"the largest node of the cluster and of what its autoscaler may add has 8 CPU and 1 GPU"
    with pytest.raises(ResourceError, match=said):
        slots.check(possible, share(9, 1), "train", grows=True)
