from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sweep_base import BASE, Planned

from rna_ray.attacks.catalog import REGROUPING
from rna_ray.errors import SpaceError, SweepError, UserError
from rna_ray.networks.describe import describe
from rna_ray.sweep.plan import Plan


def trains(plan: Plan) -> list[dict]:
    return [dict(unit.settings) for unit in plan.units if unit.kind == "train"]


def evaluates(plan: Plan) -> list[dict]:
    return [dict(unit.settings) for unit in plan.units if unit.kind == "evaluate"]


def test_a_train_unit_leaves_no_default_out(planned: Planned) -> None:
    assert trains(planned()) == [
        {
            "data": {"name": "digits", "digest": "digest of digits", "train_examples": 1437 - 128, "held_out": 128},
            "network": {"name": "resnet8", "width": 16, "norm": "BN+IN", "layer_based": False, "paths": "example"},
            "training": {
                "objective": "blackbox", "epochs": 3, "batch": 128, "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4,
                "schedule": {"name": "step", "milestones": [0.5, 0.75], "gamma": 0.1},
                "augment": "none",
                "attack": {
                    "name": "pgd", "threat": "linf", "eps_255": 25.5, "step_255": 6.4, "steps": 5, "random_start": True,
                },
                "attack_mode": "train_frozen",
            },
            "precision": "fp32", "compile": False, "seed": 0,
        }
    ]  # fmt: skip


def test_an_activation_is_a_setting_only_where_it_is_not_relu(planned: Planned) -> None:
    (relu,), (silu,) = trains(planned()), trains(planned(BASE, "network.activation=silu"))
    assert trains(planned(BASE, "network.activation=relu")) == [relu]
    assert silu["network"] == {**relu["network"], "activation": "silu"}


def test_crops_of_whole_images_are_for_data_sets_in_files(planned: Planned) -> None:
    imagenet = trains(planned(BASE, "data.name=imagenet", "network.name=resnet50"))[0]
    assert imagenet["training"]["augment"] == "resized-crop-flip"
    assert imagenet["data"]["train_examples"] == 1_281_167 - 128
    with pytest.raises(SweepError, match=r"augment: resized-crop-flip is for images in files, .* not for digits"):
        planned(BASE, "training.augment=resized-crop-flip")


def test_an_evaluate_unit_leaves_no_default_out(planned: Planned) -> None:
    plan = planned()
    train, first, second = plan.units
    assert dict(first.settings) == {
        "network": train.id, "checkpoint": "best", "paths": "example", "eval": "eval", "batch": 100,
        "data": {"name": "digits", "digest": "digest of digits", "split": "test"},
        "attack": {
            "name": "pgd", "threat": "linf", "eps_255": 25.5, "step_255": 6.4, "steps": 20, "random_start": True,
            "restarts": 1,
        },
        "knowledge": "eot-10", "draws": 10, "precision": "fp32", "compile": False, "noise_255": 0.0,
        "examples": [0, 100], "evaluation": plan.cells[0].evaluation,
    }  # fmt: skip
    assert second.settings["examples"] == [100, 200]
    assert first.needs == (train.id,)
    (cell,) = plan.cells
    assert (cell.variant, cell.attack, cell.knowledge, cell.network) == ("BN+IN", "pgd-20", "eot-10", train.id)
    assert cell.units == (first.id, second.id)


def test_ids_are_pinned(planned: Planned) -> None:
    """Where this fails and the meaning changed, bump `units.VERSIONS`; stored results keep the ids they have."""
    assert [unit.id for unit in planned().units] == [
        "699a91498be3bb5fdfab32ff98ad10f6", "a50122c0201884fbf5213c1bbe0a094d", "119bac508c84f1cdf54b055de29626a4",
    ]  # fmt: skip


