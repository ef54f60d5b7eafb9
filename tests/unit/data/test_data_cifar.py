"""CIFAR-10 and CIFAR-100: both layouts give the same arrays, and nothing unchecked is unpickled."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rna_ray import data
from rna_ray.data import cifar, cifar10, cifar100
from rna_ray.data.digest import digest_of
from rna_ray.data.fetch import md5_hex
from rna_ray.data.pickles import read_pickle
from rna_ray.errors import DataError


@pytest.mark.parametrize("inside", [False, True])
def test_the_binary_version_loads_from_its_folder_or_the_one_above(inside: bool, either_cifar, tmp_path: Path) -> None:
    release = either_cifar.write_binary(tmp_path / either_cifar.release.binary_folder if inside else tmp_path)
    loaded, training = cifar.load(tmp_path, release=release), len(release.images) - 1
    assert loaded.train.images.shape == (4 * training, 3, 32, 32) and loaded.test.images.shape == (4, 3, 32, 32)
    assert np.array_equal(loaded.train.images[-3], either_cifar.rows[training - 1, 1].reshape(3, 32, 32))
    assert loaded.train.labels.tolist() == either_cifar.labels[:training].flatten().tolist()
    assert loaded.test.labels.tolist() == either_cifar.labels[-1].tolist()
    assert loaded.name == release.name and "binary version" in loaded.origin


@pytest.mark.parametrize("inside", [False, True])
def test_the_python_version_gives_the_same_arrays(inside: bool, either_cifar, tmp_path: Path) -> None:
    binary = cifar.load(tmp_path / "a", release=either_cifar.write_binary(tmp_path / "a"))
    root = tmp_path / "b"
    release = either_cifar.write_pickles(root / either_cifar.release.python_folder if inside else root)
    pickled = cifar.load(root, release=release)
    assert np.array_equal(pickled.train.images, binary.train.images)
    assert np.array_equal(pickled.test.labels, binary.test.labels)
    assert digest_of(pickled) == digest_of(binary)
    assert "Python version" in pickled.origin


def test_the_python_version_comes_first_because_its_content_is_known(tiny_cifar, tmp_path: Path) -> None:
    tiny_cifar.write_binary(tmp_path / "cifar-10-batches-bin")
    release = tiny_cifar.write_pickles(tmp_path / "cifar-10-batches-py")
    assert "Python version" in cifar.load(tmp_path, release=release).origin


@pytest.mark.parametrize("which", [cifar10, cifar100])
def test_the_published_checksums_are_torchvisions(which: ModuleType, torchvision_source) -> None:
    parts = torchvision_source("cifar").partition("class CIFAR100")
    theirs = dict(re.findall(r'\["(\w+)", "(\w{32})"\]', parts[0] if which is cifar10 else parts[2]))
    assert dict(which.PUBLISHED.pickles_md5) == theirs and len(theirs) == len(which.PUBLISHED.images)


def test_cifar100_has_a_hundred_classes_in_the_order_of_the_alphabet() -> None:
    names = cifar100.PUBLISHED.classes
    assert len(set(names)) == 100 and list(names) == sorted(names)
    assert [names[at] for at in (0, 23, 49, 99)] == ["apple", "cloud", "mountain", "worm"]
    assert cifar100.INFO.train_examples == 50_000 and cifar100.INFO.test_examples == 10_000


class _Evil:
    def __init__(self, action: Callable[..., object], *arguments: object) -> None:
        self.call = (action, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def test_a_pickle_of_another_checksum_is_never_opened(tiny_cifar, tmp_path: Path) -> None:
    release = tiny_cifar.write_pickles(tmp_path)
    evil = pickle.dumps(_Evil(os.mkdir, str(tmp_path / "owned")))
    (tmp_path / "data_batch_3").write_bytes(evil)
    message = f"{tmp_path / 'data_batch_3'} is not the published file: its md5 is {md5_hex(evil)}, "
    with pytest.raises(DataError, match=re.escape(message + release.pickles_md5["data_batch_3"])):
        cifar.load(tmp_path, release=release)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("call", [(os.mkdir, "owned"), (eval, "1"), (getattr, "", "join"), (np.load, "x.npy")])
def test_even_a_pickle_of_the_right_checksum_builds_only_arrays(call: tuple, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(_Evil(*call)))
    with pytest.raises(DataError, match=f"{path} is not a pickle of numpy arrays: it asks for "):
        read_pickle(path, md5_hex(path.read_bytes()))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_arrays_pickled_by_this_python_are_read_too(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "arrays"
    path.write_bytes(pickle.dumps({"data": np.arange(6, dtype=np.uint8).reshape(2, 3)}, protocol=protocol))
    content = read_pickle(path, md5_hex(path.read_bytes()))
    assert content["data"].tolist() == [[0, 1, 2], [3, 4, 5]]  # type: ignore[index]


def _pickled(path: Path, content: object, tiny_cifar) -> cifar.Release:
    release = tiny_cifar.write_pickles(path.parent)
    path.write_bytes(pickle.dumps(content, protocol=4))
    return replace(release, pickles_md5={**release.pickles_md5, path.name: md5_hex(path.read_bytes())})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "does not hold 'data'"),
        ({"data": np.zeros((4, 3072)), "labels": [0] * 4}, "does not hold 'data'"),
        ({"data": np.zeros((3, 3072), np.uint8), "labels": [0] * 3}, r"\(3, 3072\) and 3 labels where \(4, 3072\)"),
        ({"data": np.zeros((4, 3072), np.uint8), "labels": [0, 0, 11, 0]}, "labels image 2 as 11 where 0 to 9"),
    ],
)
def test_a_pickle_of_something_else_is_named(content: object, message: str, tiny_cifar, tmp_path: Path) -> None:
    path = tmp_path / "data_batch_2"
    release = _pickled(path, content, tiny_cifar)
    with pytest.raises(DataError, match=f"{path} {message}|{path} holds data of shape {message}"):
        cifar.load(tmp_path, release=release)


def test_a_truncated_batch_says_what_was_found_and_expected(tiny_cifar, tmp_path: Path) -> None:
    release = tiny_cifar.write_binary(tmp_path)
    path = tmp_path / "data_batch_4.bin"
    path.write_bytes(path.read_bytes()[:-1])
    message = f"{path} holds 12,291 bytes where 12,292 are expected (4 images of 3,073 bytes)"
    with pytest.raises(DataError, match=re.escape(message)):
        cifar.load(tmp_path, release=release)


def test_a_label_out_of_range_is_named(tiny_cifar, tmp_path: Path) -> None:
    tiny_cifar.labels[5, 2] = 10
    release = tiny_cifar.write_binary(tmp_path)
    with pytest.raises(DataError, match=r"test_batch\.bin labels image 2 as 10 where 0 to 9 is expected"):
        cifar.load(tmp_path, release=release)


def test_a_missing_folder_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        data.load("cifar10", tmp_path / "none")
    message = str(caught.value)
    assert message.startswith(f"no complete CIFAR-10 under {tmp_path / 'none'} (no such folder): put data_batch_1, ")
    assert f"test_batch into {tmp_path}/none/cifar-10-batches-py or {tmp_path}/none; or data_batch_1.bin, " in message
    assert f"test_batch.bin into {tmp_path}/none/cifar-10-batches-bin or {tmp_path}/none; or set" in message
    assert message.endswith("or set data.download=true to fetch it")
    assert not (tmp_path / "none").exists()


def test_an_incomplete_folder_says_what_it_lacks(tiny_cifar, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    tiny_cifar.write_binary(folder)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=re.escape(f"({folder} lacks data_batch_3.bin)")):
        data.load("cifar10", tmp_path)


@pytest.mark.slow
def test_the_real_images_load(real_data: Path) -> None:
    loaded, record = data.load("cifar10", real_data), data.record("cifar10")
    assert loaded.train.images.shape == (50_000, 3, 32, 32) and loaded.test.images.shape == (10_000, 3, 32, 32)
    assert np.bincount(loaded.train.labels).tolist() == [5000] * 10
    assert np.bincount(loaded.test.labels).tolist() == [1000] * 10
    # A third of the images is enough, and spares memory; JPEG copies come as close as 0.002 to the published moments.
    pixels = loaded.train.images[::3]
    assert pixels.mean((0, 2, 3)) / 255 == pytest.approx(record.mean, abs=4e-3)
    assert pixels.std((0, 2, 3)) / 255 == pytest.approx(record.std, abs=4e-3)
