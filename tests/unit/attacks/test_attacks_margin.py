"""Attacks on the margin: of each draw, and its mean."""

from __future__ import annotations

import pytest
import torch
from attacks_base import Linear, defence, images, network

from rna_ray.attacks.base import margin
from rna_ray.attacks.catalog import find
from rna_ray.attacks.expectation import negative_margin
from rna_ray.attacks.libraries import TorchAttack
from rna_ray.attacks.make import make

PGD = {
    "name": "pgd", "threat": "linf", "eps_255": 5.1, "step_255": 5.1, "steps": 1, "random_start": False, "restarts": 1
}  # fmt: skip


def test_the_gradient_is_the_mean_of_each_draws_margin() -> None:
    built, x, y = network(), images(4), torch.arange(4)
    victim = defence(built, 4, "eot-5").climbing(negative_margin)
    of_draws = []
    for draw in victim.attacker_draws(x, 3).split(1):
        free = x.clone().requires_grad_()
        logits = victim.attack_passes.logits(free, draw)[0]
        others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
        of_draws.append(torch.autograd.grad((others - logits[torch.arange(4), y]).sum(), free)[0])
    assert len(of_draws) == 5
    torch.testing.assert_close(victim.gradient(x, y, step=3), torch.stack(of_draws).mean(0), rtol=1e-4, atol=1e-6)


def test_a_step_on_the_margin_of_a_linear_classifier_is_the_best_there_is() -> None:
    victim, x = Linear(5), images(4, low=0.4, high=0.6)
    y = victim.logits(x).argmax(1)
    before = victim.expected_margin(x, y)
    second = victim.logits(x).scatter(1, y[:, None], -torch.inf).argmax(1)
    lost = 0.02 * (victim.weight[:, second] - victim.weight[:, y]).abs().sum(0)
    x_adv = make({**PGD, "loss": "margin"}).perturb(victim, x, y).x_adv
    gap = victim.logits(x_adv)
    rows = torch.arange(4)
    torch.testing.assert_close(gap[rows, y] - gap[rows, second], before - lost, rtol=1e-3, atol=1e-4)


def test_the_margin_has_a_gradient_where_the_cross_entropy_has_none() -> None:
    victim, x = Linear(5, scale=1e4), images(4, low=0.4, high=0.6)
    y = victim.logits(x).argmax(1)
    plain, on_margin = (make({**PGD, **loss})(victim, x, y) for loss in ({}, {"loss": "margin"}))
    assert plain.zero_gradients.tolist() == [1] * 4 and (plain.l2 == 0).all()
    assert on_margin.zero_gradients.tolist() == [0] * 4
    assert (on_margin.logits[:, 0].argmax(1) != y).sum() >= 3


def test_the_expected_margin_is_the_mean_over_the_attackers_draws() -> None:
    built, x, y = network(), images(4), torch.arange(4)
    victim = defence(built, 4, "eot-5")
    for step in range(2):  # each call is a step, with draws of its own
        logits = victim.attack_passes.logits(x, victim.attacker_draws(x, step))
        expected = torch.stack([margin(one[:, None], y)[:, 0] for one in logits]).mean(0)
        torch.testing.assert_close(victim.expected_margin(x, y), expected)


@pytest.mark.parametrize("bias", [30.0, -30.0])
def test_cw_on_the_expected_margin_finds_the_nearest_border(bias: float) -> None:
    victim, x = Linear(5, bias=bias), images(4, low=0.4, high=0.6)
    y = victim.logits(x).argmax(1)
    outcome = TorchAttack("CW", of_margins=True, c=1.0, kappa=0.0, steps=400, lr=0.001)(victim, x, y)
    assert (outcome.logits[:, 0].argmax(1) != y).all()
    torch.testing.assert_close(outcome.l2, victim.distance(x, y), rtol=0.05, atol=0.01)


class ThreeDraws(Linear):
    """Three draws of two classes: two that see nothing of the image, and one whose margin is its brightness."""

    def _margins(self, x: torch.Tensor) -> torch.Tensor:
        bright = (x - 0.5).flatten(1).sum(1)
        return torch.stack([torch.full_like(bright, 4), torch.full_like(bright, -1), 20 * bright])  # (3, N)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        right = torch.sigmoid(self._margins(x)).mean(0)
        return torch.stack([right, 1 - right], 1).log()

    def expected_margin(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self._margins(x).mean(0)


def test_cw_stops_where_its_own_expectation_is_lost() -> None:
    """At brightness b the margins are 4, -1, 20 b: their mean is lost below -0.15, the mean prediction below -0.055."""
    x, y = torch.full((2, 1, 8, 8), 0.501), torch.zeros(2, dtype=torch.int64)
    victim = ThreeDraws(2, 2)
    found = {}
    for of_margins in (False, True):
        attack = TorchAttack("CW", of_margins=of_margins, c=5.0, kappa=0.0, steps=300, lr=0.0003)
        found[of_margins] = (attack.perturb(victim, x, y).x_adv - 0.5).flatten(1).sum(1)
    assert found[True].tolist() == pytest.approx([-0.15] * 2, abs=0.03)
    assert found[False].tolist() == pytest.approx([-0.055] * 2, abs=0.03)


def test_labels_say_what_is_not_the_default() -> None:
    pgd, cw = find("pgd"), find("cw")
    assert pgd.called({}) == pgd.called({"loss": "cross-entropy"}) == "pgd-20"
    assert pgd.called({"loss": "margin", "steps": 40}) == "pgd-40-margin"
    assert (cw.called({}), cw.called({"expectation": "margin"})) == ("cw-1000", "cw-1000-margin")
    assert "loss" not in pgd.settings({}) and pgd.settings({"loss": "margin"})["loss"] == "margin"
