"""ImageNet from image folders: listed at once, decoded when asked for, as torchvision decodes."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import image_folders
import numpy as np
import pytest
from image_folders import RELEASE, WNIDS
from PIL import Image
from torchvision.transforms import v2

from rna_ray import data
from rna_ray.data import image_files, imagenet, registry
from rna_ray.data.image_files import ATTEMPTS, ImageFiles, crop_box
from rna_ray.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return image_folders.write(tmp_path / "imagenet")


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every decoding fail."""
    monkeypatch.setattr(image_files, "_open", None)


def test_a_class_is_its_folders_place_in_the_alphabet(root: Path) -> None:
    loaded = imagenet.load(root, release=RELEASE)
    assert loaded.classes == WNIDS
    assert loaded.train.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert loaded.train.images.shape == (24, 3, 16, 16) and loaded.test.images.shape == (12, 3, 16, 16)
    colours = loaded.train.images[:].astype(int).mean((2, 3)).argmax(1).reshape(3, 8)
    assert np.delete(colours, 1, axis=1).T.tolist() == [[0, 1, 2]] * 7  # all but the grey ones


def test_test_images_stand_in_the_publishers_order_which_mixes_the_classes(root: Path) -> None:
    loaded = imagenet.load(root, release=RELEASE)
    names = [Path(name).name for name in loaded.test.images.names]
    assert names == [f"ILSVRC2012_val_{index:08}.JPEG" for index in range(12)]
    assert loaded.test.labels.tolist() == [0, 1, 2, 2, 0, 1, 1, 2, 0, 0, 1, 2]


def test_the_published_release_is_what_a_plan_knows() -> None:
    record = data.record("imagenet")
    assert (record.shape, record.classes) == ((3, 224, 224), 1000)
    assert (record.train_examples, record.test_examples) == (1_281_167, 50_000)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (333, 500), (256, 256), (40, 31), (257, 301), (31, 900)])
def test_the_centre_is_torchvisions(width: int, height: int, tmp_path: Path) -> None:
    pixels = np.random.RandomState(width).randint(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.JPEG")
    files = ImageFiles(tmp_path, ["a.JPEG"], side=224, shorter=256)
    theirs = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])
    with Image.open(tmp_path / "a.JPEG") as image:
        assert np.array_equal(files[:][0], theirs(image.convert("RGB")).numpy())


def test_a_resized_crop_is_torchvisions_at_the_same_box(root: Path) -> None:
    images = imagenet.load(root, release=RELEASE).train.images
    index = np.array([20, 3, 1])
    draws = np.random.RandomState(0).rand(3, ATTEMPTS, 4)
    found = images.resized_crops(index, draws)
    for row, at in enumerate(index):
        with Image.open(root / images.names[at]) as file:
            image = file.convert("RGB")
        left, top, right, bottom = crop_box(*image.size, draws[row])
        expected = v2.functional.resized_crop(image, top, left, bottom - top, right - left, [16, 16])
        assert np.array_equal(found[row], v2.functional.pil_to_tensor(expected).numpy())


def test_crops_cover_areas_ratios_and_places_evenly() -> None:
    boxes = [crop_box(300, 300, draws) for draws in np.random.RandomState(0).rand(4000, ATTEMPTS, 4)]
    left, top, right, bottom = np.array(boxes).T
    width, height = right - left, bottom - top
    assert (left >= 0).all() and (top >= 0).all() and (right <= 300).all() and (bottom <= 300).all()
    small = (width * height) < 0.5 * 300 * 300  # below half the area nearly every attempt fits
    assert 0.07 < (width * height).min() / 300**2 < 0.09 and (width * height).max() > 0.97 * 300**2
    logs = np.log(width / height)[small]
    assert logs.mean() == pytest.approx(0, abs=0.02) and np.abs(logs).max() == pytest.approx(math.log(4 / 3), abs=0.03)
    assert logs.std() == pytest.approx(2 * math.log(4 / 3) / math.sqrt(12), rel=0.05)  # uniform
    across = (left / np.maximum(300 - width, 1))[small]
    assert across.mean() == pytest.approx(0.5, abs=0.03) and across.std() == pytest.approx(1 / math.sqrt(12), rel=0.05)