def test_variants_times_grid_in_a_fixed_order(planned: Planned) -> None:
    text = BASE + (
        "grid: {network.norm: [IN, BN], seed: [0, 1]}\nvariants: {slow: {training.lr: 0.01}, fast: {training.lr: 1}}\n"
    )
    plan = planned(text)
    assert [(cell.variant, dict(cell.row)) for cell in plan.cells] == [
        (f"{name}, {norm}", {"training.lr": lr, "network.norm": norm, "seed": seed})
        for name, lr in (("slow", 0.01), ("fast", 1.0))
        for norm in ("IN", "BN")
        for seed in (0, 1)
    ]
    assert len(trains(plan)) == 8
    assert [unit.kind for unit in plan.units] == ["train"] * 8 + ["evaluate"] * 16
    assert planned(text).units == plan.units


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    seeds=st.lists(st.integers(0, 9), unique=True, min_size=1, max_size=3),
    widths=st.lists(st.integers(1, 9), unique=True, min_size=1, max_size=3),
)
def test_a_grid_is_the_product_of_its_axes(planned: Planned, seeds: list[int], widths: list[int]) -> None:
    plan = planned(BASE, f"grid.seed={seeds}", f"grid.network.width={widths}")
    found = [(one["seed"], one["network"]["width"]) for one in trains(plan)]
    assert found == [(seed, width) for seed in seeds for width in widths]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(examples=st.integers(1, 360), batch=st.integers(1, 150), batches=st.none() | st.integers(1, 4))
def test_shards_are_whole_batches_that_cover_each_example_once(
    planned: Planned, examples: int, batch: int, batches: int | None
) -> None:
    sets = [f"evaluation.0.examples={examples}", f"evaluation.0.batch={batch}"]
    plan = planned(BASE, *sets, f"evaluation.0.shard={'null' if batches is None else batches * batch}")
    ranges = [unit["examples"] for unit in evaluates(plan)]
    assert [example for start, stop in ranges for example in range(start, stop)] == list(range(examples))
    assert all(start % batch == 0 for start, _ in ranges)
    size = math.ceil(100 / batch) * batch if batches is None else batches * batch
    assert all(stop - start == size for start, stop in ranges[:-1])
    assert {unit["batch"] for unit in evaluates(plan)} == {min(batch, examples)}


def test_more_examples_share_the_units_of_fewer(planned: Planned) -> None:
    few, many = planned(BASE), planned(BASE, "evaluation.0.examples=350")
    assert {unit.id for unit in few.units} < {unit.id for unit in many.units}


def test_sweeps_that_share_a_network_share_its_unit(planned: Planned) -> None:
    one = planned(BASE)
    other = planned(
        "# another file\nname: other\nabout: other words\nseed: 0\n"
        + BASE.replace("name: base\n", "").replace("BN+IN", "'BGN+GN[1-1]'").replace("eot-10", "transfer")
        + "resources: {train: {cpu: 4, gpu: 0.5}, evaluate: {actors: 3}}\n",
        "data.root=/elsewhere", "data.download=true",
    )  # fmt: skip
    assert other.units[0].id == one.units[0].id
    assert other.sweep == "other" and other.where.roots == {"digits": "/elsewhere"} and other.where.download
    assert (other.where.train.gpu, other.where.evaluate.actors) == (0.5, 3)


def test_with_one_path_what_cannot_matter_does_not_count(planned: Planned) -> None:
    sets = ["network.norm=BN", "evaluation.0.knowledge=[transfer, resample, eot-10, fixed]"]
    plain = planned(BASE, *sets, "training.objective=whitebox")
    fancy = planned(BASE, *sets, "network.layer_based=true", "network.paths=batch", "evaluation.0.draws=7")
    assert plain.units == fancy.units
    assert len(plain.units) == 3 and len(plain.cells) == 4
    assert [cell.knowledge for cell in plain.cells] == ["transfer", "resample", "eot-10", "fixed"]
    assert {cell.units for cell in plain.cells} == {tuple(unit.id for unit in plain.units[1:])}
    assert {(one["knowledge"], one["draws"]) for one in evaluates(plain)} == {("fixed", 1)}


def test_what_two_entries_ask_for_alike_is_one_cell_as_urgent_as_the_more_urgent(planned: Planned) -> None:
    entry = "{attack: natural, examples: 100, priority: %d}"
    made = planned(BASE, f"evaluation=[{entry % 0}, {entry % 5}]")
    (cell,) = made.cells
    assert made.priorities[cell.units[0]] == 5


