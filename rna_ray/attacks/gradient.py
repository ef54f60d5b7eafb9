"""The gradient family and noise: one loop, of which FGSM, BIM, PGD and MI-FGSM are settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch

from rna_ray.attacks.base import Attack, Ball, Climbed, Proposal, Victim
from rna_ray.attacks.ensemble import Best

AGGREGATED = (0.0, 0.9, 0.99)
"""The dampings of aggregated momentum, the defaults of Lucas et al. 2019 (AggMo)."""


@final
class Natural(Attack):
    """No attack: the image as it is."""

    def __init__(self) -> None:
        super().__init__(Ball("linf", 1.0))

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        return Proposal(x)


@final
class Noise(Attack):
    """A random point of the ball, blind to the network: what every attack must beat."""

    def __init__(self, ball: Ball, kind: Literal["uniform", "gaussian"]) -> None:
        super().__init__(ball)
        self.kind = kind

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        if self.kind == "uniform":
            return Proposal(uniform_start(self.ball, victim, x))
        noise = victim.random.normal("attack/noise", victim.examples, x.shape[1:])
        return Proposal(self.ball.project(x + self.ball.in_pixels(self.ball.eps * noise), x))


@final
class Gaussian(Attack):
    """Gaussian noise of a standard deviation, without a bound: blind to the network, clipped to [0, 1] pixels alone.

    `space` is the per-channel deviation in which `std` is measured, as a ball's; None is [0, 1] pixels.
    """

    def __init__(self, std: float, space: torch.Tensor | None = None) -> None:
        super().__init__(Ball("none", std=space))
        self.std = std

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        noise = victim.random.normal("attack/noise", victim.examples, x.shape[1:])
        return Proposal(self.ball.project(x + self.ball.in_pixels(self.std * noise), x))


@final
class GradientAttack(Attack):
    """Steps along the gradient's sign (ℓ∞) or direction (ℓ2), projected back to the ball after each.

    One step of length ε from the image itself is FGSM (Goodfellow et al. 2015); many short ones are BIM (Kurakin et al.
    2017), and from a random point PGD (Madry et al. 2018). With `dampings`, running sums of the ℓ1-normalised gradients
    are followed instead, one for each damping: a single one is MI-FGSM (Dong et al. 2018), several are aggregated
    momentum (Lucas et al. 2019, on random defences Sitawarin et al. 2022), of which the mean counts. A start's last
    iterate is returned, not its best; of several starts, the one that does best on the attacker's own draws. A start is
    the image itself, a random point of the ball, or with `start_noise` the image and Gaussian noise of that standard
    deviation (TRADES). `loss` is what it climbs, None the cross-entropy. All lengths, and the gradient with them, are
    taken in the space in which the ball is measured.
    """

    def __init__(
        self, ball: Ball, *, step: float, steps: int, random_start: bool = False, start_noise: float = 0.0,
        dampings: Sequence[float] = (), restarts: int = 1, loss: Climbed | None = None,
    ) -> None:
        super().__init__(ball)
        self.loss = loss
        self.step, self.steps, self.random_start, self.start_noise = step, steps, random_start, start_noise
        self.dampings, self.restarts = tuple(dampings), restarts

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        victim = victim if self.loss is None else victim.climbing(self.loss)
        zero = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        found = self._climb(victim, x, y, 0, zero)
        if self.restarts == 1:
            return Proposal(found, zero)
        best, rows = Best(victim, found, y), torch.arange(len(x), device=x.device)
        for start in range(1, self.restarts):
            best.offer(self._climb(victim.rows(rows, f"start-{start}"), x, y, start, zero), rows)
        return Proposal(best.x_adv, zero)

    def _climb(self, victim: Victim, x: torch.Tensor, y: torch.Tensor, start: int, zero: torch.Tensor) -> torch.Tensor:
        """Return the last iterate of one start; `zero` counts the gradients (N,) that were exactly zero."""
        x_adv = self._start(victim, x, start)
        velocities = [torch.zeros_like(x) for _ in self.dampings]
        for step in range(self.steps):
            gradient = victim.gradient(x_adv, y, step=step)
            zero += gradient.flatten(1).abs().amax(1) == 0
            gradient = self.ball.in_pixels(gradient)
            if self.dampings:
                # A gradient of zeros would fill the momentum with NaN, and the attack would not move again.
                length = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
                velocities = [
                    damping * velocity + gradient / length
                    for damping, velocity in zip(self.dampings, velocities, strict=True)
                ]
                gradient = velocities[0] if len(velocities) == 1 else torch.stack(velocities).mean(0)
            x_adv = self.ball.project(x_adv + self.ball.in_pixels(self.step * self._direction(gradient)), x)
        return x_adv

    def _start(self, victim: Victim, x: torch.Tensor, start: int) -> torch.Tensor:
        if self.random_start:
            return uniform_start(self.ball, victim, x, start)
        if not self.start_noise:
            return x
        of = {"step": victim.first_draw, "draw": start}
        noise = victim.random.normal("attack/start", victim.examples, x.shape[1:], **of)
        return self.ball.project(x + self.ball.in_pixels(self.start_noise * noise), x)

    def _direction(self, gradient: torch.Tensor) -> torch.Tensor:
        if self.ball.threat == "linf":
            return gradient.sign()
        return gradient / gradient.flatten(1).norm(dim=1).add(1e-10).view(-1, 1, 1, 1)


def uniform_start(ball: Ball, victim: Victim, x: torch.Tensor, start: int = 0) -> torch.Tensor:
    """Return a random point of the ball: uniform for ℓ∞; for ℓ2, of uniform direction and length."""
    draw, examples, of = victim.random, victim.examples, {"step": victim.first_draw, "draw": start}
    if ball.threat == "linf":
        noise = 2 * draw.uniform("attack/start", examples, x.shape[1:], **of) - 1
        return ball.project(x + ball.in_pixels(ball.eps * noise), x)
    direction = draw.normal("attack/start", examples, x.shape[1:], **of)
    length = draw.uniform("attack/length", examples, (1, 1, 1), **of)
    norm = direction.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    return ball.project(x + ball.in_pixels(ball.eps * length * direction / norm), x)
