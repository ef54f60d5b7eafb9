"""What a data set is once decoded, and what is known of it before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rna_ray.data.image_files import ImageFiles


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images and their labels, in the publisher's order.

    `images` is uint8 (N, C, H, W), C-contiguous, or files that look like it when indexed; `labels` is int64 (N,).
    """

    images: np.ndarray | ImageFiles
    labels: np.ndarray

    def __post_init__(self) -> None:
        assert self.images.dtype == np.uint8 and len(self.images.shape) == 4
        assert isinstance(self.images, ImageFiles) or self.images.flags.c_contiguous
        assert self.labels.dtype == np.int64 and self.labels.shape == self.images.shape[:1]

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, index: np.ndarray | slice) -> Split:
        """Return the examples with these indices, a slice of them without a copy; what lies in files stays there."""
        images = self.images.part(index) if isinstance(self.images, ImageFiles) else self.images[index]
        return Split(images=images, labels=self.labels[index])


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A data set in memory, or in files that are decoded when asked for.

    `origin` is one sentence on where it came from; `digest` stands for the content of one that came with it.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    origin: str
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """What is known of a data set without reading it; of a folder of images, what a plan found in it.

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
    #: (root, download) → the data set; DataError if it is missing or damaged. A folder's takes the side, too.
    load: Callable[..., Dataset]
    #: (root, download) → every file that decides the images and labels, in reading order; DataError if any lacks. None
    #: where there are too many files to read them for a digest.
    files: Callable[[Path | None, bool], tuple[Path, ...]] | None = None
    #: Where `files` is None, (root, download) → the digest that stands for the content; DataError if it is missing.
    digest: Callable[[Path | None, bool], str] | None = None

    def __post_init__(self) -> None:
        assert (self.files is None) != (self.digest is None)

    @property
    def in_files(self) -> bool:
        """Whether images stay in their files, and are decoded when they are asked for."""
        return self.files is None