def test_noise_is_a_draw_that_black_box_training_does_not_know(planned: Planned) -> None:
    white, black = (
        trains(planned(BASE, "network.norm=BN", "noise_255=64", f"training.objective={objective}"))[0]["training"]
        for objective in ("whitebox", "blackbox")
    )
    assert (white["objective"], black["objective"]) == ("whitebox", "blackbox")
    quiet = planned(BASE, "network.norm=BN", "noise_255=64", "training.noise_255=0", "training.objective=blackbox")
    assert trains(quiet)[0]["training"]["objective"] == "whitebox"


def test_norms_that_coincide_everywhere_are_one_path(planned: Planned) -> None:
    plan = planned(BASE, "network.norm=GN[64]+LN")  # every layer has 64 channels at most: one group
    assert trains(plan)[0]["training"]["objective"] == "whitebox"
    assert evaluates(plan)[0]["knowledge"] == "fixed"


def test_draws(planned: Planned) -> None:
    knowledge = "evaluation.0.knowledge=[transfer, fixed]"
    found = {one["knowledge"]: one["draws"] for one in evaluates(planned(BASE, knowledge))}
    assert found == {"transfer": 10, "fixed": 1}
    found = {one["knowledge"]: one["draws"] for one in evaluates(planned(BASE, knowledge, "evaluation.0.draws=4"))}
    assert found == {"transfer": 4, "fixed": 4}


def test_an_attack_that_does_not_look_knows_nothing(planned: Planned) -> None:
    for attack in ("natural", "noise"):
        plan = planned(BASE, f"evaluation.0.attack={attack}", "evaluation.0.knowledge=[transfer, fixed]")
        assert [cell.knowledge for cell in plan.cells] == ["none"]
        assert {(one["knowledge"], one["draws"]) for one in evaluates(plan)} == {("none", 10)}


def test_one_fresh_path_is_resample(planned: Planned) -> None:
    plan = planned(BASE, "evaluation.0.knowledge=[resample, eot-1]")
    assert [cell.knowledge for cell in plan.cells] == ["resample", "eot-1"]
    assert plan.cells[0].units == plan.cells[1].units


def test_natural_training_has_no_attack_but_evaluations_keep_its_ball(planned: Planned) -> None:
    natural = planned(BASE, "training.objective=natural")
    assert trains(natural)[0]["training"]["attack"] is None
    assert trains(natural)[0]["training"]["attack_mode"] is None
    assert planned(BASE, "training.objective=natural", "training.attack.steps=9").units == natural.units
    assert evaluates(natural)[0]["attack"]["eps_255"] == 25.5


def test_the_ball_comes_from_training_where_it_is_stated_there(planned: Planned) -> None:
    def ball(*sets: str) -> tuple[object, ...]:
        attack = evaluates(planned(BASE, *sets))[0]["attack"]
        return attack["threat"], attack["eps_255"], attack.get("step_255")

    assert ball() == ("linf", 25.5, 6.4)
    assert ball("training.attack={}") == ("linf", 8.0, 2.0)
    assert ball("evaluation.0.eps_255=4") == ("linf", 4.0, 6.4)
    assert ball("training.attack.threat=l2") == ("l2", 25.5, 6.4)
    assert ball("evaluation.0.threat=l2", "evaluation.0.eps_255=128") == ("l2", 128.0, 2.0)
    with pytest.raises(SweepError, match=r"evaluation\.0\.eps_255: state it, as training\.attack is under linf"):
        ball("evaluation.0.threat=l2")


