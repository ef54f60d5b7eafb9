"""Dropout by named draws: which values fall out is a function of (unit, epoch, example, layer) and of nothing else."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import final

import torch
from torch import nn

from rna_ray.randomness import Randomness

Kept = Callable[[torch.Size], torch.Tensor]
"""The shape (C, ...) of an example's values → which of them stay, bool (N, C, ...)."""


@final
class Dropout(nn.Module):
    """Inside `dropping`, zero each value with probability `p` and divide the others by 1 - p (Srivastava et al. 2014).

    Everywhere else it is the identity, whatever mode the network is in: an attack in train mode drops nothing either.
    """

    kept: Kept | None = None

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.kept is None else x * self.kept(x.shape[1:]) * (1 / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


@contextlib.contextmanager
def dropping(network: nn.Module, random: Randomness, examples: torch.Tensor) -> Iterator[None]:
    """Let the dropout of a network act inside the block, on batches of exactly these examples (N,).

    Every pass of the block drops the same values: those that an update compares differ in nothing else.
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, Dropout)}
    for name, layer in layers.items():
        layer.kept = _kept(random, f"dropout/{name}", examples, layer.p)
    try:
        yield
    finally:
        for layer in layers.values():
            layer.kept = None


def _kept(random: Randomness, name: str, examples: torch.Tensor, p: float) -> Kept:
    """Return what draws the values that stay, once for each shape: 16 bits decide about one, so p is that precise."""

    @functools.cache
    def kept(shape: torch.Size) -> torch.Tensor:
        size = shape.numel()
        bits = random.words(name, examples, -(-size // 4)).view(torch.int16)  # four of a word: to draw takes time
        return (bits[:, :size] >= round(p * 2**16) - 2**15).reshape(len(examples), *shape)

    return kept
