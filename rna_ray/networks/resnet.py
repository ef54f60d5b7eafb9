"""Residual networks of basic blocks for small images (He et al. 2016), as the RNA and RobustNorm papers train them.

The CIFAR networks of He et al. (their Section 4.2: 6n+2 layers, three stages of n blocks) have shortcuts without
parameters. Here a shortcut is projected where the channels change, as in all our networks: two more norm layers, and
1 % more parameters at most (ResNet-20).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def stages(
    block: Callable[[str, int, int, int, MakeNorm, Activation], nn.Module], depths: Sequence[int], inputs: int,
    width: int, norm: MakeNorm, activation: Activation, *, expansion: int = 1,
) -> nn.ModuleList:
    """Return stages of blocks: channels double and the size halves at each; a block gives `expansion` times them."""
    found = nn.ModuleList()
    for stage, depth in enumerate(depths):
        row = nn.ModuleList()
        for at in range(depth):
            stride, channels = 2 if stage and not at else 1, width << stage
            row.append(block(f"stages.{stage}.{at}", inputs, channels, stride, norm, activation))
            inputs = expansion * channels
        found.append(row)
    return found


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
        self.stages = stages(BasicBlock, blocks, width, width, norm, activation)
        self.head = nn.Linear(width << len(blocks) - 1, classes)

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


def cifar_resnet20(norm: MakeNorm, *, width: int, channels: int, classes: int, activation: Activation) -> ResNet:
    """Build the CIFAR ResNet-20, n = 3: 21 norm layers."""
    return ResNet((3, 3, 3), norm, width=width, channels=channels, classes=classes, activation=activation)


def cifar_resnet38(norm: MakeNorm, *, width: int, channels: int, classes: int, activation: Activation) -> ResNet:
    """Build the CIFAR ResNet-38, n = 6: 39 norm layers."""
    return ResNet((6, 6, 6), norm, width=width, channels=channels, classes=classes, activation=activation)


def cifar_resnet50(norm: MakeNorm, *, width: int, channels: int, classes: int, activation: Activation) -> ResNet:
    """Build the CIFAR ResNet-50, n = 8: 51 norm layers. It is not the ResNet-50 of bottlenecks."""
    return ResNet((8, 8, 8), norm, width=width, channels=channels, classes=classes, activation=activation)
