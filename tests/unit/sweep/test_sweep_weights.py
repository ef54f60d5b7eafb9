"""Weights that a sweep gives for a network of ours: where training starts, or what is evaluated as it is."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from sweep_base import BASE, WEIGHTS, Load, Planned

from rna_ray.errors import UserError
from rna_ray.networks.describe import describe
from rna_ray.networks.source import CHECKED, Source
from rna_ray.sweep.plan import plan
from rna_ray.sweep.spec import from_json, to_json

GIVEN = """\
name: given
data: {name: digits}
network: {name: resnet8, width: 16, norm: BN+IN, weights: w.safetensors}
evaluation:
  - {attack: pgd, examples: 200, knowledge: [transfer, eot-10]}
"""
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
GIVE = "network.weights=w.safetensors"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of weights that a plan does not read as tensors."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in ("w.safetensors", "w.pth", "w.pt"):
        (here / name).write_bytes(WEIGHTS)
    (here / "cut.safetensors").write_bytes(WEIGHTS[:-1])
    (here / "mynet.py").touch()
    return here


def test_without_training_it_is_a_unit_that_imports_a_network_of_ours(planned: Planned, folder: Path) -> None:
    found = planned(GIVEN)
    unit, *evaluations = found.units
    assert (unit.kind, unit.needs, len(evaluations)) == ("import", (), 4)
    assert unit.settings == {
        "data": {"name": "digits", "digest": "digest of digits"},
        "network": {
            "name": "resnet8", "width": 16, "norm": "BN+IN", "layer_based": False, "paths": "example",
            "weights_sha256": DIGEST,
        },
        "precision": "fp32", "compile": False, "seed": 0,
    }  # fmt: skip
    assert {one.settings["checkpoint"] for one in evaluations} == {"last"}
    assert found.where.sources == {unit.id: Source(None, str(folder / "w.safetensors"))}
    macs = describe("resnet8", width=16, image_shape=(1, 8, 8), classes=10).macs
    assert found.costs[unit.id] == 2 * CHECKED * macs


def test_with_training_it_is_where_training_starts_and_counts(planned: Planned) -> None:
    before, after = planned(BASE), planned(BASE, GIVE)
    assert [unit.kind for unit in after.units] == [unit.kind for unit in before.units]
    old, new = before.units[0].settings, after.units[0].settings
    assert new == {**old, "network": {**old["network"], "weights_sha256": DIGEST}}
    assert planned(BASE, "network.weights=").units == before.units  # neutral: not in the settings at all


def test_where_the_file_lies_and_what_it_is_called_does_not_count(planned: Planned, folder: Path) -> None:
    before = planned(GIVEN)
    (folder / "other").mkdir()
    shutil.move(folder / "w.safetensors", folder / "other" / "v.safetensors")
    assert planned(GIVEN, "network.weights=other/v.safetensors").units == before.units
    assert planned(GIVEN, "network.weights=v.safetensors", f"folder={folder}/other").units == before.units
    (folder / "other" / "v.safetensors").write_bytes(WEIGHTS[:-1] + b"!")
    after = planned(GIVEN, "network.weights=other/v.safetensors")
    assert not {unit.id for unit in before.units} & {unit.id for unit in after.units}


def test_one_path_settles_how_it_would_be_drawn(planned: Planned) -> None:
    found = planned(GIVEN, "network.norm=BN", "network.layer_based=true", "network.paths=batch")
    assert found.units[0].settings["network"]["paths"] == "example"
    assert {(unit.settings["knowledge"], unit.settings["draws"]) for unit in found.units[1:]} == {("fixed", 1)}


def test_a_pickle_goes_with_its_digest(planned: Planned) -> None:
    before = planned(GIVEN)
    for name in ("w.pth", "w.pt"):
        assert planned(GIVEN, f"network.weights_sha256={DIGEST}", f"network.weights={name}").units == before.units


def test_a_sweep_may_train_some_and_take_others_as_they_are(planned: Planned) -> None:
    variants = f"{{theirs: {{{GIVE.replace('=', ': ')}, training: null}}, ours: {{}}, on: {{network.weights: w.pt, "
    found = planned(BASE + f"variants: {variants}network.weights_sha256: {DIGEST}}}}}\n")
    assert [(trial.variant, trial.kind) for trial in found.trials] == [
        ("theirs", "import"), ("ours", "train"), ("on", "train"),
    ]  # fmt: skip
    assert found.units[1] == planned(BASE).units[0] and found.units[2] == planned(BASE, GIVE).units[0]
    assert {unit.settings["attack"]["eps_255"] for unit in found.units[3:]} == {25.5}


def test_weights_go_with_the_network_beside_which_they_stand(planned: Planned) -> None:
    shared = BASE.replace("norm: BN+IN}", "norm: BN+IN, weights: w.safetensors}")
    imports = 'variants: {theirs: {network.import: "mynet:build"}, ours: {}}\n'
    theirs, ours = planned(shared + imports).units[:2]
    assert (theirs.settings["network"]["weights_sha256"], theirs.kind) == (None, "import")
    assert (ours.settings["network"]["weights_sha256"], ours.kind) == (DIGEST, "train")


def test_the_last_norm_may_be_one_whatever_the_space_is(planned: Planned) -> None:
    found = planned(GIVEN, "network.last_norm=BN")
    assert found.units[0].settings["network"]["last_norm"] == "BN"
    assert planned(BASE, "network.norm=BN", "network.last_norm=BN").units == planned(BASE, "network.norm=BN").units


def test_the_data_sets_own_normalisation_is_neutral(planned: Planned) -> None:
    whole = BASE.replace("norm: BN+IN}", "norm: BN+IN, mean: [0.3054], std: [0.3757]}")
    assert planned(whole).units == planned(BASE).units
    assert planned(whole, "network.mean=[0.3]").units[0].settings["network"]["mean"] == [0.3]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["network.weights="], "training: missing"),
        (["network.weights=nothing.safetensors"], "network.weights: .*/here/nothing.safetensors cannot be read"),
        (["network.weights=cut.safetensors"], "network.weights: .*/cut.safetensors have 71 bytes, their .* says 72"),
        (["network.weights=w.bin"], "'w.bin' is not a file of weights; allowed are .safetensors, .pth and .pt"),
        (["network.weights=w.pth"], "w.pth is a pickle, .* `sha256sum w.pth` prints as network.weights_sha256"),
        (["network.weights_sha256=" + 64 * "f"], f"network.weights_sha256: .* is another file, of SHA-256 {DIGEST}"),
        (["network.weights_sha256=12"], "network.weights_sha256"),
        (["network={name: resnet8, norm: BN, mean: [0.5]}"], "network.std: missing beside network.mean"),
        (["network={name: resnet8, norm: BN, mean: [0.5], std: [0.0]}"], "network.std: must be above 0"),
        (
            [
                "network={name: resnet8, norm: BN, weights: w.pt, mean: [0.5, 0.5], std: [1.0, 1.0], weights_sha256: "
                f"{DIGEST}}}"
            ],
            "network.mean: 2 values do not fit the 1 channels of digits",
        ),
        (["network.last_norm=BN+IN"], "network.last_norm: norm 'BN.IN' is a space of 2 norms, where one is meant"),
        ([f"network={{name: resnet8, norm: BN, weights_sha256: {DIGEST}}}"], "which is not given"),
        (["network.root=x"], "network.root: goes with network.import only"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(sets: list[str], said: str, planned: Planned) -> None:
    with pytest.raises(UserError, match=said) as error:
        planned(GIVEN, *sets)
    assert "\n" not in str(error.value)


def test_a_sweep_with_weights_is_resumed_from_any_folder(
    load_text: Load, planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, kept = planned(GIVEN), to_json(load_text(GIVEN))
    monkeypatch.chdir("/")
    after = plan(from_json(kept), digest=lambda data: f"digest of {data.name}")
    assert (after.units, after.where) == (before.units, before.where)
