"""A network that its owner trained on the digits for a moment, before rna-ray hears of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from rna_ray import data


def learned(build: Callable[[], nn.Module]) -> nn.Module:
    """Return what `build` builds, always the same, after 40 steps of Adam on all training images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build()
    train = data.load("digits").train
    x, y = torch.from_numpy(train.images).float() / 255, torch.from_numpy(train.labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()
