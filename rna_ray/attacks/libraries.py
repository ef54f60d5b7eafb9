"""Adapters: attacks of torchattacks and pyautoattack on a defence that draws paths.

The libraries see a module without the network's parameters or mode, so that they cannot switch the mode (torchattacks
decides by the substring "BatchNorm"). They call `backward`, so the network's parameters must not require grad
(`evaluate` sees to it). They reseed torch's global generator; it is put back after.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Literal, final

import torch
from torch import nn
from torch.nn import functional

from rna_ray.attacks.base import Attack, Ball, Proposal, Victim
from rna_ray.attacks.ensemble import Best, Ensemble
from rna_ray.randomness import seeded_generators

_SILENT = logging.Logger("autoattack", level=logging.CRITICAL + 1)  # its checks are columns of ours


class View(nn.Module):
    """A victim as an attack library calls it: images in, logits under the attacker's knowledge out.

    `zero` (N,) counts the gradients with respect to the images that were exactly zero, for libraries that do not
    regroup them.
    """

    def __init__(self, victim: Victim, device: torch.device, zero: torch.Tensor | None = None) -> None:
        super().__init__()
        self._victim, self.zero = victim, zero
        # torchattacks takes the device from the first parameter.
        self.place = nn.Parameter(torch.zeros(1, device=device), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.zero is not None and x.requires_grad:
            x = x.view_as(x)  # of each pass its own gradient, where several passes start from one image
            x.register_hook(self._count)
        return self._victim.logits(x)

    def _count(self, gradient: torch.Tensor) -> None:
        assert self.zero is not None
        self.zero += gradient.flatten(1).abs().amax(1) == 0


@final
class _Positive(View):
    """A view whose logits are above 0, the same softmax.

    CW of torchattacks masks a class by multiplying with 0, and takes that 0 for the largest logit where all are
    negative, as the log-probabilities of an expectation always are: it would then see no loss, and attack nothing.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        return logits - logits.detach().amin(1, keepdim=True) + 1


@final
class _Expected(View):
    """A view whose true logit is the expected margin, and every other one 0: CW of torchattacks then descends it.

    An image is misclassified where the mean of the draws' margins is negative.
    """

    def __init__(self, victim: Victim, y: torch.Tensor) -> None:
        super().__init__(victim, y.device)
        self.y = y

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        true = functional.one_hot(self.y, int(self.y.max()) + 2)  # one class more, so that there is another one
        return true * self._victim.expected_margin(x, self.y)[:, None]


