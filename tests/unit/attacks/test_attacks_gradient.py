"""Our gradient attacks give torchattacks' outputs on a deterministic model from the same start."""

from __future__ import annotations

import pytest
import torch
import torchattacks
from attacks_base import Linear, defence, images, labels, network

from rna_ray.attacks.base import Attack, Ball, distortion
from rna_ray.attacks.gradient import GradientAttack, Natural, Noise, uniform_start
from rna_ray.attacks.make import make

EPS_255, STEP_255 = 25.5, 6.4
EPS, STEP = EPS_255 / 255, STEP_255 / 255


def made(name: str, **settings: object) -> Attack:
    return make({"name": name, "threat": "linf", "eps_255": EPS_255, **settings})


CASES = {
    "fgsm": (made("fgsm"), lambda model: torchattacks.FGSM(model, eps=EPS)),
    "pgd-linf": (
        made("pgd", step_255=STEP_255, steps=7, random_start=False),
        lambda model: torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=7, random_start=False),
    ),
    "pgd-l2": (
        made("pgd", threat="l2", eps_255=255.0, step_255=51.0, steps=7, random_start=False),
        lambda model: torchattacks.PGDL2(model, eps=1.0, alpha=0.2, steps=7, random_start=False),
    ),
    "mifgsm": (
        made("mifgsm", step_255=STEP_255, steps=5, decay=0.7),
        lambda model: torchattacks.MIFGSM(model, eps=EPS, alpha=STEP, steps=5, decay=0.7),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_attack_equals_torchattacks_output(name: str) -> None:
    built, x = network("BN"), images()
    y = labels(built, x)
    ours, theirs = CASES[name]
    found, expected = ours.perturb(defence(built), x, y).x_adv, theirs(built)(x, y)
    assert (expected - x).abs().max() > 0.02
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("threat", ["linf", "l2"])
def test_pgd_reaches_the_known_optimum_of_a_linear_classifier(threat: str) -> None:
    """With two classes the loss rises along one direction only: the optimum is a step of length ε along it."""
    victim, x = Linear(2), images(4, low=0.45, high=0.55)
    y = victim.logits(x).argmax(1)
    away = (victim.weight[:, 1 - y] - victim.weight[:, y]).T.view_as(x)
    eps = 0.2
    direction = away.sign() if threat == "linf" else away / away.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    attack = GradientAttack(Ball(threat, eps), step=0.05, steps=20, random_start=True)
    torch.testing.assert_close(attack.perturb(victim, x, y).x_adv, x + eps * direction, rtol=0, atol=1e-3)


def test_mifgsm_goes_on_where_one_gradient_is_zero() -> None:
    class Flat(Linear):
        def gradient(self, x: torch.Tensor, y: torch.Tensor, *, step: int) -> torch.Tensor:
            return torch.zeros_like(x) if step == 0 else super().gradient(x, y, step=step)

    victim, x = Flat(2), images(4, low=0.4, high=0.6)
    attack = made("mifgsm", step_255=STEP_255, steps=3, decay=1.0)
    moved, _ = distortion(attack.perturb(victim, x, torch.zeros(4, dtype=torch.int64)).x_adv, x)
    torch.testing.assert_close(moved, torch.full((4,), 2 * STEP), rtol=0, atol=1e-6)


@pytest.mark.parametrize("threat", ["linf", "l2"])
def test_a_random_start_fills_the_ball_and_belongs_to_the_example(threat: str) -> None:
    ball, victim, x = Ball(threat, 0.1), Linear(2, 400), torch.full((400, 1, 8, 8), 0.5)
    start = uniform_start(ball, victim, x)
    linf, l2 = distortion(start, x)
    if threat == "linf":
        offsets = (start - x).flatten() / 0.1
        assert linf.max() <= 0.1 + 1e-6 and linf.min() > 0.08
        assert offsets.mean().abs() < 0.02 and offsets.square().mean().item() == pytest.approx(1 / 3, abs=0.01)
    else:
        assert l2.max() <= 0.1 + 1e-6 and l2.mean().item() == pytest.approx(0.05, abs=0.005)
    torch.manual_seed(3)
    victim.examples = victim.examples[7:9]
    assert torch.equal(uniform_start(ball, victim, x[:2]), start[7:9])


@pytest.mark.parametrize("threat", ["linf", "l2"])
@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_noise_stays_in_its_ball_and_asks_nothing_of_the_network(kind: str, threat: str) -> None:
    class Blind(Linear):
        def gradient(self, x: torch.Tensor, y: torch.Tensor, *, step: int) -> torch.Tensor:
            raise AssertionError("noise is blind")

        logits = gradient  # type: ignore[assignment]

    x, y = images(4, low=0.4, high=0.6), torch.zeros(4, dtype=torch.int64)
    x_adv = Noise(Ball(threat, 0.1), kind).perturb(Blind(2), x, y).x_adv
    linf, l2 = distortion(x_adv, x)
    assert (linf if threat == "linf" else l2).max() <= 0.1 + 1e-6 and linf.min() > 1e-3
    assert torch.equal(Natural().perturb(Blind(2), x, y).x_adv, x)
