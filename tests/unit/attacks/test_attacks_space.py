"""Attacks measured after division by the network's per-channel deviation: the same attack on normalised images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchattacks
from attacks_base import Linear, defence, labels
from test_attacks_base import Proposing

from rna_ray.attacks.base import SLACK_PIXELS, Ball
from rna_ray.attacks.catalog import ATTACKS, find
from rna_ray.attacks.gradient import Gaussian, GradientAttack, Noise, uniform_start
from rna_ray.attacks.make import make
from rna_ray.errors import AttackError
from rna_ray.networks.build import Network, build

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.6, 0.7)
SPACE = torch.tensor(STD).view(3, 1, 1)
EPS, STEP = 0.1, 0.03
L2, L2_STEP = 0.5, 0.15


def networks() -> tuple[Network, Network, torch.Tensor, torch.Tensor]:
    """Return a network behind its normalisation, its body bare, and pixels with what these are once normalised.

    So far inside [0, 1] lie both that no attack of these radii is clipped in either space.
    """
    settings = {"name": "resnet8", "width": 4, "norm": "BN", "layer_based": False, "paths": "example"}
    whole = build(settings, shape=(3, 8, 8), classes=10, mean=MEAN, std=STD, seed=0).eval()
    bare = Network(whole.body, whole.paths, mean=(0.0,), std=(1.0,)).eval()
    z = 0.3 + 0.4 * torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return whole, bare, z * SPACE + torch.tensor(MEAN).view(3, 1, 1), z


def of(name: str, threat: str = "linf", **options: object) -> dict[str, object]:
    eps, step = (EPS, STEP) if threat == "linf" else (L2, L2_STEP)
    lengths = {"eps_255": 255 * eps, **({"step_255": 255 * step} if "steps" in options else {})}
    return {"name": name, **find(name).settings({"threat": threat, **lengths, "eps_space": "normalized", **options})}


CASES: dict[str, tuple[dict[str, object], Callable[[Network], torchattacks.attack.Attack]]] = {
    "fgsm-linf": (of("fgsm"), lambda bare: torchattacks.FGSM(bare, eps=EPS)),
    "fgsm-l2": (
        of("fgsm", "l2"), lambda bare: torchattacks.PGDL2(bare, eps=L2, alpha=L2, steps=1, random_start=False)
    ),
    "bim": (of("bim", steps=7), lambda bare: torchattacks.BIM(bare, eps=EPS, alpha=STEP, steps=7)),
    "pgd-linf": (
        of("pgd", steps=7, random_start=False),
        lambda bare: torchattacks.PGD(bare, eps=EPS, alpha=STEP, steps=7, random_start=False),
    ),
    "pgd-l2": (
        of("pgd", "l2", steps=7, random_start=False),
        lambda bare: torchattacks.PGDL2(bare, eps=L2, alpha=L2_STEP, steps=7, random_start=False),
    ),
    "mifgsm": (
        of("mifgsm", steps=5, decay=0.7),
        lambda bare: torchattacks.MIFGSM(bare, eps=EPS, alpha=STEP, steps=5, decay=0.7),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_attack_on_the_bare_network_given_normalised_images(name: str) -> None:
    whole, bare, x, z = networks()
    settings, theirs = CASES[name]
    y = labels(whole, x)
    found = make(settings, std=whole.std).perturb(defence(whole), x, y).x_adv
    expected = theirs(bare)(z, y)
    assert expected.min() > 0 and expected.max() < 1  # nothing was clipped
    assert (expected - z).abs().max() > 0.05
    torch.testing.assert_close((found - x) / SPACE, expected - z, rtol=0, atol=1e-6)
    pixel = make({**settings, "eps_space": "pixel"}).perturb(defence(whole), x, y).x_adv
    assert (pixel - found).abs().max() > 0.01


@pytest.mark.parametrize("name", [attack.name for attack in ATTACKS.values() if attack.bounded])
def test_a_space_is_never_taken_for_another(name: str) -> None:
    spaces = [option for option in find(name).options if option.name == "eps_space"]
    if name == "natural":
        assert spaces == []
        return
    (space,) = spaces
    assert "eps_space" not in find(name).settings({"eps_space": "pixel"}) == find(name).settings({})
    able = name not in ("arc", "autoattack", "square", "cascade")
    assert space.choices == (("pixel", "normalized") if able else ("pixel",))
    with pytest.raises(ValueError, match="needs the deviation of the network's input normalisation"):
        make({"name": name, **find(name).settings({}), "eps_space": "normalized"})


@pytest.mark.parametrize("threat", ["linf", "l2"])
def test_a_random_start_fills_the_ball_of_normalised_images(threat: str) -> None:
    plain, ball = Ball(threat, EPS), Ball(threat, EPS, SPACE)
    victim, x = Linear(2, 300), torch.full((300, 3, 8, 8), 0.5)
    start, pixels = (uniform_start(one, victim, x) - x for one in (ball, plain))
    torch.testing.assert_close(start / SPACE, pixels, rtol=0, atol=1e-6)  # the same draws, each in its own space
    if threat == "linf":
        reach = start.abs().amax((0, 2, 3))
        assert (reach > 0.99 * EPS * SPACE.flatten()).all() and (reach <= EPS * SPACE.flatten() + 1e-6).all()
    noise = Noise(ball, "gaussian").perturb(victim, x, torch.zeros(300, dtype=torch.int64)).x_adv - x
    assert ball.farthest(x + noise, x) <= EPS + 1e-6 < ball.farthest(x + 1.1 * noise, x)


def test_leaving_the_ball_is_judged_in_its_space_but_for_the_rounding_of_pixels() -> None:
    y = torch.zeros(4, dtype=torch.int64)
    x = torch.full((4, 3, 8, 8), 0.5)
    ball = Ball("linf", EPS, SPACE)
    for far, inside in ((1.0, True), (1 + 5e-4, True), (1.05, False)):
        attack = Proposing(ball, x + far * EPS * SPACE)
        if inside:
            torch.testing.assert_close(attack.perturb(Linear(2), x, y).x_adv, (x + EPS * SPACE), rtol=0, atol=1e-6)
        else:
            with pytest.raises(AttackError, match=r"left its linf ball of 0\.100000: it went 0\.105000"):
                attack.perturb(Linear(2), x, y)
    # The channel of the smallest deviation may be off by so many pixels whatever ε is, as in a ball of pixels.
    point = Ball("linf", 0.0, SPACE)
    off = torch.tensor([0.9, 0.0, 0.0]).view(3, 1, 1) * SLACK_PIXELS
    assert torch.equal(Proposing(point, x + off).perturb(Linear(2), x, y).x_adv, x)
    with pytest.raises(AttackError):
        Proposing(point, x + 2 * off).perturb(Linear(2), x, y)


def test_projection_is_that_of_normalised_images() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.full((5, 3, 4, 4), 0.5)
    delta = 0.1 * torch.randn(5, 3, 4, 4, generator=generator)
    for threat in ("linf", "l2"):
        found = (Ball(threat, EPS, SPACE).project(x + delta * SPACE, x) - x) / SPACE
        torch.testing.assert_close(found, Ball(threat, EPS).project(x + delta, x) - x, rtol=0, atol=1e-6)
    wild = Ball("l2", 50.0, SPACE).project(x + 100 * delta * SPACE, x)
    assert wild.min() == 0 and wild.max() == 1  # pixels all the same


class Blind(Linear):
    """A network that must not be asked."""

    def gradient(self, x: torch.Tensor, y: torch.Tensor, *, step: int) -> torch.Tensor:
        raise AssertionError("noise is blind")

    logits = gradient  # type: ignore[assignment]


def test_gaussian_noise_has_its_deviation_in_either_space_and_no_ball() -> None:
    x, y = torch.full((200, 3, 8, 8), 0.5), torch.zeros(200, dtype=torch.int64)
    settings = {"name": "gaussian", "std_255": 25.5}
    pixel = make(settings).perturb(Blind(2, 200), x, y).x_adv - x
    scaled = make({**settings, "eps_space": "normalized"}, std=SPACE).perturb(Blind(2, 200), x, y).x_adv - x
    assert pixel.std((0, 2, 3)).tolist() == pytest.approx([0.1, 0.1, 0.1], rel=0.03)
    assert scaled.std((0, 2, 3)).tolist() == pytest.approx([0.04, 0.06, 0.07], rel=0.03)
    torch.testing.assert_close(scaled / SPACE, pixel, rtol=0, atol=1e-6)
    assert pixel.abs().max() > 0.3  # no bound but the pixels'
    loud = Gaussian(1.0).perturb(Blind(2, 200), x, y).x_adv
    assert loud.min() == 0 and loud.max() == 1


def test_gaussian_noise_belongs_to_the_example_and_to_the_unit() -> None:
    x, y, victim = torch.full((9, 3, 8, 8), 0.5), torch.zeros(9, dtype=torch.int64), Blind(2, 9)
    whole = Gaussian(0.1).perturb(victim, x, y).x_adv
    torch.manual_seed(3)
    some = torch.tensor([7, 2])
    assert torch.equal(Gaussian(0.1).perturb(victim.rows(some), x[:2], y[:2]).x_adv, whole[some])


def test_bim_is_pgd_from_the_image_itself() -> None:
    whole, _, x, _ = networks()
    y = labels(whole, x)
    bim = make({"name": "bim", **find("bim").settings({"steps": 5})}).perturb(defence(whole), x, y).x_adv
    pgd = GradientAttack(Ball("linf", 8 / 255), step=2 / 255, steps=5).perturb(defence(whole), x, y).x_adv
    assert torch.equal(bim, pgd)
    assert find("bim").label.format(steps=20) == "bim-20"
