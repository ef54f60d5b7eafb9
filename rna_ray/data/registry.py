"""The data sets that exist, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rna_ray.data import cifar10, cifar100, digits, image_folder, imagenet, mnist
from rna_ray.data.records import DataInfo, Dataset
from rna_ray.errors import DataError, unknown


def register(*infos: DataInfo) -> Mapping[str, DataInfo]:
    """Return the records by name, read-only; two of one name are a bug."""
    names = [record.name for record in infos]
    assert len(set(names)) == len(names), f"two data sets of one name in {names}"
    return MappingProxyType({record.name: record for record in infos})


DATASETS = register(digits.INFO, mnist.INFO, cifar10.INFO, cifar100.INFO, imagenet.INFO, image_folder.INFO)


def record(name: str) -> DataInfo:
    """Return the record of a data set; DataError listing the known ones if there is none of this name."""
    try:
        return DATASETS[name]
    except KeyError:
        raise DataError(unknown("data set", name, DATASETS)) from None


def info(settings: Mapping[str, Any]) -> DataInfo:
    """Return what is known of the data set that settings of a unit name; DataError if there is none of this name."""
    return image_folder.info(settings["found"]) if "found" in settings else record(settings["name"])


def load(name: str, root: str | Path | None = None, download: bool = False, side: int | None = None) -> Dataset:
    """Return a data set, read from the folder `root` where it needs one; DataError if it is missing or damaged.

    `side` is that to which the images of a `folder` are brought, None where they have one.
    """
    read = record(name).load
    return read(folder(root), download) if side is None else read(folder(root), download, side)


def folder(root: str | Path | None) -> Path | None:
    """Return the absolute folder that the user means: ~ is his home, anything relative is below the working one."""
    try:
        return None if root is None else Path(root).expanduser().absolute()
    except RuntimeError as error:
        raise DataError(f"no folder {root}: {error}") from error
