"""One update of each loss, with and without AWP, against the formulas written out; then resumed, compiled, in bf16."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from training_base import STEPS, checkpoints, fitted, network, part, rows, same_weights, settings

from rna_ray.attacks.base import Attack, Proposal, Victim
from rna_ray.networks.build import Network
from rna_ray.networks.paths import following, mode
from rna_ray.randomness import Randomness
from rna_ray.training.fit import fit
from rna_ray.training.losses import START

EPS, STEP, GAMMA, LR = 25.5 / 255, 12.75 / 255, 0.01, 0.5
LOSSES = {
    "ce": None, "mixed": {"name": "mixed"}, "trades": {"name": "trades", "beta": 6.0},
    "mart": {"name": "mart", "beta": 5.0},
}  # fmt: skip
AWP = {"gamma": GAMMA, "warmup": 0}
Answer = Callable[[torch.Tensor], torch.Tensor]
several_norms = pytest.mark.parametrize("norm", [pytest.param("BN", marks=pytest.mark.slow), "BN+IN"])


def asked(loss: str, awp: bool, norm: str, **training: Any) -> dict[str, Any]:
    """Return the settings of a training with this loss, as a plan gives them."""
    given = {"loss": LOSSES[loss], "weight_perturbation": AWP if awp else None}
    return settings(norm, **{key: value for key, value in given.items() if value}, **training)


def one_update(loss: str, awp: bool, norm: str, **training: Any) -> dict[str, Any]:
    plain = {"epochs": 1, "batch": 24, "lr": LR, "momentum": 0.0, "weight_decay": 0.0, "augment": "none"}
    return asked(loss, awp, norm, **plain, **training)


def reference(loss: str, clean: torch.Tensor, attacked: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the mean loss of logits (N, classes), by the formulas of the papers over probabilities."""
    p, q, total = clean.softmax(1), attacked.softmax(1), torch.zeros(())
    for i, label in enumerate(y.tolist()):
        divergence = (p[i] * (p[i].log() - q[i].log())).sum()
        if loss == "ce":
            total = total - q[i, label].log()
        elif loss == "mixed":
            total = total - (p[i, label].log() + q[i, label].log()) / 2
        elif loss == "trades":
            total = total - p[i, label].log() + 6 * divergence
        else:
            rival = max((k for k in range(10) if k != label), key=lambda k: q[i, k].item())
            boosted = -q[i, label].log() - (1 - q[i, rival]).log()
            total = total + boosted + 5 * divergence * (1 - p[i, label])
    return total / len(y)


