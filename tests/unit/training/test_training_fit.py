"""What one training does: which path, which statistics, what it learns, how it ends."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from training_base import STEPS, fitted, network, part, rows, same_weights, settings

from rna_ray.attacks import expectation
from rna_ray.attacks.base import Attack, Proposal, Victim
from rna_ray.attacks.gradient import GradientAttack
from rna_ray.errors import AttackError
from rna_ray.evaluation.knowledge import Defence
from rna_ray.networks.build import Network
from rna_ray.networks.norms import BatchGroupNorm
from rna_ray.networks.paths import difference, following
from rna_ray.training.schedule import learning_rate

GOLDEN = ([2.53116, 2.38761, 2.33977], [2.53116, 2.38693, 2.33881])
"""Of `settings()`, on a Zen 4, and on a Zen 3 and a Sapphire Rapids: where sums are rounded otherwise, a sign of the
attack may flip."""
Calls = list[tuple[torch.Tensor, bool, bool]]


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The path of every forward pass, whether the network was in train mode, and whether a gradient was wanted."""
    calls: Calls = []

    def spy(made: Network, path: torch.Tensor, *, shared: bool = False) -> Any:
        calls.append((path, made.training, torch.is_grad_enabled()))
        return following(made, path, shared=shared)

    monkeypatch.setattr(expectation, "following", spy)
    return calls


def test_only_an_update_asks_for_the_weights_gradients(tmp_path: Path) -> None:
    """A compiled network computes all that is asked for, at every step of an attack."""
    made, asked = network(settings()), []

    def forward(x: torch.Tensor) -> torch.Tensor:
        asked.append((x.requires_grad, {parameter.requires_grad for parameter in made.parameters()}))
        return made(x)

    fitted(tmp_path, settings(epochs=1), made=made, forward=forward)
    attack, update = (True, {False}), (False, {True})
    assert asked[: STEPS + 1] == [attack] * STEPS + [update]
    assert asked.count(update) == 3 and all(parameter.requires_grad for parameter in made.parameters())


@pytest.mark.parametrize("paths", ["example", "batch"])
@pytest.mark.parametrize("objective", ["whitebox", "blackbox"])
def test_the_update_takes_the_attacked_path_or_one_drawn_anew(
    objective: str, paths: str, followed: Calls, tmp_path: Path
) -> None:
    """RNA, Algorithm 1: p_a for the whole inner attack, and under the black-box objective a fresh p for the update."""
    fitted(tmp_path, settings("BN+IN+LN", objective=objective, paths=paths, epochs=2))
    training = [path for path, train, _ in followed if train]
    assert len(training) == 2 * 3 * (STEPS + 1)  # epochs, batches
    updates, apart = [], []
    for start in range(0, len(training), STEPS + 1):
        *attacked, updated = training[start : start + STEPS + 1]
        assert updated.shape == ((32, 9) if paths == "example" else (9,))
        assert all(torch.equal(path, attacked[0]) for path in attacked)
        updates.append(updated)
        apart.append(difference(updated, attacked[0]).float().mean().item())
    if objective == "whitebox":
        assert set(apart) == {0.0}
    else:
        assert sum(apart) / len(apart) == pytest.approx(6, abs=0.5 if paths == "example" else 1.5)
    assert len({str(path.tolist()) for path in updates}) == 6


def test_held_out_images_are_attacked_by_transfer_in_eval_mode(followed: Calls, tmp_path: Path) -> None:
    fitted(tmp_path, settings("BN+IN+LN", epochs=1))
    natural, *attacked, answered = [path for path, train, _ in followed if not train][: STEPS + 2]
    assert all(torch.equal(path, attacked[0]) for path in attacked)
    for one, other in ((natural, attacked[0]), (natural, answered), (answered, attacked[0])):
        assert difference(one, other).float().mean().item() == pytest.approx(6, abs=1)


