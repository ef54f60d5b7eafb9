"""Noise on training images, stability training, dropout and Adam: one update of each against the formulas."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from training_base import checkpoints, fitted, network, part, rows, settings

from rna_ray.attacks.base import Attack, Proposal, Victim
from rna_ray.evaluation.knowledge import Defence
from rna_ray.networks.build import Network
from rna_ray.networks.dropout import dropping
from rna_ray.networks.paths import following
from rna_ray.randomness import Randomness
from rna_ray.training.schedule import learning_rate

SIGMA, GAMMA = 0.1, 0.7
RANDOM = Randomness("unit/epoch-0")
ORDER = torch.from_numpy(RANDOM.permutation("order", 24))
NATURAL = {"objective": "natural", "epochs": 1, "batch": 24, "augment": "none", "momentum": 0.0, "weight_decay": 0.0}
STN = {"norm": "none", "name": "stn-cifar10", "width": 6}


def stability(target: str) -> dict[str, Any]:
    return {"loss": {"name": "stability", "gamma": GAMMA, "target": target}}


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    found = part(0, 24)
    return torch.from_numpy(found.images)[ORDER].float() / 255, torch.from_numpy(found.labels)[ORDER]


def expected_loss(made: Network, given: dict[str, Any]) -> torch.Tensor:
    """Return the mean loss of the first update by the formulas, its images' noise and masks drawn by their names."""
    x, y = batch()
    noisy = x + SIGMA * RANDOM.normal("defend/adversarial/noise", ORDER, x.shape[1:])
    made.train()
    path, loss = made.paths.draw(RANDOM, "defend/adversarial", ORDER), given["training"].get("loss")
    with following(made, path), dropping(made, RANDOM, ORDER):
        clean = made(x) if loss else torch.zeros(24, 10)
        log_q = made(noisy).log_softmax(1)
    total = torch.zeros(())
    for i, label in enumerate(y.tolist()):
        if not loss:
            total = total - log_q[i, label]
            continue
        target = clean[i].softmax(0) if loss["target"] == "softmax" else clean[i].detach()
        total = total - clean[i].log_softmax(0)[label]
        total = total - GAMMA * sum(target[k] * log_q[i, k] for k in range(10))
    return total / 24


@pytest.mark.parametrize("space", [{"norm": "BN+IN"}, STN], ids=["BN+IN", "dropout"])
@pytest.mark.parametrize("loss", [{}, stability("softmax"), stability("logits")], ids=["augment", "softmax", "logits"])
def test_an_update_is_that_of_the_formulas(loss: dict[str, Any], space: dict[str, Any], tmp_path: Path) -> None:
    given = settings(**space, **NATURAL, **loss, lr=0.5, noise_255=SIGMA * 255)
    before = network(given)
    found, after = fitted(tmp_path, given, images=24, held_out=0, made=copy.deepcopy(before))
    expected = expected_loss(before, given)
    gradients = torch.autograd.grad(expected, list(before.parameters()))
    assert found.epochs[0]["loss"] == pytest.approx(expected.item(), abs=1e-5)
    for start, weight, gradient in zip(network(given).parameters(), after.parameters(), gradients, strict=True):
        torch.testing.assert_close((start - weight) / 0.5, gradient, atol=1e-5, rtol=1e-4)


