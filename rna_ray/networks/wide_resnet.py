"""Wide residual networks of pre-activation blocks (Zagoruyko & Komodakis 2016), as the RNA paper trains them.

The paper calls its network WideResNet32; the depth in its code is 34.
"""

from __future__ import annotations

import torch
from torch import nn

from rna_ray.networks.activation import Activation
from rna_ray.networks.resnet import MakeNorm, stages

STEM = 16
"""The channels of the stem, whatever the width."""


class PreactivationBlock(nn.Module):
    """Norm, activation and 3x3 convolution, twice, with a shortcut.

    Where the channels change, the shortcut is a 1x1 convolution of the first activation.
    """

    def __init__(
        self, name: str, inputs: int, channels: int, stride: int, norm: MakeNorm, activation: Activation
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm1 = norm(f"{name}.norm1", inputs)
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.norm2 = norm(f"{name}.norm2", channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        if inputs != channels:
            self.shortcut = nn.Conv2d(inputs, channels, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.activation(self.norm1(x))
        shortcut = self.shortcut(y) if hasattr(self, "shortcut") else x
        y = self.conv2(self.activation(self.norm2(self.conv1(y))))
        return y + shortcut


class WideResNet(nn.Module):
    """A 3x3 stem, three stages (each doubles the channels), a last norm before average pooling, a head."""

    def __init__(
        self, depth: int, norm: MakeNorm, *, width: int, channels: int, classes: int, activation: Activation
    ) -> None:
        super().__init__()
        self.activation = activation
        self.conv = nn.Conv2d(channels, STEM, 3, 1, 1, bias=False)
        self.stages = stages(PreactivationBlock, (depth,) * 3, STEM, width, norm, activation)
        self.norm = norm("norm", width << 2)
        self.head = nn.Linear(width << 2, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return self.head(self.activation(self.norm(x)).mean((2, 3)))


def wide_resnet_34(norm: MakeNorm, *, width: int, channels: int, classes: int, activation: Activation) -> WideResNet:
    """Build WideResNet-34, five blocks a stage: 31 norm layers. A width of 160 is a widening factor of 10."""
    return WideResNet(5, norm, width=width, channels=channels, classes=classes, activation=activation)
