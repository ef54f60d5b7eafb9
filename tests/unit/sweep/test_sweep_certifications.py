"""What `certification:` asks for: which networks, noises and numbers of draws, with which ids, and what cannot be."""

from __future__ import annotations

import pytest
from sweep_base import Load, Planned

from rna_ray.errors import SweepError
from rna_ray.sweep import spec, units
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.units import Unit

TWO = """\
name: two
data: {name: digits, held_out: 128}
network: {name: resnet8, width: 4}
training: {objective: natural, epochs: 1}
noise_255: 51
variants:
  one: {network.norm: BN}
  many: {network.norm: BN+IN}
"""


def certifies(plan: Plan) -> list[Unit]:
    return [unit for unit in plan.units if unit.kind == "certify"]


def test_each_noise_and_number_of_draws_is_units_of_its_own(planned: Planned) -> None:
    plan = planned(TWO, "certification=[{draws: [100, 1000], noise_255: [25, 51.0], examples: 40}]")
    asked = [(one.variant, one.noise_255, one.draws) for one in plan.certifications]
    assert asked == [(label, s, n) for label in ("one", "many") for s in (25.0, 51.0) for n in (100, 1000)]
    assert len({one.evaluation for one in plan.certifications}) == 8
    assert len(certifies(plan)) == 4 * (1 + 2)  # 100 images a unit, or the 20 that 20,000 draws are for
    assert planned(TWO, "certification=[{noise_255: 51, examples: 40}]").units == (
        planned(TWO, "certification=[{examples: 40}]").units  # the sweep's own noise
    )


def test_settings_are_resolved_and_the_id_is_pinned(planned: Planned) -> None:
    plan = planned(TWO, "certification=[{examples: 150, abandon: misclassified, only: [many]}]", "network.paths=batch")
    first, second = certifies(plan)
    network = plan.trials[1].network
    assert first.needs == second.needs == (network,) and units.checkpoints(first) == {network: "best"}
    assert first.settings == {
        "network": network, "checkpoint": "best",
        "data": {"name": "digits", "digest": "digest of digits", "split": "test"},
        "noise_255": 51.0, "draws": 100, "selection": 100, "abandon": "misclassified", "batch": 1000,
        "precision": "fp32", "compile": False, "examples": [0, 100], "evaluation": plan.certifications[0].evaluation,
    }  # fmt: skip
    assert second.settings == {**first.settings, "examples": [100, 150]}
    pinned = units.certify({"network": "a", "draws": 100}, examples=(0, 10))
    assert (pinned.version, pinned.id) == (1, "86abd9bdced26ee4df9d581ea58f6950")


@pytest.mark.parametrize(
    ("entry", "sizes"),
    [
        ("draws: 100", [100, 100, 100, 60]),
        ("draws: 1000", [20] * 18),
        ("draws: 10000", [10] * 36),
        ("draws: 10000, shard: 200", [200, 160]),
    ],
)
def test_a_unit_takes_tens_of_images_and_some_twenty_thousand_draws(
    planned: Planned, entry: str, sizes: list[int]
) -> None:
    plan = planned(TWO, f"certification=[{{{entry}, only: [one]}}]")
    ranges = [unit.settings["examples"] for unit in certifies(plan)]
    assert [stop - start for start, stop in ranges] == sizes and ranges[-1][1] == 360


def test_a_batch_holds_no_more_than_there_is_to_draw(planned: Planned) -> None:
    (unit, _) = certifies(planned(TWO, "certification=[{examples: 2, draws: 20, selection: 30}]"))
    assert unit.settings["batch"] == 60


def test_the_cost_is_that_of_every_draw(planned: Planned) -> None:
    few, many = (
        planned(TWO, f"certification=[{{draws: {n}, selection: 10, examples: 7, only: [one]}}]") for n in (10, 90)
    )
    (a,), (b,) = ([plan.costs[unit.id] for unit in certifies(plan)] for plan in (few, many))
    assert b == 5 * a > 0 and a % (7 * 20) == 0
    evaluated = planned(TWO, "evaluation=[{attack: natural, examples: 7, draws: 10, only: [one]}]")
    assert a == sum(evaluated.costs[one] for one in evaluated.cells[0].units)  # natural: two sets of ten draws