def test_a_radius_comes_from_training_only_in_its_own_space(planned: Planned) -> None:
    def ball(*sets: str) -> tuple[object, ...]:
        attack = evaluates(planned(BASE, *sets))[0]["attack"]
        return attack.get("eps_space"), attack.get("threat"), attack.get("eps_255"), attack.get("step_255")

    normalized, mine = "training.attack.eps_space=normalized", "evaluation.0.eps_255=4"
    assert ball() == ball("evaluation.0.eps_space=pixel") == (None, "linf", 25.5, 6.4)
    assert ball(normalized) == ("normalized", "linf", 25.5, 6.4)
    assert ball(normalized, mine) == ("normalized", "linf", 4.0, 6.4)
    assert ball("evaluation.0.eps_space=normalized", mine) == ("normalized", "linf", 4.0, 2.0)
    l2 = "training.attack.threat=l2"
    assert ball(normalized, l2, "evaluation.0.eps_space=pixel", mine) == (None, "l2", 4.0, 2.0)
    assert ball(normalized, "evaluation.0.threat=l2", mine) == ("normalized", "l2", 4.0, 2.0)
    gaussian = "evaluation=[{attack: gaussian, std_255: 12}]"
    assert ball(gaussian)[0] is None and ball(gaussian, normalized)[0] == "normalized"
    square = "evaluation=[{attack: square, eps_space: pixel, eps_255: 4, knowledge: fixed}]"
    assert ball(square, normalized) == (None, "linf", 4.0, None)


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (["evaluation.0.eps_space=normalized"], "evaluation.0.eps_255: state it, as training.attack is in pixel space"),
        (
            ["training.attack.eps_space=normalized", "evaluation.0.eps_space=pixel"],
            "evaluation.0.eps_255: state it, as training.attack is in normalized space and this attack is not",
        ),
        (
            ["training.attack.eps_space=normalized", "evaluation=[{attack: square, eps_255: 4}]"],
            "evaluation.0.eps_space: square measures in pixels only, and training.attack is normalized; write pixel",
        ),
        (["evaluation=[{attack: autoattack, eps_space: normalized}]"], "eps_space: 'normalized' is not pixel"),
        (["evaluation=[{attack: deepfool, eps_space: normalized}]"], "evaluation.0.eps_space: unknown key 'eps_space'"),
        (
            ["training.attack.eps_space=normalized", "evaluation=[{suite: randomised}]"],
            "eps_space: cascade measures in pixels only",
        ),
    ],
)
def test_what_cannot_be_measured_so_is_one_sentence(planned: Planned, sets: list[str], sentence: str) -> None:
    with pytest.raises(SweepError) as error:
        planned(BASE, *sets)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_pixels_are_what_was_before(planned: Planned) -> None:
    text = BASE + "  - {attack: fgsm}\n  - {attack: square}\nprobes: [{probe: transfer, examples: 100}]\n"
    stated = ("training.attack.eps_space=pixel", *(f"evaluation.{at}.eps_space=pixel" for at in range(3)))
    assert planned(text, *stated, "probes.0.eps_space=pixel").units == planned(text).units
    assert "eps_space" not in str([unit.settings for unit in planned(text).units])
    assert trains(planned(BASE, "training.attack.eps_space=normalized"))[0]["training"]["attack"]["eps_space"]


def test_the_mode_of_crafting_counts_where_it_is_not_that_of_the_answer(planned: Planned) -> None:
    assert planned(BASE, "evaluation.0.attack_mode=eval").units == planned().units
    crafted = evaluates(planned(BASE, "evaluation.0.attack_mode=train_frozen", "compile=true"))[0]
    assert (crafted["eval"], crafted["attack_mode"], crafted["compile"]) == ("eval", "train_frozen", False)
    frozen = "evaluation.0.eval=train_frozen"
    assert planned(BASE, frozen, "evaluation.0.attack_mode=train_frozen").units == planned(BASE, frozen).units
    assert evaluates(planned(BASE, frozen, "evaluation.0.attack_mode=eval"))[0]["attack_mode"] == "eval"
    for blind in ("natural", "noise", "gaussian"):
        entry = f"evaluation=[{{attack: {blind}}}]"
        assert planned(BASE, entry, "evaluation.0.attack_mode=train_frozen").units == planned(BASE, entry).units


@pytest.mark.parametrize("attack", ["autoattack", "square", "cascade", "deepfool"])
def test_attacks_that_regroup_are_not_crafted_with_batch_statistics(planned: Planned, attack: str) -> None:
    entry = f"evaluation=[{{attack: {attack}, examples: 200}}]"
    with pytest.raises(SweepError, match=rf"evaluation\.0\.attack_mode: train_frozen takes .*, and {attack} attacks"):
        planned(BASE, entry, "evaluation.0.attack_mode=train_frozen")
    answered = planned(BASE, entry, "evaluation.0.attack_mode=eval", "evaluation.0.eval=train_frozen")
    assert evaluates(answered)[0]["attack_mode"] == "eval"  # only answers see whole batches' statistics


