"""Every field that counts changes an id, every other one leaves them all; a new field fails here first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from sweep_base import BASE, WEIGHTS, Planned

from rna_ray.attacks.catalog import ATTACKS, Option
from rna_ray.probes.catalog import PROBES, Numbers
from rna_ray.sweep.entries import Certification, Evaluation, Probe
from rna_ray.sweep.experiment import SweepSpec

STABILITY = ("training={objective: natural, noise_255: 20, loss: {name: stability}}",)
IMPORTED = ("network={import: 'json.decoder:build'}", "training=", "evaluation.0.checkpoint=last")

# Another value for every field of an experiment that counts, and what it needs to matter.
COUNTS: dict[str, tuple[str, ...]] = {
    "protocol": ("paper", "evaluation=[]"),
    "data.name": ("mnist",),
    "data.train_examples": ("100",),
    "data.held_out": ("64",),
    "network.name": ("resnet18", "network.norm=BN+LN"),
    "network.width": ("8",),
    "network.norm": ("BN",),
    "network.layer_based": ("true",),
    "network.activation": ("silu",),
    "network.paths": ("batch",),
    "network.import": ("json.encoder:build", *IMPORTED),
    "network.weights": ("w.safetensors",),
    "network.random": ("false", *IMPORTED),
    "network.last_norm": ("BN",),
    "network.mean": ("[0.5]", "network={name: resnet8, norm: BN+IN, mean: [0.1], std: [0.25]}"),
    "network.std": ("[0.5]", "network={name: resnet8, norm: BN+IN, mean: [0.1], std: [0.25]}"),
    "training.objective": ("whitebox",),
    "training.epochs": ("4",),
    "training.batch": ("64",),
    "training.lr": ("0.2",),
    "training.optimizer": ("adam",),
    "training.momentum": ("0.8",),
    "training.weight_decay": ("1e-4",),
    "training.schedule.name": ("cosine",),
    "training.schedule.milestones": ("[0.5]",),
    "training.schedule.gamma": ("0.2",),
    "training.schedule.warmup": ("0.2", "training.schedule.name=one-cycle"),
    "training.augment": ("crop",),
    "training.attack.name": ("fgsm",),
    "training.attack.threat": ("l2",),
    "training.attack.eps_255": ("20",),
    "training.attack.step_255": ("5",),
    "training.attack.steps": ("6",),
    "training.attack.random_start": ("false",),
    "training.attack.eps_space": ("normalized",),
    "training.attack_mode": ("eval",),
    "training.loss.name": ("mart",),
    "training.loss.beta": ("3", "training.loss.name=trades"),
    "training.loss.gamma": ("2", *STABILITY),
    "training.loss.target": ("logits", *STABILITY),
    "training.noise_255": ("20",),
    "noise_255": ("20",),  # of the defence, under which its network learns too
    "training.weight_perturbation.gamma": ("0.01", "training.weight_perturbation={}"),
    "training.weight_perturbation.warmup": ("1", "training.weight_perturbation={}"),
    "seed": ("1",),
    "precision": ("bf16",),
    "compile": ("true",),
}
ENTRY: dict[str, str] = {
    "attack": "fgsm", "knowledge": "fixed", "draws": "3", "examples": "150", "checkpoint": "last", "batch": "50",
    "shard": "200", "eval": "train_frozen", "attack_mode": "train_frozen", "precision": "bf16",
}  # fmt: skip
PROBED: dict[str, str] = {
    "probe": "similarity", "examples": "150", "checkpoint": "last", "batch": "50", "shard": "200",
}  # fmt: skip
CERTIFIED: dict[str, str] = {
    "draws": "200", "selection": "50", "noise_255": "30", "abandon": "misclassified", "examples": "150",
    "checkpoint": "last", "batch": "500", "precision": "bf16", "shard": "150",
}  # fmt: skip
CERTIFICATION = "certification=[{examples: 200, noise_255: 25}]"
PROBE = "probes=[{probe: transfer, examples: 200}]"
FREE_OF_AN_ENTRY = ("only", "priority")
FREE: dict[str, str] = {
    "name": "other", "about": "words", "folder": "/elsewhere", "data.root": "/elsewhere", "data.download": "true",
    "network.root": "/elsewhere", "network.weights_sha256": hashlib.sha256(WEIGHTS).hexdigest(),
    "resources.train.workers": "2",
    "resources.train.checkpoint": "60",
    "resources.train.limit": "3600",
    "resources.train.smaller_batches": "true",
    "resources.evaluate.limit": "600",
    "resources.evaluate.smaller_batches": "true",
    "resources.train.cpu": "4", "resources.train.gpu": "0.5", "resources.evaluate.cpu": "0.5",
    "resources.evaluate.gpu": "1", "resources.evaluate.actors": "3", "presets": "{p: {seed: 1}}",
    "grid": "{seed: [0]}", "variants": "{A: {seed: 0}}", "evaluation.0.only": "[BN+IN]",
    "logging.tensorboard": "false", "logging.folder": "/elsewhere", "logging.mlflow.tracking_uri": "sqlite:///m.db",
    "logging.mlflow.experiment": "e", "logging.wandb.project": "p",
    "search": "{trials: 1, over: {precision: [fp32]}}",
    "budget.hours": "2", "budget.gpu_hours": "8", "priority": "7", "evaluation.0.priority": "-7",
}  # fmt: skip


def leaves(model: type[BaseModel], counted: bool = True, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield each leaf's dotted key and whether it counts."""
    for name, field in model.model_fields.items():
        counts = counted and (field.json_schema_extra or {}).get("counts", True)
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        kind = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        name = field.alias or name
        if kind is not None and f"{prefix}{name}" not in ("evaluation", "probes", "certification", "search"):
            yield from leaves(kind, bool(counts), f"{prefix}{name}.")
        elif f"{prefix}{name}" not in ("evaluation", "probes", "certification", "options"):
            yield f"{prefix}{name}", bool(counts)


