"""Networks of the user's own in a sweep file: what goes with them, what counts, and how they stand beside others."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from sweep_base import BASE, WEIGHTS, Load, Planned

from rna_ray.errors import NetworkError, SweepError, UserError
from rna_ray.networks.describe import describe
from rna_ray.networks.source import CHECKED, Source
from rna_ray.store.records import RECORDS, SCHEMAS
from rna_ray.sweep.plan import Plan, plan
from rna_ray.sweep.spec import from_json, to_json
from rna_ray.sweep.units import NAMES, VERSIONS

OWN = """\
name: own
data: {name: digits}
network: {import: "mynet:build", weights: w.safetensors}
evaluation:
  - {attack: pgd, examples: 200, knowledge: [transfer, eot-10]}
"""
MIXED = BASE + 'variants: {theirs: {network.import: "mynet:build"}, ours: {training.lr: 0.05}}\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that must not be run by a plan, and weights that nobody reads as tensors yet."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "mynet.py").write_text("raise RuntimeError('a plan runs nothing')\n", encoding="utf-8")
    (here / "w.safetensors").write_bytes(WEIGHTS)
    return here


def network(plan: Plan) -> dict:
    return dict(plan.units[0].settings)


def test_an_import_unit_leaves_no_default_out(planned: Planned, folder: Path) -> None:
    found = planned(OWN)
    unit, *evaluations = found.units
    assert (unit.kind, unit.needs, len(evaluations)) == ("import", (), 4)
    settings = network(found)
    assert settings == {
        "data": {"name": "digits", "digest": "digest of digits"},
        "network": {
            "import": "mynet:build",
            "source_sha256": hashlib.sha256((folder / "mynet.py").read_bytes()).hexdigest(),
            "weights_sha256": hashlib.sha256(WEIGHTS).hexdigest(),
            "random": True, "paths": "example",
        },
        "precision": "fp32", "compile": False, "seed": 0,
    }  # fmt: skip
    assert {one.settings["network"] for one in evaluations} == {unit.id}
    assert {one.settings["checkpoint"] for one in evaluations} == {"last"}
    assert found.where.sources == {unit.id: Source(str(folder), str(folder / "w.safetensors"))}
    (trial,) = found.trials
    assert (trial.variant, trial.network, trial.kind) == ("mynet:build", unit.id, "import")


def test_where_files_lie_and_what_they_are_called_does_not_count(planned: Planned, folder: Path) -> None:
    before = planned(OWN)
    moved = folder.parent / "moved"
    (moved / "code").mkdir(parents=True)
    shutil.move(folder / "mynet.py", moved / "code" / "mynet.py")
    shutil.move(folder / "w.safetensors", moved / "renamed.safetensors")
    after = planned(OWN, f"network.root={moved}/code", f"network.weights={moved}/renamed.safetensors")
    assert after.units == before.units
    assert list(after.where.sources.values()) == [Source(f"{moved}/code", f"{moved}/renamed.safetensors")]
    sets = (f"folder={moved}", "network.root=code", "network.weights=renamed.safetensors")
    assert planned(OWN, *sets).units == before.units


@pytest.mark.parametrize("name", ["mynet.py", "w.safetensors"])
def test_a_byte_of_either_file_changes_every_id(name: str, planned: Planned, folder: Path) -> None:
    before = planned(OWN)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not {unit.id for unit in before.units} & {unit.id for unit in planned(OWN).units}


def test_without_weights_it_is_as_it_was_built(planned: Planned) -> None:
    found = planned(OWN, "network.weights=")
    assert network(found)["network"]["weights_sha256"] is None
    assert found.units[0].id != planned(OWN).units[0].id


def test_one_that_is_not_random_is_asked_as_a_network_of_one_path(planned: Planned) -> None:
    found = planned(OWN, "network.random=false", "network.paths=batch")
    assert network(found)["network"] | {"random": False, "paths": "example"} == network(found)["network"]
    assert {(unit.settings["knowledge"], unit.settings["draws"]) for unit in found.units[1:]} == {("fixed", 1)}
    random = {(unit.settings["knowledge"], unit.settings["draws"]) for unit in planned(OWN).units[1:]}
    assert random == {("transfer", 10), ("eot-10", 10)}


def test_it_has_no_other_weights_than_its_last(planned: Planned) -> None:
    both = OWN + "  - {attack: pgd, examples: 200, knowledge: [transfer, eot-10], checkpoint: last}\n"
    found = planned(both)
    assert len(found.cells) == 4 and len(found.units) == len(planned(OWN).units)


def test_its_cost_is_that_of_a_resnet18(planned: Planned) -> None:
    found = planned(OWN)
    macs = describe("resnet18", width=None, image_shape=(1, 8, 8), classes=10).macs
    assert found.costs[found.units[0].id] == 2 * CHECKED * macs
    assert found.costs[found.units[1].id] == macs * 100 * (3 * 20 + 2 * 10)


def test_a_sweep_may_mix_what_is_imported_and_what_is_trained(planned: Planned) -> None:
    found = planned(MIXED)
    assert [unit.kind for unit in found.units] == ["import", "train"] + 4 * ["evaluate"]
    theirs, ours = found.trials
    assert (theirs.variant, theirs.row) == ("theirs", {"network.import": "mynet:build", "training.lr": None})
    assert (ours.variant, ours.row) == ("ours", {"network.import": None, "training.lr": 0.05})
    assert found.units[1] == planned(BASE, "training.lr=0.05").units[0]
    attacks = {unit.settings["attack"]["eps_255"] for unit in found.units[2:]}
    assert attacks == {25.5}  # a column holds one threat: that of the training the sweep's networks share


def test_it_does_not_say_by_what_its_images_are_divided(planned: Planned) -> None:
    text = MIXED.replace("examples: 200", "eps_space: normalized, eps_255: 8, examples: 200")
    sentence = r"evaluation\.0\.eps_space: normalized divides by the std of .* imported network \(theirs\) has its own"
    with pytest.raises(SweepError, match=sentence):
        planned(text)
    ours = planned(text, "evaluation.0.only=[ours]").units
    assert {unit.settings["attack"]["eps_space"] for unit in ours if unit.kind == "evaluate"} == {"normalized"}
    # Its images may still be looked at by others: the attacked one's space is what counts.
    probes = 'probes=[{probe: transfer, eps_space: normalized, eps_255: 8, examples: 100}]'
    with pytest.raises(SweepError, match=r"probes\.0\.eps_space: normalized divides"):
        planned(MIXED, probes)


@pytest.mark.parametrize(
    "variants",
    [
        '{theirs: {network: {import: "mynet:build"}}, ours: {network: {name: resnet8, norm: BN}}}',
        '{ours: {network: {name: resnet8, norm: BN}}, theirs: {network: {import: "mynet:build"}}}',
        '{a: {network.import: "mynet:build"}, b: {network.import: "mynet:other"}}',
    ],
)
def test_variants_may_take_the_whole_network(variants: str, planned: Planned) -> None:
    text = BASE + f"variants: {variants}\n"
    kinds = {trial.variant: trial.kind for trial in planned(text).trials}
    assert kinds == {name: "train" if name == "ours" else "import" for name in kinds} and len(kinds) == 2


def test_a_variant_of_an_imported_one_may_be_trained(planned: Planned) -> None:
    ours = "{network.name: resnet8, network.norm: BN, training: {objective: natural}}"
    text = OWN + f"variants: {{theirs: {{}}, ours: {ours}}}\n"
    assert [(trial.variant, trial.kind) for trial in planned(text).trials] == [("theirs", "import"), ("ours", "train")]


def test_it_can_be_swept_over(planned: Planned) -> None:
    found = planned(OWN + 'grid: {network.import: ["mynet:a", "mynet:b"], seed: [0, 1]}\n')
    assert [trial.variant for trial in found.trials] == ["mynet:a", "mynet:a", "mynet:b", "mynet:b"]
    assert len({trial.network for trial in found.trials}) == 4


def test_the_papers_protocol_fits(planned: Planned) -> None:
    found = planned(OWN.replace(", knowledge: [transfer, eot-10]", ""), "protocol=paper")
    assert network(found)["network"]["paths"] == "batch"
    assert {unit.settings["draws"] for unit in found.units[1:]} == {1}


def test_a_sweep_is_resumed_from_any_folder(load_text: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (OWN, MIXED):
        spec = load_text(text)
        before = plan(spec, digest=lambda data: data.name)
        kept = to_json(spec)
        with monkeypatch.context() as patch:
            patch.chdir("/")
            assert from_json(kept) == spec
            after = plan(from_json(kept), digest=lambda data: data.name)
        assert (after.units, after.where) == (before.units, before.where)


BAD = {
    "network.norm=BN": "network.norm: does not go with network.import; build it in the function (rna_ray.randomize)",
    "network.width=3": "network.width: does not go with network.import; build it in the function",
    "network.layer_based=true": "network.layer_based: does not go with network.import; build it in the function",
    "network.name=resnet8": "network.name: does not go with network.import; name one or import one",
    "network.import=mynet": "network.import: 'mynet' does not say what to import; write module:function",
    "network.weights=w.pth": "network.weights: 'w.pth' is not named .safetensors",
    "network.random=no": "network.random: the text 'no' is not true or false",
    "training.objective=natural": "training: does not go with network.import, which is not trained here; leave it out",
    "network={name: resnet8, norm: BN}": "training: missing; How the network is trained",
    "network={name: resnet8, norm: BN, root: x}": "network.root: goes with network.import only",
    "network={name: resnet8, norm: BN, random: false}": "network.random: goes with network.import only",
    "network={paths: batch}": "network.name: missing; The network",
}


@pytest.mark.parametrize("bad", BAD)
def test_what_does_not_go_together_is_one_sentence(bad: str, load_text: Load) -> None:
    with pytest.raises(SweepError) as error:
        load_text(OWN, bad)
    assert str(error.value).startswith(f"--set {bad}: {BAD[bad]}") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OWN.replace("mynet:", "nothere:"), "variant 'nothere:build': network.import: there is no module nothere in "),
        (OWN.replace("w.safe", "v.safe"), r"network.weights: .*/here/v\.safetensors cannot be read: No such file"),
        (MIXED.replace("theirs: {", "theirs: {network.norm: IN, "), "variant 'theirs': network.norm: does not go with"),
        (MIXED + "grid: {training.epochs: [1]}\n", "variant 'theirs, epochs=1': training.*: "),
        (OWN.replace("200,", "200, eval: train_frozen,"), "evaluation.0.eval: train_frozen may change what an"),
        (OWN.replace("200,", "200, attack_mode: train_frozen,"), "evaluation.0.attack_mode: train_frozen may change"),
        (OWN.replace("[transfer, eot-10]", "enumerate"), "evaluation.0.knowledge: enumerate .* imported network; take"),
        (
            MIXED.replace("ours: {training.lr: 0.05}", 'more: {network.import: "mynet:build", network.root: "/"}'),
            "network.import: there is no module mynet in /",
        ),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(text: str, said: str, planned: Planned) -> None:
    with pytest.raises(UserError, match=said) as error:
        planned(text)
    assert "\n" not in str(error.value)


def test_one_content_in_two_folders_is_refused_as_what_it_imports_may_differ(planned: Planned, folder: Path) -> None:
    shutil.copytree(folder, folder / "copy")
    text = OWN + "variants: {a: {}, b: {network.root: copy}}\n"
    with pytest.raises(SweepError, match=f"the same mynet:build cannot lie in both {folder} and {folder}/copy"):
        planned(text)


def test_every_kind_of_unit_has_a_name_a_version_and_a_record() -> None:
    assert list(NAMES) == ["train", "import", "evaluate", "probe", "certify"] == list(VERSIONS)
    assert {RECORDS[kind] for kind in NAMES} <= set(SCHEMAS)
    assert issubclass(NetworkError, UserError)
