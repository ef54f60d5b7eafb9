"""What a data set is once decoded, and what is known of it before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images and their labels, in the publisher's order.

    `images` is uint8 (N, C, H, W), C-contiguous; `labels` is int64 (N,).
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        assert self.images.dtype == np.uint8 and self.images.ndim == 4 and self.images.flags.c_contiguous
        assert self.labels.dtype == np.int64 and self.labels.shape == self.images.shape[:1]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A data set in memory; `origin` is one sentence on where it came from."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    origin: str


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """What is known of a data set without reading it.

    To add one: write `<name>.py` with an `INFO` of this type, and list it in `registry.py`.
    """

    name: str
    #: (C, H, W) of one image.
    shape: tuple[int, int, int]
    #: Number of classes.
    classes: int
    train_examples: int
    test_examples: int
    #: Per-channel mean of the training images in [0, 1].
    mean: tuple[float, ...]
    #: Per-channel standard deviation of the training images in [0, 1].
    std: tuple[float, ...]
    #: Name of the augmentation that training uses unless told otherwise.
    augment: str
    #: Whether the files are looked for under a folder that the user names (data.root).
    needs_root: bool
    #: (root, download) → every file that decides the images and labels, in reading order; DataError if any lacks.
    files: Callable[[Path | None, bool], tuple[Path, ...]]
    #: (root, download) → the decoded data set; DataError if it is missing or damaged.
    load: Callable[[Path | None, bool], Dataset]
