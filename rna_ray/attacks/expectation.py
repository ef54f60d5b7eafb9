"""Gradients and answers in expectation over paths: the forward passes of attacks and of the defence.

Each example has a path of its own, so k draws are one k-times larger batch, in parts of at most `IMAGES_A_PASS` images.
Where examples of a batch influence one another (batch statistics), or share one path, each draw is a pass of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from rna_ray.networks.build import Network
from rna_ray.networks.paths import following

Forward = Callable[[torch.Tensor], torch.Tensor]

IMAGES_A_PASS = 1000
"""How many images go through the network at once, at most, when draws are put into one batch: it bounds the memory."""


class Passes:
    """A network's forward passes along given paths, at one precision.

    `shared` says that all examples of a batch take one path (torch's native kernels); `separate` that each draw must be
    a batch of its own, because examples influence one another.
    """

    def __init__(
        self, network: Network, *, forward: Forward | None = None, bf16: bool = False, shared: bool = False,
        separate: bool = False,
    ) -> None:
        self.network, self.forward = network, network if forward is None else forward
        self.bf16 = bf16
        # With one path for all there is nothing to tell examples apart by, and rows may change places.
        self.shared = shared or not network.paths.sizes
        self.separate = separate or self.shared

    def logits(self, x: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
        """Return fp32 logits (k, N, classes) of images x (N, C, H, W) along paths (k, N, L)."""
        n = paths.shape[1]
        if self.separate:
            return torch.stack([self._once(x, path) for path in paths])
        parts = paths.split(self._draws_a_pass(n))
        return torch.cat([self._wide(x, part) for part in parts])

    def gradient(self, x: torch.Tensor, y: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
        """Return the gradient (N, C, H, W) of each example's cross-entropy, its mean over the k paths (k, N, L)."""
        x = x.detach().requires_grad_()
        parts = paths.split(1 if self.separate else self._draws_a_pass(len(x)))
        # A part at a time, so that only one part's graph is in memory.
        gradients = [torch.autograd.grad(self._loss(x, y, part) / len(paths), x)[0] for part in parts]
        return gradients[0] if len(gradients) == 1 else torch.stack(gradients).sum(0)

    def _loss(self, x: torch.Tensor, y: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
        logits = self.logits(x, paths)
        return F.cross_entropy(logits.flatten(0, 1), y.repeat(len(paths)), reduction="sum")

    def _wide(self, x: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
        """Return the logits (k, N, classes) of one k-times larger batch."""
        k, n = paths.shape[:2]
        wide = x if k == 1 else x.repeat(k, 1, 1, 1)
        return self._once(wide, paths.flatten(0, 1)).view(k, n, -1)

    @staticmethod
    def _draws_a_pass(images: int) -> int:
        return max(1, IMAGES_A_PASS // images)

    def _once(self, x: torch.Tensor, path_NL: torch.Tensor) -> torch.Tensor:
        path = path_NL[0] if self.shared else path_NL
        with following(self.network, path, shared=self.shared), torch.autocast(x.device.type, torch.bfloat16,
                                                                               enabled=self.bf16):
            return self.forward(x).float()


def mean_prediction(logits_kNC: torch.Tensor) -> torch.Tensor:
    """Return the log of the mean prediction (N, classes) over k draws: the logits of the expected classifier."""
    if len(logits_kNC) == 1:
        return logits_kNC[0]
    return F.log_softmax(logits_kNC, dim=-1).logsumexp(0) - math.log(len(logits_kNC))
