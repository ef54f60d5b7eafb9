"""What every attack promises: the base clips, checks the ball and judges once; a subclass only proposes."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Literal, Protocol, final

import torch

from rna_ray.errors import AttackError
from rna_ray.randomness import Randomness

Threat = Literal["linf", "l2", "none"]

SLACK = 1e-3
"""What rounding may add to a perturbation, relative to ε …"""
SLACK_PIXELS = 1e-5
"""… and in [0, 1] pixels: some ulp of the pixels themselves. Both are clipped off."""


class Victim(Protocol):
    """A defence as an attacker sees it, under what the attacker knows of its randomness."""

    random: Randomness
    examples: torch.Tensor
    """The indices (N,) of the images under attack: with `random` they decide every draw."""

    def gradient(self, x: torch.Tensor, y: torch.Tensor, *, step: int) -> torch.Tensor:
        """Return the gradient (N, C, H, W) of each example's expected loss at a step of the attack."""
        ...

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return differentiable logits (N, classes) under the attacker's knowledge, for attack libraries."""
        ...

    def answer(self, x: torch.Tensor) -> torch.Tensor:
        """Return the defender's logits (N, m, classes) on m draws made independently of the attacker's."""
        ...

    def alone(self, row: int) -> Victim:
        """Return the same defence of one of the images, for libraries that attack them one at a time."""
        ...


@dataclasses.dataclass(frozen=True)
class Ball:
    """The images that an attack may return: within `eps` of the original in a norm, and inside [0, 1]."""

    threat: Threat
    eps: float = 0.0

    def project(self, x_adv: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the images (N, C, H, W) moved to the ball around x, then into [0, 1]."""
        if self.threat == "linf":
            x_adv = torch.minimum(torch.maximum(x_adv, x - self.eps), x + self.eps)
        elif self.threat == "l2":
            delta = x_adv - x
            length = delta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
            x_adv = x + delta * (self.eps / length).clamp_max(1.0)
        return x_adv.clamp(0.0, 1.0)

    def farthest(self, x_adv: torch.Tensor, x: torch.Tensor) -> float:
        """Return how far the farthest image is from the original, in the ball's norm; 0 where there is no bound."""
        if self.threat == "none" or not len(x):
            return 0.0
        linf, l2 = distortion(x_adv, x)
        return (linf if self.threat == "linf" else l2).max().item()


def distortion(x_adv: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ℓ∞ and ℓ2 lengths (N,) of each perturbation."""
    delta = (x_adv - x).flatten(1)
    return delta.abs().amax(1), delta.norm(dim=1)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an attack achieved, judged on draws that it did not see."""

    x_adv: torch.Tensor
    logits: torch.Tensor
    """The defender's (N, m, classes)."""
    linf: torch.Tensor
    l2: torch.Tensor


class Attack(ABC):
    """An attack on images in [0, 1]."""

    ball: Ball
    flags: dict[str, object]
    """What a library said of the defence while attacking; empty for our own attacks."""

    def __init__(self, ball: Ball) -> None:
        self.ball, self.flags = ball, {}

    @abstractmethod
    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return adversarial images (N, C, H, W) for images x in [0, 1] with labels y (N,)."""

    @final
    def perturb(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return what the attack proposes, clipped to its ball.

        Raises AttackError where the proposal is no image or leaves the ball by more than rounding.
        """
        proposal = self.propose(victim, x, y).detach()
        if proposal.shape != x.shape or not torch.isfinite(proposal).all():
            raise AttackError(f"{type(self).__name__} returned what is not {tuple(x.shape)} finite pixels")
        farthest = self.ball.farthest(proposal, x)
        if farthest > self.ball.eps * (1 + SLACK) + SLACK_PIXELS:
            raise AttackError(
                f"{type(self).__name__} left its {self.ball.threat} ball of {self.ball.eps:.6f}: it went {farthest:.6f}"
            )
        return self.ball.project(proposal, x)

    @final
    def __call__(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Outcome:
        """Attack, then let the defender answer on draws of its own."""
        x_adv = self.perturb(victim, x, y)
        return Outcome(x_adv, victim.answer(x_adv), *distortion(x_adv, x))
