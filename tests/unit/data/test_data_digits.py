"""The digits: every pixel, label and place in the split is fixed."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from rna_ray import data
from rna_ray.data import digits
from rna_ray.errors import DataError


@pytest.fixture(scope="module")
def loaded() -> data.Dataset:
    return data.load("digits")


def test_shapes_and_types(loaded: data.Dataset) -> None:
    assert loaded.train.images.shape == (1437, 1, 8, 8) and loaded.test.images.shape == (360, 1, 8, 8)
    assert loaded.train.images.dtype == np.uint8 and loaded.train.labels.dtype == np.int64
    assert (len(loaded.train), len(loaded.test)) == (1437, 360)


def test_labels_are_balanced_within_what_chance_allows(loaded: data.Dataset) -> None:
    assert np.bincount(loaded.train.labels).tolist() == [147, 147, 138, 150, 137, 153, 141, 139, 146, 139]
    assert np.bincount(loaded.test.labels).tolist() == [31, 35, 39, 33, 44, 29, 40, 40, 28, 41]


def test_pixels_scale_from_16_to_255_exactly(loaded: data.Dataset) -> None:
    seen = np.unique(np.concatenate([loaded.train.images, loaded.test.images]))
    assert seen.tolist() == [round(level * 255 / 16) for level in range(17)]


def test_the_first_training_image_is_this_two(loaded: data.Dataset) -> None:
    assert loaded.train.labels[:10].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5]
    assert loaded.train.images[0, 0, 0].tolist() == [0, 0, 175, 255, 239, 48, 0, 0]
    assert loaded.train.images[0, 0, 7].tolist() == [0, 0, 207, 207, 128, 207, 255, 128]


def test_the_split_is_a_permutation_that_never_changes() -> None:
    order = digits.split_order()
    assert np.array_equal(np.sort(order), np.arange(1797))
    assert np.array_equal(order, digits.split_order())


def test_the_content_never_changes() -> None:
    assert data.content_digest("digits") == "25128ceef7a74ea4f599478b6859a958"


def test_the_recorded_mean_and_std_are_those_of_the_training_images(loaded: data.Dataset) -> None:
    pixels = loaded.train.images / 255
    assert data.record("digits").mean == (round(pixels.mean(), 4),)
    assert data.record("digits").std == (round(pixels.std(), 4),)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="install scikit-learn"):
        data.load("digits")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip", "is damaged"),
        (gzip.compress(b"1,2\n3,4\n", mtime=0), r"\(2, 2\) where \(1797, 65\) is expected"),
        (gzip.compress(b"a,b\n", mtime=0), "is damaged"),
        (gzip.compress((",".join(["17"] * 65) + "\n").encode() * 1797), "pixels from 17 to 17 where 0 to 16"),
    ],
)
def test_a_damaged_file_is_named(content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(content)
    monkeypatch.setattr(digits, "files", lambda: (path,))
    with pytest.raises(DataError, match=f"{path} .*{message}"):
        digits.load()
