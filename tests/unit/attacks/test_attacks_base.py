"""The base clips, checks the ball and judges once."""

from __future__ import annotations

import math

import pytest
import torch
from attacks_base import Linear, defence, images, network
from hypothesis import given, settings
from hypothesis import strategies as st

from rna_ray.attacks.base import SLACK, SLACK_PIXELS, Attack, Ball, Proposal, Victim, distortion
from rna_ray.attacks.expectation import Draws, Passes
from rna_ray.attacks.gradient import GradientAttack
from rna_ray.errors import AttackError, UnitError

Y = torch.zeros(4, dtype=torch.int64)


class Proposing(Attack):
    """An attack that proposes what it was told to."""

    def __init__(self, ball: Ball, x_adv: torch.Tensor) -> None:
        super().__init__(ball)
        self.x_adv = x_adv

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        return Proposal(self.x_adv)


@pytest.mark.parametrize("threat", ["linf", "l2"])
def test_leaving_the_ball_is_an_error_and_rounding_is_clipped(threat: str) -> None:
    x, eps = images(4, low=0.4, high=0.6), 0.1
    edge = torch.full_like(x, eps if threat == "linf" else eps / 8)
    with pytest.raises(AttackError, match=rf"Proposing left its {threat} ball of 0\.100000: it went 0\.105000"):
        Proposing(Ball(threat, eps), x + 1.05 * edge).perturb(Linear(2), x, Y)
    for factor in (1.0, 1 + 5e-4):
        x_adv = Proposing(Ball(threat, eps), x + factor * edge).perturb(Linear(2), x, Y).x_adv
        torch.testing.assert_close(x_adv, x + edge, rtol=0, atol=1e-6)
    assert issubclass(AttackError, UnitError)


def test_one_image_outside_is_enough() -> None:
    x = images(4, low=0.4, high=0.6)
    x_adv = x.clone()
    x_adv[3, 0, 2, 2] += 0.2
    with pytest.raises(AttackError, match=r"ball of 0\.100000: it went 0\.200000"):
        Proposing(Ball("linf", 0.1), x_adv).perturb(Linear(2), x, Y)


@pytest.mark.parametrize("threat", ["linf", "l2", "none"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(value: float, threat: str) -> None:
    x = images(4)
    x_adv = x.clone()
    x_adv[1, 0, 3, 4] = value
    with pytest.raises(AttackError, match=r"what is not \(4, 1, 8, 8\) finite pixels"):
        Proposing(Ball(threat, 0.5), x_adv).perturb(Linear(2), x, Y)


def test_another_shape_is_refused() -> None:
    with pytest.raises(AttackError, match="finite pixels"):
        Proposing(Ball("none"), images(3)).perturb(Linear(2), images(4), Y)


def test_an_unbounded_proposal_is_an_image_all_the_same() -> None:
    x = images(4)
    x_adv = Proposing(Ball("none"), 3 * x - 1).perturb(Linear(2), x, Y).x_adv
    assert torch.equal(x_adv, (3 * x - 1).clamp(0, 1))


def test_the_outcome_is_judged_once_on_the_clipped_images_on_draws_that_the_attack_did_not_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor, bool]] = []
    plain = Passes._wide

    def wide(self: Passes, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        seen.append((x.detach().clone(), draws.paths, torch.is_grad_enabled()))
        return plain(self, x, draws)

    monkeypatch.setattr(Passes, "_wide", wide)
    x, ball = images(), Ball("linf", 0.1)
    attack = GradientAttack(ball, step=0.03, steps=5, random_start=True)
    outcome = attack(defence(network(), draws=6), x, torch.zeros(8, dtype=torch.int64))
    *attacking, (judged, answering, learning) = seen
    assert len(attacking) == 5 and all(paths.shape == (1, 8, 9) for _, paths, _ in attacking)
    assert answering.shape == (6, 8, 9) and outcome.logits.shape == (8, 6, 10) and not learning
    assert torch.equal(judged, outcome.x_adv)
    known = {tuple(path) for _, paths, _ in attacking for path in paths[0].tolist()}
    answered = [tuple(path) for paths in answering.tolist() for path in paths]
    assert sum(path in known for path in answered) <= 48 * 8 / 2**9 + 5  # no more than chance among 512 paths
    torch.testing.assert_close(outcome.linf, (outcome.x_adv - x).abs().flatten(1).amax(1))
    torch.testing.assert_close(outcome.l2, (outcome.x_adv - x).flatten(1).square().sum(1).sqrt())


@settings(max_examples=60)
@given(
    st.sampled_from(["linf", "l2", "none"]), st.floats(1e-3, 3.0), st.floats(0.0, 5.0), st.integers(0, 2**31 - 1)
)
def test_projection_is_into_the_ball_and_the_cube_and_changes_nothing_there(
    threat: str, eps: float, spread: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(5, 2, 3, 3, generator=generator)
    wild = x + spread * torch.randn(5, 2, 3, 3, generator=generator)
    ball = Ball(threat, eps)
    once = ball.project(wild, x)
    assert once.min() >= 0 and once.max() <= 1
    assert ball.farthest(once, x) <= eps * (1 + 1e-3) and ball.farthest(once, x) <= eps + 1e-6
    torch.testing.assert_close(ball.project(once, x), once, rtol=0, atol=1e-6)
    assert torch.equal(ball.project(x, x), x)


@settings(max_examples=30)
@given(st.floats(1e-3, 1.0), st.integers(0, 2**31 - 1))
def test_no_point_of_the_ball_is_nearer_than_the_l2_projection(eps: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.full((3, 1, 4, 4), 0.5)
    wild = x + 0.1 * torch.randn(3, 1, 4, 4, generator=generator)  # never leaves the cube by itself
    wild = wild.clamp(0, 1)
    found = distortion(wild, Ball("l2", eps).project(wild, x))[1]
    torch.testing.assert_close(found, (distortion(wild, x)[1] - eps).clamp_min(0), rtol=0, atol=1e-5)


def test_the_farthest_image_is_measured_in_the_norm_of_the_ball() -> None:
    x = images(4, low=0.4, high=0.6)
    x_adv = x.clone()
    x_adv[2] += 0.15
    assert Ball("linf", 0.1).farthest(x_adv, x) == pytest.approx(0.15, abs=1e-6)
    assert Ball("l2", 0.1).farthest(x + 0.025, x) == pytest.approx(0.2, abs=1e-5)
    assert Ball("none").farthest(x + 9, x) == 0.0
    assert Ball("linf", 0.1).farthest(x[:0], x[:0]) == 0.0


@pytest.mark.parametrize("eps", [1e-6, 0.1, 2.0])
def test_rounding_is_a_part_of_eps_and_some_ulp_of_the_pixels(eps: float) -> None:
    """A tiny ball is no reason to refuse what the pixels' own rounding did."""
    x = torch.full((1, 1, 2, 2), 0.25)
    allowed = eps * (1 + SLACK) + SLACK_PIXELS
    edge = torch.zeros_like(x)
    edge[..., 0, 0] = 1.0  # one pixel, where ℓ2 is ℓ∞
    for threat in ("linf", "l2"):
        attack = Proposing(Ball(threat, eps), x + (allowed - 2e-6) * edge)
        torch.testing.assert_close(
            attack.perturb(Linear(2), x, Y[:1]).x_adv, (x + eps * edge).clamp(0, 1), rtol=0, atol=1e-6
        )
        with pytest.raises(AttackError, match=rf"ball of {eps:.6f}: it went "):
            Proposing(Ball(threat, eps), x + (allowed + 2e-6) * edge).perturb(Linear(2), x, Y[:1])
