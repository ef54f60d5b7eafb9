"""Residual networks of basic blocks for small images (He et al. 2016), as the RNA paper trains them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from rna_ray.networks.activation import Activation

MakeNorm = Callable[[str, int], nn.Module]  # from a layer's name and channels


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, projected by a 1x1 convolution where the channels change."""

    def __init__(
        self, name: str, inputs: int, channels: int, stride: int, norm: MakeNorm, activation: Activation
    ) -> None:
        super().__init__()
        self.activation = activation
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.norm1 = norm(f"{name}.norm1", channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = norm(f"{name}.norm2", channels)
        if inputs != channels:
            self.shortcut = nn.Conv2d(inputs, channels, 1, stride, bias=False)
            self.shortcut_norm = norm(f"{name}.shortcut_norm", channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.activation(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        shortcut = self.shortcut_norm(self.shortcut(x)) if hasattr(self, "shortcut") else x
        return self.activation(y + shortcut)


class ResNet(nn.Module):
    """A 3x3 stem, stages of basic blocks (each doubles the channels and halves the size), average pooling, a head."""

    def __init__(
        self, blocks: tuple[int, ...], norm: MakeNorm, *, width: int, channels: int, classes: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.conv = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.norm = norm("norm", width)
        self.stages = nn.ModuleList()
        inputs = width
        for stage, depth in enumerate(blocks):
            row = nn.ModuleList()
            for block in range(depth):
                stride = 2 if stage and not block else 1
                row.append(BasicBlock(f"stages.{stage}.{block}", inputs, width << stage, stride, norm, activation))
                inputs = width << stage
            self.stages.append(row)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(self.norm(self.conv(x)))
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return self.head(x.mean((2, 3)))


def resnet18(norm: MakeNorm, *, width: int, channels: int, classes: int, activation: Activation) -> ResNet:
    """Build ResNet-18 with the CIFAR stem: 20 norm layers."""
    return ResNet((2, 2, 2, 2), norm, width=width, channels=channels, classes=classes, activation=activation)


def resnet8(norm: MakeNorm, *, width: int, channels: int, classes: int, activation: Activation) -> ResNet:
    """Build the three-stage ResNet-8: 9 norm layers."""
    return ResNet((1, 1, 1), norm, width=width, channels=channels, classes=classes, activation=activation)
