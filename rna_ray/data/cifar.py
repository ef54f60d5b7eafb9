"""The files of CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32x32 RGB.

Read in either form that their author publishes: the binary version, and the Python version that torchvision keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from rna_ray.data.fetch import Remote, extract, fetch, new_folder
from rna_ray.data.files import Layout, locate, read
from rna_ray.data.pickles import read_pickle
from rna_ray.data.records import DataInfo, Dataset, Split
from rna_ray.errors import DataError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32


@dataclass(frozen=True, kw_only=True)
class Release:
    """What the publisher says of the files of one of the two; the last file is the test set."""

    name: str
    title: str
    classes: tuple[str, ...]
    pickles_md5: Mapping[str, str]
    """The files of the Python version in reading order, and their checksums."""
    images: tuple[int, ...]
    """The number of images in each file."""
    label_key: str
    """Under which key the Python version holds the labels."""
    label_bytes: int
    """How many label bytes the binary version has before an image; the last one is the label."""
    binary_folder: str
    python_folder: str
    archive: Remote
    """The binary version."""

    @property
    def binaries(self) -> tuple[str, ...]:
        return tuple(f"{name}.bin" for name in self.pickles_md5)


def info(release: Release, *, mean: tuple[float, ...], std: tuple[float, ...]) -> DataInfo:
    """Return the record of a release as published."""
    return DataInfo(
        name=release.name,
        shape=SHAPE,
        classes=len(release.classes),
        train_examples=sum(release.images[:-1]),
        test_examples=release.images[-1],
        mean=mean,
        std=std,
        augment="crop-flip",
        needs_root=True,
        files=partial(files, release=release),
        load=partial(load, release=release),
    )


def files(root: Path | None, download: bool = False, *, release: Release) -> tuple[Path, ...]:
    """Return the files in order, the test set's last; the Python version first, since its checksums are known."""

    def layouts(root: Path) -> list[Layout]:
        pickles, binaries = tuple(release.pickles_md5), release.binaries
        return [
            Layout(root / release.python_folder, pickles),
            Layout(root, pickles),
            Layout(root / release.binary_folder, binaries),
            Layout(root, binaries),
        ]

    return locate(release.title, root, layouts, (lambda root: _fetch(root, release)) if download else None)


def load(root: Path | None, download: bool = False, *, release: Release) -> Dataset:
    """Return the data set from the folder `root`, downloaded into it if missing and `download`."""
    found = files(root, download, release=release)
    binary = found[0].suffix == ".bin"
    read_one = _from_binary if binary else _from_pickle
    decoded = [read_one(path, images, release) for path, images in zip(found, release.images, strict=True)]
    version = "the binary version (sizes checked)" if binary else "the Python version (checksums as published)"
    return Dataset(
        name=release.name,
        train=_join(decoded[:-1]),
        test=_join(decoded[-1:]),
        classes=release.classes,
        origin=f"{release.title}, {version}, read from {found[0].parent}",
    )


def _from_binary(path: Path, images: int, release: Release) -> Split:
    """Decode records of the label bytes and 3,072 pixel bytes (red, green, blue planes, row by row)."""
    size = release.label_bytes + PIXELS
    content, expected = read(path), images * size
    if len(content) != expected:
        raise DataError(
            f"{path} holds {len(content):,} bytes where {expected:,} are expected ({images:,} images of {size:,} bytes)"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    return _split(path, records[:, release.label_bytes :], records[:, release.label_bytes - 1], release)


def _from_pickle(path: Path, images: int, release: Release) -> Split:
    """Decode a dictionary of "data", uint8 (N, 3072), and the labels, N integers."""
    entry, key = read_pickle(path, release.pickles_md5[path.name]), release.label_key
    data = entry.get("data") if isinstance(entry, dict) else None
    labels = entry.get(key) if isinstance(entry, dict) else None
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and isinstance(labels, list)):
        raise DataError(f"{path} does not hold 'data' (a uint8 array) and {key!r} (a list)")
    if data.shape != (images, PIXELS) or len(labels) != len(data):
        raise DataError(
            f"{path} holds data of shape {data.shape} and {len(labels):,} labels where "
            f"({images}, {PIXELS}) and {images:,} are expected"
        )
    return _split(path, data, np.asarray(labels), release)


def _split(path: Path, rows: np.ndarray, labels: np.ndarray, release: Release) -> Split:
    highest = len(release.classes) - 1
    wrong = np.flatnonzero((labels < 0) | (labels > highest))
    if wrong.size:
        first = wrong[0]
        raise DataError(f"{path} labels image {first} as {labels[first]} where 0 to {highest} is expected")
    return Split(images=np.ascontiguousarray(rows).reshape(-1, *SHAPE), labels=labels.astype(np.int64))


def _join(splits: Iterable[Split]) -> Split:
    images, labels = zip(*((split.images, split.labels) for split in splits), strict=True)
    return Split(images=np.concatenate(images), labels=np.concatenate(labels))


def _fetch(root: Path, release: Release) -> None:
    """Download the binary version into `root`: its archive is checked before it is opened."""
    with new_folder(root / release.binary_folder) as folder:
        archive = folder / release.archive.urls[0].rpartition("/")[2]
        fetch(release.archive, archive)
        extract(archive, (f"{release.binary_folder}/{name}" for name in release.binaries), folder)
        archive.unlink()
