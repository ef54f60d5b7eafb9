"""Folders of images: a tiny ImageNet, and a reader's own.

The ImageNet: three classes of JPEG files of many sizes, some grey, the test images' names mixing the classes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from rna_ray.data import imagenet
from rna_ray.data.records import DataInfo

WNIDS = ("n01440764", "n02102040", "n03000684")
PER_CLASS = {"train": 8, "val": 4}
RELEASE = imagenet.Release(classes=3, train_images=24, test_images=12, side=16, shorter=18)


def write(root: Path) -> Path:
    """Write the images under `root`, each class in a colour of its own, and return `root`."""
    random = np.random.RandomState(0)
    for split, count in PER_CLASS.items():
        for label, wnid in enumerate(WNIDS):
            (root / split / wnid).mkdir(parents=True)
            for index in range(count):
                pixels = random.randint(0, 120, (*random.randint(20, 60, 2), 3), np.uint8)
                pixels[..., label] += 130
                image = Image.fromarray(pixels).convert("L" if index == 1 else "RGB")
                name = f"{wnid}_{index}" if split == "train" else f"ILSVRC2012_val_{3 * index + (label + index) % 3:08}"
                image.save(root / split / wnid / f"{name}.JPEG", "JPEG")
    return root


def info() -> DataInfo:
    """Return the record of the tiny ImageNet, in place of the real one's."""
    return replace(
        imagenet.INFO, shape=(3, RELEASE.side, RELEASE.side), classes=3, train_examples=24, test_examples=12,
        digest=partial(imagenet.digest, release=RELEASE), load=partial(imagenet.load, release=RELEASE),
    )


def write_own(root: Path, *, train: int = 3, test: int = 2, side: int = 8) -> Path:
    """Write two classes of square PNG and JPEG files under `root`, cats in red and dogs in green, and return `root`."""
    random = np.random.RandomState(1)
    for split, count in (("train", train), ("test", test)):
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.randint(0, 100, (side, side, 3), np.uint8)
                pixels[..., label] += 150
                Image.fromarray(pixels).save(root / split / name / f"{index}.{('png', 'jpg')[index % 2]}")
    return root
