"""Adversarial weight perturbation (AWP; Wu, Xia & Wang 2020): updates at the weights where the loss is worse."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

_TINY = 1e-20  # a layer without a gradient stays where it is


def perturbable(network: nn.Module) -> list[nn.Parameter]:
    """Return the weights that are perturbed: those with more than one dimension, neither biases nor those of norms."""
    return [parameter for parameter in network.parameters() if parameter.dim() > 1]


@contextlib.contextmanager
def perturbed(weights: Sequence[nn.Parameter], gradients: Sequence[torch.Tensor], gamma: float) -> Iterator[None]:
    """Move each weight by gamma·‖w‖ along its loss's gradient inside the block, and by as much back after it.

    One step of ascent, normalised layer by layer, as published. What the block changes stays: an update there gives
    (w + v) - lr·∇(w + v) - v.
    """
    moves = [
        gamma * weight.detach().norm() / (gradient.norm() + _TINY) * gradient
        for weight, gradient in zip(weights, gradients, strict=True)
    ]
    with torch.no_grad():
        for weight, move in zip(weights, moves, strict=True):
            weight.add_(move)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, move in zip(weights, moves, strict=True):
                weight.sub_(move)
