"""A reader's own images: what is found in a folder, what stands for its content, and what is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import image_folders
import numpy as np
import pytest
from PIL import Image

from rna_ray import data
from rna_ray.data import image_files, image_folder
from rna_ray.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return image_folders.write_own(tmp_path / "images")


def described(root: Path, side: int | None = None) -> dict:
    return data.described("folder", root, side=side)


def test_what_is_found_says_all_that_is_known_of_other_data_sets(root: Path) -> None:
    found = described(root)["found"]
    assert {key: found[key] for key in ("classes", "side", "train", "test")} == {
        "classes": ["cat", "dog"], "side": 8, "train": 6, "test": 4,
    }  # fmt: skip
    pixels = data.load("folder", root).train.images / 255
    assert found["mean"] == [round(value, 4) for value in pixels.mean((0, 2, 3))]
    assert found["std"] == [round(value, 4) for value in pixels.std((0, 2, 3))]
    info = data.info(described(root))
    assert (info.name, info.shape, info.classes, info.train_examples) == ("folder", (3, 8, 8), 2, 6)
    assert (info.test_examples, list(info.mean), list(info.std)) == (4, found["mean"], found["std"])
    assert info.augment == "none" and not info.in_files


def test_images_are_what_pillow_decodes_in_an_order_that_mixes_the_classes(tmp_path: Path) -> None:
    root = image_folders.write_own(tmp_path / "images", test=20)
    files, loaded = image_folder.files(root), data.load("folder", root)
    images, labels = (
        np.concatenate([getattr(split, name) for split in (loaded.train, loaded.test)]) for name in ("images", "labels")
    )
    for path, image, label in zip(files, images, labels, strict=True):
        assert loaded.classes[label] == path.parent.name
        assert np.array_equal(image, np.asarray(Image.open(path)).transpose(2, 0, 1))
    assert 5 <= loaded.test.labels[:20].sum() <= 15
    (root / "test" / "cat" / "0.png").unlink()
    left = [path for path in files if path != root / "test" / "cat" / "0.png"]
    assert list(image_folder.files(root)) == left


def test_grey_images_and_those_with_a_palette_become_rgb(root: Path) -> None:
    for path, mode in zip(sorted(root.rglob("*.png")), ("L", "P", "RGBA", "1", "LA", "RGB"), strict=True):
        Image.open(path).convert(mode).save(path)
    images = data.load("folder", root).train.images
    assert images.shape == (6, 3, 8, 8) and any(np.array_equal(one[0], one[1]) for one in images)


def test_a_constant_channel_is_divided_by_one(root: Path) -> None:
    for path in root.rglob("*.*"):
        pixels = np.array(Image.open(path))
        pixels[..., 2] = 51
        Image.fromarray(pixels).save(path, "PNG")
    found = described(root)["found"]
    assert (found["mean"][2], found["std"][2]) == (0.2, 1.0)


def test_a_side_brings_all_images_to_one_size_from_their_centres(root: Path) -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    Image.fromarray(wide).save(root / "train" / "cat" / "0.png")
    loaded = data.load("folder", root, side=5)
    at = image_folder.files(root).index(root / "train" / "cat" / "0.png")
    assert loaded.train.images.shape == (6, 3, 5, 5) and loaded.train.images[at].min() > 150
    assert data.info(described(root, 5)).shape == (3, 5, 5)


def test_the_side_that_images_have_is_the_one_that_is_stated(root: Path) -> None:
    assert described(root) == described(root, 8) != described(root, 7)


def _rename(path: Path) -> None:
    path.rename(path.with_stem("other"))


def _dot(path: Path) -> None:
    pixels = np.array(Image.open(path))
    pixels[1, 2] = 255 - pixels[1, 2]
    Image.fromarray(pixels).save(path)


def _copy(path: Path) -> None:
    path.with_stem("copy").write_bytes(path.read_bytes())


def _touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def _notes(path: Path) -> None:
    path.with_name("notes.txt").write_text("x")
    path.with_name(".DS_Store").write_text("x")


@pytest.mark.parametrize(
    ("change", "counts"),
    [(_rename, True), (_dot, True), (_copy, True), (Path.unlink, True), (_touch, False), (_notes, False)],
)
def test_what_changes_a_digest(root: Path, change: Callable[[Path], None], counts: bool) -> None:
    digests = [described(root)["digest"]]
    for path in sorted(root.rglob("*.*")):  # one change after another
        if change is not Path.unlink or len(list(path.parent.iterdir())) > 1:
            change(path)
            digests.append(described(root)["digest"])
    assert len(set(digests)) == (len(digests) if counts else 1) and len(digests) > 4


def test_a_folder_that_lies_elsewhere_and_whose_test_images_are_in_val_is_the_same(root: Path, tmp_path: Path) -> None:
    before = described(root)
    (root / "test").rename(root / "val")
    root.rename(tmp_path / "moved")
    assert described(tmp_path / "moved") == before
    other = image_folders.write_own(tmp_path / "other", test=1)
    (other / "test").rename(tmp_path / "moved" / "test")
    assert described(tmp_path / "moved")["found"]["test"] == 2  # not those in val


def test_a_folder_is_decoded_once_and_what_was_found_is_remembered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = described(root)
    monkeypatch.setattr(image_files, "_opened", None)
    monkeypatch.setattr(data.digest, "_known", {})  # as in a new process
    assert described(root) == first


def _sixteen_bits(root: Path) -> None:
    Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(root / "test" / "dog" / "0.png")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda root: root.rename(root.with_name("gone")), r"no folder ROOT: set data\.root to one that"),
    "no training": (lambda root: (root / "train").rename(root / "learn"), r"ROOT lacks train/: it must hold train/"),
    "no test": (lambda root: (root / "test").rename(root / "probe"), r"ROOT lacks test/ or val/: it must hold"),
    "one class": (
        lambda root: (root / "train" / "dog").rename(root / "dog"),
        "ROOT/train holds 1 class folders, and must hold at least 2",
    ),
    "no class": (
        lambda root: [(root / "test" / name).rename(root / name) for name in ("cat", "dog")],
        "ROOT/test holds 0 class folders, and must hold at least 1",
    ),
    "an empty class": (
        lambda root: [path.rename(path.with_suffix(".txt")) for path in (root / "test" / "dog").iterdir()],
        r"ROOT/test/dog holds no image: its files must end in \.png, \.jpg",
    ),
    "a stranger": (
        lambda root: (root / "test" / "dog").rename(root / "test" / "emu"),
        "ROOT/test has a class emu, and ROOT/train has no folder of that name",
    ),
    "no image": (
        lambda root: (root / "train" / "cat" / "0.png").write_text("x"),
        "cannot read the image ROOT/train/cat/0.png: ",
    ),
    "half an image": (
        lambda root: os.truncate(root / "train" / "cat" / "0.png", 90),
        "cannot read the image ROOT/train/cat/0.png: ",
    ),
    "a link to nowhere": (
        lambda root: (root / "train" / "cat" / "9.png").symlink_to(root / "gone.png"),
        "cannot read ROOT/train/cat/9.png: No such file",
    ),
    "16 bits": (_sixteen_bits, "cannot read the image ROOT/test/dog/0.png: it has more than 8 bits a channel"),
    "two sizes": (
        lambda root: Image.new("RGB", (9, 9)).save(root / "test" / "cat" / "0.png"),
        r"\S+ has \d×\d pixels and \S+ \d×\d: set data\.side to the side of the squares that all become",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_in_a_sentence(root: Path, case: str) -> None:
    damage, said = REFUSED[case]
    damage(root)
    with pytest.raises(DataError, match="^" + said.replace("ROOT", re.escape(str(root)))):
        described(root)


def test_oblong_images_need_a_side(root: Path) -> None:
    for path in root.rglob("*.*"):
        Image.open(path).resize((8, 6)).save(path)
    with pytest.raises(DataError, match=r"has 8×6 pixels, no square: set data\.side"):
        described(root)
    assert described(root, 6)["found"]["side"] == 6


def test_a_folder_must_be_named() -> None:
    with pytest.raises(DataError, match=r"images of your own need data\.root, a folder that holds train/CLASS/"):
        data.load("folder")
