"""Adapters to attack libraries: known optima, no traces left behind, flags collected."""

from __future__ import annotations

import random
import sys

import numpy as np
import pyautoattack.checks
import pytest
import torch
from attacks_base import Linear, defence, images, network

from rna_ray.attacks.base import Attack, Ball, distortion
from rna_ray.attacks.expectation import Passes
from rna_ray.attacks.libraries import AutoAttack, Square, TorchAttack
from rna_ray.attacks.make import make
from rna_ray.networks.paths import PathSpace

LINF = {"threat": "linf", "eps_255": 5.1}
SHORT = {
    "cw": {"name": "cw", "c": 1.0, "kappa": 0.0, "steps": 10, "lr": 0.01},
    "deepfool": {"name": "deepfool", "steps": 3, "overshoot": 0.02},
    "autoattack": {"name": "autoattack", "version": "rand", **LINF},
    "square": {"name": "square", "queries": 30, **LINF},
}


@pytest.fixture
def short_apgd(monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoAttack with 3 steps instead of 100, and a mean over 2 draws instead of 20."""
    plain = pyautoattack.AutoAttack._set_version

    def shortened(self: pyautoattack.AutoAttack, version: str) -> None:
        plain(self, version)
        for part in (self.apgd, self.apgd_targeted, self.fab):
            part.n_iter, part.eot_iter = 3, 2
        self.square.n_queries = 30

    monkeypatch.setattr(pyautoattack.AutoAttack, "_set_version", shortened)


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
    _, l2 = distortion(TorchAttack("CW", c=100.0, kappa=0.0, steps=40, lr=0.05).perturb(victim, x, y), x)
    assert (l2 > 1e-3).sum() >= 4


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("knowledge", ["transfer", "fixed", "resample", "eot-3"])
def test_deepfool_follows_each_images_own_path(
    knowledge: str, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library attacks images one at a time: the path of the first one is not that of all."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    plain = Passes.logits

    def logits(self: Passes, x: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
        seen.append((x, paths))
        return plain(self, x, paths)

    monkeypatch.setattr(Passes, "logits", logits)
    victim, x = defence(network(), 4, knowledge, shared=shared), images(4)
    y = defence(network(), 4, knowledge, shared=shared).logits(x).argmax(1)
    seen.clear()
    TorchAttack("DeepFool", steps=2, overshoot=0.02).perturb(victim, x, y)
    assert {len(image) for image, _ in seen} == {1}
    first = [victim.attacker_paths(0)[:, 0 if shared else row] for row in range(4)]
    used = [paths[:, 0] for image, paths in seen if any(torch.equal(image[0], one) for one in x)]
    assert len(used) == 4 and all(torch.equal(one, path) for one, path in zip(used, first, strict=True))


def test_deepfool_gives_an_image_what_it_gives_it_in_another_batch() -> None:
    built, x = network(), images(4)
    y = defence(built, 4).answer(x)[:, 0].argmax(1)
    attack = TorchAttack("DeepFool", steps=4, overshoot=0.02)
    whole = attack.perturb(defence(built, 4, "resample"), x, y)
    part = defence(built, 4, "resample")
    part.examples = part.examples[2:]
    torch.testing.assert_close(attack.perturb(part, x[2:], y[2:]), whole[2:], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("short_apgd")
@pytest.mark.parametrize("name", SHORT)
def test_a_library_leaves_no_trace(name: str) -> None:
    built, x, attack = network("BN"), images(4), make(SHORT[name])
    built.requires_grad_(False)
    built.body.stages[1].train()
    y = defence(built, 4).answer(x)[:, 0].argmax(1)
    modes = [module.training for module in built.modules()]
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    weights = {key: tensor.clone() for key, tensor in built.state_dict().items()}
    found = attack.perturb(defence(built, 4), x, y)
    assert [module.training for module in built.modules()] == modes
    assert all(parameter.grad is None for parameter in built.parameters())
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    torch.rand(3)  # what is drawn elsewhere does not matter
    built.load_state_dict(weights)  # stage 1 is in train mode
    assert torch.equal(make(SHORT[name]).perturb(defence(built, 4), x, y), found)
    assert found.min() >= 0 and found.max() <= 1
    if name in ("autoattack", "square"):
        assert distortion(found, x)[0].max() <= 5.1 / 255 + 1e-6


@pytest.mark.parametrize("threat", ["linf", "l2"])
@pytest.mark.parametrize("classes", [10, 3, 2])
@pytest.mark.usefixtures("short_apgd")
@pytest.mark.parametrize("version", ["standard", "rand"])
def test_autoattack_takes_any_number_of_classes(version: str, classes: int, threat: str) -> None:
    """Nothing is broken at this ε, so that every part of the ensemble is run."""
    victim, x = Linear(classes), images(4, low=0.4, high=0.6)
    y = victim.logits(x).argmax(1)
    attack = AutoAttack(Ball(threat, 1e-4), version)
    outcome = attack(victim, x, y)
    assert (outcome.logits[:, 0].argmax(1) == y).all()
    left_out = {("standard", 3): "apgd-t", ("standard", 2): "apgd-t", ("rand", 2): "apgd-dlr"}.get((version, classes))
    expected = [f"{left_out} was left out: its loss needs more than {classes} classes"] if left_out else []
    assert attack.flags.get("autoattack", []) == expected


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("version", ["standard", "rand"])
def test_autoattack_breaks_what_can_be_broken(version: str, classes: int) -> None:
    victim, x = Linear(classes), images(4, low=0.4, high=0.6)
    y = victim.logits(x).argmax(1)
    attack = AutoAttack(Ball("linf", 0.2), version)
    outcome = attack(victim, x, y)
    assert (outcome.logits[:, 0].argmax(1) != y).all()
    assert outcome.linf.max() <= 0.2 + 1e-6
    assert torch.equal(AutoAttack(Ball("linf", 0.2), version)(victim, x, y).x_adv, outcome.x_adv)


@pytest.mark.usefixtures("short_apgd")
@pytest.mark.parametrize(("knowledge", "flagged"), [("resample", True), ("transfer", False)])
def test_what_autoattack_says_of_a_randomised_defence_is_a_flag(knowledge: str, flagged: bool) -> None:
    built, x = network(), images(4)
    y = torch.zeros(4, dtype=torch.int64)
    attack = AutoAttack(Ball("linf", 0.02), "standard")
    attack.perturb(defence(built, 4, knowledge, shared=True), x, y)
    said = " ".join(attack.flags.get("autoattack", []))  # type: ignore[arg-type]
    assert ("randomized defense" in said) == flagged


@pytest.mark.usefixtures("short_apgd")
def test_flags_of_softmax_outputs_and_zero_gradients() -> None:
    class Softmax(Linear):
        def logits(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(super().logits(x), 1)

    class Flat(Linear):
        def logits(self, x: torch.Tensor) -> torch.Tensor:
            return 0 * super().logits(x) + torch.tensor([3.0, 0.0, -1.0, -2.0])

    x, y = images(4), torch.zeros(4, dtype=torch.int64)
    for victim, words in ((Softmax(4), "probability distribution"), (Flat(4), "zero gradient")):
        attack = AutoAttack(Ball("linf", 0.01), "rand")
        attack.perturb(victim, x, victim.logits(x).argmax(1) if words[0] == "p" else y)
        assert words in " ".join(attack.flags["autoattack"])  # type: ignore[arg-type]


@pytest.mark.usefixtures("short_apgd")
def test_autoattacks_global_state_stays_in_its_unit(capfd: pytest.CaptureFixture[str]) -> None:
    """The check for optimisation at inference counts calls in a global of the process, and switches tracing off."""

    class Optimising(Linear):
        def logits(self, x: torch.Tensor) -> torch.Tensor:
            def backward() -> None: ...

            backward()
            return super().logits(x)

    def tracer(frame: object, event: str, argument: object) -> None: ...

    x, before = images(4), sys.gettrace()
    y = Linear(4).logits(x).argmax(1)
    said: list[str] = []
    try:
        sys.settrace(tracer)
        for victim in (Optimising(4), Linear(4)):
            attack = AutoAttack(Ball("linf", 0.01), "rand")
            attack.perturb(victim, x, y)
            said.append(" ".join(attack.flags.get("autoattack", [])))  # type: ignore[arg-type]
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert "dynamic defense" in said[0] and "dynamic" not in said[1]
    assert not any(capfd.readouterr())


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
    assert torch.equal(attack.perturb(Flat(2), x, y), x)


def test_a_network_of_one_path_is_attacked_as_it_is() -> None:
    built, x = network("BN"), images(4)
    assert built.paths == PathSpace(())
    y = defence(built, 4).answer(x)[:, 0].argmax(1)
    attack = TorchAttack("DeepFool", steps=2, overshoot=0.02)
    found = [attack.perturb(defence(built, 4, knowledge), x, y) for knowledge in ("fixed", "transfer")]
    assert torch.equal(*found) and distortion(found[0], x)[1].min() > 0.1