@pytest.mark.parametrize(("size", "box"), [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506))])
def test_an_image_into_which_no_crop_fits_gives_its_middle(size: tuple[int, int], box: tuple[int, ...]) -> None:
    assert crop_box(*size, np.full((ATTEMPTS, 4), 0.999)) == box


def test_parts_slices_and_indices_decode_what_they_name(root: Path) -> None:
    images = imagenet.load(root, release=RELEASE).train.images
    whole = images[:]
    assert whole.dtype == np.uint8 and whole.flags.c_contiguous
    index = np.array([5, 23, 5, 0])
    assert np.array_equal(images[index], whole[index])
    assert np.array_equal(images.part(index)[1:], whole[index][1:])
    assert images[np.array([], np.int64)].shape == (0, 3, 16, 16)


@pytest.mark.usefixtures("undecoded")
def test_loading_digesting_and_taking_parts_decode_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "DATASETS", {"imagenet": image_folders.info()})
    loaded = data.load("imagenet", root)
    assert data.content_digest("imagenet", root) == data.digest_of(loaded)
    assert len(loaded.train.part(np.array([3, 4]))) == 2


def test_the_digest_is_of_names_and_sizes_and_not_of_where_they_lie(root: Path, tmp_path: Path) -> None:
    first = imagenet.digest(root, release=RELEASE)
    root.rename(tmp_path / "elsewhere")
    root = tmp_path / "elsewhere"
    assert imagenet.digest(root, release=RELEASE) == first == imagenet.load(root, release=RELEASE).digest
    path = root / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    path.write_bytes(path.read_bytes() + b"\0")
    longer = imagenet.digest(root, release=RELEASE)
    path.rename(path.with_name("other.JPEG"))
    assert len({first, longer, imagenet.digest(root, release=RELEASE)}) == 3


def test_a_link_that_leads_nowhere_is_named(root: Path) -> None:
    path = next((root / "val").rglob("*.JPEG"))
    path.unlink()
    path.symlink_to(root / "gone.JPEG")
    with pytest.raises(DataError, match=re.escape(f"cannot read {path}: No such file")):
        imagenet.digest(root, release=RELEASE)


def test_a_damaged_image_is_named(root: Path) -> None:
    images = imagenet.load(root, release=RELEASE).train.images
    path = root / images.names[7]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=re.escape(f"cannot read the image {path}: ")):
        images[:]
    path.unlink()
    with pytest.raises(DataError, match=re.escape(f"cannot read the image {path}: [Errno 2]")):
        images[np.array([7])]


def test_what_a_folder_lacks_is_said(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no complete ImageNet under {tmp_path} .it lacks train and val.: put its"):
        data.load("imagenet", tmp_path, download=True)
    with pytest.raises(DataError, match=f"{root}/train holds 3 folders where 1,000 classes are expected"):
        data.load("imagenet", root)
    (root / "val" / WNIDS[1] / "ILSVRC2012_val_00000001.JPEG").rename(root / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(DataError, match=f"{root}/val holds 11 JPEG images where 12 are expected"):
        imagenet.load(root, release=RELEASE)
    (root / "val" / WNIDS[2]).rename(root / "val" / "n04000000")
    with pytest.raises(DataError, match=f"a folder each, but {WNIDS[2]} is in one of them only"):
        imagenet.digest(root, release=RELEASE)


def test_other_files_do_not_count(root: Path) -> None:
    first = imagenet.digest(root, release=RELEASE)
    (root / "train" / ".DS_Store").write_text("x")
    (root / "train" / WNIDS[0] / "notes.txt").write_text("x")
    (root / "train" / ".cache").mkdir()
    assert imagenet.digest(root, release=RELEASE) == first
    assert Counter(imagenet.load(root, release=RELEASE).train.labels.tolist()) == {0: 8, 1: 8, 2: 8}
