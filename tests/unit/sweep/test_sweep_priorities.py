"""Higher priorities come first, networks before what needs them, and no id changes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sweep_base import BASE, Planned

from rna_ray.errors import SweepError
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.status import subtract

# Two networks, each with one unit of two attacks.
SWEEP = BASE.replace("examples: 200, knowledge: eot-10}", "examples: 100}\n  - {attack: fgsm, examples: 100}") + (
    "variants: {A: {network.norm: BN}, B: {network.norm: IN}}\n"
)


def order(plan: Plan) -> list[str]:
    """Return the units by what they are: "A" trains it, "A fgsm" attacks it."""
    variant = {trial.network: trial.variant for trial in plan.trials}
    return [
        variant.get(unit.id) or f"{variant[unit.settings['network']]} {unit.settings['attack']['name']}"
        for unit in plan.units
    ]


def test_without_priorities_networks_come_first(planned: Planned) -> None:
    assert order(planned(SWEEP)) == ["A", "B", "A pgd", "A fgsm", "B pgd", "B fgsm"]
    assert set(planned(SWEEP).priorities.values()) == {0}


def test_a_variant_of_a_higher_priority_is_done_whole_before_the_others(planned: Planned) -> None:
    plan = planned(SWEEP, "variants.B.priority=1")
    assert order(plan) == ["B", "B pgd", "B fgsm", "A", "A pgd", "A fgsm"]
    assert sorted(unit.id for unit in plan.units) == sorted(unit.id for unit in planned(SWEEP).units)
    assert {cell.variant: dict(cell.row) for cell in plan.cells} == {
        "A": {"network.norm": "BN"}, "B": {"network.norm": "IN"},
    }  # fmt: skip


def test_an_entry_takes_its_networks_along(planned: Planned) -> None:
    assert order(planned(SWEEP, "evaluation.1.priority=2")) == ["A", "B", "A fgsm", "B fgsm", "A pgd", "B pgd"]
    only = planned(SWEEP, "evaluation.1.priority=2", "evaluation.1.only=[B]")
    assert order(only) == ["B", "B fgsm", "A", "A pgd", "B pgd"]


def test_priorities_of_variant_and_entry_add_up(planned: Planned) -> None:
    plan = planned(SWEEP + "priority: -3\n", "variants.B.priority=10", "evaluation.1.priority=1")
    assert order(plan) == ["B", "B fgsm", "B pgd", "A", "A fgsm", "A pgd"]
    assert [plan.priorities[unit.id] for unit in plan.units] == [11, 11, 10, -2, -2, -3]


def test_what_waits_for_no_hurry_comes_last(planned: Planned) -> None:
    assert order(planned(SWEEP, "evaluation.0.priority=-1")) == ["A", "B", "A fgsm", "B fgsm", "A pgd", "B pgd"]


def test_a_pair_is_as_urgent_as_its_less_urgent_network(planned: Planned) -> None:
    plan = planned(SWEEP, "probes=[{probe: similarity, examples: 100}]", "variants.B.priority=5", "evaluation=[]")
    assert [plan.priorities[unit.id] for unit in plan.units] == [5, 0, 0]
    assert [unit.kind for unit in plan.units] == ["train", "train", "probe"]


def test_what_is_left_to_do_keeps_the_order(planned: Planned) -> None:
    """A trained network's evaluations are ready at once, and still wait for a more urgent training."""
    plan = planned(SWEEP, "variants.B.priority=1")
    by_name = dict(zip(order(plan), plan.units, strict=True))
    status = subtract(plan, {by_name["A"].id}, {})
    assert [unit.id for unit in status.to_do] == [
        by_name[name].id for name in ("B", "B pgd", "B fgsm", "A pgd", "A fgsm")
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.integers(-3, 3), min_size=4, max_size=4))
def test_networks_come_before_what_needs_them_and_the_higher_priority_first(
    planned: Planned, stated: list[int]
) -> None:
    keys = ("variants.A.priority", "variants.B.priority", "evaluation.0.priority", "evaluation.1.priority")
    plan = planned(SWEEP, *(f"{key}={value}" for key, value in zip(keys, stated, strict=True)))
    seen: set[str] = set()
    for unit in plan.units:
        assert seen.issuperset(unit.needs)
        seen.add(unit.id)
    urgent = [plan.priorities[unit.id] for unit in plan.units]
    assert urgent == sorted(urgent, reverse=True) and len(urgent) == 6


@pytest.mark.parametrize("value", ["high", "1.5", "null"])
def test_a_priority_is_a_whole_number(planned: Planned, value: str) -> None:
    with pytest.raises(SweepError, match=r"priority: .* is not a whole number"):
        planned(SWEEP, f"evaluation.0.priority={value}")
