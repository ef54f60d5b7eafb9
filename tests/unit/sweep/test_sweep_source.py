"""An attack that is crafted on another variant's network: whose, what it may know, and what counts."""

from __future__ import annotations

import pytest
from sweep_base import Planned

from rna_ray.errors import SweepError
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.units import Unit, checkpoints

BASE = """\
name: base
data: {name: digits, held_out: 128}
network: {name: resnet8, width: 16, norm: BN}
training: {objective: whitebox, epochs: 3, attack: {eps_255: 25.5, step_255: 6.4, steps: 5}}
variants:
  Madry: {}
  random: {network.norm: BN+IN}
  noisy: {network.norm: IN, noise_255: 51}
evaluation:
  - {attack: pgd, examples: 200, source: Madry, only: [random, noisy]}
"""


def attacks(plan: Plan) -> list[Unit]:
    return [unit for unit in plan.units if unit.kind == "evaluate"]


def of(plan: Plan, variant: str) -> list[Unit]:
    by_id = {unit.id: unit for unit in plan.units}
    return [by_id[one] for cell in plan.cells if cell.variant == variant for one in cell.units]


def network(plan: Plan, variant: str, seed: int | None = None) -> str:
    (found,) = {
        trial.network for trial in plan.trials
        if trial.variant == variant and (seed is None or trial.row["seed"] == seed)
    }  # fmt: skip
    return found


def test_it_needs_both_networks_and_says_so_in_its_label(planned: Planned) -> None:
    plan = planned(BASE)
    madry = network(plan, "Madry")
    assert {cell.variant for cell in plan.cells} == {"random", "noisy"}
    assert {(cell.attack, cell.source) for cell in plan.cells} == {("pgd-20 from Madry", "Madry")}
    for unit in of(plan, "random"):
        assert unit.needs == (network(plan, "random"), madry)
        assert checkpoints(unit) == {network(plan, "random"): "best", madry: "best"}
    assert [unit.kind for unit in plan.units[:3]] == ["train"] * 3


def test_the_attackers_draws_are_the_sources_and_the_defenders_its_own(planned: Planned) -> None:
    on_plain = of(planned(BASE), "noisy")[0].settings
    assert (on_plain["knowledge"], on_plain["draws"], on_plain["noise_255"]) == ("fixed", 10, 51)
    assert on_plain["source"] == {
        "id": on_plain["source"]["id"], "checkpoint": "best", "paths": "example", "noise_255": 0.0, "precision": "fp32",
        "compile": False,
    }  # fmt: skip
    text = BASE.replace("source: Madry, only: [random, noisy]", "source: noisy, knowledge: eot-5, only: [Madry]")
    on_noisy = of(planned(text), "Madry")[0].settings
    assert (on_noisy["knowledge"], on_noisy["draws"], on_noisy["noise_255"]) == ("eot-5", 1, 0.0)
    assert on_noisy["source"]["noise_255"] == 51


def test_its_cost_is_that_of_both_networks(planned: Planned) -> None:
    plan, wide = planned(BASE), planned(BASE, "variants.Madry={network.width: 32}")
    of_one, of_wide = (one.costs[of(one, "noisy")[0].id] for one in (plan, wide))
    assert 2 * of_one < of_wide < 4.1 * of_one  # the attack through four times the work, the answers as before


def test_a_source_of_the_same_seed_is_taken_and_one_alone_serves_all(planned: Planned) -> None:
    every = planned(BASE, "grid={seed: [0, 1]}")
    for seed in (0, 1):
        noisy = network(every, "noisy", seed)
        sources = {unit.settings["source"]["id"] for unit in attacks(every) if unit.needs[0] == noisy}
        assert sources == {network(every, "Madry", seed)}
    alone = planned(BASE, "variants.noisy.seed=[3, 4]", "variants.random.seed=[5]")
    assert {unit.settings["source"]["id"] for unit in attacks(alone)} == {network(alone, "Madry")}


def test_an_attack_of_its_own_and_one_from_elsewhere_stand_apart(planned: Planned) -> None:
    own = "{attack: pgd, examples: 200, knowledge: transfer}"
    plan = planned(BASE.replace("evaluation:\n", f"evaluation:\n  - {own}\n"))
    assert [cell.attack for cell in plan.cells if cell.variant == "random"] == ["pgd-20", "pgd-20 from Madry"]
    assert len({unit.id for unit in of(plan, "random")}) == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("source: Madry", "source: Mad"), "evaluation.0.source: no variant is called 'Mad'; there are: Madry, random"),
        ((", only: [random, noisy]", ""), "evaluation.0.source: 'Madry' is the network of 'Madry' itself"),
        (("pgd, examples: 200", "natural"), "evaluation.0.source: natural looks at no network; leave it out"),
        (
            ("source: Madry, only: [random, noisy]", "source: noisy, knowledge: fixed, only: [Madry]"),
            "evaluation.0.knowledge: fixed is the draw that answers, which an attack on 'noisy' does not see",
        ),
        (
            ("random: {network.norm: BN+IN}", "random: {network.norm: BN+IN, data.name: mnist}"),
            "evaluation.0.source: 'Madry' must be one network of the images and the seed of 'random'; there is: none",
        ),
        (
            ("  Madry: {}", "  Madry: {seed: [1, 2]}"),
            "must be one network of the images and the seed of 'random'; there are: 'Madry', 'Madry'",
        ),
    ],
)
def test_what_is_no_transfer_is_refused(planned: Planned, change: tuple[str, str], says: str) -> None:
    with pytest.raises(SweepError) as refused:
        planned(BASE.replace(*change))
    assert says in str(refused.value)
