"""Theorem 3.1's quantities on linear classifiers, where all of them are known in closed form."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from probes_base import network, probed, role, split, unit
from torch.nn import functional as F

from rna_ray.probes.bound import Descent, runner_up, targeted, theorem
from rna_ray.probes.derivatives import at_input, directed

PIXELS, CLASSES = 6, 3


def within(eps: float) -> Descent:
    return Descent(eps=eps, step=eps / 8, steps=20)


def weights(seed: int) -> torch.Tensor:
    return torch.randn(CLASSES, PIXELS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(weight: torch.Tensor):
    return lambda x: x.flatten(1) @ weight.T


def images(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(n, 1, 2, 3, generator=generator, dtype=torch.float64), torch.arange(n) % CLASSES


def closed_form(weight: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the loss, its gradient (p - e_y)W, and g'ᵀ Wᵀ(diag p - ppᵀ)W g'."""
    logits = x.flatten(1) @ weight.T
    p = logits.softmax(1)
    gradient = (p - F.one_hot(y, CLASSES)) @ weight
    seen = gradient / gradient.norm(dim=1, keepdim=True) @ weight.T
    return -logits.log_softmax(1)[range(len(y)), y], gradient, (p * seen**2).sum(1) - (p * seen).sum(1) ** 2


def test_derivatives_at_the_input_are_the_closed_form() -> None:
    (x, y), weight = images(), weights(0)
    found = at_input(linear(weight), x, y)
    loss, gradient, curvature = closed_form(weight, x, y)
    torch.testing.assert_close(found.loss, loss)
    torch.testing.assert_close(found.gradient.flatten(1), gradient)
    torch.testing.assert_close(found.gradient_norm, gradient.norm(dim=1))
    torch.testing.assert_close(found.curvature, curvature)


def test_theorem_measures_what_it_names() -> None:
    (x, y), a, b = images(), weights(0), weights(1)
    found = theorem(linear(a), linear(b), x, y, within(0.3))
    logits = x.flatten(1) @ a.T
    ranked = logits.argsort(1, descending=True)
    target = torch.where(ranked[:, 0] == y, ranked[:, 1], ranked[:, 0])
    assert torch.equal(found["target"], target) and torch.equal(found["label"], y)
    for prefix, label in (("", y), ("target_", target)):
        for side, weight in (("a", a), ("b", b)):
            loss, gradient, curvature = closed_form(weight, x, label)
            torch.testing.assert_close(found[f"{prefix}loss_{side}"], loss)
            torch.testing.assert_close(found[f"{prefix}gradient_norm_{side}"], gradient.norm(dim=1))
            torch.testing.assert_close(found[f"{prefix}smoothness_{side}"], curvature)
    gradients = [closed_form(weight, x, y)[1] for weight in (a, b)]
    cosine = (gradients[0] * gradients[1]).sum(1) / (gradients[0].norm(dim=1) * gradients[1].norm(dim=1))
    torch.testing.assert_close(found["cosine"], cosine)
    attacked = targeted(linear(a), x, target, within(0.3))
    for side, weight in (("a", a), ("b", b)):
        assert torch.equal(found[f"prediction_{side}"], linear(weight)(x).argmax(1))
        assert torch.equal(found[f"adversarial_prediction_{side}"], linear(weight)(attacked).argmax(1))
    assert all(value.shape == (8,) for value in found.values())


def test_a_classifier_against_itself_has_cosine_one_and_transfers_what_hits() -> None:
    (x, y), a = images(), weights(0)
    found = theorem(linear(a), linear(a), x, y, within(2.0))
    torch.testing.assert_close(found["cosine"], torch.ones(8, dtype=torch.float64))
    assert torch.equal(found["adversarial_prediction_a"], found["adversarial_prediction_b"])
    assert (found["adversarial_prediction_a"] == found["target"]).any()


def test_the_targeted_attack_reaches_the_best_point_of_the_ball() -> None:
    # Two classes: the loss on class 1 falls along w₁ - w₀ alone; no pixel comes to a face of [0, 1].
    weight = weights(2)[:2]
    x = torch.full((1, 1, 2, 3), 0.5, dtype=torch.float64)
    found = targeted(linear(weight), x, torch.tensor([1]), within(0.2))
    assert math.isclose((found - x).norm().item(), 0.2, rel_tol=1e-9)
    best = x.flatten() + 0.2 * directed((weight[1] - weight[0])[None])[0]
    torch.testing.assert_close(found.flatten(), best, rtol=1e-6, atol=1e-6)
    assert targeted(linear(weight), torch.zeros_like(x), torch.tensor([1]), within(5.0)).min() >= 0


def test_the_runner_up_is_never_the_true_class() -> None:
    (x, y), a = images(), weights(3)
    wrong = linear(a)(x).argmax(1)
    assert torch.equal(runner_up(linear(a), x, wrong) == wrong, torch.zeros(8, dtype=torch.bool))
    missed = wrong != y
    assert missed.any() and torch.equal(runner_up(linear(a), x, y)[missed], wrong[missed])


L2 = {"name": "pgd", "threat": "l2", "eps_255": 128.0, "step_255": 16.0, "steps": 3}
PAIRED = {"loss_a": "loss_b", "gradient_norm_a": "gradient_norm_b", "smoothness_a": "smoothness_b"}


def test_a_unit_measures_every_ordered_pair_of_members() -> None:
    made = network("BN+IN+LN")
    rows = probed(unit("bound", (0, 6), attack=L2, between="members"), made).rows.measures
    found = {(row["measure"], row["member"], row["other"], row["example"]): row["value"] for row in rows}
    pairs = set(itertools.permutations(("BN", "IN", "LN"), 2))
    assert {key[1:3] for key in found} == pairs and len(found) == len(rows) == 6 * 6 * 19
    for a, b in pairs:  # the true class hangs on no target: what is a's in one pair is b's in the other
        for n in range(6):
            assert found["cosine", a, b, n] == pytest.approx(found["cosine", b, a, n], rel=1e-4, abs=1e-6)
            for mine, others in PAIRED.items():
                assert found[mine, a, b, n] == pytest.approx(found[others, b, a, n], rel=1e-3, abs=1e-5)


def test_a_unit_of_two_networks_attacks_the_source() -> None:
    source, target = network("BN", seed=1), network("BN+IN", seed=2)
    asked = unit("bound", (0, 6), attack=L2, between="networks", source=role("source"))
    found = probed(asked, source, target)
    assert not found.native and all("member" not in row for row in found.rows.measures)
    values = {(row["measure"], row["example"]): row["value"] for row in found.rows.measures}
    data = split()
    x, y = torch.from_numpy(data.images[:6]).float() / 255, torch.from_numpy(data.labels[:6])
    expected = theorem(source, source, x, y, Descent(eps=128 / 255, step=16 / 255, steps=3))
    for name in ("loss_a", "target_loss_a", "smoothness_a", "target", "adversarial_prediction_a"):
        assert [values[name, n] for n in range(6)] == pytest.approx(expected[name].tolist(), rel=1e-3, abs=1e-5)
