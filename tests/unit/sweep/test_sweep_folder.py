"""A sweep over a reader's own images: what is found in the folder is settled when the plan is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import image_folders
import pytest
from sweep_base import BASE, Load

from rna_ray import data
from rna_ray.errors import SweepError
from rna_ray.sweep.plan import Plan, plan

Planned = Callable[..., Plan]


@pytest.fixture
def planned(load_text: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """Plan the tests' sweep over a folder of 6 training and 4 test images of 8×8."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = image_folders.write_own(tmp_path / "images")
    text = BASE.replace("name: digits, held_out: 128", f"name: folder, root: {root}, held_out: 2").replace(
        "examples: 200", "examples: 4"
    )
    return lambda *sets: plan(load_text(text, *sets))


def test_what_is_found_is_in_the_settings_of_every_unit(planned: Planned, tmp_path: Path) -> None:
    made = planned("probes=[{probe: smoothness, examples: 2}]", "certification=[{examples: 2, noise_255: 25}]")
    images = data.described("folder", tmp_path / "images")
    assert {unit.kind for unit in made.units} == {"train", "evaluate", "probe", "certify"}
    for unit in made.units:
        assert unit.settings["data"].items() >= images.items()
        assert data.info(unit.settings["data"]).shape == (3, 8, 8)
    assert made.units[0].settings["data"]["train_examples"] == 4
    assert made.units[0].settings["training"]["augment"] == "none"
    assert made.where.roots == {"folder": str(tmp_path / "images")}


def test_ids_hang_on_the_side_and_the_content(planned: Planned, tmp_path: Path) -> None:
    first = planned()
    assert planned("data.side=8").units == first.units
    assert not {*planned("data.side=9").units} & {*first.units}
    image = tmp_path / "images" / "test" / "cat" / "0.png"
    image.rename(image.with_stem("tom"))
    assert not {*planned().units} & {*first.units}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.held_out=6", "data.held_out: 6 leaves nothing to train on; folder has 6 training images"),
        ("data.train_examples=5", "data.train_examples: 5 and 2 held out are not what folder can give; it has 6"),
        ("training.augment=resized-crop-flip", "resized-crop-flip is for images in files, such as imagenet's, not for"),
        ("evaluation.0.examples=5", "evaluation.0.examples: 5 are more than the 4 test images of folder"),
        ("data.name=digits", "side: goes with name: folder only; images of digits have theirs"),
        ("grid={data.root: [OWN, OTHER]}", "data.root: folder cannot lie in both"),
    ],
)
def test_what_a_folder_cannot_give_is_refused(planned: Planned, change: str, said: str, tmp_path: Path) -> None:
    image_folders.write_own(tmp_path / "other")
    with pytest.raises(SweepError, match=said):
        planned("data.side=8", change.replace("OWN", f"{tmp_path}/images").replace("OTHER", f"{tmp_path}/other"))