def test_no_batch_shrinks_whose_statistics_an_attack_takes(planned: Planned) -> None:
    sentence = r"evaluation\.0\.attack_mode: train_frozen takes .*, and 150 examples are no whole batches of 100; all"
    with pytest.raises(SweepError, match=sentence):
        planned(BASE, "evaluation.0.attack_mode=train_frozen", "evaluation.0.examples=150")
    assert evaluates(planned(BASE, "evaluation.0.attack_mode=train_frozen", "evaluation.0.batch=50"))[0]["batch"] == 50


def test_columns_of_other_modes_norms_and_spaces_are_called_apart(planned: Planned) -> None:
    text = BASE.partition("evaluation:")[0] + """\
evaluation:
  - {attack: fgsm, threat: [linf, l2], eps_255: 8}
  - {attack: bim, attack_mode: [eval, train_frozen], examples: 100}
  - {attack: pgd, eps_255: 8, eps_space: [pixel, normalized], step_255: 2}
  - {attack: gaussian, std_255: [25.5, 5]}
"""
    assert [cell.attack for cell in planned(text).cells] == [
        "fgsm threat=linf", "fgsm threat=l2", "bim-20", "bim-20 attack_mode=train_frozen", "pgd-20 eps_space=pixel",
        "pgd-20 eps_space=normalized", "gaussian-25.5", "gaussian-5",
    ]  # fmt: skip


def test_fgsm_in_training_is_one_step_from_the_image(planned: Planned) -> None:
    attack = trains(planned(BASE, "training.attack.name=fgsm"))[0]["training"]["attack"]
    assert attack == {
        "name": "fgsm", "threat": "linf", "eps_255": 25.5, "step_255": 25.5, "steps": 1, "random_start": False,
    }  # fmt: skip


PAPER = BASE.replace("knowledge: eot-10", "") + "protocol: paper\n"


def test_a_loss_counts_where_it_is_not_what_was_before(planned: Planned) -> None:
    neutral = ("training.loss={name: cross-entropy, beta: 3}", "training.weight_perturbation=null")
    assert planned(BASE, *neutral).units == planned().units
    (ours,) = trains(planned(BASE, "training.loss.name=mart", "training.weight_perturbation={warmup: 2}"))
    assert ours["training"].pop("loss") == {"name": "mart", "beta": 5.0}
    assert ours["training"].pop("weight_perturbation") == {"gamma": 0.005, "warmup": 2}
    assert [ours] == trains(planned())
    assert trains(planned(BASE, "training.loss.name=trades"))[0]["training"]["loss"]["beta"] == 6.0
    assert trains(planned(BASE, "training.loss.name=mixed"))[0]["training"]["loss"] == {"name": "mixed"}


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (["training.objective=natural", "training.loss.name=trades"], "trades learns from attacked images, and obj"),
        (["training.loss.name=trades", "training.attack.random_start=false"], "flat at the image itself; write attack"),
        (["training.loss.name=trades", "training.attack.name=fgsm"], "flat at the image itself; write attack.name"),
        (["training.weight_perturbation.warmup=3"], "3 of 3 epochs leave none that perturbs weights; allowed is"),
        (["training.loss.name=awp"], "the text 'awp' is not 'cross-entropy', 'mixed', 'trades', 'mart' or"),
    ],
)
def test_losses_that_cannot_be_are_one_sentence(planned: Planned, sets: list[str], sentence: str) -> None:
    with pytest.raises(SweepError, match=sentence):
        planned(BASE, *sets)


def test_protocol_paper_is_one_setting(planned: Planned) -> None:
    plan = planned(PAPER, "grid.network.norm=[IN, BN+IN, 'IN(affine=false)']")
    single, mixed = trains(plan)  # the two spellings of the baseline are one unit
    assert single["network"]["norm"] == "IN(affine=false)"
    assert (mixed["network"]["norm"], mixed["network"]["paths"]) == ("BN+IN", "batch")
    assert single["training"]["attack_mode"] == mixed["training"]["attack_mode"] == "train"
    assert {(one["knowledge"], one["draws"]) for one in evaluates(plan)} == {("fixed", 1), ("transfer", 1)}
    assert [cell.row["network.norm"] for cell in plan.cells] == ["IN", "BN+IN", "IN(affine=false)"]


