"""Digits (Alpaydin & Kaynak 1998, UCI): 1,797 handwritten digits of 8x8 grey that ship inside scikit-learn."""

from __future__ import annotations

import gzip
import importlib.util
import io
import zlib
from pathlib import Path

import numpy as np

from rna_ray.data.files import read
from rna_ray.data.records import DataInfo, Dataset, Split
from rna_ray.errors import DataError

EXAMPLES, TRAIN_EXAMPLES = 1_797, 1_437
SIDE, LEVELS = 8, 16
#: Seed of the permutation whose first 1,437 images train and whose last 360 test. It never changes.
SPLIT_SEED = 0


def files(root: Path | None = None, download: bool = False) -> tuple[Path, ...]:
    """Return the one file, found without importing scikit-learn; there is nothing to download, so both are ignored."""
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("the digits ship inside scikit-learn, which is not installed: install scikit-learn")
    return (Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz",)


def load(root: Path | None = None, download: bool = False) -> Dataset:
    """Return the digits, split by a fixed permutation into 1,437 for training and 360 for testing.

    Writers are not kept apart: the same hand may have written images of both splits.
    """
    (path,) = files()
    images, labels = _decode(path)
    order = split_order()
    train, test = order[:TRAIN_EXAMPLES], order[TRAIN_EXAMPLES:]
    return Dataset(
        name="digits",
        train=Split(images=images[train], labels=labels[train]),
        test=Split(images=images[test], labels=labels[test]),
        classes=tuple("0123456789"),
        origin=f"the UCI handwritten digits that ship inside scikit-learn, read from {path}",
    )


def split_order() -> np.ndarray:
    """Return the fixed permutation of the file's rows."""
    # RandomState, not Generator: only its streams are promised never to change between numpy versions (NEP 19).
    return np.random.RandomState(SPLIT_SEED).permutation(EXAMPLES)


def _decode(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images (1797, 1, 8, 8) and int64 labels from rows of 64 pixels, 0 to 16, and a label."""
    try:
        rows = np.loadtxt(io.BytesIO(gzip.decompress(read(path))), delimiter=",")
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if rows.shape != (EXAMPLES, SIDE * SIDE + 1):
        raise DataError(f"{path} holds a table of {rows.shape} where {(EXAMPLES, SIDE * SIDE + 1)} is expected")
    levels = rows[:, :-1]
    if levels.min() < 0 or levels.max() > LEVELS:
        raise DataError(f"{path} holds pixels from {levels.min():g} to {levels.max():g} where 0 to 16 is expected")
    images = np.rint(levels * 255 / LEVELS).astype(np.uint8).reshape(-1, 1, SIDE, SIDE)
    return images, rows[:, -1].astype(np.int64)


INFO = DataInfo(
    name="digits",
    shape=(1, SIDE, SIDE),
    classes=10,
    train_examples=TRAIN_EXAMPLES,
    test_examples=EXAMPLES - TRAIN_EXAMPLES,
    # Of the 1,437 training images as decoded here.
    mean=(0.3054,),
    std=(0.3757,),
    augment="none",
    needs_root=False,
    files=files,
    load=load,
)
