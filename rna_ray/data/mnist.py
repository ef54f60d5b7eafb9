"""MNIST (LeCun, Cortes, Burges): 60,000 training and 10,000 test images of 28x28 grey, in ten classes."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rna_ray.data.fetch import Remote, fetch, new_folder
from rna_ray.data.files import Layout, locate, read
from rna_ray.data.records import DataInfo, Dataset, Split
from rna_ray.errors import DataError

SIDE = 28
_MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
_GZIPPED_MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
NAMES = tuple(_GZIPPED_MD5)


def _published() -> tuple[Remote, ...]:
    return tuple(
        Remote(urls=tuple(f"{mirror}{name}.gz" for mirror in _MIRRORS), md5=md5) for name, md5 in _GZIPPED_MD5.items()
    )


@dataclass(frozen=True, kw_only=True)
class Release:
    """What the publisher says of the files; `gzipped` is in the order of `NAMES`."""

    train_images: int = 60_000
    test_images: int = 10_000
    gzipped: tuple[Remote, ...] = field(default_factory=_published)


PUBLISHED = Release()


def files(root: Path | None, download: bool = False, release: Release = PUBLISHED) -> tuple[Path, ...]:
    """Return training images, training labels, test images and test labels, gzipped or not."""

    def layouts(root: Path) -> list[Layout]:
        return [Layout(folder, NAMES, ("", ".gz")) for folder in (root, root / "MNIST" / "raw", root / "raw")]

    return locate("MNIST", root, layouts, (lambda root: _fetch(root, release)) if download else None)


def load(root: Path | None, download: bool = False, release: Release = PUBLISHED) -> Dataset:
    """Return MNIST from the folder `root`, downloaded into it if missing and `download`."""
    train_images, train_labels, test_images, test_labels = files(root, download, release)
    return Dataset(
        name="mnist",
        train=_split(train_images, train_labels, release.train_images),
        test=_split(test_images, test_labels, release.test_images),
        classes=tuple("0123456789"),
        origin=f"MNIST, idx files checked for their headers and sizes, read from {train_images.parent}",
    )


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the uint8 array of an idx file, gzipped or not, which must be of this shape.

    Its header: two zero bytes, the type (8: unsigned byte), the number of axes, and each axis as a big-endian uint32.
    """
    content = _unzipped(path)
    header = bytes([0, 0, 8, len(shape)]) + np.asarray(shape, ">u4").tobytes()
    if content[:4] != header[:4]:
        raise DataError(f"{path} begins with {_hex(content[:4])} where the idx magic {_hex(header[:4])} is expected")
    if len(content) >= len(header) and content[: len(header)] != header:
        found = tuple(np.frombuffer(content[4 : len(header)], ">u4").tolist())
        raise DataError(f"{path} says its shape is {found} where {shape} is expected")
    expected = len(header) + int(np.prod(shape))
    if len(content) != expected:
        raise DataError(f"{path} holds {len(content):,} bytes where {expected:,} are expected")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _split(images: Path, labels: Path, count: int) -> Split:
    image_NHW, label_N = read_idx(images, (count, SIDE, SIDE)), read_idx(labels, (count,))
    if label_N.max(initial=0) > 9:
        raise DataError(f"{labels} holds the label {label_N.max()} where 0 to 9 is expected")
    return Split(images=image_NHW[:, None].copy(), labels=label_N.astype(np.int64))


def _unzipped(path: Path) -> bytes:
    """Return the content, told to be gzipped or not by its first bytes: people rename files."""
    content = read(path)
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file: {error}") from error


def _hex(content: bytes) -> str:
    return f"0x{content.hex()}"


def _fetch(root: Path, release: Release) -> None:
    """Download the four files into `root`, where torchvision keeps them too."""
    with new_folder(root / "MNIST" / "raw") as folder:
        for name, remote in zip(NAMES, release.gzipped, strict=True):
            fetch(remote, folder / f"{name}.gz")


INFO = DataInfo(
    name="mnist",
    shape=(1, SIDE, SIDE),
    classes=10,
    train_examples=60_000,
    test_examples=10_000,
    mean=(0.1307,),
    std=(0.3081,),
    augment="none",
    needs_root=True,
    files=files,
    load=load,
)