def test_adam_is_the_published_one_with_the_schedules_rate(tmp_path: Path) -> None:
    """Two updates by the formulas (Kingma & Ba 2015, Algorithm 1), the weight decay in the gradient."""
    constant = {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1, "schedule": {"name": "constant"}}
    given = settings(**STN, **{**NATURAL, "epochs": 2, **constant}, noise_255=0.0)
    made = network(given).double()
    _, after = fitted(tmp_path, given, images=24, held_out=0)
    moments = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in made.parameters()]
    for t in (1, 2):
        random = Randomness(f"unit/epoch-{t - 1}")
        order = torch.from_numpy(random.permutation("order", 24))
        x, y = torch.from_numpy(part(0, 24).images)[order].double() / 255, torch.from_numpy(part(0, 24).labels)[order]
        with dropping(made, random, order):
            loss = torch.nn.functional.cross_entropy(made(x), y)
        gradients = torch.autograd.grad(loss, list(made.parameters()))
        with torch.no_grad():
            for weight, gradient, (m, v) in zip(made.parameters(), gradients, moments, strict=True):
                g = gradient + 0.1 * weight
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                weight -= 0.01 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    for weight, ours in zip(made.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(ours.double(), weight, atol=1e-4, rtol=1e-3)
    tensors, _ = checkpoints(tmp_path).resume() or pytest.fail("there is a state to resume from")
    assert {tensors[key].item() for key in tensors if key.startswith("adam.step.")} == {2.0}
    assert not any(key.startswith("momentum.") for key in tensors)


def test_a_constant_rate_is_the_peak_throughout() -> None:
    assert {learning_rate(0.3, {"name": "constant"}, at / 10) for at in range(10)} == {0.3}


@pytest.mark.parametrize("objective", ["whitebox", "blackbox"])
def test_the_attacker_meets_noise_and_knows_the_updates_only_in_a_white_box(
    objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings("BN", objective=objective, noise_255=SIGMA * 255, epochs=1, batch=24, augment="none")
    plain, seen = Attack.perturb, []

    def perturb(self: Attack, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        assert isinstance(victim, Defence)
        (attacked,), (answered,) = victim.attacker_draws(x, 0).noise, victim.defender_draws(x, "adversarial").noise
        seen.append((attacked(), answered()))
        return plain(self, victim, x, y)

    monkeypatch.setattr(Attack, "perturb", perturb)
    fitted(tmp_path, given, images=24, held_out=0)
    ((attacked, answered),) = seen
    assert answered.std().item() == pytest.approx(SIGMA, rel=0.1)
    assert torch.equal(attacked, answered) == (objective == "whitebox")
    assert attacked.std().item() == pytest.approx(SIGMA, rel=0.1)


def test_held_out_images_are_judged_under_the_trainings_noise(tmp_path: Path) -> None:
    given = settings("none", **{**NATURAL, "lr": 1e-9}, noise_255=SIGMA * 255)
    found, made = fitted(tmp_path, given, images=24, held_out=40)
    held, examples = part(1000, 1040), torch.arange(24, 64)
    x = torch.from_numpy(held.images).float() / 255
    noisy = x + SIGMA * RANDOM.normal("defend/natural/noise", examples, x.shape[1:])
    with torch.no_grad():
        logits = [made.eval()(images).double() for images in (noisy, x)]
    under, without = (torch.nn.functional.cross_entropy(one, torch.from_numpy(held.labels)).item() for one in logits)
    assert found.epochs[0]["natural_loss"] == pytest.approx(under, abs=1e-5) != pytest.approx(without, abs=1e-4)


def test_nothing_drops_while_attacks_are_crafted_nor_while_answering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(**STN, epochs=1, attack_mode="train")
    passes: list[tuple[bool, bool]] = []  # whether anything dropped, whether a gradient of weights was wanted
    plain = Network.forward

    def forward(self: Network, x: torch.Tensor) -> torch.Tensor:
        logits = plain(self, x)
        layer = self.body.dropouts[0]
        passes.append((layer.kept is not None, torch.is_grad_enabled() and not x.requires_grad))
        return logits

    monkeypatch.setattr(Network, "forward", forward)
    fitted(tmp_path, given, images=64, held_out=8)
    assert sum(drops for drops, _ in passes) == 2  # one pass of each update
    assert all(drops == updates for drops, updates in passes)


@pytest.mark.slow
def test_stability_training_answers_noise_better_than_training_without(tmp_path: Path) -> None:
    """On digits, after the same number of updates from the same weights: 71 % where it would be 48 %."""
    learn = {**NATURAL, "epochs": 4, "batch": 32, "optimizer": "adam", "lr": 0.01, "schedule": {"name": "constant"}}
    right = {}
    for name, more in {"plain": {"noise_255": 0.0}, "stn": {"noise_255": 102.0, **stability("softmax")}}.items():
        found, made = fitted(tmp_path / name, settings("BN", width=8, **learn, **more), images=640)
        held = part(1100, 1500)
        x = torch.from_numpy(held.images).float() / 255
        noisy = x + 0.4 * RANDOM.normal("look", torch.arange(len(x)), x.shape[1:])
        with torch.no_grad():
            answers = made.eval()(noisy).argmax(1)
        right[name] = (answers == torch.from_numpy(held.labels)).float().mean().item()
        assert rows(found)[-1]["loss"] < rows(found)[0]["loss"]
    assert right["stn"] > right["plain"] + 0.1 and right["stn"] > 0.6