def test_every_field_is_in_one_of_the_lists() -> None:
    fields = dict(leaves(SweepSpec))
    entry = dict(leaves(Evaluation))
    assert {name for name, counts in fields.items() if counts} == {*COUNTS, "data.side"}  # see test_sweep_folder.py
    assert {name for name, counts in entry.items() if counts} == {*ENTRY, "source"}
    probe = dict(leaves(Probe))
    assert {name for name, counts in probe.items() if counts} == set(PROBED)
    assert set(probe) == {*PROBED, *FREE_OF_AN_ENTRY}
    certified = dict(leaves(Certification))
    assert {name for name, counts in certified.items() if counts} == set(CERTIFIED)
    assert set(certified) == {*CERTIFIED, *FREE_OF_AN_ENTRY}
    free = {name for name, counts in fields.items() if not counts}
    assert free | {f"evaluation.0.{name}" for name, counts in entry.items() if not counts} == set(FREE)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with weights in it, to which relative paths lead."""
    monkeypatch.chdir(tmp_path)
    Path("w.safetensors").write_bytes(WEIGHTS)


@pytest.mark.parametrize("key", COUNTS)
def test_a_field_that_counts_changes_every_id(planned: Planned, key: str) -> None:
    value, *context = COUNTS[key]
    before, after = planned(BASE, *context), planned(BASE, *context, f"{key}={value}")
    assert not {unit.id for unit in before.units} & {unit.id for unit in after.units}


def test_noise_of_the_defence_changes_evaluations_only_where_training_has_its_own(planned: Planned) -> None:
    before, after = (planned(BASE, "training.noise_255=10", f"noise_255={noise}") for noise in (0, 20))
    assert before.units[0] == after.units[0]
    assert not {unit.id for unit in before.units[1:]} & {unit.id for unit in after.units[1:]}


@pytest.mark.parametrize("key", ENTRY)
def test_a_field_of_an_entry_changes_evaluations_only(planned: Planned, key: str) -> None:
    before, after = planned(), planned(BASE, f"evaluation.0.{key}={ENTRY[key]}")
    assert before.units[0].id == after.units[0].id
    assert [unit.id for unit in before.units] != [unit.id for unit in after.units]


def test_the_source_of_an_entry_changes_evaluations_only(planned: Planned) -> None:
    more = ("variants={A: {}, B: {network.norm: BN}, C: {network.norm: IN}}", "evaluation.0.only=[A]")
    plain, *sourced = (planned(BASE, *more, *source) for source in ((), *((f"evaluation.0.source={s}",) for s in "BC")))
    attacks = [{unit.id for unit in one.units if unit.kind == "evaluate"} for one in (plain, *sourced)]
    assert all(attacks) and not set.intersection(*attacks) and not attacks[1] & attacks[2]
    assert {one.units[:3] for one in sourced} == {plain.units[:3]}


def test_a_precision_that_is_the_networks_own_changes_nothing(planned: Planned) -> None:
    assert planned(BASE, "evaluation.0.precision=fp32").units == planned().units


@pytest.mark.parametrize("key", PROBED)
def test_a_field_of_a_probe_changes_its_units_only(planned: Planned, key: str) -> None:
    value = f"probes.0.{key}={PROBED[key]}"
    more = "variants={A: {}, B: {network.norm: BN}}"  # a pair for `similarity`
    before, after = planned(BASE, PROBE, more), planned(BASE, PROBE, more, value)
    ids = [{unit.id for unit in one.units if unit.kind == "probe"} for one in (before, after)]
    assert all(ids) and ids[0] != ids[1]
    assert all(unit in after.units for unit in before.units if unit.kind != "probe")
    only = planned(BASE, PROBE, more, "probes.0.only=[A]")
    assert {unit.id for unit in only.units} < {unit.id for unit in before.units}


@pytest.mark.parametrize("key", CERTIFIED)
def test_a_field_of_a_certification_changes_its_units_only(planned: Planned, key: str) -> None:
    before = planned(BASE, CERTIFICATION)
    after = planned(BASE, CERTIFICATION, f"certification.0.{key}={CERTIFIED[key]}")
    ids = [{unit.id for unit in one.units if unit.kind == "certify"} for one in (before, after)]
    assert all(ids) and ids[0] != ids[1]
    if key not in ("examples", "shard"):  # which cut the images otherwise, and leave every draw
        assert not ids[0] & ids[1]
    assert [unit for unit in before.units if unit.kind != "certify"] == list(planned().units)


@pytest.mark.parametrize("key", FREE)
def test_a_field_that_does_not_count_leaves_every_id(planned: Planned, key: str) -> None:
    context = {"network.root": IMPORTED, "network.weights_sha256": ("network.weights=w.safetensors",)}.get(key, ())
    assert planned(BASE, *context, f"{key}={FREE[key]}").units == planned(BASE, *context).units


def other(option: Option) -> object:
    if isinstance(option, Numbers):
        return [1, 3]
    if isinstance(option.default, bool):
        return str(not option.default).lower()
    if option.choices:
        return option.choices[-1]
    return min(option.default * 2 or 1, option.maximum)


@pytest.mark.parametrize(
    ("attack", "option"),
    [(attack.name, option) for attack in ATTACKS.values() for option in attack.options if len(option.choices) != 1],
    ids=lambda part: getattr(part, "name", part),
)
def test_every_option_of_every_attack_counts(planned: Planned, attack: str, option: Option) -> None:
    apart = option.name in ("threat", "eps_space") and attack != "gaussian"  # than training's: then with its own radius
    entry = f"evaluation=[{{attack: {attack}{', eps_255: 9' if apart else ''}}}]"
    few = "network.layer_based=true"  # so few paths that an attack may know them all
    before, after = planned(BASE, entry, few), planned(BASE, entry, few, f"evaluation.0.{option.name}={other(option)}")
    assert before.units[0].id == after.units[0].id
    assert not {unit.id for unit in before.units[1:]} & {unit.id for unit in after.units[1:]}


@pytest.mark.parametrize(
    ("probe", "option"),
    [(probe.name, option) for probe in PROBES.values() for option in probe.options if len(option.choices) != 1],
    ids=lambda part: getattr(part, "name", part),
)
def test_every_option_of_every_probe_counts(planned: Planned, probe: str, option: Option) -> None:
    radius = ", eps_255: 9" if "eps_255" in [one.name for one in PROBES[probe].options] else ""  # of another threat
    attacks = "images" in [one.name for one in PROBES[probe].options] and option.name != "images"  # else none counts
    entry = f"probes=[{{probe: {probe}, examples: 100{radius}{', images: attacked' if attacks else ''}}}]"
    more = "variants={A: {}, B: {network.norm: BN+LN}}"
    before, after = planned(BASE, entry, more), planned(BASE, entry, more, f"probes.0.{option.name}={other(option)}")
    ids = [{unit.id for unit in one.units if unit.kind == "probe"} for one in (before, after)]
    assert all(ids) and not ids[0] & ids[1]
