"""Gradients and answers in expectation over a defence's draws: the forward passes of attacks and of the defence.

A draw is all that is random in one pass: a path, and Gaussian noise where the defence adds any (STN). Each example has
draws of its own, so k of them are one k-times larger batch, in parts of at most `IMAGES_A_PASS` images. Where examples
of a batch influence one another (batch statistics), or share one path, each draw is a pass of its own.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch.nn import functional as F

from rna_ray.attacks.base import Climbed, margin
from rna_ray.networks.build import Network
from rna_ray.networks.paths import following
from rna_ray.networks.precision import arithmetic
from rna_ray.randomness import global_state, seeded_generators

Forward = Callable[[torch.Tensor], torch.Tensor]

IMAGES_A_PASS = {"cpu": 200, "cuda": 1000}
"""How many images go through the network at once, at most, when draws are put into one batch: it bounds the memory, and
on a CPU larger batches are no faster."""


@dataclasses.dataclass(frozen=True)
class Draws:
    """k draws of a defence's randomness."""

    paths: torch.Tensor
    """(k, N, L): the path of each example in each draw; N is 1 where a batch shares it."""
    seeds: tuple[int, ...]
    """A seed for each draw, for networks that draw from torch's own generators."""
    noise: tuple[Callable[[], torch.Tensor], ...] = ()
    """What makes each draw's noise (N, C, H, W), one draw at a time; N is 1 where shared; empty for no noise."""

    def __len__(self) -> int:
        return len(self.paths)

    def split(self, size: int) -> Iterator[Draws]:
        """Yield the draws in parts of at most this many."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield Draws(self.paths[part], self.seeds[part], self.noise[part])


def cross_entropy(logits_kNC: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the sum over k draws and N examples of the cross-entropy.

    Where the images of a batch share statistics, its gradient at an image is that of the whole batch's loss: all images
    climb it together.
    """
    return F.cross_entropy(logits_kNC.flatten(0, 1), y.repeat(len(logits_kNC)), reduction="sum")


def negative_margin(logits_kNC: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the sum over k draws and N examples of the largest other logit minus the true one (Carlini & Wagner)."""
    return -margin(logits_kNC.transpose(0, 1), y).sum()


class Passes:
    """A network's forward passes along given draws, at one precision.

    `shared` says that all examples of a batch share each draw; `separate` that each draw must be a batch of its own,
    because examples influence one another. `forward` is the network compiled, for batches of `batch` images alone where
    that is given: each other size would compile anew.
    """

    def __init__(
        self, network: Network, *, forward: Forward | None = None, batch: int | None = None, bf16: bool = False,
        shared: bool = False, separate: bool = False,
    ) -> None:
        self.network, self.forward = network, network if forward is None else forward
        self.batch, self.bf16 = batch, bf16
        self.shared, self.loss = shared, cross_entropy
        # Where all examples take one path, torch's native kernels run.
        self.native = shared or not network.paths.sizes
        self.together = separate or network.batch_dependent
        # A network that draws by itself may do so once a pass: k draws in one batch would be one.
        self.separate = self.together or network.draws_globally or (shared and bool(network.paths.sizes))
        self.drew_globally: bool | None = None
        """Whether a pass drew from a global generator since this was set to False; None where nobody looks."""

    def climbing(self, loss: Climbed) -> Passes:
        """Return the same passes, their gradient that of another loss than cross-entropy."""
        other = copy.copy(self)
        other.loss = loss
        return other

    def through(self, forward: Forward) -> Passes:
        """Return the same passes through another function in the network's place, such as itself at other weights."""
        other = copy.copy(self)
        other.forward, other.batch = forward, None
        return other

    def logits(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return fp32 logits (k, N, classes) of images x (N, C, H, W)."""
        size = self._draws_a_pass(x)
        if len(draws) <= size:
            return self._wide(x, draws)
        return torch.cat([self._wide(x, part) for part in draws.split(size)])

    def gradient(self, x: torch.Tensor, y: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return the gradient (N, C, H, W) of each example's loss, its mean over the k draws."""
        x = x.detach().requires_grad_()
        # A part at a time, so that only one part's graph is in memory.
        parts = draws.split(self._draws_a_pass(x))
        gradients = [torch.autograd.grad(self.loss(self._wide(x, part), y) / len(draws), x)[0] for part in parts]
        return gradients[0] if len(gradients) == 1 else torch.stack(gradients).sum(0)

    def _draws_a_pass(self, x: torch.Tensor) -> int:
        return 1 if self.separate else max(1, IMAGES_A_PASS[x.device.type] // max(1, len(x)))

    def _wide(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return the logits (k, N, classes) of one k-times larger batch."""
        k = len(draws)
        wide = x if k == 1 else x.repeat(k, 1, 1, 1)
        if draws.noise:
            wide = wide + torch.cat([make().expand_as(x) for make in draws.noise])
        path = draws.paths[0, 0] if self.native else draws.paths.flatten(0, 1)
        with (
            following(self.network, path, shared=self.native),
            arithmetic(x.device.type, bf16=self.bf16),
            self._watched(draws.seeds[0]),
        ):
            forward = self.forward if self.batch in (None, len(x)) else self.network
            logits = forward(wide).float()
            return logits.view(k, len(x), logits.shape[-1])  # a library may have no image left to ask about

    def _watched(self, seed: int) -> AbstractContextManager[None]:
        """Make draws from the global generators repeat where the network is known to draw there, or notice them."""
        seeded = seeded_generators(seed) if self.network.draws_globally else contextlib.nullcontext()
        return seeded if self.drew_globally is None else self._noticed(seeded)

    @contextlib.contextmanager
    def _noticed(self, seeded: AbstractContextManager[None]) -> Iterator[None]:
        with seeded:
            before = global_state(self.network.mean.device)
            yield
            self.drew_globally |= global_state(self.network.mean.device) != before


def mean_prediction(logits_kNC: torch.Tensor) -> torch.Tensor:
    """Return the log of the mean prediction (N, classes) over k draws: the logits of the expected classifier."""
    if len(logits_kNC) == 1:
        return logits_kNC[0]
    return F.log_softmax(logits_kNC, dim=-1).logsumexp(0) - math.log(len(logits_kNC))