@pytest.mark.parametrize("loss", [None, {"name": "trades", "beta": 6.0}], ids=["cross-entropy", "trades"])
@pytest.mark.parametrize("threat", ["linf", "l2"])
def test_an_attack_on_normalised_images_is_one_whose_lengths_are_divided_by_their_deviation(
    threat: str, loss: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one channel, whose deviation is known: in pixels all lengths of the attack are that times as long."""
    std = float(network(settings("BN")).std)
    trained = {}
    for space, scale in (("pixel", 1.0), ("normalized", std)):
        asked = settings("BN", threat=threat, epochs=1, **({"loss": loss} if loss else {}))
        attack = asked["training"]["attack"]
        attack |= {"eps_255": attack["eps_255"] / scale, "step_255": attack["step_255"] / scale}
        attack |= {} if space == "pixel" else {"eps_space": space}
        monkeypatch.setattr("rna_ray.training.losses.START", 0.001 / scale)
        result, _ = fitted(tmp_path / space, asked)
        trained[space] = rows(result)[0]
    assert trained["normalized"] == pytest.approx(trained["pixel"], rel=1e-3)
    other = settings("BN", threat=threat, epochs=1, **({"loss": loss} if loss else {}))
    other["training"]["attack"]["eps_space"] = "normalized"  # the same numbers in another space are another attack
    result, _ = fitted(tmp_path / "other", other)
    assert abs(rows(result)[0]["loss"] - trained["pixel"]["loss"]) > 3e-3


@pytest.mark.parametrize("objective", ["natural", "blackbox"])
def test_the_held_out_losses_are_the_mean_cross_entropies_of_the_answers_that_are_scored(
    objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the very logits that are counted, by the formula: no pass more than there was."""
    answers: dict[str, list[torch.Tensor]] = {"natural": [], "adversarial": []}
    plain = Defence.answer

    def answer(self: Defence, x: torch.Tensor, name: str = "adversarial") -> torch.Tensor:
        logits = plain(self, x, name)
        answers[name].append(logits[:, 0])
        return logits

    monkeypatch.setattr(Defence, "answer", answer)
    found, _ = fitted(tmp_path, settings("BN+IN", objective=objective, epochs=1))
    (row,) = found.epochs
    y = torch.from_numpy(part(1000, 1040).labels)
    for name in ("natural", "adversarial") if objective == "blackbox" else ("natural",):
        logits = torch.cat(answers[name]).double()
        assert len(logits) == 40  # each held-out image once
        expected = -(logits.exp() / logits.exp().sum(1, keepdim=True))[torch.arange(40), y].log().mean()
        assert row[f"{name}_loss"] == pytest.approx(expected.item(), rel=1e-12)
        assert row[f"{name}_correct"] == int((logits.argmax(1) == y).sum())
    if objective == "natural":
        assert row["adversarial_loss"] is None and not answers["adversarial"]


@pytest.mark.parametrize(("attack_mode", "moves"), [("train", True), ("train_frozen", False), ("eval", False)])
@pytest.mark.parametrize("norm", ["BN", "BN+IN"])
def test_only_an_attack_in_train_mode_moves_the_running_statistics(
    norm: str, attack_mode: str, moves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, plain = settings(norm, attack_mode=attack_mode, epochs=1), Attack.perturb
    made = network(asked)
    tracking = [module for module in made.modules() if isinstance(module, BatchGroupNorm)]
    moved: list[bool] = []
    training: set[bool] = set()

    def perturb(self: Attack, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        before = [module.running_var.clone() for module in tracking]
        held_out = not made.training and attack_mode != "eval"
        x_adv = plain(self, victim, x, y)
        if not held_out:
            training.add(made.training)
            moved.append(any(not torch.equal(a, b.running_var) for a, b in zip(before, tracking, strict=True)))
        return x_adv

    monkeypatch.setattr(Attack, "perturb", perturb)
    fitted(tmp_path, asked, made=made)
    assert set(moved) == {moves} and training == {attack_mode != "eval"}
    assert all(not torch.equal(module.running_var, torch.ones_like(module.running_var)) for module in tracking)


@pytest.mark.parametrize("epochs", [1, 4])
@pytest.mark.parametrize("case", ["natural", "linf", "l2"])
def test_a_training_that_diverges_ends_with_finite_weights_and_says_so(
    case: str, epochs: int, tmp_path: Path
) -> None:
    objective = {"objective": "natural"} if case == "natural" else {"threat": case}
    asked = settings("BN", epochs=epochs, lr=1e30, weight_decay=0.1, **objective)
    found, made = fitted(tmp_path, asked)
    assert found.state == "diverged"
    assert all(torch.isfinite(tensor).all() for tensor in made.state_dict().values())
    assert len(found.epochs) < epochs
    assert all(math.isfinite(row["loss"]) for row in found.epochs)
    if not found.epochs:
        assert same_weights(made, network(asked)) and found.best_epoch == 0 and found.last_sha256


def test_weights_that_the_last_update_of_an_epoch_ruined_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of an update is that before it, so a finite loss says nothing of the weights after it."""
    asked, steps, plain = settings("BN", objective="natural"), [], torch.optim.SGD.step

    def step(self: torch.optim.SGD, *given: Any) -> None:
        plain(self, *given)
        steps.append(1)
        if len(steps) == 2 * 3:
            with torch.no_grad():
                self.param_groups[0]["params"][-1].fill_(math.inf)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    found, made = fitted(tmp_path, asked)
    assert found.state == "diverged" and len(found.epochs) == 1
    assert all(torch.isfinite(tensor).all() for tensor in made.state_dict().values())


def test_an_attack_that_breaks_its_contract_is_no_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GradientAttack, "propose", lambda self, victim, x, y: Proposal(x + 0.5))
    with pytest.raises(AttackError, match="left its linf ball"):
        fitted(tmp_path, settings())


def test_a_diverged_training_that_is_resumed_diverges_again(tmp_path: Path) -> None:
    asked = settings("BN", objective="natural", lr=1e30)
    first, _ = fitted(tmp_path, asked)
    again, _ = fitted(tmp_path, asked)
    assert (again.state, rows(again), again.last_sha256) == (first.state, rows(first), first.last_sha256)


def test_the_loss_of_a_small_training_has_not_changed(tmp_path: Path) -> None:
    found, _ = fitted(tmp_path, settings())
    assert any([row["loss"] for row in found.epochs] == pytest.approx(expected, abs=1e-4) for expected in GOLDEN)
    assert [row["lr"] for row in found.epochs] == pytest.approx(
        [learning_rate(0.1, {"name": "cosine"}, (epoch + 2 / 3) / 3) for epoch in range(3)]
    )


def test_natural_training_learns_the_digits(tmp_path: Path) -> None:
    asked = settings("BN", width=8, objective="natural", epochs=4, batch=64, lr=0.1, augment="none")
    found, _ = fitted(tmp_path, asked, images=900, held_out=300)
    assert found.state == "finished"
    assert found.epochs[-1]["natural_correct"] > 0.9 * 300
    assert found.epochs[-1]["adversarial_correct"] is None and found.epochs[-1]["held_out"] == 300
    losses = [row["loss"] for row in found.epochs]
    assert losses == sorted(losses, reverse=True)
    assert [row["train_examples"] for row in found.epochs] == [896] * 4  # 14 whole batches of 64 of the 900
    right = [row["train_correct"] for row in found.epochs]
    assert right == sorted(right) and 0.9 * 896 < right[-1] <= 896
    assert {row["adversarial_loss"] for row in found.epochs} == {None}
    assert found.epochs[-1]["natural_loss"] < 0.4 < found.epochs[0]["natural_loss"]


@pytest.mark.slow
def test_adversarial_training_makes_robust_what_natural_training_does_not(tmp_path: Path) -> None:
    asked = settings("BN", width=8, objective="whitebox", epochs=6, batch=64, augment="none")
    found, _ = fitted(tmp_path, asked, images=600, held_out=200)
    robust = found.epochs[-1]["adversarial_correct"]
    assert 100 < robust <= found.epochs[-1]["natural_correct"]


def test_without_held_out_images_the_last_weights_are_the_best_there_are(tmp_path: Path) -> None:
    found, _ = fitted(tmp_path, settings(epochs=2), held_out=0)
    assert [row["held_out"] for row in found.epochs] == [0, 0]
    assert {row["natural_correct"] for row in found.epochs} == {0}
    assert {row["natural_loss"] for row in found.epochs} == {row["adversarial_loss"] for row in found.epochs} == {None}


def test_a_batch_larger_than_the_data_is_the_data(tmp_path: Path) -> None:
    found, _ = fitted(tmp_path, settings(batch=64, epochs=1), images=20, held_out=5)
    assert found.state == "finished" and found.epochs[0]["held_out"] == 5
    assert len(part(0, 20).labels) == 20


def test_a_network_of_another_seed_is_another(tmp_path: Path) -> None:
    asked = settings(epochs=1)
    one, _ = fitted(tmp_path / "one", asked)
    other, _ = fitted(tmp_path / "other", asked, made=network(asked, seed=1))
    assert one.epochs[0]["loss"] != other.epochs[0]["loss"]
