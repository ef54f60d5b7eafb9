"""ImageNet (ILSVRC 2012; Russakovsky et al. 2015): 1.28 million training and 50,000 test images in 1,000 classes.

Read from image folders, `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`, as its users keep it. Its validation images are
the test set here, as everywhere. No image is decoded before it is asked for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rna_ray.data.files import entries
from rna_ray.data.image_files import ImageFiles
from rna_ray.data.records import DataInfo, Dataset, Split
from rna_ray.errors import DataError

SPLITS = ("train", "val")
ENDINGS = (".jpeg", ".jpg")
#: Bump it when what is made of a file changes, so that its digest does too.
DECODING = 1


@dataclass(frozen=True, kw_only=True)
class Release:
    """How many classes and images there are, and to which size they are brought."""

    classes: int = 1_000
    train_images: int = 1_281_167
    test_images: int = 50_000
    side: int = 224
    shorter: int = 256


PUBLISHED = Release()


@dataclass(frozen=True)
class _Files:
    """A split's files, in the order of its examples: relative names, and the size and the class of each."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    labels: tuple[int, ...]


def load(root: Path | None, download: bool = False, release: Release = PUBLISHED) -> Dataset:
    """Return ImageNet from the folder `root`, which has `train` and `val` in it; nothing is decoded, nor downloaded.

    Training images are in the order of their classes and names. Test images are in the order of their own names,
    which is the publisher's and mixes the classes, so that the first thousand say something of all.
    """
    folder = _folder(root)
    classes = _classes(folder, release)
    found = {split: _files(folder, split, classes, release) for split in SPLITS}
    train, test = (
        Split(
            images=ImageFiles(folder, files.names, side=release.side, shorter=release.shorter),
            labels=np.array(files.labels, np.int64),
        )
        for files in found.values()
    )
    return Dataset(
        name="imagenet",
        train=train,
        test=test,
        classes=classes,
        origin=f"ImageNet, image folders (files counted, their content unchecked), read from {folder}",
        digest=_digest(found.values(), release),
    )


def digest(root: Path | None, download: bool = False, release: Release = PUBLISHED) -> str:
    """Return blake2b-128, in hex, of the sorted names and the sizes of all files: what stands for the images in ids.

    Their pixels are not read, as 150 GB at every plan are too much: a file that gives way to another one of the same
    name and size goes unnoticed.
    """
    folder = _folder(root)
    classes = _classes(folder, release)
    return _digest((_files(folder, split, classes, release) for split in SPLITS), release)


def _digest(splits: Iterable[_Files], release: Release) -> str:
    state = hashlib.blake2b(f"{DECODING} {release.side} {release.shorter}\n".encode(), digest_size=16)
    for name, size in sorted(pair for files in splits for pair in zip(files.names, files.sizes, strict=True)):
        state.update(f"{name}\t{size}\n".encode(errors="surrogateescape"))
    return state.hexdigest()


def _folder(root: Path | None) -> Path:
    """Return the folder, which must hold one for each split."""
    if root is None:
        raise DataError("ImageNet is read from a folder: set data.root to the one that holds train and val")
    if lacking := [split for split in SPLITS if not os.path.isdir(root / split)]:
        raise DataError(
            f"no complete ImageNet under {root} (it lacks {' and '.join(lacking)}): put its images into "
            f"{root}/train/<wnid>/*.JPEG and {root}/val/<wnid>/*.JPEG; to be allowed to have them, sign up at "
            "image-net.org (rna-ray cannot fetch them)"
        )
    return root


def _classes(folder: Path, release: Release) -> tuple[str, ...]:
    """Return the names of the class folders, sorted; both splits must have the same ones."""
    train, test = (sorted(entry.name for entry in entries(folder / split, folders=True)) for split in SPLITS)
    if len(train) != release.classes:
        raise DataError(f"{folder}/train holds {len(train):,} folders where {release.classes:,} classes are expected")
    if strangers := sorted({*train} ^ {*test}):
        raise DataError(
            f"{folder}/train and {folder}/val must hold the same {release.classes:,} classes, a folder each, but "
            f"{strangers[0]} is in one of them only"
        )
    return tuple(train)


def _files(folder: Path, split: str, classes: tuple[str, ...], release: Release) -> _Files:
    expected = release.train_images if split == "train" else release.test_images
    try:
        found = [
            (f"{split}/{name}/{entry.name}", entry.stat().st_size, label)
            for label, name in enumerate(classes)
            for entry in entries(folder / split / name, folders=False)
            if entry.name.lower().endswith(ENDINGS)
        ]
    except OSError as error:  # a link that leads nowhere
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error
    if len(found) != expected:
        raise DataError(f"{folder}/{split} holds {len(found):,} JPEG images where {expected:,} are expected")
    if split == "train":
        found.sort()
    else:
        found.sort(key=lambda one: (one[0].rpartition("/")[2], one[0]))
    return _Files(*zip(*found, strict=True))


INFO = DataInfo(
    name="imagenet",
    shape=(3, PUBLISHED.side, PUBLISHED.side),
    classes=PUBLISHED.classes,
    train_examples=PUBLISHED.train_images,
    test_examples=PUBLISHED.test_images,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    augment="resized-crop-flip",
    needs_root=True,
    digest=digest,
    load=load,
)