@pytest.mark.parametrize(
    "key",
    ["network.paths=example", "training.attack_mode=eval", "evaluation.0.draws=2", "evaluation.0.knowledge=fixed"],
)
def test_what_contradicts_protocol_paper_is_refused(planned: Planned, key: str) -> None:
    with pytest.raises(SweepError, match=rf"{key.partition('=')[0]}: protocol paper means"):
        planned(PAPER, key)


def test_both_protocols_stand_beside_each_other(planned: Planned) -> None:
    text = BASE.replace("knowledge: eot-10", "knowledge: [transfer, eot-10], only: [ours]") + "  - {attack: natural}\n"
    plan = planned(text, "grid.protocol=[paper, ours]")
    assert [one["network"]["paths"] for one in trains(plan)] == ["batch", "example"]
    assert [(cell.variant, cell.attack) for cell in plan.cells] == [
        ("paper", "natural"), ("ours", "pgd-20"), ("ours", "pgd-20"), ("ours", "natural"),
    ]  # fmt: skip


def test_only_means_a_name_before_it_means_a_norm(planned: Planned) -> None:
    text = BASE + "variants: {BN: {network.norm: BN}, BN natural: {network.norm: BN, training.objective: natural}}\n"

    def cells(only: str) -> list[str]:
        return [cell.variant for cell in planned(text, f"evaluation.0.only={only}").cells]

    assert cells("[BN]") == ["BN"]
    assert cells("[natural]") == ["BN natural"]
    assert planned(BASE, "evaluation.0.only=[BN+IN]").cells[0].variant == "BN+IN"


def test_entries_that_would_be_called_the_same_say_how_they_differ(planned: Planned) -> None:
    text = BASE + "  - {attack: pgd, eps_255: 4}\n  - {attack: pgd, eps_255: 4, checkpoint: last}\n  - {attack: fgsm}\n"
    assert [cell.attack for cell in planned(text).cells] == [
        "pgd-20 checkpoint=best", "pgd-20 checkpoint=best eps_255=4", "pgd-20 checkpoint=last eps_255=4", "fgsm",
    ]  # fmt: skip
    with pytest.raises(SweepError, match=r"two entries ask for pgd-20 \(eot-10\) of 'BN\+IN'"):
        planned(BASE + "  - {attack: pgd, knowledge: eot-10, examples: 100}\n")


def test_costs_are_multiply_adds(planned: Planned) -> None:
    macs = describe("resnet8", width=16, image_shape=(1, 8, 8), classes=10).macs
    plan = planned()
    train, first, second = (plan.costs[unit.id] for unit in plan.units)
    assert train == 3 * macs * (1437 - 128) * 3 * (1 + 5)  # forward and backward, epochs, update and attack steps
    assert first == second == macs * 100 * (3 * 20 * 10 + 2 * 10)
    rivals = planned(BASE, "training.loss.name=trades", "training.weight_perturbation={}")
    assert rivals.costs[rivals.units[0].id] == train / 6 * (2 * 2 + 5)  # clean and attacked, each looked at once more
    natural = planned(BASE, "training.objective=natural", "evaluation.0.attack=natural")
    assert natural.costs[natural.units[0].id] == 3 * macs * (1437 - 128) * 3
    assert natural.costs[natural.units[1].id] == macs * 100 * 20


