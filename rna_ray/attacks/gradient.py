"""The gradient family and noise: one loop, of which FGSM, PGD and MI-FGSM are settings."""

from __future__ import annotations

from typing import Literal, final

import torch

from rna_ray.attacks.base import Attack, Ball, Victim


@final
class Natural(Attack):
    """No attack: the image as it is."""

    def __init__(self) -> None:
        super().__init__(Ball("linf", 1.0))

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x


@final
class Noise(Attack):
    """A random point of the ball, blind to the network: what every attack must beat."""

    def __init__(self, ball: Ball, kind: Literal["uniform", "gaussian"]) -> None:
        super().__init__(ball)
        self.kind = kind

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self.kind == "uniform":
            return uniform_start(self.ball, victim, x)
        noise = victim.random.normal("attack/noise", victim.examples, x.shape[1:])
        return self.ball.project(x + self.ball.eps * noise, x)


@final
class GradientAttack(Attack):
    """Steps along the gradient's sign (ℓ∞) or direction (ℓ2), projected back to the ball after each.

    One step of length ε from the image itself is FGSM (Goodfellow et al. 2015); many short ones are PGD (Madry et al.
    2018); with `decay`, a running sum of the ℓ1-normalised gradients is followed instead: MI-FGSM (Dong et al. 2018).
    The last iterate is returned, not the best.
    """

    def __init__(
        self, ball: Ball, *, step: float, steps: int, random_start: bool = False, decay: float | None = None
    ) -> None:
        super().__init__(ball)
        self.step, self.steps, self.random_start, self.decay = step, steps, random_start, decay

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x_adv = uniform_start(self.ball, victim, x) if self.random_start else x
        momentum = torch.zeros_like(x)
        for step in range(self.steps):
            gradient = victim.gradient(x_adv, y, step=step)
            if self.decay is not None:
                # A gradient of zeros would fill the momentum with NaN, and the attack would not move again.
                length = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
                gradient = momentum = self.decay * momentum + gradient / length
            x_adv = self.ball.project(x_adv + self.step * self._direction(gradient), x)
        return x_adv

    def _direction(self, gradient: torch.Tensor) -> torch.Tensor:
        if self.ball.threat == "linf":
            return gradient.sign()
        return gradient / gradient.flatten(1).norm(dim=1).add(1e-10).view(-1, 1, 1, 1)


def uniform_start(ball: Ball, victim: Victim, x: torch.Tensor) -> torch.Tensor:
    """Return a random point of the ball: uniform for ℓ∞; for ℓ2, of uniform direction and length."""
    if ball.threat == "linf":
        noise = 2 * victim.random.uniform("attack/start", victim.examples, x.shape[1:]) - 1
        return ball.project(x + ball.eps * noise, x)
    direction = victim.random.normal("attack/start", victim.examples, x.shape[1:])
    length = victim.random.uniform("attack/length", victim.examples, (1, 1, 1))
    norm = direction.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    return ball.project(x + ball.eps * length * direction / norm, x)
