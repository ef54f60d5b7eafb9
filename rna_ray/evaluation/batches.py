"""Batches of test images: always the same size, the last one padded by its own first images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, final

import numpy as np
import torch

from rna_ray.data import Split


@final
@dataclasses.dataclass(frozen=True)
class Batch:
    """Images (N, C, H, W) in [0, 1], their labels (N,) and indices (N,), on the device that attacks them."""

    x: torch.Tensor
    y: torch.Tensor
    examples: torch.Tensor
    real: int
    """How many images are not padding."""

    @classmethod
    def cut(cls, images: Split, start: int, stop: int, size: int, device: torch.device) -> Batch:
        """Return the images [start, stop), repeated up to `size`."""
        index = np.resize(np.arange(start, stop), size)
        x = torch.from_numpy(images.images[index]).to(device).float() / 255
        y = torch.from_numpy(images.labels[index]).to(device)
        return cls(x, y, torch.from_numpy(index).to(device), stop - start)

    def rows(self, **columns: Any) -> list[dict[str, Any]]:
        """Return one row for each image that is not padding: from each column's tensor (N,), or its one value."""
        columns = {"example": self.examples, **columns}
        values = {
            name: value[: self.real].tolist() if isinstance(value, torch.Tensor) else [value] * self.real
            for name, value in columns.items()
        }
        return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def batches(images: Split, examples: tuple[int, int], size: int, device: torch.device) -> Iterator[Batch]:
    """Yield the batches of the images [start, stop)."""
    start, stop = examples
    for first in range(start, stop, size):
        yield Batch.cut(images, first, min(first + size, stop), size, device)