@pytest.mark.parametrize(
    ("key", "kind", "sentence"),
    [
        ("network.norm=GN3", SpaceError, "variant 'GN3': GN3: 3 groups do not divide the 16 channels of layer norm"),
        ("grid.network.norm=[BN, GN3]", SpaceError, "variant 'GN3': GN3: 3 groups do not divide"),
        ("data.held_out=1437", SweepError, "variant 'BN+IN': data.held_out: 1437 leaves nothing to train on; digits"),
        ("data.train_examples=1400", SweepError, "variant 'BN+IN': data.train_examples: 1400 and 128 held out"),
        ("evaluation.0.examples=361", SweepError, "evaluation.0.examples: 361 are more than the 360 test images"),
        ("data.held_out=0", SweepError, "evaluation.0.checkpoint: best is chosen on held-out images"),
        (
            "variants={A: {data.root: /a}, B: {data.root: /b}}", SweepError,
            "data.root: digits cannot lie in both /a and /b",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(planned: Planned, key: str, kind: type[UserError], sentence: str) -> None:
    with pytest.raises(kind) as error:
        planned(BASE, key)
    assert str(error.value).startswith(sentence) and "\n" not in str(error.value)


@pytest.mark.parametrize("attack", sorted(REGROUPING))
def test_statistics_of_a_batch_and_an_attack_that_regroups_it_do_not_go_together(planned: Planned, attack: str) -> None:
    frozen = "evaluation.0.eval=train_frozen"
    with pytest.raises(SweepError) as error:
        planned(BASE, f"evaluation.0.attack={attack}", frozen)
    assert str(error.value) == (
        f"evaluation.0.eval: train_frozen takes each batch's statistics, and {attack} attacks parts of a batch; "
        "write eval"
    )
    assert evaluates(planned(BASE, f"evaluation.0.attack={attack}"))[0]["eval"] == "eval"
    assert evaluates(planned(BASE, frozen))[0]["eval"] == "train_frozen"


def test_networks_of_batch_statistics_are_attacked_and_measured_in_whole_batches(planned: Planned) -> None:
    robust = "network.norm=RN+BN"
    assert evaluates(planned(BASE, robust))[0]["batch"] == 100
    for setting, sentence in {
        "evaluation.0.attack=square": (
            "evaluation.0.attack: BN+RN of 'RN+BN' takes each batch's statistics, and square attacks parts of a batch; "
            "say with `only` for which other variants this entry is"
        ),
        "evaluation.0.examples=150": (
            "evaluation.0.attack: BN+RN of 'RN+BN' takes each batch's statistics, so that none may shrink, and 150 "
            "examples are no whole batches of 100; allowed are multiples of it"
        ),
        "evaluation.0.examples=50": "evaluation.0.attack: BN+RN of 'RN+BN' takes each batch's statistics",
        "data.held_out=100": "variant 'RN+BN': data.held_out: 100 images are no whole batches of training.batch, ",
        "probes=[{probe: surface, examples: 100}]": (
            "probes.0.probe: surface looks at each image by itself, and BN+RN of 'RN+BN' answers with statistics of a"
        ),
        "probes=[{probe: transfer, examples: 150}]": "probes.0.probe: BN+RN of 'RN+BN' answers with statistics of",
    }.items():
        with pytest.raises(SweepError) as error:
            planned(BASE, robust, setting)
        assert str(error.value).startswith(sentence)
        planned(BASE, "network.norm=BN+RN(track=true)", setting)
    message = r"smoothness compares with Eq. 5 and 6, of GN and BGN, and RN\(track=true\) of"
    with pytest.raises(SweepError, match=message):
        planned(BASE, "network.norm=BN+RN(track=true)", "probes=[{probe: smoothness}]")
    with pytest.raises(SweepError, match=r"evaluation.0.eval: train_frozen takes each batch's .* 150 examples are no"):
        planned(BASE, "evaluation.0.eval=train_frozen", "evaluation.0.examples=150")


def test_compiling_counts_only_where_each_example_follows_a_path_of_its_own(planned: Planned) -> None:
    def compiled(*sets: str) -> bool:
        return trains(planned(BASE, *sets, "compile=true"))[0]["compile"]

    assert compiled()
    assert not compiled("network.paths=batch") and not compiled("network.norm=BN")
    batch = [planned(BASE, "network.paths=batch", f"compile={asked}").units for asked in ("true", "false")]
    assert batch[0] == batch[1]


def test_a_relative_root_is_of_the_folder_that_the_plan_is_made_in(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/of-a-user")
    roots = {given: planned(BASE, f"data.root={given}").where.roots["digits"] for given in ("images", "'~/x'", "/x")}
    assert roots == {"images": str(Path.cwd() / "images"), "'~/x'": "/home/of-a-user/x", "/x": "/x"}
    assert planned().where.roots == {"digits": None}
