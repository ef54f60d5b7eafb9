"""The convolutional networks of STN (Li et al. 2019, Section 6), without norm layers.

The paper gives their outline; docs/stn.md says where kernels, pooling, dropout and activations come from.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from rna_ray.networks.activation import Activation
from rna_ray.networks.dropout import Dropout
from rna_ray.networks.resnet import MakeNorm


class StnMnist(nn.Module):
    """Two 5x5 convolutions without padding, dropout, a hidden layer of twice their channels, dropout, a head.

    Nothing pools, so the hidden layer's size hangs on that of the images, `size` in pixels: at least 9 by 9.
    """

    def __init__(
        self, *, width: int, channels: int, size: tuple[int, int], classes: int, activation: Activation
    ) -> None:
        super().__init__()
        height, across = size
        self.activation = activation
        self.conv1 = nn.Conv2d(channels, width, 5)
        self.conv2 = nn.Conv2d(width, width, 5)
        self.dropout1 = Dropout(0.25)
        self.hidden = nn.Linear(width * (height - 8) * (across - 8), 2 * width)
        self.dropout2 = Dropout(0.5)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(self.conv1(x))
        x = self.dropout1(self.activation(self.conv2(x)))
        x = self.dropout2(self.activation(self.hidden(x.flatten(1))))
        return self.head(x)


class StnCifar10(nn.Module):
    """Three stages of a wide convolution and a 1x1 one, two of them ended by 2x2 max-pooling and dropout.

    A last 1x1 convolution gives each pixel's logits, whose mean is the answer. Pooling rounds sizes up.
    """

    def __init__(self, *, width: int, channels: int, classes: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.stages, self.dropouts = nn.ModuleList(), nn.ModuleList([Dropout(0.5), Dropout(0.5)])
        for outputs, kernel in ((width, 5), (2 * width, 5), (8 * width // 3, 3)):
            wide = nn.Conv2d(channels, outputs, kernel, padding=kernel // 2)
            self.stages.append(nn.ModuleList([wide, nn.Conv2d(outputs, outputs, 1)]))
            channels = outputs
        self.head = nn.Conv2d(channels, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for at, stage in enumerate(self.stages):
            for conv in stage:
                x = self.activation(conv(x))
            if at < len(self.dropouts):
                x = self.dropouts[at](F.max_pool2d(x, 2, ceil_mode=True))
        return self.head(x).mean((2, 3))


def stn_mnist(
    norm: MakeNorm, *, width: int, channels: int, size: tuple[int, int], classes: int, activation: Activation
) -> StnMnist:
    """Build STN's network for MNIST, for images of `size` pixels; it has no norm layers."""
    return StnMnist(width=width, channels=channels, size=size, classes=classes, activation=activation)


def stn_cifar10(norm: MakeNorm, *, width: int, channels: int, classes: int, activation: Activation) -> StnCifar10:
    """Build STN's network for CIFAR-10; it has no norm layers."""
    return StnCifar10(width=width, channels=channels, classes=classes, activation=activation)
