"""An attack on one network answered by another, and along one path answered along another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from probes_base import CPU, PGD, network, probed, role, split, unit
from torch.nn import functional as F

from rna_ray.evaluation.evaluate import evaluate
from rna_ray.networks.paths import difference, following
from rna_ray.probes.path_transfer import paths
from rna_ray.randomness import Randomness

PAIR = {"source": role("source"), "network": role("network")}
PLAIN = {**PGD, "random_start": False}


def images(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    some = split()
    return torch.from_numpy(some.images[:n]).float() / 255, torch.from_numpy(some.labels[:n])


def climbed(forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return where three steps of 2/255 from the image lead, written out."""
    x_adv = x
    for _ in range(3):
        x_adv = x_adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(forward(x_adv), y, reduction="sum"), x_adv)
        x_adv = torch.minimum(torch.maximum(x_adv + 2 / 255 * gradient.sign(), x - 8 / 255), x + 8 / 255).clamp(0, 1)
    return x_adv.detach()


@torch.no_grad()
def classes(forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> list[int]:
    return forward(x).argmax(1).tolist()


@pytest.mark.parametrize("knowledge", ["transfer", "fixed"])
@pytest.mark.parametrize("norm", ["BN", "IN"])
def test_a_network_against_itself_is_what_evaluation_finds_where_there_is_one_path(norm: str, knowledge: str) -> None:
    asked, made = unit("transfer", (0, 10), **PAIR), network(norm)
    rows = probed(asked, made, made).rows.transfers
    settings = {
        "attack": PGD, "knowledge": knowledge, "draws": 1, "eval": "eval", "examples": [0, 10], "batch": 4,
        "paths": "example", "precision": "fp32", "noise_255": 0.0,
    }  # fmt: skip
    found = evaluate(settings, asked.settings["evaluation"], made, split(), device=CPU).columns
    assert [row["example"] for row in rows] == found["example"] == list(range(10))
    assert [row["label"] for row in rows] == found["label"]
    assert [[row["prediction"]] for row in rows] == found["adversarial_predictions"]
    assert [[row["natural_prediction"]] for row in rows] == found["natural_predictions"]
    assert [row["source_prediction"] for row in rows] == [row["prediction"] for row in rows]
    assert found["adversarial_predictions"] != found["natural_predictions"]  # the attack did something


def test_a_random_network_against_itself_is_evaluation_under_transfer() -> None:
    asked, made = unit("transfer", **PAIR), network("BN+IN")
    rows = probed(asked, made, made).rows.transfers
    settings = {
        "attack": PGD, "knowledge": "transfer", "draws": 1, "eval": "eval", "examples": [0, 8], "batch": 4,
        "paths": "example", "precision": "fp32", "noise_255": 0.0,
    }  # fmt: skip
    found = evaluate(settings, asked.settings["evaluation"], made, split(), device=CPU).columns
    assert [[row["prediction"]] for row in rows] == found["adversarial_predictions"]
    assert [row["source_prediction"] for row in rows] != [row["prediction"] for row in rows]  # on another draw


def test_the_source_is_attacked_and_the_other_answers() -> None:
    source, target = network("BN", seed=1), network("IN", seed=2)
    rows = probed(unit("transfer", attack=PLAIN, **PAIR), source, target).rows.transfers
    x, y = images(8)
    x_adv = climbed(source, x, y)
    assert [row["source_prediction"] for row in rows] == classes(source, x_adv)
    assert [row["prediction"] for row in rows] == classes(target, x_adv)
    assert [row["natural_prediction"] for row in rows] == classes(target, x)


@pytest.mark.parametrize("apart", range(10))
def test_two_paths_part_at_exactly_so_many_layers(apart: int) -> None:
    sizes, random = (2, 3, 4, 2, 2, 5, 2, 3, 2), Randomness("unit")
    pairs = [paths(random, sizes, apart, pair) for pair in range(30)]
    assert {int(difference(a, b)) for a, b in pairs} == {apart}
    assert all(0 <= step < size for pair in pairs for path in pair for step, size in zip(path, sizes, strict=True))
    assert len({tuple(a.tolist()) for a, _ in pairs}) == 30
    parted = torch.stack([a != b for a, b in pairs]).sum(0)
    assert (parted > 0).all() or apart < 2  # any layer may part
    again = paths(Randomness("unit"), sizes, apart, 7)
    assert torch.equal(again[0], pairs[7][0]) and torch.equal(again[1], pairs[7][1])


def test_the_norms_of_a_second_path_are_uniform_over_the_others() -> None:
    pairs = [paths(Randomness("unit"), (4,), 1, pair) for pair in range(600)]
    a, b = (torch.stack(one) for one in zip(*pairs, strict=True))
    counts = torch.bincount((a * 4 + b).flatten(), minlength=16).view(4, 4)
    assert counts.diagonal().tolist() == [0] * 4
    assert (counts[~torch.eye(4, dtype=torch.bool)] - 50).abs().max() < 28  # 50 ± four deviations


def test_each_pair_of_paths_has_its_rows() -> None:
    made = network("BN+IN")
    rows = probed(unit("path-transfer", difference=4, pairs=3, batch=3), made).rows.transfers
    assert [(row["pair"], row["example"]) for row in rows[:9]] == [(p, e) for p in range(3) for e in range(3)]
    assert len(rows) == 3 * 8 and {row["path_difference"] for row in rows} == {4}


def test_a_pair_of_paths_that_nowhere_part_is_a_white_box() -> None:
    rows = probed(unit("path-transfer", difference=0, pairs=2), network("BN+IN")).rows.transfers
    assert [row["prediction"] for row in rows] == [row["source_prediction"] for row in rows]
    one = probed(unit("path-transfer", difference=0, pairs=2), network("BN")).rows.transfers
    assert [row["prediction"] for row in one] == [row["source_prediction"] for row in one]


def test_attack_and_answer_follow_the_paths_of_their_pair() -> None:
    made, asked = network("BN+IN"), unit("path-transfer", attack=PLAIN, difference=9, pairs=2)
    rows = probed(asked, made).rows.transfers
    x, y = images(8)
    for pair in range(2):
        ways = paths(Randomness(asked.settings["evaluation"]), made.paths.sizes, 9, pair)
        with following(made, ways[0], shared=True):
            x_adv = climbed(made, x, y)
            seen = classes(made, x_adv)
        with following(made, ways[1], shared=True):
            natural, answered = classes(made, x), classes(made, x_adv)
        mine = [row for row in rows if row["pair"] == pair]
        assert [row["source_prediction"] for row in mine] == seen
        assert [row["prediction"] for row in mine] == answered
        assert [row["natural_prediction"] for row in mine] == natural


def test_each_pair_starts_elsewhere_in_the_ball() -> None:
    blind = {**PGD, "steps": 1, "eps_255": 128.0, "step_255": 1e-3}  # all but the random start
    rows = probed(unit("path-transfer", attack=blind, difference=0, pairs=8), network("BN")).rows.transfers
    answers = [[row["prediction"] for row in rows if row["pair"] == pair] for pair in range(8)]
    assert len({tuple(answer) for answer in answers}) > 1
