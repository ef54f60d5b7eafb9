"""Images decoded from their files when they are asked for, with Pillow."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rna_ray.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Box = tuple[int, int, int, int]  # left, top, right, bottom
ATTEMPTS = 10
"""How many crops are drawn for an image until one fits into it."""
AREAS, RATIOS = (0.08, 1.0), (3 / 4, 4 / 3)
"""The part of an image's area that a crop takes, and its width against its height (Szegedy et al. 2015)."""


class ImageFiles:
    """N images in files of any size, that look like a uint8 array (N, 3, side, side).

    An index gives the images resized until their shorter side is `shorter`, and of that the centre. Nothing is kept:
    what is indexed again is decoded again.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, folder: Path, names: Sequence[str], *, side: int, shorter: int) -> None:
        self.folder, self.names, self.side, self.shorter = folder, names, side, shorter

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.names), 3, self.side, self.side

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        """Return uint8 (n, 3, side, side) for a slice or for n indices; DataError where a file is no image."""
        chosen = np.arange(len(self))[index]
        return self._decode(chosen, [self._centre] * len(chosen))

    def resized_crops(self, index: np.ndarray, draws_NA4: np.ndarray) -> np.ndarray:
        """Return uint8 (n, 3, side, side): of each image the crop of its draws (see `crop_box`), resized."""

        def cropped(draws_A4: np.ndarray) -> Callable[[Image], Image]:
            return lambda image: self._resized(image.crop(crop_box(*image.size, draws_A4)), (self.side, self.side))

        return self._decode(index, [cropped(draws_A4) for draws_A4 in draws_NA4])

    def part(self, index: np.ndarray | slice) -> ImageFiles:
        """Return the images with these indices, none of them decoded."""
        names = [self.names[at] for at in np.arange(len(self.names))[index]]
        return ImageFiles(self.folder, names, side=self.side, shorter=self.shorter)

    def _decode(self, index: np.ndarray, prepare: Sequence[Callable[[Image], Image]]) -> np.ndarray:
        images = np.empty((len(index), *self.shape[1:]), np.uint8)

        def decode(row: int) -> None:
            with _open(self.folder / self.names[index[row]]) as image:
                images[row] = np.asarray(prepare[row](image)).transpose(2, 0, 1)

        for _ in _threads().map(decode, range(len(index))):
            pass  # to raise what a thread raised
        return images

    def _centre(self, image: Image) -> Image:
        width, height = image.size
        short = min(width, height)
        size = (self.shorter * width // short, self.shorter * height // short)
        left, top = (round((length - self.side) / 2) for length in size)
        return self._resized(image, size).crop((left, top, left + self.side, top + self.side))

    @staticmethod
    def _resized(image: Image, size: tuple[int, int]) -> Image:
        from PIL.Image import Resampling

        return image.resize(size, Resampling.BILINEAR)


def crop_box(width: int, height: int, draws_A4: np.ndarray) -> Box:
    """Return a random crop of an image, the first of some attempts that fits into it.

    An attempt is four draws from [0, 1): which area, which ratio of width and height (in logarithms), how far down and
    across. Where none fits, the largest central crop of an allowed ratio.
    """
    low, high = (math.log(ratio) for ratio in RATIOS)
    for area, ratio, down, across in draws_A4.tolist():
        target = width * height * (AREAS[0] + area * (AREAS[1] - AREAS[0]))
        aspect = math.exp(low + ratio * (high - low))
        wide, tall = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            left, top = int(across * (width - wide + 1)), int(down * (height - tall + 1))
            return left, top, left + wide, top + tall
    wide, tall = min(width, round(height * RATIOS[1])), min(height, round(width / RATIOS[0]))
    left, top = (width - wide) // 2, (height - tall) // 2
    return left, top, left + wide, top + tall


def common_side(paths: Sequence[Path]) -> int:
    """Return the side in pixels of images that are squares of one size, as their headers say; else DataError."""
    sizes = {}
    for path in paths:
        with _opened(path) as image:
            sizes.setdefault(image.size, path)
    ((width, height), path), *others = sizes.items()
    if others or width != height:
        beside = "".join(f" and {other} {across}×{down}" for (across, down), other in others[:1]) or ", no square"
        raise DataError(
            f"{path} has {width}×{height} pixels{beside}: set data.side to the side of the squares that all become"
        )
    return width


def _open(path: Path) -> Image:
    """Return an image in RGB, whatever it is in its file."""
    with _opened(path) as image:
        if image.mode[0] in "IF":  # which Pillow would clip at 255
            raise ValueError("it has more than 8 bits a channel")
        return image.convert("RGB")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Open an image inside the block, of which nothing is decoded yet; what goes wrong there is a DataError."""
    from PIL import Image  # here, as a plan of ImageNet decodes nothing

    try:
        with Image.open(path) as image:
            yield image
    except Exception as error:  # a damaged image can raise anything
        raise DataError(f"cannot read the image {path}: {error}") from error


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Return this process's decoding threads, one a CPU: Pillow decodes without holding Python's lock."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")
