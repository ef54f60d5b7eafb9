"""Adapters: attacks of torchattacks and pyautoattack on a defence that draws paths.

The libraries see a module without the network's parameters or mode, so that they cannot switch the mode (torchattacks
decides by the substring "BatchNorm"). They call `backward`, so the network's parameters must not require grad
(`evaluate` sees to it). They reseed torch's global generator; it is put back after.
"""

from __future__ import annotations

import contextlib
import logging
import random
import sys
from collections.abc import Iterator
from typing import Any, Literal, final

import numpy as np
import torch
from torch import nn

from rna_ray.attacks.base import Attack, Ball, Victim


class View(nn.Module):
    """A victim as an attack library calls it: images in, logits under the attacker's knowledge out."""

    def __init__(self, victim: Victim, device: torch.device) -> None:
        super().__init__()
        self._victim = victim
        # torchattacks takes the device from the first parameter.
        self.place = nn.Parameter(torch.zeros(1, device=device), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._victim.logits(x)


@final
class _Positive(View):
    """A view whose logits are above 0, the same softmax.

    CW of torchattacks masks a class by multiplying with 0, and takes that 0 for the largest logit where all are
    negative, as the log-probabilities of an expectation always are: it would then see no loss, and attack nothing.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        return logits - logits.detach().amin(1, keepdim=True) + 1


@contextlib.contextmanager
def own_generators(seed: int) -> Iterator[None]:
    """Seed the global generators inside the block, and leave them as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class TorchAttack(Attack):
    """An attack of torchattacks that looks for the smallest perturbation: unbounded, its distortion is the result."""

    def __init__(self, name: Literal["CW", "DeepFool"], **options: float) -> None:
        super().__init__(Ball("none"))
        self.name, self.options = name, options

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with own_generators(victim.random.seed("attack/library")), torch.enable_grad():
            if self.name == "CW":
                return self._finite(self._run(_Positive(victim, x.device), x, y), x)
            # DeepFool shows the network one image at a time, which would then follow the path of another.
            views = [View(victim.alone(row), x.device) for row in range(len(x))]
            found = [self._run(view, x[row : row + 1], y[row : row + 1]) for row, view in enumerate(views)]
            return self._finite(torch.cat(found), x)

    def _run(self, view: View, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        import torchattacks

        return getattr(torchattacks, self.name)(view, **self.options)(x, y)

    @staticmethod
    def _finite(x_adv: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the image itself where a library divided by a zero gradient: it found no perturbation there."""
        lost = ~torch.isfinite(x_adv).flatten(1).all(1)
        return torch.where(lost.view(-1, 1, 1, 1), x, x_adv)


# The classes that are too few for the DLR losses: they look at the third and the fourth largest logit.
_CLASSES = {"apgd-dlr": 2, "apgd-t": 3}


class _Flags(logging.Handler):
    """Collects what AutoAttack's checks write to its log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.funcName != "check_n_classes":  # it speaks of attacks that `_fit_classes` has left out
            self.messages.append(record.getMessage())


class AutoAttack(Attack):
    """AutoAttack, standard or rand (Croce & Hein 2020). Its images are kept, its verdict is not: the base judges.

    It attacks again only the examples that one draw did not misclassify, so rows change places: its victims share one
    path a batch. Where that draw withstands everything it returns the image untouched, which other draws may well
    classify otherwise: the flag `untouched` counts those images, and on a random network the accuracy flatters.
    """

    def __init__(self, ball: Ball, version: Literal["standard", "rand"]) -> None:
        super().__init__(ball)
        self.version = version

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        import pyautoattack

        seed = victim.random.seed("attack/library")
        with own_generators(seed), self._watched() as said:
            attack = pyautoattack.AutoAttack(
                View(victim, x.device), norm="Linf" if self.ball.threat == "linf" else "L2", eps=self.ball.eps,
                seed=seed, device=x.device, version=self.version,
            )
            said += self._fit_classes(attack, victim.logits(x[:1]).shape[1])
            return attack.run_standard_evaluation(x, y, batch_size=len(x))[0]

    @staticmethod
    def _fit_classes(attack: Any, classes: int) -> list[str]:
        """Attack no more targets than there are wrong classes, and leave out a loss that needs more of them.

        The library indexes past the end in both cases. Return what was left out, in words.
        """
        for part in (attack.apgd_targeted, attack.fab):
            part.n_target_classes = min(part.n_target_classes, classes - 1)
        left_out = [name for name in attack.attacks_to_run if classes <= _CLASSES.get(name, 0)]
        attack.attacks_to_run = [name for name in attack.attacks_to_run if name not in left_out]
        return [f"{name} was left out: its loss needs more than {classes} classes" for name in left_out]

    @contextlib.contextmanager
    def _watched(self) -> Iterator[list[str]]:
        """Turn what the library's checks log into flags, without letting it reach the user's terminal.

        Its check for optimisation at inference counts in a global of the process, and switches tracing off.
        """
        from pyautoattack.checks import funcs

        logger, handler = logging.getLogger("auto-attack"), _Flags()
        before, tracer = (logger.level, logger.propagate), sys.gettrace()
        funcs.update(dict.fromkeys(funcs, 0))
        logger.setLevel(logging.WARNING)
        logger.propagate = False
        logger.addHandler(handler)
        try:
            yield handler.messages
        finally:
            sys.settrace(tracer)
            logger.removeHandler(handler)
            logger.level, logger.propagate = before
            said = [*self.flags.get("autoattack", []), *handler.messages]  # type: ignore[misc]
            if said:
                self.flags["autoattack"] = sorted(set(said))


class Square(Attack):
    """Square Attack (Andriushchenko et al. 2020) from pyautoattack: needs no gradient."""

    def __init__(self, ball: Ball, queries: int) -> None:
        super().__init__(ball)
        self.queries = queries

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        from pyautoattack.square import SquareAttack

        seed = victim.random.seed("attack/library")
        with own_generators(seed), torch.no_grad():
            attack = SquareAttack(
                View(victim, x.device), norm="Linf" if self.ball.threat == "linf" else "L2", eps=self.ball.eps,
                n_queries=self.queries, n_restarts=1, p_init=0.8, seed=seed, device=x.device, resc_schedule=False,
            )
            return attack.perturb(x, y)
