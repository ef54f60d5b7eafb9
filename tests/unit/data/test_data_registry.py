"""The registry: what is promised of each data set before and after it is read."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from rna_ray import data
from rna_ray.data import digits, registry
from rna_ray.errors import DataError


def test_the_registered_data_sets_are_these() -> None:
    assert list(data.DATASETS) == ["digits", "mnist", "cifar10", "cifar100", "imagenet", "folder"]


@pytest.mark.parametrize("name", [name for name in data.DATASETS if name != "folder"])
def test_a_record_agrees_with_itself(name: str) -> None:
    record = data.info({"name": name})
    assert record is data.record(name) and record.name == name
    assert len(record.mean) == len(record.std) == record.shape[0]
    assert all(0 < mean < 1 and 0 < std < 0.5 for mean, std in zip(record.mean, record.std, strict=True))
    augments = {"cifar10": "crop-flip", "cifar100": "crop-flip", "imagenet": "resized-crop-flip"}
    assert record.augment == augments.get(name, "none")
    assert record.in_files == (name == "imagenet")
    assert record.needs_root == (name != "digits")
    with pytest.raises(FrozenInstanceError):
        record.classes = 11  # type: ignore[misc]


def test_an_unknown_name_gets_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"'cifar'; did you mean 'cifar10'\? Known: cifar10, .*, mnist"):
        data.load("cifar")


def test_two_data_sets_of_one_name_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="two data sets of one name"):
        registry.register(digits.INFO, replace(digits.INFO, classes=9))


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100", "imagenet"])
def test_a_data_set_on_disk_asks_for_its_folder(name: str) -> None:
    for ask in (data.load, data.content_digest):
        with pytest.raises(DataError, match=r"is read from a folder: set data\.root"):
            ask(name)


def test_a_folder_may_be_relative_or_start_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert registry.folder("~/images") == registry.folder("images") == tmp_path / "images"
    with pytest.raises(DataError, match="no folder ~nobody-of-this-name/images"):
        registry.folder("~nobody-of-this-name/images")


def test_the_room_imports_no_library_but_numpy() -> None:
    code = (
        "import sys; from rna_ray import data; data.load('digits'); data.content_digest('digits');"
        "heavy = ('torch', 'torchvision', 'PIL', 'sklearn', 'scipy', 'pandas', 'ray');"
        "print([name for name in heavy if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
