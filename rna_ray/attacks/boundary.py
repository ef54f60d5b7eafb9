"""The boundary attack (Brendel et al. 2018), as foolbox has it: a walk along the border that asks for classes alone.

foolbox takes the answer to one query for the truth. On a random defence it is that of one draw, so what a walk accepts
may be an accident of that draw: the attack is weak there, and is reported as it is. Where it starts is judged on the
attacker's own draws (`Victim.judge`).
"""

from __future__ import annotations

import os
import warnings
from typing import Any, final
from unittest import mock

import torch

from rna_ray.attacks.base import Attack, Ball, Proposal, Victim
from rna_ray.attacks.libraries import View
from rna_ray.randomness import seeded_generators

STARTS = 50
"""The images of uniform noise that are tried as a start, before those of the batch."""
HALVINGS = 10
"""How often the way from the image to its start is halved: to a thousandth of it."""


@final
class Boundary(Attack):
    """The smallest ℓ2 perturbation that a walk of so many steps finds: unbounded, its distortion is the result.

    It starts from uniform noise, or else from another image of the batch, taken back towards the image as far as it
    stays misclassified. An image that is misclassified on most of the attacker's own draws is its own adversarial; one
    for which no start is found comes back as it was, with a note.
    """

    def __init__(self, steps: int) -> None:
        super().__init__(Ball("none"))
        self.steps = steps

    @torch.no_grad()
    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        right = torch.nonzero(~_fooled(victim, x, y))[:, 0]
        start, found = _starts(victim, x, y, right)
        rows = right[found]
        x_adv = x.clone()
        if len(rows):
            with seeded_generators(victim.seed("attack/library")):
                x_adv[rows] = self._walk(victim.rows(rows), x[rows], y[rows], start[found])
        lost = len(right) - len(rows)
        note = f"boundary found no misclassified image to start from for {lost} of {len(x)} images"
        return Proposal(x_adv, notes=(note,) if lost else ())

    def _walk(self, victim: Victim, x: torch.Tensor, y: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        foolbox = _foolbox()

        class Fooled(foolbox.Misclassification):  # type: ignore[misc, name-defined]
            """Misclassification, which the starts are said to be: foolbox gives up a batch where a draw denies it."""

            asked = False

            def __call__(self, perturbed: Any, outputs: Any) -> Any:
                adversarial = super().__call__(perturbed, outputs)
                if not self.asked:
                    self.asked = True
                    return adversarial.logical_or(adversarial.logical_not())
                return adversarial

        model = foolbox.PyTorchModel(View(victim, x.device).eval(), bounds=(0, 1), device=x.device)
        return foolbox.attacks.BoundaryAttack(steps=self.steps).run(model, x, Fooled(y), starting_points=start)


def _fooled(victim: Victim, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return where (N,) most of the attacker's own draws misclassify the images."""
    return victim.judge(x, y).right < 0.5


def _starts(
    victim: Victim, x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a misclassified image for each of these rows, and where (N,) one was found."""
    start, found = x[rows].clone(), torch.zeros(len(rows), dtype=torch.bool, device=x.device)
    for attempt in range(STARTS + len(x) - 1):
        open_ = torch.nonzero(~found)[:, 0]
        if not len(open_):
            break
        some = rows[open_]
        if attempt < STARTS:
            tried = victim.random.uniform("attack/start", victim.examples[some], x.shape[1:], draw=attempt)
        else:
            tried = x[(some + attempt - STARTS + 1) % len(x)]
        fooled = _fooled(victim.rows(some), tried, y[some])
        start[open_[fooled]], found[open_[fooled]] = tried[fooled], True
    return _nearer(victim, x, y, rows, start), found


def _nearer(
    victim: Victim, x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor, start: torch.Tensor
) -> torch.Tensor:
    """Return the starts taken back towards their images, by halving, as far as they are still misclassified."""
    if not len(rows):
        return start
    some, way = victim.rows(rows), start - x[rows]
    low, high = (torch.full((len(rows), 1, 1, 1), end, device=x.device) for end in (0.0, 1.0))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fooled = _fooled(some, x[rows] + middle * way, y[rows]).view(-1, 1, 1, 1)
        low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
    return (x[rows] + high * way).clamp(0, 1)


def _foolbox() -> Any:
    """Return the library. Its import warns of names that SciPy 2 drops, and fails where there is no git command."""
    with mock.patch.dict(os.environ, {"GIT_PYTHON_REFRESH": "quiet"}), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import foolbox
    return foolbox
