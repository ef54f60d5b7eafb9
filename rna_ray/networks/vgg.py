"""VGG (Simonyan & Zisserman 2015; VGG-11 is their configuration A, VGG-16 their D) for CIFAR, as RobustNorm trains it.

A norm follows each convolution, and one linear layer stands where the published network has three. Convolutions have
biases, as published: a norm that takes the mean away makes them idle, without a norm they are needed.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from rna_ray.networks.activation import Activation
from rna_ray.networks.resnet import MakeNorm


class ConvNorm(nn.Module):
    """A 3x3 convolution that keeps the size, a norm and an activation."""

    def __init__(self, name: str, inputs: int, channels: int, norm: MakeNorm, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.conv = nn.Conv2d(inputs, channels, 3, 1, 1)
        self.norm = norm(f"{name}.norm", channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.norm(self.conv(x)))


class VGG(nn.Module):
    """Five stages of convolutions, each ended by a 2x2 max-pooling, average pooling and a head.

    The channels double up to the fourth stage. Pooling rounds sizes up; 32x32 images end as 1x1, their own mean.
    """

    def __init__(
        self, depths: tuple[int, ...], norm: MakeNorm, *, width: int, channels: int, classes: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(depths):
            row = nn.ModuleList()
            for at in range(depth):
                inputs, channels = channels, width << min(stage, 3)
                row.append(ConvNorm(f"stages.{stage}.{at}", inputs, channels, norm, activation))
            self.stages.append(row)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            for part in stage:
                x = part(x)
            x = F.max_pool2d(x, 2, ceil_mode=True)
        return self.head(x.mean((2, 3)))


def vgg11(norm: MakeNorm, *, width: int, channels: int, classes: int, activation: Activation) -> VGG:
    """Build VGG-11: 8 norm layers."""
    return VGG((1, 1, 2, 2, 2), norm, width=width, channels=channels, classes=classes, activation=activation)


def vgg16(norm: MakeNorm, *, width: int, channels: int, classes: int, activation: Activation) -> VGG:
    """Build VGG-16: 13 norm layers."""
    return VGG((2, 2, 3, 3, 3), norm, width=width, channels=channels, classes=classes, activation=activation)
