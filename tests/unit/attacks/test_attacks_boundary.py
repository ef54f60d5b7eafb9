"""The boundary attack: where it starts, how near it comes, and what a random defence does to it."""

from __future__ import annotations

import pytest
import torch
from attacks_base import Linear, images
from torch import nn

from rna_ray.attacks.base import distortion
from rna_ray.attacks.boundary import Boundary
from rna_ray.attacks.expectation import Draws, Passes
from rna_ray.evaluation.knowledge import Defence, Knowledge
from rna_ray.networks.build import Network
from rna_ray.networks.paths import PathSpace
from rna_ray.randomness import Randomness


class Flat(Linear):
    """Class 1 for images of nearly one grey, class 0 for all others: uniform noise is never of class 1."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        spread = x.flatten(1).std(1)
        return torch.stack([spread, torch.full_like(spread, 0.05)], 1)


class Constant(Linear):
    """Class 0, whatever the image."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([1.0, 0.0]).expand(len(x), 2)


def test_it_comes_near_the_border_and_stays_beyond_it() -> None:
    victim, x = Linear(5), images(4, low=0.4, high=0.6)
    y = victim.logits(x).argmax(1)
    start, some = (Boundary(steps)(victim, x, y) for steps in (1, 2000))
    assert (some.logits[:, 0].argmax(1) != y).all() and some.notes == ()
    nearest = victim.distance(x, y)
    assert (start.l2 > 4 * nearest).all()
    assert (nearest <= some.l2).all() and (some.l2 < 2.5 * nearest).all()


def test_a_misclassified_image_is_its_own_adversarial() -> None:
    victim, x = Linear(5), images(4, low=0.4, high=0.6)
    right = victim.logits(x).argmax(1)
    y = torch.where(torch.arange(4) == 2, (right + 1) % 5, right)
    assert (Boundary(1).perturb(victim, x, y).x_adv != x).flatten(1).any(1).tolist() == [True, True, False, True]


def test_where_noise_is_no_start_another_image_of_the_batch_is() -> None:
    victim, x = Flat(2), images(4)
    x[3] = 0.5
    y = victim.logits(x).argmax(1)
    assert y.tolist() == [0, 0, 0, 1]
    outcome = Boundary(50)(victim, x, y)
    assert outcome.logits[:, 0].argmax(1).tolist() == [1, 1, 1, 0] and outcome.notes == ()


def test_an_image_without_a_start_comes_back_with_a_note() -> None:
    x = images(4)
    found = Boundary(50).perturb(Constant(2), x, torch.tensor([0, 0, 1, 0]))
    assert torch.equal(found.x_adv, x)
    assert found.notes == ("boundary found no misclassified image to start from for 3 of 4 images",)


class Sums(nn.Module):
    """Two classes: whether the image is bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = (x - 0.5).flatten(1).sum(1)
        return torch.stack([bright, -bright], 1)


def noisy(noise: float, n: int) -> Defence:
    made = Network(Sums(), PathSpace(()), mean=(0.0,), std=(1.0,))
    known = Knowledge.parse("resample")
    return Defence(Passes(made), made.paths, Randomness("unit"), torch.arange(n), known, draws=9, noise=noise)


def test_every_query_sees_fresh_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    queries: list[Draws] = []
    plain = Passes.logits

    def logits(self: Passes, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        queries.append(draws)
        return plain(self, x, draws)

    monkeypatch.setattr(Passes, "logits", logits)
    Boundary(30).perturb(noisy(0.05, 4), images(4, low=0.55, high=0.75), torch.zeros(4, dtype=torch.int64))
    walked = [draws.noise[0]() for draws in queries if len(draws) == 1]  # ten draws judge where it starts
    assert len(walked) == 1 + 30 + 3  # the starts, each step, and at every tenth how the walk goes
    assert len({noise.numpy().tobytes() for noise in walked}) == len(walked)


def test_a_draw_that_denies_a_start_does_not_end_the_walk() -> None:
    """Starts lie where most draws, not all, are fooled: foolbox alone gives up the batch for one draw that is not."""
    n = 16
    victim = noisy(1.0, n)
    x = images(n, low=0.55, high=0.75)
    found = Boundary(20).perturb(victim, x, torch.zeros(n, dtype=torch.int64))
    assert torch.isfinite(found.x_adv).all() and (distortion(found.x_adv, x)[1] > 0).sum() > n // 2
    denied = victim.logits(found.x_adv).argmax(1) == 0
    assert denied.any()  # so it is with what the walk accepted on one draw
