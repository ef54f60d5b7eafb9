"""Gaussian noise at inference: of the stated deviation, its draws known or not as those of paths are."""

from __future__ import annotations

import math

import pytest
import torch
from evaluation_base import evaluated, network, split
from torch import nn
from torch.nn import functional as F

from rna_ray.attacks import expectation
from rna_ray.attacks.expectation import Passes
from rna_ray.data import Split
from rna_ray.evaluation.knowledge import Defence, Knowledge
from rna_ray.networks.build import Network
from rna_ray.networks.paths import PathSpace, following
from rna_ray.randomness import Randomness

SIGMA = 0.25
EXAMPLES = torch.arange(50, 58)
X = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8)
STD = 0.5


class Weighing(nn.Module):
    """Logits that are the sums of the image's columns, so that noise in them is known: N(0, 8 σ²/std²) each."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum((1, 2))


def weighing() -> Network:
    return Network(Weighing(), PathSpace(()), mean=(0.5,), std=(STD,))


def defence(
    made: Network, knowledge: str, *, noise: float = SIGMA, draws: int = 1, draw: int = 0, shared: bool = False,
    separate: bool = False,
) -> Defence:  # fmt: skip
    return Defence(
        Passes(made, shared=shared, separate=separate), made.paths, Randomness("unit"), EXAMPLES,
        Knowledge.parse(knowledge), draws=draws, draw=draw, noise=noise,
    )  # fmt: skip


def test_answers_have_the_stated_deviation_and_noise_is_not_clipped() -> None:
    made, m = weighing(), 400
    clean = made(X)[:, None]
    for sigma in (0.1, 1.0):
        noise = defence(made, "transfer", noise=sigma, draws=m).answer(X) - clean
        expected, n = sigma / STD * math.sqrt(8), noise.numel()
        assert noise.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * n))
        assert noise.mean().item() == pytest.approx(0, abs=4 * expected / math.sqrt(n))
        flat = noise.permute(0, 2, 1).reshape(64, m)
        between = torch.corrcoef(flat) - torch.eye(64)  # examples and pixels have noise of their own
        assert between.abs().max() < 5 / math.sqrt(m)


def test_without_noise_there_is_none() -> None:
    made = weighing()
    assert torch.equal(defence(made, "transfer", noise=0.0, draws=3).answer(X), made(X)[:, None].expand(-1, 3, -1))


@pytest.mark.parametrize("draw", [0, 4])
def test_a_fixed_attacker_knows_exactly_the_defenders_noise(draw: int) -> None:
    made = weighing()
    fixed = defence(made, "fixed", draw=draw)
    answered = fixed.answer(X)[:, 0]
    assert torch.equal(fixed.logits(X), answered) and torch.equal(fixed.logits(X), answered)
    many = defence(made, "transfer", draws=5).answer(X)
    torch.testing.assert_close(many[:, draw], answered, rtol=0, atol=1e-6)
    for knowledge in ("transfer", "resample"):
        assert (defence(made, knowledge, draw=draw).logits(X) - answered).abs().mean() > 0.5


def test_transfer_keeps_its_noise_and_resample_never_does() -> None:
    made = weighing()
    kept, fresh = defence(made, "transfer"), defence(made, "resample")
    steps = [kept.logits(X) for _ in range(3)]
    assert all(torch.equal(steps[0], step) for step in steps)
    steps = [fresh.logits(X) for _ in range(4)]
    spread = SIGMA / STD * math.sqrt(8) * math.sqrt(2)
    for one in range(4):
        for other in range(one):
            assert (steps[one] - steps[other]).std().item() == pytest.approx(spread, rel=0.4)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("at_most", [8, 24, 1000])
def test_eot_runs_over_paths_and_noise_together(
    at_most: int, separate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One k-times larger batch, in parts or whole, is k passes, each along its path with its noise."""
    monkeypatch.setattr(expectation, "IMAGES_A_PASS", {"cpu": at_most})
    made, k = network("BN+IN+LN").eval(), 5
    victim = defence(made, f"eot-{k}", separate=separate)
    draws = victim.attacker_draws(X, 3)
    assert len(draws) == len(draws.noise) == k
    gradients, logits = [], []
    for path, noise in zip(draws.paths, draws.noise, strict=True):
        x = X.clone().requires_grad_()
        with following(made, path):
            logits.append(made(x + noise()))
        gradients.append(torch.autograd.grad(F.cross_entropy(logits[-1], Y, reduction="sum"), x)[0])
    torch.testing.assert_close(victim.gradient(X, Y, step=3), torch.stack(gradients).mean(0), rtol=0, atol=1e-5)
    torch.testing.assert_close(victim.passes.logits(X, draws), torch.stack(logits), rtol=0, atol=1e-4)
    assert torch.stack(gradients).std(0).max() > 1e-3


def test_images_that_share_a_draw_share_its_noise() -> None:
    made = weighing()
    noise = defence(made, "transfer", shared=True, draws=6).answer(X) - made(X)[:, None]
    torch.testing.assert_close(noise, noise[:1].expand(8, -1, -1), rtol=0, atol=1e-5)
    assert noise[0].std(0).min() > 0.3


def test_a_units_noise_is_in_255ths_and_counts_as_random() -> None:
    made, images = weighing(), Split(images=split().images, labels=split().labels % 8)
    rows = evaluated(made, images, attack="natural", noise_255=SIGMA * 255, draws=3, examples=(0, 24))
    assert rows.behaviour.random_output and rows.path_sharing == "example"
    quiet = evaluated(made, images, attack="natural", draws=1, examples=(0, 24))
    assert not quiet.behaviour.random_output
    far = torch.tensor(rows.columns["natural_margin"]) - torch.tensor(quiet.columns["natural_margin"])
    assert 0.2 < far.abs().mean() < 3
    shared = evaluated(made, images, attack="square", noise_255=8.0, attack_queries=5, knowledge="resample")
    assert shared.path_sharing == "attack"
