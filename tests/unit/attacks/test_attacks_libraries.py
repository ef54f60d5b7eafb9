"""Adapters to attack libraries: known optima, no traces left behind."""

from __future__ import annotations

import logging
import random
import sys

import numpy as np
import pytest
import torch
from attacks_base import Linear, defence, images, network, shorten_libraries
from pyautoattack.checks import funcs

from rna_ray.attacks.base import Attack, Ball, distortion
from rna_ray.attacks.expectation import Draws, Passes
from rna_ray.attacks.libraries import Square, TorchAttack
from rna_ray.attacks.make import make
from rna_ray.networks.paths import PathSpace

LINF = {"threat": "linf", "eps_255": 5.1}
SHORT = {
    "cw": {"name": "cw", "c": 1.0, "kappa": 0.0, "steps": 10, "lr": 0.01},
    "deepfool": {"name": "deepfool", "steps": 3, "overshoot": 0.02},
    "boundary": {"name": "boundary", "steps": 20},
    "standard": {"name": "autoattack", "version": "standard", **LINF},
    "rand": {"name": "autoattack", "version": "rand", **LINF},
    "cascade": {"name": "cascade", "steps": 3, "step_255": 2.0, "queries": 30, **LINF},
    "square": {"name": "square", "queries": 30, **LINF},
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_libraries(monkeypatch)


@pytest.mark.parametrize("bias", [5.0, -5.0])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("overshoot", [0.02, 0.1])
def test_deepfool_goes_to_the_nearest_border_of_a_linear_classifier(
    overshoot: float, classes: int, bias: float
) -> None:
    victim, x = Linear(classes, bias=bias), images(4, low=0.4, high=0.6)
    y = victim.logits(x).argmax(1)
    outcome = TorchAttack("DeepFool", steps=20, overshoot=overshoot)(victim, x, y)
    torch.testing.assert_close(outcome.l2, (1 + overshoot) * victim.distance(x, y), rtol=1e-3, atol=0)
    assert (outcome.logits[:, 0].argmax(1) != y).all()


@pytest.mark.parametrize("bias", [30.0, 0.0, -30.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_cw_finds_the_nearest_border_whatever_the_sign_of_the_logits(classes: int, bias: float) -> None:
    """Softmax does not change when all logits move by a number, so neither may the attack."""
    victim, x = Linear(classes, bias=bias), images(4, low=0.4, high=0.6)
    y = victim.logits(x).argmax(1)
    outcome = TorchAttack("CW", c=1.0, kappa=0.0, steps=400, lr=0.001)(victim, x, y)
    assert (outcome.logits[:, 0].argmax(1) != y).all()
    torch.testing.assert_close(outcome.l2, victim.distance(x, y), rtol=0.05, atol=0.01)


@pytest.mark.parametrize("knowledge", ["transfer", "fixed", "eot-3"])
def test_cw_attacks_an_expectation_too(knowledge: str) -> None:
    """The expected prediction is a log-probability, never positive."""
    built, x = network(), images(8, low=0.2, high=0.8)
    victim = defence(built, knowledge=knowledge, draws=2)
    y = victim.answer(x).mean(1).argmax(1)
    _, l2 = distortion(TorchAttack("CW", c=100.0, kappa=0.0, steps=40, lr=0.05).perturb(victim, x, y).x_adv, x)
    assert (l2 > 1e-3).sum() >= 4


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("knowledge", ["transfer", "fixed", "resample", "eot-3"])
def test_deepfool_follows_each_images_own_path(
    knowledge: str, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library attacks images one at a time: the path of the first one is not that of all."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    plain = Passes.logits

    def logits(self: Passes, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        seen.append((x, draws.paths))
        return plain(self, x, draws)

    monkeypatch.setattr(Passes, "logits", logits)
    victim, x = defence(network(), 4, knowledge, shared=shared), images(4)
    y = defence(network(), 4, knowledge, shared=shared).logits(x).argmax(1)
    seen.clear()
    TorchAttack("DeepFool", steps=2, overshoot=0.02).perturb(victim, x, y)
    assert {len(image) for image, _ in seen} == {1}
    first = [victim.attacker_draws(x, 0).paths[:, 0 if shared else row] for row in range(4)]
    used = [paths[:, 0] for image, paths in seen if any(torch.equal(image[0], one) for one in x)]
    assert len(used) == 4 and all(torch.equal(one, path) for one, path in zip(used, first, strict=True))


def test_deepfool_gives_an_image_what_it_gives_it_in_another_batch() -> None:
    built, x = network(), images(4)
    y = defence(built, 4).answer(x)[:, 0].argmax(1)
    attack = TorchAttack("DeepFool", steps=4, overshoot=0.02)
    whole = attack.perturb(defence(built, 4, "resample"), x, y).x_adv
    part = defence(built, 4, "resample")
    part.examples = part.examples[2:]
    torch.testing.assert_close(attack.perturb(part, x[2:], y[2:]).x_adv, whole[2:], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", SHORT)
def test_a_library_leaves_no_trace(name: str) -> None:
    built, x, attack = network("BN"), images(4), make(SHORT[name])
    built.requires_grad_(False)
    built.body.stages[1].train()
    y = defence(built, 4).answer(x)[:, 0].argmax(1)
    modes = [module.training for module in built.modules()]
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    weights = {key: tensor.clone() for key, tensor in built.state_dict().items()}
    found = attack.perturb(defence(built, 4), x, y).x_adv
    assert [module.training for module in built.modules()] == modes
    assert all(parameter.grad is None for parameter in built.parameters())
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    torch.rand(3)  # what is drawn elsewhere does not matter
    built.load_state_dict(weights)  # stage 1 is in train mode
    assert torch.equal(make(SHORT[name]).perturb(defence(built, 4), x, y).x_adv, found)
    assert found.min() >= 0 and found.max() <= 1
    if "eps_255" in SHORT[name]:
        assert distortion(found, x)[0].max() <= 5.1 / 255 + 1e-6


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("norm", ["BN", "BN+IN"])
def test_nothing_is_printed_logged_or_left_in_the_process(
    norm: str, name: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """AutoAttack's check for optimisation at inference would count in a global, and switch tracing off."""

    def tracer(frame: object, event: str, argument: object) -> None: ...

    built, x = network(norm).requires_grad_(False), images(4)
    y, counted, before = torch.zeros(4, dtype=torch.int64), dict(funcs), sys.gettrace()
    try:
        sys.settrace(tracer)
        with caplog.at_level(logging.DEBUG):
            make(SHORT[name]).perturb(defence(built, 4, "resample", shared=True), x, y)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert funcs == counted and not caplog.records and not any(capfd.readouterr())


def test_square_needs_no_gradient() -> None:
    victim, x = Linear(4), images(4, low=0.4, high=0.6)
    y = victim.logits(x).argmax(1)
    with torch.inference_mode():
        outcome = Square(Ball("linf", 0.15), 200)(victim, x, y)
    assert (outcome.logits[:, 0].argmax(1) != y).all() and outcome.linf.max() <= 0.15 + 1e-6


def test_an_image_that_a_library_lost_to_a_zero_gradient_comes_back_as_it_was() -> None:
    class Flat(Linear):
        def logits(self, x: torch.Tensor) -> torch.Tensor:
            return 0 * super().logits(x) + torch.tensor([1.0, 0.0])

    x, y = images(4), torch.zeros(4, dtype=torch.int64)
    attack: Attack = TorchAttack("DeepFool", steps=2, overshoot=0.02)
    assert torch.equal(attack.perturb(Flat(2), x, y).x_adv, x)


def test_a_network_of_one_path_is_attacked_as_it_is() -> None:
    built, x = network("BN"), images(4)
    assert built.paths == PathSpace(())
    y = defence(built, 4).answer(x)[:, 0].argmax(1)
    attack = TorchAttack("DeepFool", steps=2, overshoot=0.02)
    found = [attack.perturb(defence(built, 4, knowledge), x, y).x_adv for knowledge in ("fixed", "transfer")]
    assert torch.equal(*found) and distortion(found[0], x)[1].min() > 0.1
