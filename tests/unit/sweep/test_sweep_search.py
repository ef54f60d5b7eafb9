"""A search draws settings: in range, always the same, at the same points for every variant."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_base import BASE, Load, Planned

from rna_ray.errors import SweepError
from rna_ray.sweep.search import Search, points
from rna_ray.sweep.spec import from_json, to_json

LR = BASE + "search: {trials: 4, over: {training.lr: {low: 0.01, high: 0.3, log: true}}}\n"
ENDS = st.floats(1e-6, 1e6)


@st.composite
def domains(draw: st.DrawFn) -> dict[str, Any]:
    """A range of numbers of any kind, or a list of values."""
    if draw(st.booleans()):
        return {"values": draw(st.lists(st.integers(-5, 5), min_size=1, max_size=5, unique=True))}
    ends = st.integers(1, 1000) if (whole := draw(st.booleans())) else ENDS
    low, high = sorted(draw(st.lists(ends, min_size=2, max_size=2, unique=True)))
    return {"low": low, "high": high, "log": draw(st.booleans()), "whole": whole}


def within(value: Any, domain: Mapping[str, Any]) -> bool:
    if "values" in domain:
        return value in domain["values"]
    return domain["low"] <= value <= domain["high"] and isinstance(value, int) == domain["whole"]


@given(
    over=st.dictionaries(st.sampled_from(["training.lr", "noise_255", "network.width"]), domains(), min_size=1),
    few=st.integers(1, 10), more=st.integers(0, 10), seed=st.integers(0, 2**63 - 1),
)
def test_points_lie_in_their_domains_and_more_trials_keep_the_first_ones(
    over: dict[str, Any], few: int, more: int, seed: int
) -> None:
    def found(trials: int) -> tuple[dict[str, Any], ...]:
        return points(Search(trials=trials, over=over, seed=seed), "race")

    some, all_of_them = found(few), found(few + more)
    assert all(within(value, over[key]) for point in all_of_them for key, value in point.items())
    assert some == found(few) == all_of_them[: len(some)]
    assert len({str(point) for point in all_of_them}) == len(all_of_them)


def test_draws_are_uniform_over_differences_over_factors_or_over_values() -> None:
    over = {
        "a": {"low": 1, "high": 101}, "b": {"low": 0.001, "high": 1000, "log": True}, "c": ["x", "y", "z"],
        "d": {"low": 1, "high": 3, "whole": True},
    }  # fmt: skip
    found = points(Search(trials=3000, over=over), "race")
    assert statistics.mean(point["a"] for point in found) == pytest.approx(51, abs=2)  # of 0.53 standard deviation
    assert statistics.mean(math.log10(point["b"]) for point in found) == pytest.approx(0, abs=0.13)  # 0.03
    for key, values in {"c": "xyz", "d": (1, 2, 3)}.items():
        assert all(abs(sum(point[key] == value for point in found) - 1000) < 105 for value in values)  # 26


def test_another_seed_or_key_draws_other_numbers() -> None:
    domain = {"low": 0, "high": 1}
    over = {"a": domain, "b": domain}
    first, again, other = (points(Search(trials=8, over=over, seed=seed), "race") for seed in (0, 0, 1))
    assert first == again and not {point["a"] for point in first} & {point["a"] for point in other}
    assert all(point["a"] != point["b"] for point in first)


def test_every_point_is_an_ordinary_variant_with_the_unit_that_a_grid_would_give(planned: Planned) -> None:
    plan = planned(LR)
    rates = [trial.row["training.lr"] for trial in plan.trials]
    assert len(set(rates)) == 4 and all(f"{rate:.4g}" == str(rate) for rate in rates)
    assert [trial.variant for trial in plan.trials] == [f"lr={rate}" for rate in rates]
    listed = planned(BASE + f"grid: {{training.lr: {rates}}}\n")
    assert [unit.id for unit in plan.units] == [unit.id for unit in listed.units]
    assert [cell.variant for cell in plan.cells] == [cell.variant for cell in listed.cells]


def test_each_variant_and_grid_point_is_tried_at_the_same_points(planned: Planned) -> None:
    plan = planned(LR + "variants: {A: {network.norm: BN}, B: {network.norm: IN}}\ngrid: {seed: [0, 1]}\n")
    tried: dict[tuple[str, int], list[float]] = {}
    for trial in plan.trials:
        tried.setdefault((trial.variant[0], trial.row["seed"]), []).append(trial.row["training.lr"])
    assert set(tried) == {("A", 0), ("A", 1), ("B", 0), ("B", 1)}
    assert len(set(map(tuple, tried.values()))) == 1


def test_what_only_the_search_gives_may_be_left_out_elsewhere(planned: Planned) -> None:
    text = BASE.replace(", norm: BN+IN", "").replace("epochs: 3", "epochs: 3, schedule: {name: cosine}")
    plan = planned(text + "search: {trials: 40, over: {network.norm: [BN, IN, GN8]}}\n")
    assert sorted(trial.variant for trial in plan.trials) == ["BN", "GN8", "IN"]  # each once


def test_a_search_survives_the_store(load_text: Load) -> None:
    spec = load_text(LR + "variants: {A: {network.norm: BN}}\n")
    assert from_json(to_json(spec)) == spec


def test_the_command_line_changes_a_search(planned: Planned) -> None:
    plan = planned(LR, "search.trials=2", "search.over.training.lr.low=0.2", "search.over.network.norm=[IN]")
    assert [trial.row["network.norm"] for trial in plan.trials] == ["IN", "IN"]
    assert all(0.2 <= trial.row["training.lr"] <= 0.3 for trial in plan.trials)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.lr=0.1", "the search draws training.lr"),
        ("search.over.training.lr.low=0.3", "search.over.training.lr.low: 0.3 is not below high, 0.3"),
        ("search.over.training.lr.low=0", "search.over.training.lr.low: 0 has no logarithm"),
        ("search.over.training.lr={low: 0.1}", "search.over.training.lr: give a list of values, or a range"),
        ("search.over.training.lr={low: 1, high: 2, values: [3]}", "give a list of values, or a range from"),
        ("search.over.training.lr={low: 1, high: 2, hih: 3}", "unknown key 'hih'; did you mean 'high'"),
        ("search.over.training.lr=[]", "give at least one value, each once"),
        ("search.over.training.epochs={low: 1.5, high: 3, whole: true}", "whole: low and high are then whole numbers"),
        ("search.over.training.epochs={low: 1, high: 30}", "is not a whole number"),
        ("search.over.training.lrr=[1, 2]", "training.lrr: unknown key 'lrr'; did you mean 'lr'"),
        ("search.over.training=[1, 2]", "training: 1 is not a mapping of keys"),
        ("search.over.seed=[0, 1]", "search.over: seed cannot be drawn; allowed are protocol, data, network"),
        ("search.over={}", "search.over: name at least one key"),
        ("search.trials=0", "search.trials: 0 is not at least 1"),
        ("grid={training.lr: [1, 2]}", "search.over: training.lr is also set by the grid's axis training.lr"),
        ("variants={A: {training.lr: 1}}", "search.over: training.lr is also set by variant 'A', as training.lr"),
    ],
)
def test_what_is_no_search_is_one_sentence(load_text: Load, change: str, said: str) -> None:
    with pytest.raises(SweepError) as refused:
        load_text(LR, change)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"--set {change}:")


def test_a_sampler_that_learns_needs_something_to_learn_from(load_text: Load) -> None:
    with pytest.raises(SweepError, match="learns without an attack, and has no adversarial_correct; write natural_co"):
        load_text(LR, "search.sampler=optuna", "training.objective=natural")
    load_text(LR, "training.objective=natural")  # at random nothing is compared


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("search.by=accuracy", "search.by: the text 'accuracy' is not 'natural_correct', 'adversarial_correct'"),
        ("training.objective=natural", "search.by: variant 'lr=0.1007' learns without an attack, and has no adv"),
        ("data.held_out=0", "search.by: variant 'lr=0.1007' holds out no images to compare by: data.held_out is 0"),
        ("search.early_stopping.grace=3", "search.early_stopping.grace: after 3 of 3 epochs there is nothing to stop"),
        ("search.early_stopping.factor=1", "search.early_stopping.factor: 1 is not at least 2"),
        (f"name={'a' * 101}", "name: of a search that compares, up to 100 characters; these are 101"),
    ],
)
def test_early_stopping_that_could_stop_nothing_is_one_sentence(load_text: Load, change: str, said: str) -> None:
    assert load_text(LR, "search.early_stopping={}").search
    with pytest.raises(SweepError) as refused:
        load_text(LR, "search.early_stopping={}", change)
    assert said in str(refused.value) and "\n" not in str(refused.value)
