"""MNIST: idx files, gzipped or not, wherever people keep them; damaged ones are named."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rna_ray import data
from rna_ray.data import mnist
from rna_ray.data.digest import digest_of
from rna_ray.errors import DataError


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw"])
def test_every_place_and_form_gives_the_same_arrays(below: str, gzipped: bool, tiny_mnist, tmp_path: Path) -> None:
    loaded = mnist.load(tmp_path, release=tiny_mnist.write(tmp_path / below, gzipped))
    assert np.array_equal(loaded.train.images, tiny_mnist.train[:, None])
    assert loaded.test.images.shape == (3, 1, 28, 28)
    assert loaded.train.labels.tolist() == [0, 1, 2, 3, 4, 5] and loaded.test.labels.tolist() == [7, 8, 9]
    assert digest_of(loaded) == "e5df98209d2c0bbfa2050a9b4fb5bf5e"


def test_a_gzipped_file_is_told_by_its_content(tiny_mnist, tmp_path: Path) -> None:
    release = tiny_mnist.write(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert np.array_equal(mnist.load(tmp_path, release=release).train.images[:, 0], tiny_mnist.train)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-5], "holds 4,715 bytes where 4,720 are expected"),
        (lambda raw: raw + b"x", "holds 4,721 bytes where 4,720 are expected"),
        (lambda raw: raw[:9], "holds 9 bytes where 4,720 are expected"),
        (lambda raw: b"", "begins with 0x where the idx magic 0x00000803 is expected"),
        (lambda raw: b"\0\0\x08\x01" + raw[4:], "begins with 0x00000801 where the idx magic 0x00000803 is expected"),
        (lambda raw: raw[:7] + b"\x07" + raw[8:], "says its shape is (7, 28, 28) where (6, 28, 28) is expected"),
        (lambda raw: gzip.compress(raw)[:-20], "is a damaged gzip file"),
        (lambda raw: gzip.compress(raw)[:10] + b"\xff" * 50, "is a damaged gzip file"),
    ],
)
def test_a_damaged_file_is_named_with_what_was_found_and_expected(
    damage: Callable[[bytes], bytes], message: str, tiny_mnist, tmp_path: Path
) -> None:
    release = tiny_mnist.write(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=re.escape(f"{path} {message}")):
        mnist.load(tmp_path, release=release)


def test_a_label_out_of_range_is_named(tiny_mnist, tmp_path: Path) -> None:
    release = tiny_mnist.write(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(DataError, match=f"{path} holds the label 10 where 0 to 9 is expected"):
        mnist.load(tmp_path, release=release)


def test_an_incomplete_folder_says_what_to_put_where(tiny_mnist, tmp_path: Path) -> None:
    tiny_mnist.write(tmp_path / "raw", gzipped=True)
    (tmp_path / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        data.load("mnist", tmp_path)
    assert str(caught.value) == (
        f"no complete MNIST under {tmp_path} ({tmp_path}/raw lacks t10k-labels-idx1-ubyte): put "
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte "
        f"(each may end in .gz) into {tmp_path} or {tmp_path}/MNIST/raw or {tmp_path}/raw; "
        "or set data.download=true to fetch it"
    )


def test_the_published_files_are_torchvisions(torchvision_source) -> None:
    source = torchvision_source("mnist").partition("class FashionMNIST")[0]
    theirs = re.findall(r'\("(\S+-ubyte\.gz)", "(\w{32})"\)', source)
    assert [(remote.urls[0].rpartition("/")[2], remote.md5) for remote in mnist.PUBLISHED.gzipped] == theirs
    mirrors = re.findall(r'"(http\S+/)",', source.partition("mirrors = [")[2].partition("]")[0])
    assert all(
        remote.urls == tuple(mirror + name for mirror in mirrors)
        for remote, (name, _) in zip(mnist.PUBLISHED.gzipped, theirs, strict=True)
    )


def test_the_real_images_load(real_data: Path) -> None:
    loaded, record = data.load("mnist", real_data), data.record("mnist")
    assert loaded.train.images.shape == (60_000, 1, 28, 28) and loaded.test.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(loaded.train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(loaded.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (round(loaded.train.images.mean() / 255, 4),) == record.mean
    assert (round(loaded.train.images.std() / 255, 4),) == record.std
