"""What bounds the transfer of attacks by RNA's Theorem 3.1 (after TRS, Yang et al. 2021), measured on images.

For two classifiers a and b that differ in their norms, an attack on a that aims at a class, and a ball ‖δ‖₂ ≤ ε:

    T ≤ (R_a + R_b) / (min L(y_A) - max ‖∇L‖ ε (√((1 + S̄)/2) + 1) - max β ε²)

Here is one value an image of each; the sums, minima and maxima over images, and the bound itself, are taken in
analysis/queries/bound.sql. docs/theory.md says what the theorem needs of them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from rna_ray.attacks.base import Ball
from rna_ray.evaluation.batches import Batch
from rna_ray.probes.derivatives import AtInput, Classifier, along, at_input, directed, gradient
from rna_ray.probes.subject import Rows, Subject


@dataclasses.dataclass(frozen=True, kw_only=True)
class Descent:
    """ℓ2 PGD towards a class: lengths in [0, 1] pixels, each step as long as the other, from the image itself."""

    eps: float
    step: float
    steps: int


def measure(settings: Mapping[str, Any], subjects: Sequence[Subject], batch: Batch) -> Rows:
    """Attack one network and let the other answer, along one draw each; or do so with each two members of one network.

    A member is taken at every layer. Without the defence's noise.
    """
    attack, rows = settings["attack"], Rows()
    descent = Descent(eps=attack["eps_255"] / 255, step=attack["step_255"] / 255, steps=attack["steps"])
    for of, a, b in _pairs(subjects, batch):
        for name, value in theorem(a, b, batch.x, batch.y, descent).items():
            rows.measures += batch.rows(measure=name, value=value.double(), **of)
    return rows


def _pairs(subjects: Sequence[Subject], batch: Batch) -> Iterator[tuple[dict[str, str], Classifier, Classifier]]:
    """Yield what is attacked and what answers, with the names of the members."""
    if len(subjects) == 2:
        yield {}, *(_drawn(subject, role, batch) for subject, role in zip(subjects, ("source", "network"), strict=True))
        return
    (subject,) = subjects
    members = {name: along(subject.network, torch.tensor(path)) for name, path in subject.network.members.items()}
    for (member, a), (other, b) in itertools.permutations(members.items(), 2):
        yield {"member": member, "other": other}, a, b


def _drawn(subject: Subject, role: str, batch: Batch) -> Classifier:
    """Return a network along a path of each example's own: another one for each role."""
    subject.native &= not subject.network.paths.sizes
    return along(subject.network, subject.network.paths.draw(subject.random, f"bound/{role}", batch.examples))


def theorem(
    a: Classifier, b: Classifier, x: torch.Tensor, y: torch.Tensor, descent: Descent
) -> dict[str, torch.Tensor]:
    """Return what the theorem needs of each image x (N, C, H, W) in [0, 1] with class y (N,): measure → (N,).

    `…_a` and `…_b` belong to the classifiers, `target_…` to the loss on the attack's target y_A and not on the true
    class. The target is a's likeliest wrong class, where a is right its runner-up: the paper names none. The attack is
    ℓ2 PGD on a, towards the target, within ε and [0, 1]. A gradient of zero makes a cosine of 0.

        loss_, target_loss_                        cross-entropy
        gradient_norm_, target_gradient_norm_      ℓ2 norm of its gradient at the input
        smoothness_, target_smoothness_            its curvature along that gradient, the "effective" smoothness
        cosine                                     of a's and b's gradients on the true class
        label, target                              the classes y and y_A
        prediction_, adversarial_prediction_       the class given to the image, and to the adversarial example
    """
    target = runner_up(a, x, y)
    attacked = targeted(a, x, target, descent)
    measures, gradients = {"label": y, "target": target}, []
    for side, classify in (("a", a), ("b", b)):
        true, aimed = at_input(classify, x, y), at_input(classify, x, target)
        gradients.append(directed(true.gradient.double()).flatten(1))
        found = _derivatives("", true) | _derivatives("target_", aimed)
        found |= {"prediction": _predict(classify, x), "adversarial_prediction": _predict(classify, attacked)}
        measures |= {f"{name}_{side}": value for name, value in found.items()}
    return measures | {"cosine": (gradients[0] * gradients[1]).sum(1)}


@torch.no_grad()
def runner_up(classify: Classifier, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return each image's likeliest class (N,) other than its own."""
    return classify(x).scatter(1, y[:, None], -torch.inf).argmax(1)


def targeted(classify: Classifier, x: torch.Tensor, target: torch.Tensor, descent: Descent) -> torch.Tensor:
    """Return images (N, C, H, W) within ℓ2 eps and [0, 1], moved down the loss on the target (N,)."""
    ball, x_adv = Ball("l2", descent.eps), x
    for _ in range(descent.steps):
        x_adv = ball.project(x_adv - descent.step * directed(gradient(classify, x_adv, target)), x)
    return x_adv


@torch.no_grad()
def _predict(classify: Classifier, x: torch.Tensor) -> torch.Tensor:
    return classify(x).argmax(1)


def _derivatives(prefix: str, at: AtInput) -> dict[str, torch.Tensor]:
    values = {"loss": at.loss, "gradient_norm": at.gradient_norm, "smoothness": at.curvature}
    return {prefix + name: value for name, value in values.items()}
