"""Our gradient attacks give torchattacks' outputs on a deterministic model from the same start."""

from __future__ import annotations

import pytest
import torch
import torchattacks
from attacks_base import Linear, defence, images, labels, network, trained

from rna_ray.attacks.base import Attack, Ball, distortion
from rna_ray.attacks.gradient import GradientAttack, Natural, Noise, uniform_start
from rna_ray.attacks.make import make

EPS_255, STEP_255 = 25.5, 6.4
EPS, STEP = EPS_255 / 255, STEP_255 / 255


def made(name: str, **settings: object) -> Attack:
    return make({"name": name, "threat": "linf", "eps_255": EPS_255, **settings})


CASES = {
    "fgsm": (made("fgsm"), lambda model: torchattacks.FGSM(model, eps=EPS)),
    "bim": (
        made("bim", step_255=STEP_255, steps=7),
        lambda model: torchattacks.BIM(model, eps=EPS, alpha=STEP, steps=7),
    ),
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


class Counting(Linear):
    """A linear classifier of two classes, each of whose steps shows another gradient."""

    def gradient(self, x: torch.Tensor, y: torch.Tensor, *, step: int) -> torch.Tensor:
        noise = self.random.normal("noise", self.examples, x.shape[1:], step=step)
        return super().gradient(x, y, step=step) + 0.1 * noise


@pytest.mark.parametrize("threat", ["linf", "l2"])
def test_aggregated_momentum_is_the_mean_of_the_velocities(threat: str) -> None:
    """Lucas et al. 2019, Equation 3, on gradients divided by their mean absolute value, by hand in float64."""
    victim, x, eps, step = Counting(3), images(4, low=0.3, high=0.7), 0.2, 0.04
    y = torch.tensor([0, 1, 2, 0])
    expected, velocities = x.double(), torch.zeros(3, *x.shape, dtype=torch.float64)
    for number in range(7):
        gradient = victim.gradient(expected.float(), y, step=number).double()
        gradient /= gradient.abs().mean((1, 2, 3), keepdim=True)
        for velocity, damping in zip(velocities, (0.0, 0.9, 0.99), strict=True):
            velocity.mul_(damping).add_(gradient)
        mean = velocities.mean(0)
        if threat == "linf":
            expected = (expected + step * mean.sign()).clamp(x - eps, x + eps)
        else:
            expected += step * mean / mean.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            delta = expected - x
            expected = x + delta * (eps / delta.flatten(1).norm(dim=1)).clamp_max(1).view(-1, 1, 1, 1)
        expected = expected.clamp(0, 1)
    settings = {
        "name": "pgd", "threat": threat, "eps_255": eps * 255, "step_255": step * 255, "steps": 7, "random_start": False
    }  # fmt: skip
    found = make(settings, aggregated=True).perturb(victim, x, y).x_adv
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-5)
    plain = make(settings).perturb(victim, x, y).x_adv
    assert (plain - found).flatten(1).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("kind", ["one path", "random"])
@pytest.mark.parametrize("knowledge", ["transfer", "fixed", "resample", "eot-2"])
def test_the_best_start_counts_and_the_first_is_that_of_one(knowledge: str, kind: str) -> None:
    """What is best is what the attacker's own judgement says: on a network of one path, what the defence answers."""
    built, x, y = trained() if kind == "one path" else (network("BN+IN+LN"), *trained()[1:])
    x, y = x[:80], y[:80]
    victim, rows = defence(built, 80, knowledge), torch.arange(80)
    single = [
        made_pgd(1)._climb(victim.rows(rows, f"start-{start}" if start else ""), x, y, start, torch.zeros(80))
        for start in range(4)
    ]
    judged = [victim.judge(found, y) for found in single]
    assert all((single[0] - other).flatten(1).abs().amax(1).min() > 1e-3 for other in single[1:])
    for restarts in (1, 2, 4):
        found = made_pgd(restarts).perturb(victim, x, y).x_adv
        which = torch.stack([(found == one).flatten(1).all(1) for one in single[:restarts]])
        assert which.any(0).all() and which.sum(1).min() > 0
        best = victim.judge(found, y)
        assert not any(one.better(best).any() for one in judged[:restarts])
    assert (best.margin < judged[0].margin).float().mean() > 0.4


def made_pgd(restarts: int) -> GradientAttack:
    attack = made("pgd", step_255=STEP_255, steps=3, random_start=True, restarts=restarts)
    assert isinstance(attack, GradientAttack)
    return attack


def test_gradients_of_zero_are_counted_over_all_steps_and_starts() -> None:
    class Fading(Linear):
        def gradient(self, x: torch.Tensor, y: torch.Tensor, *, step: int) -> torch.Tensor:
            gradient = super().gradient(x, y, step=step)
            return gradient * (self.examples > step).float().view(-1, 1, 1, 1)

    victim, x = Fading(2), images(4, low=0.4, high=0.6)
    for restarts in (1, 3):
        attack = made("pgd", step_255=STEP_255, steps=3, random_start=True, restarts=restarts)
        zero = attack.perturb(victim, x, torch.zeros(4, dtype=torch.int64)).zero_gradients
        assert zero is not None and zero.tolist() == [3 * restarts, 2 * restarts, restarts, 0]
