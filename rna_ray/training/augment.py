"""Augmentation in batches: of images on their device, or as they are decoded from their files."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from rna_ray.data.image_files import ATTEMPTS, ImageFiles
from rna_ray.randomness import Randomness

PADDING = 4


class DecodedImages:
    """Images in files, to be indexed like a uint8 tensor (N, C, H, W) on a device: decoded, then brought there."""

    def __init__(self, files: ImageFiles, device: torch.device) -> None:
        self.files, self.device = files, device

    def __getitem__(self, index: torch.Tensor | slice) -> torch.Tensor:
        return self._there(self.files[index if isinstance(index, slice) else index.cpu().numpy()])

    def resized_crops(self, random: Randomness, examples: torch.Tensor) -> torch.Tensor:
        """Return uint8 (n, C, H, W): a random part of each image, resized."""
        draws = random.uniform("resized-crop", examples.cpu(), (ATTEMPTS, 4))
        return self._there(self.files.resized_crops(examples.cpu().numpy(), draws.numpy()))

    def _there(self, images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).to(self.device)


def on_device(images: np.ndarray | ImageFiles, device: torch.device) -> torch.Tensor | DecodedImages:
    """Return images as uint8 (N, C, H, W) on a device: all of them, or where they lie in files, those indexed."""
    return DecodedImages(images, device) if isinstance(images, ImageFiles) else torch.from_numpy(images).to(device)


def read(
    images: torch.Tensor | DecodedImages, kind: str, random: Randomness, examples: torch.Tensor
) -> torch.Tensor:
    """Return the images with these indices in [0, 1], augmented: a function of the draws and the example alone.

    `resized-crop-flip`, for images in files only, takes a random part of each file's image (ImageNet's usual way).
    """
    if kind != "resized-crop-flip":
        return augment(images[examples].float() / 255, kind, random, examples)
    x = images.resized_crops(random, examples).float() / 255
    flip = random.integers("flip", examples, [2])
    return torch.where(flip[:, :, None, None].bool(), x.flip(3), x)


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
