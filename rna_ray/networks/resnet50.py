"""ResNet-50 for ImageNet (He et al. 2016), with the stride in the 3x3 convolution as torchvision has it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from rna_ray.networks.activation import Activation
from rna_ray.networks.resnet import MakeNorm, stages

EXPANSION = 4
BLOCKS = (3, 4, 6, 3)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution to four times the channels; a projected shortcut where a stage begins."""

    def __init__(
        self, name: str, inputs: int, channels: int, stride: int, norm: MakeNorm, activation: Activation
    ) -> None:
        super().__init__()
        outputs = EXPANSION * channels
        self.activation = activation
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.norm1 = norm(f"{name}.norm1", channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.norm2 = norm(f"{name}.norm2", channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.norm3 = norm(f"{name}.norm3", outputs)
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_norm = norm(f"{name}.shortcut_norm", outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.activation(self.norm1(self.conv1(x)))
        y = self.activation(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        shortcut = self.shortcut_norm(self.shortcut(x)) if hasattr(self, "shortcut") else x
        return self.activation(y + shortcut)


class ResNet50(nn.Module):
    """A 7x7 stem with max-pooling, four stages of bottlenecks, average pooling, a head."""

    def __init__(self, norm: MakeNorm, *, width: int, channels: int, classes: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.conv = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.norm = norm("norm", width)
        self.stages = stages(Bottleneck, BLOCKS, width, width, norm, activation, expansion=EXPANSION)
        self.head = nn.Linear(EXPANSION * width << len(BLOCKS) - 1, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(self.norm(self.conv(x)))
        x = F.max_pool2d(x, 3, 2, 1)
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return self.head(x.mean((2, 3)))


def resnet50(norm: MakeNorm, *, width: int, channels: int, classes: int, activation: Activation) -> ResNet50:
    """Build ResNet-50: 53 norm layers."""
    return ResNet50(norm, width=width, channels=channels, classes=classes, activation=activation)
