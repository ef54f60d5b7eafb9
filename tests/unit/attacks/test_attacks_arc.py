"""ARC on the case that it was made for: members whose gradients cancel, or of which one hides the other."""

from __future__ import annotations

import pytest
import torch
from attacks_base import Linear, Mixture, images

from rna_ray.attacks.arc import Arc
from rna_ray.attacks.base import Ball
from rna_ray.attacks.gradient import GradientAttack

Y = torch.zeros(4, dtype=torch.int64)
EPS = {"linf": 0.1, "l2": 0.5}


def opposite(threat: str, slopes: tuple[float, float], margins: tuple[float, float]) -> Mixture:
    """Return two classifiers along one direction: their borders lie margin / |slope| of ε away, on either side."""
    direction = torch.randn(64, generator=torch.Generator().manual_seed(0))
    direction = direction / direction.norm(p=1 if threat == "linf" else 2)
    weights = [torch.stack([slope * direction, -slope * direction], 1) / 2 / EPS[threat] for slope in slopes]
    return Mixture(torch.stack(weights), torch.tensor([[margin / 2, -margin / 2] for margin in margins]))


def right(victim: Mixture, attack: GradientAttack | Arc, x: torch.Tensor) -> float:
    return victim.judge(attack.perturb(victim, x, Y).x_adv, Y).right.mean().item()


@pytest.mark.parametrize("threat", ["linf", "l2"])
def test_arc_fools_a_member_where_the_mean_gradient_is_zero(threat: str) -> None:
    victim, x = opposite(threat, (1.0, -1.0), (0.8, 0.8)), torch.full((4, 1, 8, 8), 0.5)
    ball = Ball(threat, EPS[threat])
    pgd = GradientAttack(ball, step=ball.eps / 4, steps=20)
    assert pgd.perturb(victim, x, Y).zero_gradients.tolist() == [20] * 4  # type: ignore[union-attr]
    assert right(victim, pgd, x) == 1.0
    assert right(victim, Arc(ball, step=ball.eps, steps=5, borders=1), x) == 0.5


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("threat", ["linf", "l2"])
def test_arc_fools_the_member_that_a_nearer_but_unreachable_one_hides(threat: str, random_start: bool) -> None:
    """The loss is nearly all the first one's, whose border lies at 1.5 ε; that of the second lies at 0.8 ε."""
    victim, x = opposite(threat, (1.0, -10.0), (1.5, 8.0)), torch.full((4, 1, 8, 8), 0.5)
    ball = Ball(threat, EPS[threat])
    assert right(victim, GradientAttack(ball, step=ball.eps / 4, steps=40, random_start=random_start), x) == 1.0
    assert right(victim, Arc(ball, step=ball.eps, steps=5, borders=1), x) == 0.5


@pytest.mark.parametrize("threat", ["linf", "l2"])
def test_no_image_is_worse_than_its_start(threat: str) -> None:
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(4, 64, 5, generator=generator)
    victim, x = Mixture(weights, torch.zeros(4, 5), 40), images(40, low=0.3, high=0.7)
    y = victim.answer(x).mean(1).argmax(1)
    shares = []
    for steps in (0, 2, 10):
        attack = Arc(Ball(threat, EPS[threat] / 4), step=EPS[threat] / 16, steps=steps, borders=4)
        shares.append(victim.judge(attack.perturb(victim, x, y).x_adv, y).right)
    assert (shares[1] <= shares[0]).all() and (shares[2] <= shares[1]).all()
    assert shares[2].mean() < shares[0].mean() - 0.15


@pytest.mark.parametrize("threat", ["linf", "l2"])
@pytest.mark.parametrize("classes", [2, 5])
def test_one_member_falls_where_its_nearest_border_is_in_reach(classes: int, threat: str) -> None:
    """Of a linear classifier the distance to the nearest border is known: just beyond it, and not before."""
    victim, x = Linear(classes, 40), images(40, low=0.4, high=0.6)
    y = victim.logits(x).argmax(1)
    if threat == "l2":
        distance = victim.distance(x, y)
    else:
        logits = victim.logits(x)
        lengths = (victim.weight[:, y].T[:, :, None] - victim.weight[None]).abs().sum(1)
        distance = ((logits.gather(1, y[:, None]) - logits) / lengths).nan_to_num(torch.inf).amin(1)
    eps = distance.median().item()
    found = Arc(Ball(threat, eps), step=eps, steps=20, borders=classes - 1).perturb(victim, x, y).x_adv
    fooled = victim.logits(found).argmax(1) != y
    assert not fooled[distance > 1.001 * eps].any() and (distance > 1.001 * eps).sum() > 10
    assert fooled[distance < 0.99 * eps].all() and (distance < 0.99 * eps).sum() > 10
