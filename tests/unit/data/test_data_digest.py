"""The content digest: of the content alone, computed once, remembered safely."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rna_ray import data
from rna_ray.data import cifar, cifar10, digest, registry
from rna_ray.data.digest import content_digest, digest_of


@pytest.fixture
def loads(tiny_cifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stand the tiny CIFAR-10 in for the real one, in both layouts, and list the folders it was loaded from."""
    release = tiny_cifar.write_pickles(tmp_path / "py")
    tiny_cifar.write_binary(tmp_path / "bin")
    calls: list[Path] = []

    def load(root: Path, download: bool) -> data.Dataset:
        calls.append(root)
        return cifar.load(root, download, release=release)

    record = replace(cifar10.INFO, files=partial(cifar.files, release=release), load=load)
    monkeypatch.setattr(registry, "DATASETS", {"cifar10": record})
    return calls


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for a new process."""
    monkeypatch.setattr(digest, "_known", {})


def test_both_layouts_have_one_digest(loads: list[Path], tmp_path: Path) -> None:
    assert content_digest("cifar10", tmp_path / "bin") == content_digest("cifar10", tmp_path / "py")
    assert loads == [tmp_path / "bin", tmp_path / "py"]


def test_it_is_computed_once_per_process_and_once_per_machine(
    loads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = content_digest("cifar10", tmp_path / "bin")
    assert content_digest("cifar10", str(tmp_path / "bin")) == first and len(loads) == 1
    _forget(monkeypatch)
    assert content_digest("cifar10", tmp_path / "bin") == first and len(loads) == 1


def test_a_changed_file_is_read_again(loads: list[Path], tmp_path: Path) -> None:
    before = content_digest("cifar10", tmp_path / "bin")
    path = tmp_path / "bin" / "data_batch_1.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    assert content_digest("cifar10", tmp_path / "bin") != before and len(loads) == 2


@pytest.mark.parametrize("damage", [b"", b"0" * 32, b"\xff\xfe", b"0" * 66])
def test_a_damaged_cache_is_ignored_and_repaired(
    damage: bytes, loads: list[Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = content_digest("cifar10", tmp_path / "bin")
    (remembered,) = cache.iterdir()
    whole = remembered.read_bytes()
    remembered.write_bytes(damage)
    _forget(monkeypatch)
    assert content_digest("cifar10", tmp_path / "bin") == first and len(loads) == 2
    assert list(cache.iterdir()) == [remembered] and remembered.read_bytes() == whole


def test_one_flipped_bit_of_the_cache_is_noticed(
    loads: list[Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = content_digest("cifar10", tmp_path / "bin")
    (remembered,) = cache.iterdir()
    text = remembered.read_text()
    remembered.write_text(("1" if text[0] == "0" else "0") + text[1:])
    _forget(monkeypatch)
    assert content_digest("cifar10", tmp_path / "bin") == first and len(loads) == 2


def test_a_cache_that_cannot_be_written_does_no_harm(
    loads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("where the cache folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(content_digest("cifar10", tmp_path / "bin")) == 32


def test_a_relative_cache_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert digest._cache_folder() == tmp_path / ".cache" / "rna-ray" / "digests"


def test_files_that_change_while_they_are_read_are_not_remembered(
    loads: list[Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = registry.DATASETS["cifar10"]

    def load(root: Path, download: bool) -> data.Dataset:
        loaded = whole.load(root, download)
        os.utime(root / "test_batch.bin", ns=(1, 1))
        return loaded

    monkeypatch.setattr(registry, "DATASETS", {"cifar10": replace(whole, load=load)})
    assert len(content_digest("cifar10", tmp_path / "bin")) == 32
    assert not cache.exists()


def _dataset(images: np.ndarray, labels: np.ndarray) -> data.Dataset:
    split = data.Split(images=images, labels=labels)
    return data.Dataset(name="any", train=split, test=split, classes=("a", "b"), origin="made up")


def test_any_pixel_label_or_shape_changes_it() -> None:
    images, labels = np.zeros((2, 1, 2, 3), np.uint8), np.zeros(2, np.int64)
    brighter, other = images.copy(), labels.copy()
    brighter[1, 0, 1, 2] = other[1] = 1
    variants = [(images, labels), (brighter, labels), (images, other), (images.reshape(2, 1, 3, 2), labels)]
    assert len({digest_of(_dataset(*variant)) for variant in variants}) == 4


def test_the_real_images_have_one_digest_each(real_data: Path) -> None:
    assert len({content_digest(name, real_data) for name in ("mnist", "cifar10")}) == 2
