"""Entries of `probes:` become units for every network, or every pair of networks, each with an id of its own."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sweep_base import Load, Planned

from rna_ray.errors import SweepError
from rna_ray.sweep import spec, units
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.units import Unit

THREE = """\
name: three
data: {name: digits, held_out: 128}
network: {name: resnet8, width: 16}
training: {objective: blackbox, epochs: 3, attack: {eps_255: 25.5, step_255: 6.4, steps: 5}}
variants:
  A: {network.norm: BN}
  B: {network.norm: IN}
  C: {network.norm: BN+IN}
"""
TRANSFER = "probes=[{probe: transfer, examples: 200}]"


def probes(plan: Plan) -> list[Unit]:
    return [unit for unit in plan.units if unit.kind == "probe"]


def test_every_ordered_pair_is_a_unit_for_each_shard_the_pair_of_itself_too(planned: Planned) -> None:
    plan = planned(THREE, TRANSFER)
    assert [(one.source, one.variant) for one in plan.probes] == [(a, b) for a in "ABC" for b in "ABC"]
    assert len(probes(plan)) == 18 and plan.cells == ()
    trained = {trial.variant: trial.network for trial in plan.trials}
    for one in plan.probes:
        found = [unit for unit in plan.units if unit.id in one.units]
        assert [unit.settings["examples"] for unit in found] == [[0, 100], [100, 200]]
        assert {unit.settings["evaluation"] for unit in found} == {one.evaluation}
        for unit in found:
            source, network = trained[one.source], trained[one.variant]
            assert (unit.settings["source"]["id"], unit.settings["network"]["id"]) == (source, network)
            assert unit.needs == tuple(dict.fromkeys([source, network]))
            assert units.checkpoints(unit) == {source: "best", network: "best"}
    assert len({one.evaluation for one in plan.probes}) == 9
    assert all(plan.costs[unit.id] > 0 for unit in probes(plan))


def test_a_unit_says_all_that_decides_it(planned: Planned) -> None:
    plan = planned(THREE, TRANSFER, "variants.B={network.norm: IN, noise_255: 20}", "precision=bf16")
    unit = next(unit for unit in probes(plan) if unit.needs == (plan.trials[2].network, plan.trials[1].network))
    role = {"checkpoint": "best", "paths": "example", "precision": "bf16", "compile": False}
    assert dict(unit.settings) == {
        "probe": "transfer",
        "data": {"name": "digits", "digest": "digest of digits", "split": "test"},
        "attack": {
            "name": "pgd", "threat": "linf", "eps_255": 25.5, "step_255": 6.4, "steps": 7, "random_start": True
        },
        "options": {},
        "batch": 100,
        "source": {"id": plan.trials[2].network, "noise_255": 0.0, **role},
        "network": {"id": plan.trials[1].network, "noise_255": 20.0, **role},
        "examples": [0, 100],
        "evaluation": unit.settings["evaluation"],
    }


def test_ids_hang_on_nothing_but_the_networks_and_the_settings(planned: Planned) -> None:
    fewer = planned(THREE, TRANSFER, "variants={A: {network.norm: BN}, B: {network.norm: IN}}")
    two, three = ({unit.id for unit in probes(plan)} for plan in (fewer, planned(THREE, TRANSFER)))
    assert len(two) == 8 and two < three
    other = planned(THREE, TRANSFER, "name=other", "evaluation=[{attack: natural}]")
    assert {unit.id for unit in probes(other)} == three
    roles = {"source": {"id": "a", "checkpoint": "best"}, "network": {"id": "b", "checkpoint": "last"}}
    assert units.probe({"probe": "transfer", **roles}, examples=(0, 10)).id == "842f56b620cf4bfc777d3e4872385cac"


def test_pairs_are_of_one_seed_and_the_same_images(planned: Planned) -> None:
    plan = planned(THREE, TRANSFER, "grid={seed: [0, 1]}")
    assert len(plan.probes) == 18
    seeds = {trial.network: trial.row["seed"] for trial in plan.trials}
    assert all(len({seeds[need] for need in unit.needs}) == 1 for unit in probes(plan))
    mixed = planned(THREE, TRANSFER, "variants.B={network.norm: IN, data.name: mnist}")
    assert {(one.source, one.variant) for one in mixed.probes} == {*zip("ACAC", "ACCA", strict=True), ("B", "B")}


def test_only_keeps_to_pairs_of_which_both_are_meant(planned: Planned) -> None:
    plan = planned(THREE, "probes=[{probe: transfer, only: [A, C]}, {probe: similarity, only: [IN, BN]}]")
    assert [(one.probe, one.source, one.variant) for one in plan.probes] == [
        *(("transfer-7", a, b) for a in "AC" for b in "AC"), ("similarity-networks", "A", "B")
    ]


def test_similarity_compares_networks_without_order_or_the_members_of_one(planned: Planned) -> None:
    plan = planned(THREE, "probes=[{probe: similarity}, {probe: similarity, between: members, only: [C]}]")
    assert [(one.source, one.variant) for one in plan.probes] == [("A", "B"), ("A", "C"), ("B", "C"), (None, "C")]
    assert [one.probe for one in plan.probes] == ["similarity-networks"] * 3 + ["similarity-members"]
    last = next(unit for unit in plan.units if unit.id == plan.probes[-1].units[0])
    assert last.needs == (plan.trials[2].network,) and "source" not in last.settings


def test_each_path_difference_is_a_unit_of_its_own(planned: Planned) -> None:
    plan = planned(THREE, "probes=[{probe: path-transfer, examples: 100}]")
    found = {unit.id: unit.settings["options"] for unit in probes(plan)}
    differences = {
        label: [found[one.units[0]]["difference"] for one in plan.probes if one.variant == label] for label in "ABC"
    }
    assert differences == {"A": [0], "B": [0], "C": [0, 2, 4, 6, 8]}  # of nine norms; one path parts from none
    assert {options["pairs"] for options in found.values()} == {10}
    assert {one.probe for one in plan.probes} == {"path-transfer-20"}
    some = planned(THREE, "probes=[{probe: path-transfer, differences: [9, 1], pairs: 2, examples: 9, only: [C]}]")
    assert [unit.settings["options"] for unit in probes(some)] == [{"pairs": 2, "difference": d} for d in (9, 1)]
    # At the three layers of 16 channels the groups of 16, 32 and 64 are one.
    clamped = planned(THREE, "variants={A: {network.norm: 'GN[16-64]'}}", "probes=[{probe: path-transfer}]")
    assert {unit.settings["options"]["difference"] for unit in probes(clamped)} == {0, 2, 4, 6}


REFUSED: dict[str, tuple[str, str]] = {
    "unknown probe": ("{probe: transfers}", "probes.0.probe: unknown probe 'transfers'"),
    "missing": ("{examples: 3}", "probes.0.probe: missing; What is measured"),
    "unknown option": ("{probe: transfer, pairs: 3}", "probes.0.pairs: unknown key 'pairs'"),
    "wrong value": ("{probe: similarity, between: layers}", "probes.0.between: 'layers' is not networks or members"),
    "shard": ("{probe: transfer, shard: 150}", "probes.0.shard: 150 is not a multiple of batch, 100"),
    "examples": ("{probe: transfer, examples: 361}", "probes.0.examples: 361 are more than the 360 test images of"),
    "only": ("{probe: transfer, only: [D]}", "probes.0.only: no variant is called 'D'; there are: A, B, C"),
    "not a list": (
        "{probe: path-transfer, differences: 3}",
        "probes.0.differences: 3 is not null, or a list of whole numbers from 0, each given once",
    ),
    "twice": ("{probe: path-transfer, differences: [2, 2]}", "[2, 2] is not null, or a list"),
    "no number": ("{probe: path-transfer, differences: [true]}", "[True] is not null, or a list"),
    "too far": (
        "{probe: path-transfer, only: [C], differences: [4, 10]}",
        "probes.0.differences: 10 is more than the 9 layers of BN+IN at which two paths can part",
    ),
    "no path": (
        "{probe: path-transfer, differences: [1]}",
        "probes.0.differences: 1 is more than the 0 layers of BN at which two paths can part",
    ),
    "one network": ("{probe: similarity, only: [A]}", "probes.0.probe: similarity-networks is about two networks"),
    "one member": ("{probe: similarity, between: members}", "probes.0.between: BN has one member and none to compare"),
    "tracks nothing": (
        "{probe: statistics}",
        "probes.0.probe: statistics compares batches with what a norm tracked while training, and IN tracks nothing",
    ),
    "a smaller batch": (
        "{probe: statistics, only: [A], examples: 250}",
        "probes.0.examples: statistics compares whole batches, and 250 is not a multiple of batch, 100",
    ),
    "no such images": ("{probe: landscape, images: noisy}", "probes.0.images: 'noisy' is not natural or attacked"),
    "one point": ("{probe: landscape, points: 1}", "probes.0.points: 1 is not a whole number from 2"),
    "another threat": ("{probe: transfer, threat: l2}", "probes.0.eps_255: state it, as training.attack is under linf"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_sentence(planned: Planned, case: str) -> None:
    entry, sentence = REFUSED[case]
    with pytest.raises(SweepError) as error:
        planned(THREE, f"probes=[{entry}]")
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_layer_based_space_has_no_paths_that_part_at_some_layers(planned: Planned) -> None:
    with pytest.raises(SweepError, match=r"^probes\.0\.probe: path-transfer draws .*, and BN\+IN is layer-based"):
        planned(THREE, "probes=[{probe: path-transfer, only: [C]}]", "network.layer_based=true")


def test_the_best_weights_need_held_out_images(planned: Planned) -> None:
    with pytest.raises(SweepError, match=r"probes\.0\.checkpoint: best is chosen on held-out images"):
        planned(THREE, TRANSFER, "data.held_out=0")
    assert len(probes(planned(THREE, TRANSFER, "data.held_out=0", "probes.0.checkpoint=last"))) == 18


def test_attacks_take_their_radius_from_how_the_attacked_network_was_trained(planned: Planned) -> None:
    plan = planned(THREE, TRANSFER, "variants.B={network.norm: IN, training.attack.eps_255: 16}")
    radius = {(one.source, one.variant): unit_of(plan, one.units[0])["attack"]["eps_255"] for one in plan.probes}
    assert {pair: eps for pair, eps in radius.items() if eps != 25.5} == {("B", variant): 16.0 for variant in "ABC"}
    stated = planned(THREE, "probes=[{probe: transfer, eps_255: 4}]")
    assert {unit.settings["attack"]["eps_255"] for unit in probes(stated)} == {4.0}


def test_images_are_attacked_as_training_did_only_where_an_entry_says_so(planned: Planned) -> None:
    for name, options in (("landscape", {"radius": 1.0, "points": 25}), ("statistics", {})):
        natural, attacked = (
            planned(THREE, f"probes=[{{probe: {name}, only: [A], images: {images}}}]")
            for images in ("natural", "attacked")
        )
        assert [one.probe for one in (*natural.probes, *attacked.probes)] == [f"{name}-natural", f"{name}-attacked"]
        natural_unit, attacked_unit = (unit_of(plan, plan.probes[0].units[0]) for plan in (natural, attacked))
        assert (natural_unit["attack"], natural_unit["options"]) == (None, {**options, "images": "natural"})
        assert attacked_unit["options"] == {**options, "images": "attacked"}
        assert attacked_unit["attack"] == {
            "name": "pgd", "threat": "linf", "eps_255": 25.5, "step_255": 6.4, "steps": 10, "random_start": True
        }  # fmt: skip
        # What is done with no attack does not hang on how one would be made.
        other = planned(THREE, f"probes=[{{probe: {name}, only: [A]}}]", "probes.0.steps=3")
        assert other.units == natural.units
        assert sum(attacked.costs.values()) > sum(natural.costs.values())


def test_statistics_take_whole_batches_of_networks_that_track_some(planned: Planned) -> None:
    plan = planned(THREE, "probes=[{probe: statistics, only: [A, C]}]")
    assert {one.variant for one in plan.probes} == {"A", "C"}  # C holds a BN
    assert sum(unit.settings["examples"][1] - unit.settings["examples"][0] for unit in probes(plan)) == 2 * 300
    assert {unit.settings["batch"] for unit in probes(plan)} == {100}  # of 360 test images
    small = planned(THREE, "probes=[{probe: statistics, only: [A], examples: 30, batch: 30}]")
    assert [(unit.settings["batch"], unit.settings["examples"]) for unit in probes(small)] == [(30, [0, 30])]
    with pytest.raises(SweepError, match="compares whole batches, and 360 is not a multiple of batch, 500"):
        planned(THREE, "probes=[{probe: statistics, only: [A], batch: 500}]")
    with pytest.raises(SweepError, match=r"probes\.0\.probe: statistics follows paths .* imported network \(A\)"):
        planned(THREE, *IMPORTED, "probes=[{probe: statistics}]")
    assert len(planned(THREE, *IMPORTED, "probes=[{probe: landscape}]").probes) == 2


@pytest.mark.parametrize("norm", ["RN", "BN(track=false)", "MinMax", "none", "LN", "IN+RN"])
def test_norms_without_tracked_statistics_have_none_to_compare(planned: Planned, norm: str) -> None:
    with pytest.raises(SweepError, match=f"and {re.escape(norm)} tracks nothing"):
        planned(THREE, f"variants={{A: {{network.norm: '{norm}'}}}}", "probes=[{probe: statistics}]")


@pytest.mark.parametrize("norm", ["BN", "BGN2", "RN(track=true)", "RN(track=mean)", "BN+RN"])
def test_norms_with_tracked_statistics_are_compared(planned: Planned, norm: str) -> None:
    plan = planned(THREE, f"variants={{A: {{network.norm: '{norm}'}}}}", "probes=[{probe: statistics}]")
    assert len(probes(plan)) == 3


def unit_of(plan: Plan, unit_id: str) -> dict[str, Any]:
    return dict(next(unit.settings for unit in plan.units if unit.id == unit_id))


def test_entries_that_would_be_called_the_same_say_how_they_differ(planned: Planned) -> None:
    plan = planned(THREE, "probes=[{probe: transfer}, {probe: transfer, eps_255: 4}]")
    assert {one.probe for one in plan.probes} == {"transfer-7", "transfer-7 eps_255=4"}
    with pytest.raises(SweepError, match="two entries ask for transfer-7 of 'A' on other examples or shards"):
        planned(THREE, "probes=[{probe: transfer}, {probe: transfer, examples: 20}]")
    once, twice = (planned(THREE, f"probes=[{'{probe: transfer}, ' * times}]") for times in (1, 2))
    assert once.units == twice.units


def test_one_network_behind_two_labels_is_probed_once(planned: Planned) -> None:
    plan = planned(THREE, TRANSFER, "variants={A: {network.norm: BN}, Z: {network.norm: BN}}")
    assert len(plan.probes) == 4 and len(probes(plan)) == 2


def test_probes_along_given_paths_are_not_compiled_for(planned: Planned) -> None:
    plan = planned(THREE, "probes=[{probe: transfer}, {probe: path-transfer, only: [C]}]", "compile=true")
    compiled = {
        (unit.settings["probe"], plan_label(plan, unit.settings["network"]["id"])): unit.settings["network"]["compile"]
        for unit in probes(plan)
    }
    assert compiled == {
        ("transfer", "A"): False, ("transfer", "B"): False, ("transfer", "C"): True, ("path-transfer", "C"): False
    }


def plan_label(plan: Plan, network: str) -> str:
    return next(trial.variant for trial in plan.trials if trial.network == network)


def test_the_paper_s_protocol_gives_a_batch_one_path(planned: Planned) -> None:
    plan = planned(THREE, TRANSFER, "protocol=paper")
    assert {unit.settings["network"]["paths"] for unit in probes(plan)} == {"batch", "example"}


def test_a_sweep_with_probes_is_planned_again_from_its_json(planned: Planned, load_text: Load) -> None:
    entries = "probes=[{probe: path-transfer, differences: [1, 3], pairs: 2, only: [C]}, {probe: similarity}]"
    loaded = load_text(THREE, entries)
    assert spec.from_json(spec.to_json(loaded)) == loaded
    fewer = planned(THREE, TRANSFER, "probes.*.examples=50")
    assert fewer.units == planned(THREE, "probes=[{probe: transfer, examples: 50}]").units


IMPORTED = (
    "network={import: 'json.decoder:build'}", "training=", "variants={A: {}, B: {network.import: 'json.encoder:build'}}"
)


def test_imported_networks_are_probed_along_draws_of_their_own(planned: Planned) -> None:
    plan = planned(THREE, *IMPORTED, TRANSFER)
    assert len(plan.probes) == 4
    assert {name for unit in probes(plan) for name in units.checkpoints(unit).values()} == {"last"}
    with pytest.raises(SweepError, match=r"probes\.0\.probe: path-transfer follows paths .* imported network \(A\)"):
        planned(THREE, *IMPORTED, "probes=[{probe: path-transfer}]")
