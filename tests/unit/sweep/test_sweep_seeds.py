"""A variant may list its seeds: repetitions of it alone."""

from __future__ import annotations

import pytest
from sweep_base import BASE, Load, Planned

from rna_ray.errors import SweepError
from rna_ray.sweep.spec import from_json, to_json

SOME = BASE + "variants: {A: {network.norm: BN, seed: [0, 3]}, B: {network.norm: IN}}\n"
ALL = BASE + "variants: {A: {network.norm: BN, seed: [4, 5]}, B: {network.norm: IN, seed: [6]}}\n"


def test_each_seed_is_a_row_of_the_variant_and_no_part_of_its_label(planned: Planned) -> None:
    plan = planned(SOME)
    assert [(trial.variant, trial.row["seed"]) for trial in plan.trials] == [("A", 0), ("A", 3), ("B", 0)]
    assert [(cell.variant, cell.row["seed"]) for cell in plan.cells] == [("A", 0), ("A", 3), ("B", 0)]
    assert [unit.settings["seed"] for unit in plan.units if unit.kind == "train"] == [0, 3, 0]


def test_a_listed_seed_gives_the_unit_that_the_grid_or_the_sweep_would_give(planned: Planned) -> None:
    listed = [trial.network for trial in planned(SOME).trials]
    grid = [trial.network for trial in planned(BASE + "grid: {network.norm: [BN, IN], seed: [0, 3]}\n").trials]
    assert listed == [grid[0], grid[1], grid[2]]
    assert planned(BASE, "network.norm=BN", "seed=3").trials[0].network == listed[1]


def test_seeds_run_within_each_point_of_the_grid(planned: Planned) -> None:
    plan = planned(SOME + "grid: {precision: [bf16, fp32]}\n")
    assert [(trial.variant, trial.row["seed"]) for trial in plan.trials] == [
        ("A, bf16", 0), ("A, bf16", 3), ("A, fp32", 0), ("A, fp32", 3), ("B, bf16", 0), ("B, fp32", 0),
    ]  # fmt: skip


def test_every_variant_may_list_its_seeds(planned: Planned, load_text: Load) -> None:
    assert [(trial.variant, trial.row["seed"]) for trial in planned(ALL).trials] == [("A", 4), ("A", 5), ("B", 6)]
    spec = load_text(ALL)
    assert from_json(to_json(spec)) == spec


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ("[]", "variants.A.seed: the list is empty; name at least one seed"),
        ("[2, 1, 2]", "variants.A.seed: a seed is given twice"),
        ("[0, one]", "variant 'A': seed: "),
        ("[0, -1]", "variant 'A': seed: "),
    ],
)
@pytest.mark.parametrize("text", [SOME, ALL])
def test_lists_that_are_no_seeds_are_refused(load_text: Load, text: str, seeds: str, said: str) -> None:
    changed = text.replace("[0, 3]", seeds).replace("[4, 5]", seeds)
    with pytest.raises(SweepError) as refused:
        load_text(changed)
    assert said in str(refused.value)


def test_seeds_that_the_grid_varies_too_are_refused(load_text: Load) -> None:
    with pytest.raises(SweepError, match="A: seed is also set by the grid's axis seed; keep one of them"):
        load_text(SOME + "grid: {seed: [0, 1]}\n")


def test_a_setting_that_the_list_would_undo_is_refused(load_text: Load) -> None:
    with pytest.raises(SweepError, match="variant 'A' sets seed itself"):
        load_text(SOME, "seed=7")
