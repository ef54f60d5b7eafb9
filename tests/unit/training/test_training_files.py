"""Training on images that stay in their files: what is read follows from the unit, the epoch and the example."""

from __future__ import annotations

from pathlib import Path

import image_folders
import numpy as np
import pytest
import torch
from training_base import checkpoints, rows, same_weights, settings

from rna_ray.data import Split, imagenet
from rna_ray.networks.build import Network, build
from rna_ray.randomness import Randomness
from rna_ray.training.augment import augment, on_device, read
from rna_ray.training.fit import Fitted, fit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Split:
    root = image_folders.write(tmp_path_factory.mktemp("images"))
    return imagenet.load(root, release=image_folders.RELEASE).train


def in_memory(split: Split) -> Split:
    return Split(images=split.images[:], labels=split.labels)


@pytest.mark.parametrize("kind", ["none", "crop", "crop-flip"])
def test_files_are_read_as_the_same_images_in_memory_are(train: Split, kind: str) -> None:
    random, examples = Randomness("unit/epoch-0"), torch.tensor([3, 17, 3, 0])
    here, there = on_device(in_memory(train).images, CPU), on_device(train.images, CPU)
    found = read(here, kind, random, examples)
    assert torch.equal(read(there, kind, random, examples), found)
    assert torch.equal(found, augment(here[examples].float() / 255, kind, random, examples))
    assert torch.equal(there[2:5], here[2:5])


def test_a_resized_crop_belongs_to_the_example_and_the_epoch(train: Split) -> None:
    images, examples = on_device(train.images, CPU), torch.arange(24)
    first, again, second = (
        read(images, "resized-crop-flip", Randomness(f"unit/epoch-{epoch}"), examples) for epoch in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert all(not torch.equal(one, other) for one, other in zip(first, second, strict=True))
    some = torch.tensor([20, 1])
    assert torch.equal(read(images, "resized-crop-flip", Randomness("unit/epoch-0"), some), first[some])
    assert first.dtype == torch.float32 and first.min() >= 0 and first.max() <= 1


def test_half_of_the_resized_crops_are_flipped(train: Split) -> None:
    class Ramp:
        def resized_crops(self, random: Randomness, examples: torch.Tensor) -> torch.Tensor:
            return torch.arange(4, dtype=torch.uint8).expand(len(examples), 1, 2, 4)

    x = read(Ramp(), "resized-crop-flip", Randomness("unit"), torch.arange(2000))  # type: ignore[arg-type]
    flipped = (x[:, 0, 0, 0] > x[:, 0, 0, 3]).float()
    assert flipped.mean().item() == pytest.approx(0.5, abs=0.05)


def network() -> Network:
    asked = settings()["network"]
    return build(asked, shape=(3, 16, 16), classes=3, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0)


def fitted(folder: Path, train: Split, augmented: str, report=lambda row: None) -> tuple[Fitted, Network]:
    asked, made = settings(augment=augmented, batch=8), network()
    parts = train.part(np.arange(0, 24, 3)), train.part(np.arange(1, 24, 3))
    return fit(asked, made, *parts, checkpoints(folder), device=CPU, report=report), made


def test_training_from_files_is_training_from_memory(train: Split, tmp_path: Path) -> None:
    files, one = fitted(tmp_path / "files", train, "crop-flip")
    memory, other = fitted(tmp_path / "memory", in_memory(train), "crop-flip")
    assert rows(files) == rows(memory) and len(rows(files)) == 3
    assert same_weights(one, other)


def test_a_resumed_training_sees_the_same_crops(train: Split, tmp_path: Path) -> None:
    whole, one = fitted(tmp_path / "whole", train, "resized-crop-flip")

    def stop(row: dict) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "cut", train, "resized-crop-flip", report=stop)
    resumed, other = fitted(tmp_path / "cut", train, "resized-crop-flip")
    assert rows(resumed) == rows(whole) and same_weights(one, other)