def test_what_else_a_sweep_does_keeps_its_ids(planned: Planned) -> None:
    rest = "evaluation=[{attack: natural}]"
    without, beside = planned(TWO, rest), planned(TWO, rest, "certification=[{}]")
    assert without.units == tuple(unit for unit in beside.units if unit.kind != "certify")
    once, twice = (planned(TWO, f"certification=[{'{}, ' * times}]") for times in (1, 2))
    assert once.units == twice.units


def test_a_sweep_with_certifications_is_planned_again_from_its_json(load_text: Load) -> None:
    loaded = load_text(TWO, "certification=[{draws: [100, 200], noise_255: 25}, {only: [many]}]")
    assert spec.from_json(spec.to_json(loaded)) == loaded


REFUSED: dict[str, tuple[str, str]] = {
    "no draws": ("draws: 0", "certification.0.draws.0: 0 is not at least 1"),
    "an empty list": ("draws: []", "certification.0.draws: give at least one value, each once"),
    "twice": ("draws: [5, 5]", "certification.0.draws: give at least one value, each once"),
    "no noise": ("noise_255: 0", "certification.0.noise_255.0: 0 is not above 0"),
    "negative": ("noise_255: [-3.5]", "certification.0.noise_255.0: -3.5 is not above 0"),
    "another rule": ("abandon: hopeless", "certification.0.abandon: the text 'hopeless' is not 'none' or"),
    "unknown key": ("knowledge: eot-10", "certification.0.knowledge: unknown key 'knowledge'"),
    "examples": ("examples: 361", "certification.0.examples: 361 are more than the 360 test images of digits"),
    "only": ("only: [few]", "certification.0.only: no variant is called 'few'; there are: one, many"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_sentence(planned: Planned, case: str) -> None:
    entry, sentence = REFUSED[case]
    with pytest.raises(SweepError) as error:
        planned(TWO, f"certification=[{{{entry}}}]")
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_without_noise_there_is_nothing_to_certify(planned: Planned) -> None:
    with pytest.raises(SweepError, match=r"^certification\.0\.noise_255: the sweep adds no noise to 'one'.*`only`$"):
        planned(TWO, "certification=[{}]", "noise_255=0")
    assert certifies(planned(TWO, "certification=[{noise_255: 25}]", "noise_255=0"))


@pytest.mark.parametrize("norm", ["RN", "BN(track=false)", "IN+RN"])
def test_a_network_whose_examples_share_batch_statistics_is_refused(planned: Planned, norm: str) -> None:
    sets = (f"variants={{one: {{network.norm: BN}}, dependent: {{network.norm: '{norm}'}}}}", "certification=[{}]")
    with pytest.raises(SweepError, match=r"^certification\.0\.only: .* of 'dependent' answers with statistics"):
        planned(TWO, *sets)
    assert {one.variant for one in planned(TWO, *sets, "certification.0.only=[one]").certifications} == {"one"}


def test_a_table_could_not_tell_two_settings_of_one_noise_and_number_apart(planned: Planned) -> None:
    with pytest.raises(SweepError, match="two entries ask for 100 draws at noise_255 51 of 'one' with other settings"):
        planned(TWO, "certification=[{}, {selection: 10}]")
    assert len(planned(TWO, "certification=[{}, {draws: 1000, selection: 10}]").certifications) == 4


def test_the_best_weights_need_held_out_images_and_imported_networks_have_their_last(planned: Planned) -> None:
    with pytest.raises(SweepError, match=r"certification\.0\.checkpoint: best is chosen on held-out images"):
        planned(TWO, "certification=[{}]", "data.held_out=0")
    theirs = ("network={import: 'json.decoder:build'}", "training=", "variants={A: {}}", "certification=[{}]")
    assert {unit.settings["checkpoint"] for unit in certifies(planned(TWO, *theirs))} == {"last"}


def test_only_networks_of_several_paths_are_compiled(planned: Planned) -> None:
    plan = planned(TWO, "certification=[{examples: 10}]", "compile=true")
    assert [unit.settings["compile"] for unit in certifies(plan)] == [False, True]
