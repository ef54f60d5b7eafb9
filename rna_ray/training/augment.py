"""Augmentation in batches, on the images' own device."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from rna_ray.randomness import Randomness

PADDING = 4


def augment(x: torch.Tensor, kind: str, random: Randomness, examples: torch.Tensor) -> torch.Tensor:
    """Return images (N, C, H, W) cropped at random after padding by 4 zeros, and with `crop-flip` mirrored by half."""
    if kind == "none":
        return x
    rows, columns, flip = random.integers("augment", examples, [2 * PADDING + 1, 2 * PADDING + 1, 2]).unbind(1)
    n, channels, height, width = x.shape
    down = rows[:, None] + torch.arange(height, device=x.device)
    across = columns[:, None] + torch.arange(width, device=x.device)
    if kind == "crop-flip":
        across = torch.where(flip[:, None].bool(), across.flip(1), across)
    padded = F.pad(x, (PADDING,) * 4)
    image = torch.arange(n, device=x.device).view(n, 1, 1, 1)
    channel = torch.arange(channels, device=x.device).view(1, channels, 1, 1)
    return padded[image, channel, down[:, None, :, None], across[:, None, None, :]]
