"""Activations that a sweep can name: ReLU, and smooth ones as in smooth adversarial training (SAT; Xie et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch.nn import functional as F

Activation = Callable[[torch.Tensor], torch.Tensor]

SHARPNESS = 10.0
"""The α of SAT's parametric softplus (1/α)·log(1 + exp(αx)): at 10 it is close to ReLU, and smooth."""


def softplus(x: torch.Tensor) -> torch.Tensor:
    """Return SAT's parametric softplus; torch takes x itself where αx > 20, which is the same in fp32."""
    return F.softplus(x, beta=SHARPNESS)


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType({
    "relu": F.relu,
    "silu": F.silu,
    "softplus": softplus,
    "gelu": F.gelu,
    "elu": F.elu,
})  # fmt: skip
