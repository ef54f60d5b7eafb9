"""What every attack promises: the base clips, checks the ball and judges once; a subclass only proposes."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, final

import torch

from rna_ray.errors import AttackError
from rna_ray.randomness import Randomness

Threat = Literal["linf", "l2", "none"]

SLACK = 1e-3
"""What rounding may add to a perturbation, relative to ε …"""
SLACK_PIXELS = 1e-5
"""… and in [0, 1] pixels, whatever ε is measured in: some ulp of the pixels themselves. Both are clipped off."""


Climbed = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits (k, N, classes) and labels (N,) → the sum over draws and examples of the loss that an attack climbs."""


class Victim(Protocol):
    """A defence as an attacker sees it, under what the attacker knows of its randomness."""

    random: Randomness
    examples: torch.Tensor
    """The indices (N,) of the images under attack: with `random` they decide every draw."""
    first_draw: int
    """Which of the defender's draws is attacked, where a `fixed` attacker takes one after the other; else 0."""
    steady: bool
    """Whether the attacker sees the same draws at every step."""
    together: bool
    """Whether the images of a batch decide each other's answers, so that only whole batches can be compared."""

    def seed(self, name: str) -> int:
        """Return a seed for a library's generator: another one for each batch and each draw that is attacked."""
        ...

    def gradient(self, x: torch.Tensor, y: torch.Tensor, *, step: int) -> torch.Tensor:
        """Return the gradient (N, C, H, W) of each example's expected loss at a step of the attack."""
        ...

    def climbing(self, loss: Climbed) -> Victim:
        """Return the same defence, its gradient that of another loss than cross-entropy."""
        ...

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return differentiable logits (N, classes) under the attacker's knowledge, for attack libraries."""
        ...

    def expected_margin(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the differentiable mean (N,) over the attacker's draws of the true logit minus the largest other."""
        ...

    def judge(self, x: torch.Tensor, y: torch.Tensor) -> Judgement:
        """Return what the attacker makes of its own images (N, C, H, W): on draws of no gradient where it has any."""
        ...

    def answer(self, x: torch.Tensor) -> torch.Tensor:
        """Return the defender's logits (N, m, classes) on m draws made independently of the attacker's."""
        ...

    def members(self, x: torch.Tensor) -> Sequence[Callable[[torch.Tensor], torch.Tensor]]:
        """Return the attacker's draws as classifiers of their own: images in, differentiable logits out."""
        ...

    def rows(self, index: torch.Tensor, part: str = "") -> Victim:
        """Return the same defence of some of the images; each `part` of an attack has draws of its own."""
        ...


@dataclasses.dataclass(frozen=True)
class Judgement:
    """How well images do against a defence, as the attacker can tell: the lower, the better for the attack."""

    right: torch.Tensor
    """The share (N,) of the draws on which the image is still classified right."""
    margin: torch.Tensor
    """The mean (N,) over the draws of the true logit minus the largest other one."""

    def better(self, other: Judgement) -> torch.Tensor:
        """Return where (N,) these images do better than the others: right less often, or as often by less."""
        return (self.right < other.right) | ((self.right == other.right) & (self.margin < other.margin))

    @property
    def mean(self) -> Judgement:
        """The judgement of the images as one."""
        return Judgement(self.right.mean(), self.margin.mean())

    def rows(self, index: torch.Tensor) -> Judgement:
        """Return the judgement of some of the images."""
        return Judgement(self.right[index], self.margin[index])

    def replaced(self, index: torch.Tensor, some: Judgement) -> Judgement:
        """Return the judgement with that of some of the images replaced."""
        return Judgement(self.right.index_copy(0, index, some.right), self.margin.index_copy(0, index, some.margin))

    def where(self, mask: torch.Tensor, other: Judgement) -> Judgement:
        """Return this judgement where the mask (N,) holds, and the other elsewhere."""
        return Judgement(
            torch.where(mask, self.right, other.right), torch.where(mask, self.margin, other.margin)
        )


def margin(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return (N, m) for logits (N, m, classes): the true logit minus the largest other one, negative where wrong."""
    index = y.view(-1, 1, 1).expand(-1, logits.shape[1], 1)
    return logits.gather(2, index)[..., 0] - logits.scatter(2, index, -torch.inf).amax(2)


@dataclasses.dataclass(frozen=True)
class Ball:
    """The images that an attack may return: within `eps` of the original in a norm, and inside [0, 1]."""

    threat: Threat
    eps: float = 0.0
    std: torch.Tensor | None = None
    """The deviation (C, 1, 1) of each channel by which lengths, `eps` among them, are measured after division, that of
    the network's input normalisation: then a length is one of normalised images. None is [0, 1] pixels."""

    def measured(self, delta: torch.Tensor) -> torch.Tensor:
        """Return perturbations (N, C, H, W) of [0, 1] pixels in the space in which the ball is measured."""
        return delta if self.std is None else delta / self.std

    def in_pixels(self, delta: torch.Tensor) -> torch.Tensor:
        """Return perturbations (N, C, H, W) of the ball's space in [0, 1] pixels.

        By the chain rule, the same takes a gradient with respect to pixels to one with respect to that space.
        """
        return delta if self.std is None else delta * self.std

    def project(self, x_adv: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the images (N, C, H, W) moved to the ball around x, then into [0, 1]."""
        if self.threat == "linf":
            reach = self.eps if self.std is None else self.eps * self.std
            x_adv = torch.minimum(torch.maximum(x_adv, x - reach), x + reach)
        elif self.threat == "l2":
            delta = x_adv - x
            length = self.measured(delta).flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
            x_adv = x + delta * (self.eps / length).clamp_max(1.0)
        return x_adv.clamp(0.0, 1.0)

    def farthest(self, x_adv: torch.Tensor, x: torch.Tensor) -> float:
        """Return how far the farthest image is from the original, in the ball's norm and space; 0 where unbounded."""
        if self.threat == "none" or not len(x):
            return 0.0
        linf, l2 = _lengths(self.measured(x_adv - x))
        return (linf if self.threat == "linf" else l2).max().item()

    @property
    def slack(self) -> float:
        """What rounding may add to a perturbation in the ball, in its space."""
        pixels = SLACK_PIXELS if self.std is None else SLACK_PIXELS / self.std.min().item()
        return self.eps * SLACK + pixels


def distortion(x_adv: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ℓ∞ and ℓ2 lengths (N,) of each perturbation, in [0, 1] pixels."""
    return _lengths(x_adv - x)


def _lengths(delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = delta.flatten(1)
    return flat.abs().amax(1), flat.norm(dim=1)


@dataclasses.dataclass(frozen=True)
class Proposal:
    """The images that an attack found, and what it noticed on the way."""

    x_adv: torch.Tensor
    zero_gradients: torch.Tensor | None = None
    """How many (N,) of the gradients that the attack followed were exactly zero; -1 for an image, or None for all,
    where it followed none that it could see."""
    parts: tuple[str, ...] | None = None
    """Which part of an ensemble made each image (empty: none, it is as it was); None for an attack of one part."""
    notes: tuple[str, ...] = ()
    """What else there is to say, in words."""


@dataclasses.dataclass(frozen=True)
class Outcome(Proposal):
    """What an attack achieved, judged on draws that it did not see."""

    logits: torch.Tensor = dataclasses.field(kw_only=True)
    """The defender's (N, m, classes)."""
    linf: torch.Tensor = dataclasses.field(kw_only=True)
    l2: torch.Tensor = dataclasses.field(kw_only=True)


class Attack(ABC):
    """An attack on images in [0, 1]."""

    ball: Ball

    def __init__(self, ball: Ball) -> None:
        self.ball = ball

    @abstractmethod
    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        """Return adversarial images (N, C, H, W) for images x in [0, 1] with labels y (N,)."""

    @final
    def perturb(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        """Return what the attack proposes, clipped to its ball.

        Raises AttackError where the proposal is no image or leaves the ball by more than rounding.
        """
        proposal = self.propose(victim, x, y)
        x_adv = proposal.x_adv.detach()
        if x_adv.shape != x.shape or not torch.isfinite(x_adv).all():
            raise AttackError(f"{type(self).__name__} returned what is not {tuple(x.shape)} finite pixels")
        farthest = self.ball.farthest(x_adv, x)
        if farthest > self.ball.eps + self.ball.slack:
            raise AttackError(
                f"{type(self).__name__} left its {self.ball.threat} ball of {self.ball.eps:.6f}: it went {farthest:.6f}"
            )
        return dataclasses.replace(proposal, x_adv=self.ball.project(x_adv, x))

    @final
    def __call__(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Outcome:
        """Attack, then let the defender answer on draws of its own."""
        return self.answered(victim, x, self.perturb(victim, x, y))

    @staticmethod
    def answered(victim: Victim, x: torch.Tensor, found: Proposal) -> Outcome:
        """Let the defender answer what an attack on the images x found, on draws of its own."""
        linf, l2 = distortion(found.x_adv, x)
        return Outcome(**vars(found), logits=victim.answer(found.x_adv), linf=linf, l2=l2)
