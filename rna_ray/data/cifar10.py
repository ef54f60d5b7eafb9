"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32x32 RGB, in ten classes.

Read in either form that its author publishes: the binary version, and the Python version that torchvision keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from rna_ray.data.fetch import Remote, extract, fetch, new_folder
from rna_ray.data.files import Layout, locate, read
from rna_ray.data.pickles import read_pickle
from rna_ray.data.records import DataInfo, Dataset, Split
from rna_ray.errors import DataError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BINARY_FOLDER, PYTHON_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"

_PICKLES_MD5 = MappingProxyType({
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
})  # fmt: skip
_ARCHIVE = Remote(
    urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",), md5="c32a1d4ab5d03f1284b67883e8d87530"
)


@dataclass(frozen=True, kw_only=True)
class Release:
    """What the publisher says of the files: the last batch is the test set."""

    pickles_md5: Mapping[str, str] = field(default_factory=lambda: _PICKLES_MD5)
    images_per_file: int = 10_000
    archive: Remote = _ARCHIVE

    @property
    def binaries(self) -> tuple[str, ...]:
        return tuple(f"{name}.bin" for name in self.pickles_md5)


PUBLISHED = Release()


def files(root: Path | None, download: bool = False, release: Release = PUBLISHED) -> tuple[Path, ...]:
    """Return the batches in order, the test batch last; the Python version first, since its checksums are known."""

    def layouts(root: Path) -> list[Layout]:
        pickles, binaries = tuple(release.pickles_md5), release.binaries
        return [
            Layout(root / PYTHON_FOLDER, pickles),
            Layout(root, pickles),
            Layout(root / BINARY_FOLDER, binaries),
            Layout(root, binaries),
        ]

    return locate("CIFAR-10", root, layouts, (lambda root: _fetch(root, release)) if download else None)


def load(root: Path | None, download: bool = False, release: Release = PUBLISHED) -> Dataset:
    """Return CIFAR-10 from the folder `root`, downloaded into it if missing and `download`."""
    batches = files(root, download, release)
    binary = batches[0].suffix == ".bin"
    decoded = [(_from_binary if binary else _from_pickle)(path, release) for path in batches]
    version = "the binary version (sizes checked)" if binary else "the Python version (checksums as published)"
    return Dataset(
        name="cifar10",
        train=_join(decoded[:-1]),
        test=_join(decoded[-1:]),
        classes=CLASSES,
        origin=f"CIFAR-10, {version}, read from {batches[0].parent}",
    )


def _from_binary(path: Path, release: Release) -> Split:
    """Decode records of one label byte and 3,072 pixel bytes (red, green, blue planes, row by row)."""
    content, expected = read(path), release.images_per_file * (1 + PIXELS)
    if len(content) != expected:
        raise DataError(
            f"{path} holds {len(content):,} bytes where {expected:,} are expected "
            f"({release.images_per_file:,} images of {1 + PIXELS:,} bytes)"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + PIXELS)
    return _split(path, records[:, 1:], records[:, 0])


def _from_pickle(path: Path, release: Release) -> Split:
    """Decode a dictionary of "data", uint8 (N, 3072), and "labels", N integers."""
    entry = read_pickle(path, release.pickles_md5[path.name])
    data = entry.get("data") if isinstance(entry, dict) else None
    labels = entry.get("labels") if isinstance(entry, dict) else None
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and isinstance(labels, list)):
        raise DataError(f"{path} does not hold 'data' (a uint8 array) and 'labels' (a list)")
    if data.shape != (release.images_per_file, PIXELS) or len(labels) != len(data):
        raise DataError(
            f"{path} holds data of shape {data.shape} and {len(labels):,} labels where "
            f"({release.images_per_file}, {PIXELS}) and {release.images_per_file:,} are expected"
        )
    return _split(path, data, np.asarray(labels))


def _split(path: Path, rows: np.ndarray, labels: np.ndarray) -> Split:
    wrong = np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))
    if wrong.size:
        first = wrong[0]
        raise DataError(f"{path} labels image {first} as {labels[first]} where 0 to {len(CLASSES) - 1} is expected")
    return Split(images=np.ascontiguousarray(rows).reshape(-1, *SHAPE), labels=labels.astype(np.int64))


def _join(splits: Iterable[Split]) -> Split:
    images, labels = zip(*((split.images, split.labels) for split in splits), strict=True)
    return Split(images=np.concatenate(images), labels=np.concatenate(labels))


def _fetch(root: Path, release: Release) -> None:
    """Download the binary version into `root`: its archive is checked before it is opened."""
    with new_folder(root / BINARY_FOLDER) as folder:
        archive = folder / "cifar-10-binary.tar.gz"
        fetch(release.archive, archive)
        extract(archive, (f"{BINARY_FOLDER}/{name}" for name in release.binaries), folder)
        archive.unlink()


INFO = DataInfo(
    name="cifar10",
    shape=SHAPE,
    classes=10,
    train_examples=50_000,
    test_examples=10_000,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    augment="crop-flip",
    needs_root=True,
    files=files,
    load=load,
)
