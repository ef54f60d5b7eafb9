"""Images of one's own: a folder with `train/<class>/*` and `test/<class>/*`, decoded once into memory.

What of other data sets is published is found here when a plan is made: the classes, which are the folders' names in
order, how many images there are, their side, and the training images' mean and deviation.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rna_ray.data.files import entries
from rna_ray.data.image_files import ImageFiles, common_side
from rna_ray.data.records import DataInfo, Dataset, Split
from rna_ray.errors import DataError

NAME = "folder"
TRAIN = "train"
#: What the folder of the test images may be called; where there are both, the second is left alone.
TEST = ("test", "val")
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")

_WANTED = "train/CLASS/ and test/CLASS/, a folder for each class, with images in them"


@dataclasses.dataclass(frozen=True)
class _Files:
    """A split's folder, and its files in the order of its examples: CLASS/NAME of each."""

    folder: Path
    names: tuple[str, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in self.names)


def files(root: Path | None, download: bool = False) -> tuple[Path, ...]:
    """Return the training images' files, then the test images'; nothing is opened, nor downloaded."""
    _, train, test = _listed(root)
    return train.paths + test.paths


def load(root: Path | None, download: bool = False, side: int | None = None) -> Dataset:
    """Return the images in RGB, grey ones too, as squares of a side in pixels; None where they are such squares.

    Else each is resized until its shorter side is that, and its centre taken. Examples are in the order of a digest of
    their class and name: it mixes the classes, and one image more or less leaves the others in theirs. Raises DataError
    where a folder, a class or its images are missing, or a file is no image.
    """
    classes, *listed = _listed(root)
    side = side or common_side([path for each in listed for path in each.paths])
    label = {name: index for index, name in enumerate(classes)}
    train, test = (
        Split(
            images=ImageFiles(each.folder, each.names, side=side, shorter=side)[:],
            labels=np.array([label[os.path.dirname(name)] for name in each.names], np.int64),
        )
        for each in listed
    )
    state = hashlib.blake2b(json.dumps([side, classes, *(each.names for each in listed)]).encode(), digest_size=16)
    for split in (train, test):
        state.update(split.images)
    return Dataset(
        name=NAME, train=train, test=test, classes=classes, origin=f"images of a folder, read from {root}",
        digest=state.hexdigest(),
    )  # fmt: skip


def found(dataset: Dataset) -> dict[str, Any]:
    """Return what the settings of units say of a folder, as JSON values, beside the digest of its content."""
    mean, std = _moments(dataset.train.images[:])
    return {
        "classes": list(dataset.classes), "side": dataset.train.images.shape[-1], "train": len(dataset.train),
        "test": len(dataset.test), "mean": mean, "std": std,
    }  # fmt: skip


def info(found: Mapping[str, Any]) -> DataInfo:
    """Return the record of a folder in which this was found."""
    return dataclasses.replace(
        INFO, shape=(3, found["side"], found["side"]), classes=len(found["classes"]), train_examples=found["train"],
        test_examples=found["test"], mean=tuple(found["mean"]), std=tuple(found["std"]),
    )  # fmt: skip


def _moments(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Return each channel's mean and deviation in [0, 1], to four digits; one that is constant is divided by 1."""
    levels, mean, std = np.arange(256) / 255, [], []
    for channel in range(images.shape[1]):
        counts = sum(np.bincount(image.ravel(), minlength=256) for image in images[:, channel])
        at = np.average(levels, weights=counts)
        mean.append(round(float(at), 4))
        std.append(round(float(np.average((levels - at) ** 2, weights=counts)) ** 0.5, 4) or 1.0)
    return mean, std


def _listed(root: Path | None) -> tuple[tuple[str, ...], _Files, _Files]:
    """Return the classes, which are those of the training images, and the files of both splits."""
    if root is None:
        raise DataError(f"images of your own need data.root, a folder that holds {_WANTED}")
    if not os.path.isdir(root):
        raise DataError(f"no folder {root}: set data.root to one that holds {_WANTED}")
    test = next((name for name in TEST if os.path.isdir(root / name)), None)
    if test is None or not os.path.isdir(root / TRAIN):
        lacking = f"{TRAIN}/" if test else " or ".join(f"{name}/" for name in TEST)
        raise DataError(f"{root} lacks {lacking}: it must hold {_WANTED}")
    classes, tested = (
        tuple(sorted(entry.name for entry in entries(root / name, folders=True))) for name in (TRAIN, test)
    )
    for name, there, least in ((TRAIN, classes, 2), (test, tested, 1)):
        if len(there) < least:
            raise DataError(f"{root / name} holds {len(there)} class folders, and must hold at least {least}")
    if strangers := sorted({*tested} - {*classes}):
        raise DataError(f"{root / test} has a class {strangers[0]}, and {root / TRAIN} has no folder of that name")
    return classes, _files(root / TRAIN, classes), _files(root / test, tested)


def _files(folder: Path, classes: tuple[str, ...]) -> _Files:
    names = []
    for name in classes:
        there = [entry.name for entry in entries(folder / name, folders=False)]
        chosen = [f"{name}/{file}" for file in there if file.lower().endswith(ENDINGS)]
        if not chosen:
            raise DataError(f"{folder / name} holds no image: its files must end in {', '.join(ENDINGS)}")
        names += chosen
    return _Files(folder, tuple(sorted(names, key=_mixed)))


def _mixed(name: str) -> bytes:
    return hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=16).digest()


INFO = DataInfo(
    name=NAME,
    # These are found: see `info`.
    shape=(3, 0, 0),
    classes=0,
    train_examples=0,
    test_examples=0,
    mean=(),
    std=(),
    augment="none",
    needs_root=True,
    files=files,
    load=load,
)