def climb(loss: str, answer: Answer, x: torch.Tensor, y: torch.Tensor, random: Randomness) -> torch.Tensor:
    """Return the images that PGD finds along one path."""
    examples = torch.arange(len(x))[random.permutation("order", len(x))]
    if loss == "trades":
        x_adv = x + START * random.normal("attack/start", examples, x.shape[1:])
    else:
        x_adv = x + EPS * (2 * random.uniform("attack/start", examples, x.shape[1:]) - 1)
    x_adv, p = x_adv.clamp(0, 1), answer(x).detach().softmax(1)
    target = p if loss == "trades" else F.one_hot(y, 10).float()
    for _ in range(STEPS):
        x_adv = x_adv.detach().requires_grad_()
        climbed = -(target * answer(x_adv).log_softmax(1)).sum()  # KL(p ‖ p') but for what x' does not change
        (gradient,) = torch.autograd.grad(climbed, x_adv)
        x_adv = (x + (x_adv + STEP * gradient.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
    return x_adv.detach()


def along(made: Network, path: torch.Tensor) -> Answer:
    def answer(x: torch.Tensor) -> torch.Tensor:
        with following(made, path):
            return made(x)

    return answer


@pytest.mark.parametrize("objective", ["whitebox", "blackbox"])
@several_norms
@pytest.mark.parametrize("awp", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_an_update_is_that_of_the_papers_formulas(
    loss: str, awp: bool, norm: str, objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, plain, proposed = one_update(loss, awp, norm, objective=objective), Attack.perturb, []

    def perturb(self: Attack, *case: Any) -> Proposal:
        proposed.append(plain(self, *case))
        return proposed[-1]

    monkeypatch.setattr(Attack, "perturb", perturb)
    before = network(given)
    found, after = fitted(tmp_path, given, images=24, held_out=0, made=copy.deepcopy(before))

    random = Randomness("unit/epoch-0")
    order = torch.from_numpy(random.permutation("order", 24))
    x, y = torch.from_numpy(part(0, 24).images)[order].float() / 255, torch.from_numpy(part(0, 24).labels)[order]
    updated = before.paths.draw(random, "defend/adversarial", order)
    attacked = updated if objective == "whitebox" else before.paths.draw(random, "attack/path", order)
    with mode(before, "train_frozen"):
        climbed = climb(loss, along(before, attacked), x, y, random)
    (x_adv,) = (proposal.x_adv for proposal in proposed)
    # So near to x the divergence is nearly flat: rounding decides the sign of some of its slopes.
    assert ((x_adv - climbed).abs() < 1e-5).float().mean() > (0.97 if loss == "trades" else 0.999)
    before.train()
    if awp:  # away from the loss at the weights as they are, each layer as far as its norm says
        looked = copy.deepcopy(before)
        answer = along(looked, updated)
        reference(loss, answer(x), answer(x_adv), y).backward()
        with torch.no_grad():
            for weight, seen in zip(before.parameters(), looked.parameters(), strict=True):
                if weight.dim() > 1:
                    weight += GAMMA * weight.norm() * seen.grad / seen.grad.norm()
    answer = along(before, updated)
    clean = answer(x) if loss != "ce" else torch.zeros(24, 10)
    expected = reference(loss, clean, answer(x_adv), y)
    gradients = torch.autograd.grad(expected, list(before.parameters()))

    assert found.epochs[0]["loss"] == pytest.approx(expected.item(), abs=1e-5)
    for start, weight, gradient in zip(
        network(given).parameters(), after.parameters(), gradients, strict=True
    ):
        torch.testing.assert_close((start - weight) / LR, gradient, atol=1e-5, rtol=1e-4)
    for name, buffer in before.named_buffers():  # passes that only look leave the running statistics
        torch.testing.assert_close(dict(after.named_buffers())[name], buffer, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("awp", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_updates_own_images_are_counted_in_the_pass_that_gave_the_loss(
    loss: str, awp: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacked ones, at the weights of that pass, and without a pass more than the update's own."""
    given, passes, attacking, plain = one_update(loss, awp, "BN"), [], [], Attack.perturb
    given["training"] |= {"epochs": 2, "batch": 12}

    def perturb(self: Attack, *case: Any) -> Proposal:
        attacking.append(True)
        try:
            return plain(self, *case)
        finally:
            attacking.pop()

    def forward(self: Network, x: torch.Tensor) -> torch.Tensor:
        logits = plain_forward(self, x)
        if self.training and not attacking and torch.is_grad_enabled():
            passes.append(logits.argmax(1))
        return logits

    monkeypatch.setattr(Attack, "perturb", perturb)
    plain_forward = Network.forward
    monkeypatch.setattr(Network, "forward", forward)
    found, _ = fitted(tmp_path, given, images=30, held_out=8)
    a_update = (1 if loss == "ce" else 2) * (2 if awp else 1)  # over x too, and once more to look for a direction
    assert len(passes) == 2 * 2 * a_update
    for epoch, row in enumerate(found.epochs):
        order = Randomness(f"unit/epoch-{epoch}").permutation("order", 30)[:24]
        y = torch.from_numpy(part(0, 30).labels)[order]
        attacked = torch.cat([passes[(2 * epoch + at + 1) * a_update - 1] for at in range(2)])
        assert (row["train_correct"], row["train_examples"]) == (int((attacked == y).sum()), 24)


@pytest.mark.slow
@several_norms
@pytest.mark.parametrize("awp", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(
    loss: str, awp: bool, norm: str, tmp_path: Path
) -> None:
    def stop(row: dict[str, Any]) -> None:
        raise InterruptedError

    given = asked(loss, awp, norm, epochs=2)
    whole = fitted(tmp_path / "whole", given, images=32, held_out=8)
    with pytest.raises(InterruptedError):
        fitted(tmp_path / "parts", given, images=32, held_out=8, report=stop)
    parts = fitted(tmp_path / "parts", given, images=32, held_out=8)
    assert rows(parts[0]) == rows(whole[0]) and same_weights(parts[1], whole[1])


def test_the_epochs_of_the_warmup_are_without_perturbation(tmp_path: Path) -> None:
    given = asked("ce", False, "BN", epochs=2)
    late = {**given, "training": {**given["training"], "weight_perturbation": {"gamma": 0.1, "warmup": 1}}}
    plain, warm = fitted(tmp_path / "plain", given)[0], fitted(tmp_path / "warm", late)[0]
    assert rows(warm)[0] == rows(plain)[0] and rows(warm)[1]["loss"] != rows(plain)[1]["loss"]


def test_awp_finds_weights_where_the_loss_is_worse(tmp_path: Path) -> None:
    """The loss that is reported is that at the perturbed weights: it rises with gamma."""
    losses = []
    for gamma in (1e-6, 0.01, 0.03):
        given = one_update("ce", True, "BN")
        given["training"]["weight_perturbation"] = {"gamma": gamma, "warmup": 0}
        losses.append(fitted(tmp_path / str(gamma), given, images=24, held_out=0)[0].epochs[0]["loss"])
    assert losses[0] + 0.01 < losses[1] and losses[1] + 0.02 < losses[2]


def test_natural_training_may_perturb_weights_too(tmp_path: Path) -> None:
    plain, awp = asked("ce", False, "BN", objective="natural", epochs=1), asked("ce", True, "BN", objective="natural")
    awp["training"]["epochs"] = 1
    one, other = fitted(tmp_path / "plain", plain)[0], fitted(tmp_path / "awp", awp)[0]
    assert other.epochs[0]["loss"] > one.epochs[0]["loss"]
    assert other.epochs[0]["adversarial_correct"] is None


@pytest.mark.parametrize("loss", LOSSES)
def test_held_out_images_are_attacked_by_cross_entropy_from_anywhere_in_the_ball(
    loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: dict[bool, list[float]] = {True: [], False: []}
    plain = Attack.perturb

    def perturb(self: Any, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        held_out = int(victim.examples.min()) >= 96
        starts[held_out].append((self._start(victim, x, 0) - x).abs().max().item())
        return plain(self, victim, x, y)

    monkeypatch.setattr(Attack, "perturb", perturb)
    fitted(tmp_path, asked(loss, False, "BN", epochs=1))
    assert starts[True] and min(starts[True]) > 0.9 * EPS
    small = max(starts[False]) < 6 * START
    assert small == (loss == "trades")


@pytest.mark.slow
@pytest.mark.parametrize("awp", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_bf16_changes_a_loss_by_rounding_alone(loss: str, awp: bool, tmp_path: Path) -> None:
    given = asked(loss, awp, "BN+IN", epochs=1)
    few = {"images": 32, "held_out": 0}
    exact = fitted(tmp_path / "exact", given, **few)[0].epochs[0]["loss"]
    rounded = fitted(tmp_path / "bf16", {**given, "precision": "bf16"}, **few)[0].epochs[0]["loss"]
    assert rounded != exact and rounded == pytest.approx(exact, rel=0.03)


@pytest.mark.slow
def test_losses_and_awp_run_compiled(tmp_path: Path) -> None:
    given = asked("trades", True, "BN+IN", epochs=1)
    made, plain = network(given), fitted(tmp_path / "plain", given, images=32, held_out=0)[0]
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own compiler
        forward = torch.compile(made, dynamic=False, backend="eager")
        images, none = part(0, 32), part(1000, 1000)
        found = fit(given, made, images, none, checkpoints(tmp_path), device=torch.device("cpu"), forward=forward)
    torch.compiler.reset()
    assert found.epochs[0]["loss"] == pytest.approx(plain.epochs[0]["loss"], rel=0.01)