@final
class _Whole(View):
    """A view that keeps the batch that did best as a whole: the fewest images right, then the shortest way.

    CW of torchattacks puts each image's own best step into one batch. Where images decide each other's answers, the
    network was never asked about that batch, and most of its successes may be gone.
    """

    def __init__(self, victim: Victim, view: View, x: torch.Tensor, y: torch.Tensor) -> None:
        super().__init__(victim, x.device)
        self.view, self.x, self.y = view, x, y
        self.best, self.reached = x, (len(x) + 1, 0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.view(x)
        with torch.no_grad():
            right = (logits.argmax(1) == self.y).sum().item()
            reached = (right, (x - self.x).flatten(1).norm(dim=1).sum().item())
            if reached < self.reached:
                self.best, self.reached = x.detach().clone(), reached
        return logits


class TorchAttack(Attack):
    """An attack of torchattacks that looks for the smallest perturbation: unbounded, its distortion is the result.

    Of several draws a step, both look at the logits of the mean prediction; CW with `of_margins` at the mean of the
    draws' margins.
    """

    def __init__(self, name: Literal["CW", "DeepFool"], *, of_margins: bool = False, **options: float) -> None:
        super().__init__(Ball("none"))
        self.name, self.of_margins, self.options = name, of_margins, options

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        with seeded_generators(victim.seed("attack/library")), torch.enable_grad():
            if self.name == "CW":
                view = _Expected(victim, y) if self.of_margins else _Positive(victim, x.device)
                if victim.together:
                    whole = _Whole(victim, view, x, y)
                    self._run(whole, x, y)
                    return Proposal(self._finite(whole.best, x))
                return Proposal(self._finite(self._run(view, x, y), x))
            # DeepFool shows the network one image at a time, which would then follow the path of another.
            rows = torch.arange(len(x), device=x.device).split(1)
            found = [self._run(View(victim.rows(row), x.device), x[row], y[row]) for row in rows]
            return Proposal(self._finite(torch.cat(found), x))

    def _run(self, view: View, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        import torchattacks

        return getattr(torchattacks, self.name)(view, **self.options)(x, y)

    @staticmethod
    def _finite(x_adv: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the image itself where a library divided by a zero gradient: it found no perturbation there."""
        lost = ~torch.isfinite(x_adv).flatten(1).all(1)
        return torch.where(lost.view(-1, 1, 1, 1), x, x_adv)


class _Part(Attack):
    """A part of AutoAttack, run as pyautoattack's `perturb` runs it on images that are all classified right.

    `perturb` itself returns the image untouched where the draws that it saw withstood; on a random network other draws
    may not, so an example that withstood gets the image of the largest loss instead.
    """

    def _seeded(self, victim: Victim) -> Any:
        return seeded_generators(victim.seed("attack/library"))

    def _common(self, victim: Victim, x: torch.Tensor) -> dict[str, Any]:
        return {
            "norm": "Linf" if self.ball.threat == "linf" else "L2", "eps": self.ball.eps, "device": x.device,
            "seed": victim.seed("attack/library"),
        }  # fmt: skip


@final
class Apgd(_Part):
    """Auto-PGD (Croce & Hein 2020) on the cross-entropy, on DLR, or on the DLR loss targeted at each other class.

    `eot` is its own expectation: of that many passes a gradient is the mean, loss and early success come from the last.
    """

    def __init__(self, ball: Ball, loss: Literal["ce", "dlr", "targeted"], *, steps: int = 100, eot: int = 1) -> None:
        super().__init__(ball)
        self.loss, self.steps, self.eot = loss, steps, eot

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

        classes = victim.logits(x[:1]).shape[1]
        if (note := self._unfit(classes)) is not None:
            return Proposal(x, notes=(note,))
        eot = 1 if victim.steady else self.eot  # the mean over equal gradients is any one of them
        options = self._common(victim, x) | {"n_iter": self.steps, "eot_iter": eot, "logger": _SILENT}
        # DLR is flat where the true class is third, whatever the network: its zeros would say nothing of it.
        zero = torch.zeros(len(x), dtype=torch.int64, device=x.device) if self.loss == "ce" else None
        view = View(victim, x.device, zero)
        with self._seeded(victim):
            if self.loss == "targeted":
                attack = APGDAttack_targeted(view, **options)
                attack.init_hyperparam(x)
                return Proposal(self._targeted(attack, victim, x, y, classes))
            attack = APGDAttack(view, loss=self.loss, **options)
            attack.init_hyperparam(x)
            best = Best(victim, x, y)
            everything = torch.arange(len(x), device=x.device)
            for found in _images(attack.attack_single_run(x, y)):
                best.offer(found, everything)
            return Proposal(best.x_adv, zero)

    @staticmethod
    def _targeted(attack: Any, victim: Victim, x: torch.Tensor, y: torch.Tensor, classes: int) -> torch.Tensor:
        best = Best(victim, x, y)
        for target in range(2, min(9, classes - 1) + 2):  # the nine most likely classes, as AutoAttack
            rows = best.standing()
            if not len(rows):
                break
            with torch.no_grad():
                attack.y_target = attack.model(x[rows]).sort(dim=1)[1][:, -target]
            for found in _images(attack.attack_single_run(x[rows], y[rows])):
                best.offer(found, rows)
        return best.x_adv

    def _unfit(self, classes: int) -> str | None:
        """Return why there is no such loss: the library would index past the end of the logits."""
        least = {"ce": 0, "dlr": 3, "targeted": 4}[self.loss]
        return f"apgd-{self.loss} was left out: its loss needs {least} classes" if classes < least else None


def _images(run: tuple[torch.Tensor, ...]) -> Iterator[torch.Tensor]:
    """Yield what a run of APGD found: its misclassified images, and those of the largest loss."""
    largest_loss, withstood, _, misclassified = run
    held = (withstood > 0).view(-1, 1, 1, 1)
    yield torch.where(held, largest_loss, misclassified)
    if not held.all():
        yield largest_loss


@final
class Fab(_Part):
    """Targeted FAB (Croce & Hein 2020b): the smallest perturbation, kept where it lies within the ball."""

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        from pyautoattack.fab_pt import FABAttack_PT

        classes = victim.logits(x[:1]).shape[1]
        with self._seeded(victim):
            attack = FABAttack_PT(
                View(victim, x.device), n_iter=100, n_restarts=1, targeted=True,
                n_target_classes=min(9, classes - 1), **self._common(victim, x),
            )  # fmt: skip
            return Proposal(attack.perturb(x, y))


@final
class Square(_Part):
    """Square Attack (Andriushchenko et al. 2020): needs no gradient."""

    def __init__(self, ball: Ball, queries: int) -> None:
        super().__init__(ball)
        self.queries = queries

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        from pyautoattack.square import SquareAttack

        with self._seeded(victim), torch.no_grad():
            attack = SquareAttack(
                View(victim, x.device), n_queries=self.queries, n_restarts=1, p_init=0.8, resc_schedule=False,
                **self._common(victim, x),
            )
            attack.init_hyperparam(x)
            best = Best(victim, x, y)
            rows = best.standing()  # the start may put a wrong image right, and the queries not find the way back
            if len(rows):
                best.offer(attack.attack_single_run(x[rows], y[rows])[1], rows)
            return Proposal(best.x_adv)


def autoattack(ball: Ball, version: Literal["standard", "rand"]) -> Ensemble:
    """Return AutoAttack, standard or rand (Croce & Hein 2020), its images judged on the attacker's own draws."""
    if version == "rand":
        return Ensemble(ball, [("apgd-ce", Apgd(ball, "ce", eot=20)), ("apgd-dlr", Apgd(ball, "dlr", eot=20))])
    parts = [("apgd-ce", Apgd(ball, "ce")), ("apgd-t", Apgd(ball, "targeted")), ("fab-t", Fab(ball))]
    return Ensemble(ball, [*parts, ("square", Square(ball, 5000))])
