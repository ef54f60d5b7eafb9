"""Gradients and answers in expectation over paths: the forward passes of attacks and of the defence.

Each example has a path of its own, so k draws are one k-times larger batch. Where examples of a batch influence one
another (batch statistics), or share one path, the k draws are k separate passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from rna_ray.networks.build import Network
from rna_ray.networks.paths import following

Forward = Callable[[torch.Tensor], torch.Tensor]


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
        k, n = paths.shape[:2]
        if self.separate:
            return torch.stack([self._once(x, path) for path in paths])
        wide = x if k == 1 else x.repeat(k, 1, 1, 1)
        return self._once(wide, paths.flatten(0, 1)).view(k, n, -1)

    def gradient(self, x: torch.Tensor, y: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
        """Return the gradient (N, C, H, W) of each example's cross-entropy, its mean over the k paths (k, N, L)."""
        x = x.detach().requires_grad_()
        if not self.separate:
            return torch.autograd.grad(self._loss(x, y, paths), x)[0]
        total = torch.zeros_like(x)  # one draw at a time: their graphs would not share any memory
        for path in paths:
            total += torch.autograd.grad(self._loss(x, y, path[None]), x)[0]
        return total / len(paths)

    def _loss(self, x: torch.Tensor, y: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
        logits = self.logits(x, paths)
        return F.cross_entropy(logits.flatten(0, 1), y.repeat(len(paths)), reduction="sum") / len(paths)

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
