"""ARC: the attack on a randomised ensemble that walks from member to member (Dbouk & Shanbhag 2022, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch

from rna_ray.attacks.base import Attack, Ball, Proposal, Victim
from rna_ray.attacks.gradient import uniform_start

Member = Callable[[torch.Tensor], torch.Tensor]

MARGIN = 0.05
"""How far beyond a border a step goes, as a fraction of ε (rho in the paper)."""


@final
class Arc(Attack):
    """For each member in turn, a step over its nearest linearised border, kept where no fewer members are fooled.

    The members are all the attacker's draws, under `enumerate` every path; all are equally likely. The mean gradient of
    an ensemble may vanish or point nowhere although each member alone is easily fooled; this attack does not need it.
    `borders` is how many of the largest other logits are looked at for the nearest border.
    """

    def __init__(self, ball: Ball, *, step: float, steps: int, borders: int) -> None:
        super().__init__(ball)
        self.step, self.steps, self.borders = step, steps, borders

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        members = victim.members(x)
        x_adv = uniform_start(self.ball, victim, x)
        right = _right(members, x_adv, y)
        for _ in range(self.steps):
            x_adv, right = self._round(members, x_adv, x, y, right)
        return Proposal(x_adv)

    def _round(
        self, members: Sequence[Member], x_adv: torch.Tensor, x: torch.Tensor, y: torch.Tensor, right: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images after one step for each member, all of them together no longer than `step`.

        With them: how many members (N,) are still right, which has not grown.
        """
        local = torch.zeros_like(x)
        for number, member in enumerate(members):
            direction, normal, distance = self._nearest(member, x_adv + local)
            length = torch.full_like(distance, self.step)
            if number:  # the first step is whole; later ones are just long enough, so as not to undo the earlier ones
                border = distance + (normal * local).flatten(1).sum(1)  # from where the first step began
                enough = self.step / (self.step - border) * distance + MARGIN * self.ball.eps
                length = torch.where(border < self.step, enough, length)
            tried = self._scaled(local + length.view(-1, 1, 1, 1) * direction)
            after = _right(members, self.ball.project(x_adv + tried, x), y)
            local = torch.where((after <= right).view(-1, 1, 1, 1), tried, local)
            right = torch.minimum(after, right)
        return self.ball.project(x_adv + local, x), right

    def _nearest(self, member: Member, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the way to the border nearest by linearisation, in the ball's norm.

        That is: the unit step towards it, the border's normal scaled to be 1 along that step, and the distance (N,).
        """
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = member(x)
            largest = logits.topk(min(self.borders + 1, logits.shape[1]), dim=1).values
            gaps = [largest[:, 0] - largest[:, other] for other in range(1, largest.shape[1])]
            slopes = [torch.autograd.grad(gap.sum(), x, retain_graph=True)[0] for gap in gaps]
        dual = 1 if self.ball.threat == "linf" else 2
        best = None
        for gap, slope in zip(gaps, slopes, strict=True):
            norm = slope.flatten(1).norm(p=dual, dim=1).clamp_min(1e-10)
            distance, normal = gap.detach() / norm, -slope / norm.view(-1, 1, 1, 1)
            direction = -slope.sign() if dual == 1 else normal
            if best is None:
                best = direction, normal, distance
            else:
                nearer = distance < best[2]
                mask = nearer.view(-1, 1, 1, 1)
                best = (
                    torch.where(mask, direction, best[0]), torch.where(mask, normal, best[1]),
                    torch.where(nearer, distance, best[2]),
                )  # fmt: skip
        assert best is not None
        return best

    def _scaled(self, delta: torch.Tensor) -> torch.Tensor:
        """Return the perturbations scaled to the length of a step."""
        p = float("inf") if self.ball.threat == "linf" else 2
        length = delta.flatten(1).norm(p=p, dim=1).clamp_min(1e-10)
        return self.step * delta / length.view(-1, 1, 1, 1)


@torch.no_grad()
def _right(members: Sequence[Member], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return how many members (N,) still classify each image right."""
    return torch.stack([member(x).argmax(1) == y for member in members]).sum(0)
