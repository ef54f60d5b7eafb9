"""RNA as a researcher writes it from the paper: a list of norms at each layer, fp32, eager, one path a batch.

Dong et al., Random Normalization Aggregation for Adversarial Defense (NeurIPS 2022): Section 4 and Algorithm 1. This is
what the benchmarks measure rna-ray against; it imports nothing of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
"""The mean and the standard deviation of CIFAR-10's channels."""
EPS, STEP = 8 / 255, 2 / 255


class RandomNorm(nn.Module):
    """Several norms, of which one is taken at a time: BN and IN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels), nn.InstanceNorm2d(channels, affine=True)])
        self.taken = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norms[self.taken](x)


class Block(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, inputs: int, channels: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.norm1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = norm(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, channels, 1, stride, bias=False), norm(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 with the CIFAR stem, of 20 random norm layers: images (N, 3, 32, 32) in [0, 1] → logits (N, classes).

    With `redraws`, every forward pass takes a path of its own; else the one that `draw_path` drew last. `norm` makes a
    layer of so many channels: `nn.Identity` leaves the convolutions.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, width: int = 64, norm: Callable[[int], nn.Module] = RandomNorm, classes: int = 10) -> None:
        super().__init__()
        for name, values in zip(("mean", "std"), CIFAR10, strict=True):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1))
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.norm = norm(width)
        blocks, inputs = [], width
        for stage in range(4):
            for at in range(2):
                blocks.append(Block(inputs, width << stage, 2 if stage and not at else 1, norm))
                inputs = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)
        self.redraws = False

    def draw_path(self) -> None:
        """Draw a norm for each layer, the same for all images until the next draw."""
        for module in self.modules():
            if isinstance(module, RandomNorm):
                module.taken = random.randrange(len(module.norms))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.redraws:
            self.draw_path()
        x = F.relu(self.norm(self.stem((x - self.mean) / self.std)))
        return self.head(self.blocks(x).mean((2, 3)))


def images(folder: str | Path, count: int, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first test images (N, 3, 32, 32) of a CIFAR-10 in its binary layout, in [0, 1], and their labels."""
    rows = np.fromfile(Path(folder) / "cifar-10-batches-bin" / "test_batch.bin", dtype=np.uint8).reshape(-1, 3073)
    rows = torch.from_numpy(rows[:count]).to(device)
    return rows[:, 1:].reshape(-1, 3, 32, 32).float() / 255, rows[:, 0].long()


def pgd(network: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> torch.Tensor:
    """Return images within ε of x that PGD found, from a random start."""
    delta = torch.empty_like(x).uniform_(-EPS, EPS)
    for _ in range(steps):
        x_adv = (x + delta).clamp(0, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(x_adv), y), x_adv)
        delta = (x_adv.detach() + STEP * gradient.sign() - x).clamp(-EPS, EPS)
    return (x + delta).clamp(0, 1)


def adversarial_step(
    network: ResNet18, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor, *, steps: int = 10,
    bf16: bool = False,
) -> float:
    """Make one update of Algorithm 1, attacked along one path and learned along another; return its loss."""
    network.train()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        network.draw_path()
        x_adv = pgd(network, x, y, steps)
        network.draw_path()
        loss = F.cross_entropy(network(x_adv), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def sgd(network: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    """Return the optimiser of Section 5.1."""
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
