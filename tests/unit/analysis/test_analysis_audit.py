"""The audit: each check catches what is planted for it and nothing else, and is silent where there is only chance."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_base import HONEST, NATURAL, Lab, N, drawn, failed, found_of, lab, right, row
from typer.testing import CliRunner

from rna_ray.analysis import audit as audits
from rna_ray.analysis.audit import Counts, marks, show
from rna_ray.analysis.audit import findings as said_by
from rna_ray.analysis.audit.checks import CHECKS
from rna_ray.analysis.audit.claims import Setting
from rna_ray.analysis.papers import Line
from rna_ray.analysis.statistics import paired
from rna_ray.analysis.tables import table
from rna_ray.cli import app
from rna_ray.errors import QueryError, UserError
from rna_ray.store import connect

SOME_ZEROS = [1] * 8 + [0] * (N - 8)  # 2 %
FEW_ZEROS = [3] * 4 + [0] * (N - 4)  # 1 %

# check → the claim, and what of the honest laboratory is changed
PLANTED: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "attack ≤ natural": ("pgd", {"pgd": {"natural": 0.45}}),
    "attack ≤ random noise": ("pgd", {"noise": {"scores": 0.45}}),
    "iterative ≤ single-step": ("pgd", {"fgsm": {"scores": 0.45}}),
    "more steps ≤ fewer": ("pgd", {"fewer_steps": {"scores": 0.45}}),
    "steps suffice": ("pgd", {"more_steps": {"scores": 0.40}}),
    "restarts change nothing": ("pgd", {"more_restarts": {"scores": 0.40}}),
    "larger ε ≤ smaller": ("pgd", {"smaller_eps": {"scores": 0.45}}),
    "ε = 0 equals natural": ("pgd", {"eps_0": {"scores": 0.70}}),
    "ε → 1 reaches chance": ("pgd", {"eps_255": {"scores": 0.20}}),
    "fixed ≤ transfer": ("fixed", {"transfer": {"scores": 0.40}}),
    "larger k ≤ smaller": ("pgd", {"resample": {"scores": 0.45}}),
    "k suffices": ("pgd", {"larger_k": {"scores": 0.40}}),
    "enumerate ≤ eot": ("enumerate", {"larger_k": {"scores": 0.40}}),
    "AutoAttack ≤ PGD": ("autoattack", {"more_steps": {"scores": 0.40}}),
    "white-box ≤ gradient-free": ("pgd", {"square": {"scores": 0.45}}),
    "unbounded ≈ 0 or its distortion stated": ("deepfool", {"deepfool": {"l2": 0.0, "linf": 0.0}}),
    "gradients are not zero": ("pgd", {"pgd": {"zero_gradients": SOME_ZEROS}}),
    "the path's generator is its own": ("pgd", {"pgd": {"global_generator": True}}),
    "outputs are logits": ("pgd", {"pgd": {"softmax_output": True}}),
    "no optimisation at inference": ("pgd", {"pgd": {"optimizes": True}}),
}


@pytest.mark.parametrize("check", PLANTED)
def test_a_planted_violation_is_caught_by_its_check_alone(check: str) -> None:
    claim, changed = PLANTED[check]
    clean = found_of(lab(claim).audit(), check)
    assert clean.status == "passed"
    spoilt = lab(claim, **changed).audit()
    assert failed(spoilt) == [check]
    found = found_of(spoilt, check)
    assert (found.variant, len(found.evaluations), len(found.units)) == ("BN+IN", 1, 1)
    if found.difference is not None and check != "ε = 0 equals natural":
        assert found.low is not None and found.high is not None
        assert 0 < found.low < found.difference < found.high
        assert found.n == N and len(found.other_units) == 1


def test_every_check_is_planted_here_or_tested_below() -> None:
    assert {check.name for check in CHECKS} - set(PLANTED) == {"cascade ≤ PGD"}


@pytest.mark.parametrize("claim", [name for name in HONEST if name != "noise"])
def test_an_honest_claim_fails_nothing(claim: str) -> None:
    findings = lab(claim).audit()
    assert findings and failed(findings) == []


def test_the_two_accuracies_their_difference_and_where_they_came_from() -> None:
    spoilt = lab(fgsm={"scores": 0.45})
    found = found_of(spoilt.audit(), "iterative ≤ single-step")
    assert (found.accuracy, found.other_accuracy, found.n) == (0.50, 0.45, N)
    assert found.difference == pytest.approx(0.05)
    by_hand = paired({0.0: 380, 1.0: 20})
    assert (found.low, found.high) == (by_hand.low, by_hand.high)
    units = {evaluation["unit_id"]: evaluation for evaluation in spoilt.rows["evaluations"]}
    assert [units[unit]["attack"] for unit in found.units] == ["pgd"]
    assert [units[unit]["attack"] for unit in found.other_units] == ["fgsm"]
    assert found.other_evaluations == (units[found.other_units[0]]["evaluation"],)
    assert found.says == "50.00 % is above the 45.00 % of fgsm@eot-5"


def test_natural_and_noise_rows_claim_nothing_that_an_attack_must_keep() -> None:
    assert lab("noise").audit() == []
    quiet = Lab()
    quiet.evaluate("natural", "none", 0.8, sweep="s", eps_255=None, threat="none")
    assert quiet.audit() == [] and marks(quiet.connect(), "s") == {}


def test_an_attack_from_another_network_is_held_against_none_of_this_one() -> None:
    """It may do better without saying that the direct attack is poor, and worse without being poor itself."""
    for accuracy in (0.30, 0.79):
        strong = lab()
        strong.evaluate("fgsm", "eot-5", accuracy, source_id="other")
        strong.evaluate("pgd-10", "eot-5", accuracy, source_id="other")
        strong.evaluate("pgd-20", "eot-10", accuracy, source_id="other")
        assert failed(strong.audit()) == []
        claimed = lab("noise")  # which claims nothing itself
        claimed.evaluate("pgd-20", "eot-5", accuracy, source_id="other", sweep="s")
        statuses = {found.check: found.status for found in claimed.audit()}
        assert statuses == {
            "attack ≤ natural": "passed", "larger ε ≤ smaller": "not measured", "ε = 0 equals natural": "not measured",
            "the path's generator is its own": "passed",
        }  # fmt: skip
        claimed.evaluate("pgd-20", "eot-5", accuracy - 0.1, source_id="other", eps_255=4.0)
        claimed.evaluate("pgd-20", "eot-5", accuracy - 0.2, source_id="another", eps_255=4.0)
        (found,) = [found for found in claimed.audit() if found.status == "failed"]
        assert (found.check, found.other_accuracy) == ("larger ε ≤ smaller", pytest.approx(accuracy - 0.1))
        assert "pgd-20 from another network@eot-5" in found.says


def test_losses_are_other_attacks_and_not_other_steps_of_one() -> None:
    mixed = lab()
    mixed.evaluate("pgd-10", "eot-5", 0.30, options={"loss": "margin"})
    assert failed(mixed.audit()) == []
    assert Setting(attack="pgd", steps=20, loss="margin", knowledge="eot", k=5).name == "pgd-20-margin@eot-5"


# -- budgets -----------------------------------------------------------------------------------------------------------


def test_the_largest_budget_fails_where_it_has_not_stopped_falling() -> None:
    falling = lab(without=["more steps"], fewer_steps={"scores": 0.53}).audit()
    assert failed(falling) == ["steps suffice"]
    assert (found_of(falling, "steps suffice").high or 0) < 0
    says = found_of(falling, "steps suffice").says
    assert says == "50.00 % with 20 steps, 53.00 % with 10: still falling, needs more than 20 steps"


def test_a_point_is_flat_however_sure_it_is() -> None:
    for drop, expected in ((0.01, []), (0.03, ["steps suffice"])):
        many = Lab()
        for attack, accuracy, sweep in (("pgd-20", 0.50, "s"), ("pgd-100", 0.50 - drop, "t")):
            many.evaluate(attack, "eot-5", right(accuracy, 3000), sweep=sweep)
        found = found_of(many.audit(), "steps suffice")
        assert failed(many.audit()) == expected
        assert found.low is not None and found.low > 0


def test_the_largest_of_several_budgets_judges_the_claim() -> None:
    three = lab(without=["fewer steps"])
    three.evaluate("pgd-30", "eot-5", 0.30)  # weaker than pgd-40 should be: pgd-40 would fail "more steps ≤ fewer"
    found = found_of(three.audit(), "steps suffice")
    assert (found.status, found.other_accuracy) == ("passed", 0.50)


def test_restarts_in_rows_from_before_they_were_recorded_count_as_one() -> None:
    old = lab(pgd={"restarts": None}, more_restarts={"scores": 0.40, "options": {"restarts": 5}})
    assert failed(old.audit()) == ["restarts change nothing"]


def test_a_few_zero_gradients_hide_less_than_a_point() -> None:
    assert failed(lab(pgd={"zero_gradients": FEW_ZEROS}).audit()) == []
    library = found_of(lab(pgd={"zero_gradients": [None] * N}).audit(), "gradients are not zero")
    assert (library.status, library.n) == ("not measured", None)


def test_a_generator_of_the_networks_own_does_not_repeat() -> None:
    check = "the path's generator is its own"
    spoilt = lab(pgd={"repeats": False})
    assert failed(spoilt.audit()) == [check]
    assert found_of(spoilt.audit(), check).says.startswith("the same draw gave two answers: the network keeps ")
    for seen, says in (
        ({"repeats": None}, "answering drew from no global generator"),  # rows from before it was looked at
        ({"repeats": True, "global_generator": None}, "needs rows that record global_generator: evaluate again"),
    ):
        assert found_of(lab(pgd=seen).audit(), check).says == says
    reseeded = found_of(lab(pgd={"global_generator": True}).audit(), check).says
    assert "repeat here only because rna-ray reseeds it" in reseeded
    # One evaluation of two that does not repeat is enough, whatever the other says.
    two = lab(pgd={"repeats": False})
    two.evaluate("pgd-20", "eot-5", 0.5, start=N, sweep="s")
    assert failed(two.audit()) == [check]


def test_fixed_is_held_against_transfer_on_an_imported_network_that_was_seen_to_be_random() -> None:
    spoilt: dict[str, Any] = {"transfer": {"scores": 0.40}, "fixed": {"random_output": True}}
    imported = lab("fixed", **spoilt)
    imported.rows["trials"] = [row("trials", unit_id="net", state="imported", log2_paths=0.0)]
    assert failed(imported.audit()) == ["fixed ≤ transfer"]
    # What was seen goes before what the plan had to take for possible.
    alike = lab("fixed", **spoilt | {"fixed": {"random_output": False}})
    assert "fixed ≤ transfer" not in {found.check for found in alike.audit()}


def test_what_is_left_at_the_whole_radius_is_weighed_with_the_chance_that_batches_share() -> None:
    left = [1] * 20 + [0] * (N - 60) + [1] * 40  # 10 % are chance; 15 % is beyond it, unless most of it is one batch
    check, shared = "ε → 1 reaches chance", {"path_sharing": "batch", "batch": 60}
    assert failed(lab(eps_255={"scores": left}).audit()) == [check]
    found = found_of(lab(eps_255={"scores": left} | shared).audit(), check)
    assert (found.status, found.accuracy) == ("passed", 0.15)
    together = {"batch_statistics": True, "batch": 60}
    every = {name.replace(" ", "_"): together for name in HONEST}
    lone = found_of(lab(**every | {"eps_255": {"scores": left} | together}).audit(), check)
    assert (lone.status, lone.accuracy) == ("passed", 0.15)


def test_eps_of_zero_must_not_help_either() -> None:
    spoilt = lab(eps_0={"scores": 0.90})
    assert failed(spoilt.audit()) == ["ε = 0 equals natural"]
    found = found_of(spoilt.audit(), "ε = 0 equals natural")
    assert (found.accuracy, found.other_accuracy) == (0.90, NATURAL)
    radii = {evaluation["unit_id"]: evaluation["eps_255"] for evaluation in spoilt.rows["evaluations"]}
    assert [radii[unit] for unit in (*found.units, *found.other_units)] == [8.0, 0.0]


def test_an_unbounded_attack_states_its_median_distortion() -> None:
    far = lab("deepfool", deepfool={"l2": 0.25, "linf": 0.03125})
    found = found_of(far.audit(), "unbounded ≈ 0 or its distortion stated")
    assert found.status == "passed"
    letter = "\N{SCRIPT SMALL L}"
    assert found.says == f"40.00 % at a median distortion of {letter}₂ 0.25, {letter}∞ 0.0312"
    still = lab("deepfool", deepfool={"l2": 0.0, "linf": 0.0})
    found = found_of(still.audit(), "unbounded ≈ 0 or its distortion stated")
    assert found.status == "failed"
    assert found.says == "40.00 % at a median distortion of 0: the attack left most images as they were"
    # Where the network was wrong of most images anyway, nothing had to move.
    wrong = lab("deepfool", deepfool={"l2": 0.0, "linf": 0.0, "scores": 0.05})
    assert failed(wrong.audit()) == []


def test_an_ensemble_is_not_above_the_pgd_that_it_begins_with() -> None:
    above = lab("none")
    above.evaluate("cascade-20", "eot-5", 0.56, sweep="s")
    assert [found.other_accuracy for found in above.audit() if found.check == "cascade ≤ PGD"] == [0.5]
    assert "cascade ≤ PGD" in failed(above.audit())


# -- what is compared with what ----------------------------------------------------------------------------------------


def test_without_counterparts_nothing_is_measured_and_it_says_what_to_run() -> None:
    alone = Lab()
    unseen = {"global_generator": None, "repeats": None, "softmax_output": None, "optimizes": None}
    alone.evaluate("pgd-20", "eot-10", 0.5, sweep="s", zero_gradients=[None] * N, **unseen)
    findings = alone.audit()
    assert [found.check for found in findings if found.status == "passed"] == ["attack ≤ natural"]
    assert failed(findings) == []
    said = {found.check: found.says for found in findings}
    assert said["steps suffice"] == "needs pgd with more than 20 steps under eot-10 on the same images"
    assert said["k suffices"] == "needs pgd under eot-k with k above 10 on the same images"
    assert said["iterative ≤ single-step"] == "needs fgsm at the same ε under eot-10 on the same images"
    assert said["ε → 1 reaches chance"] == "needs pgd-20@eot-10 with eps_255: 255 on the same images"
    assert said["the path's generator is its own"] == "needs rows that record global_generator: evaluate again"
    assert "fixed ≤ transfer" not in said and "enumerate ≤ eot" not in said and "AutoAttack ≤ PGD" not in said


def test_checks_that_cannot_apply_do_not_appear() -> None:
    checks = {found.check for found in lab("fgsm").audit()}
    assert not checks & {"iterative ≤ single-step", "steps suffice", "restarts change nothing", "AutoAttack ≤ PGD"}
    assert {"attack ≤ random noise", "larger k ≤ smaller"} <= checks
    one_path = Lab()
    one_path.rows["trials"].append(row("trials", unit_id="net", log2_paths=0.0))
    one_path.evaluate("pgd-20", "fixed", 0.5, sweep="s")
    assert not {"fixed ≤ transfer", "k suffices"} & {found.check for found in one_path.audit()}


def test_a_network_of_one_path_is_spoken_of_in_the_words_that_were_asked_for() -> None:
    settled = Lab()
    settled.rows["trials"].append(row("trials", unit_id="net", log2_paths=0.0))
    unit = settled.evaluate("pgd-20", "aggmo-fixed", 0.5, eps_255=8.0)
    settled.plan(unit, "s", "BN", "pgd-20", "aggmo-eot-10")
    said = {found.check: found.says for found in settled.audit()}
    assert said["steps suffice"] == "needs pgd with more than 20 steps under aggmo-eot-10 on the same images"
    assert said["iterative ≤ single-step"] == "needs fgsm at the same ε under eot-10 on the same images"
    assert said["larger ε ≤ smaller"] == "needs pgd-20@aggmo-eot-10 at an ε below 8/255 on the same images"
    assert not any("fixed" in sentence for sentence in said.values())


def test_restarts_are_said_of_attacks_that_have_them() -> None:
    restarted = lab("more restarts", pgd={"scores": 0.52})
    said = {found.check: found.says for found in restarted.audit()}
    assert said["iterative ≤ single-step"] == "50.00 % is not above the 60.00 % of fgsm@eot-5"
    ensemble = lab("autoattack", more_restarts={"scores": 0.45}).audit()
    assert found_of(ensemble, "AutoAttack ≤ PGD").says.endswith("of pgd-20@eot-5 (5 restarts)")
    one = Setting(attack="pgd", steps=20, random_start=True)
    assert one.unlike(Setting(attack="pgd", steps=20, restarts=5)) == "pgd-20 (1 restart)"


@pytest.mark.parametrize(
    "other",
    [
        {"eps_255": 7.0},
        {"threat": "l2"},
        {"eps_space": "normalized"},
        {"checkpoint": "last"},
        {"eval_mode": "train_frozen"},
        {"attack_mode": "train_frozen"},
        {"noise_255": 25.0},
        {"data": "mnist"},
        {"settings": '{"data": {"digest": "of other images"}}'},
        {"precision": "bf16"},
        {"knowledge": "eot-10"},
        {"network": "another"},
        {"start": N},
    ],
    ids=str,
)
def test_rows_that_differ_in_more_than_the_axis_are_never_paired(other: dict[str, Any]) -> None:
    assert found_of(lab(fgsm={"scores": 0.10}).audit(), "iterative ≤ single-step").status == "failed"
    assert found_of(lab(fgsm={"scores": 0.10} | other).audit(), "iterative ≤ single-step").status == "not measured"


def test_noise_is_no_attack_and_blind_to_how_others_were_crafted() -> None:
    crafted = {"attack_mode": "train_frozen", "batch": 1}  # batches are the independent ones
    found = lab(pgd=crafted, noise={"scores": 0.10}).audit()
    assert found_of(found, "attack ≤ random noise").status == "failed"
    assert found_of(found, "iterative ≤ single-step").status == "not measured"
    alike = lab(pgd=crafted, fgsm=crafted | {"scores": 0.10}).audit()
    assert found_of(alike, "iterative ≤ single-step").status == "failed"
    other = lab(pgd=crafted, fgsm=crafted | {"scores": 0.10, "batch": 2}).audit()  # of other batches' statistics
    assert found_of(other, "iterative ≤ single-step").status == "not measured"
    assert not lab("noise", noise={"attack": "gaussian", "eps_255": None, "threat": "none"}).audit()


def test_a_ball_of_normalised_pixels_is_spoken_of_as_one_and_never_whole() -> None:
    space = {"eps_space": "normalized"}
    told = {name.replace(" ", "_"): space for name in HONEST if name != "deepfool"}
    found = lab(**told).audit()
    assert not failed(found) and "ε → 1 reaches chance" not in {one.check for one in found}
    assert "ε → 1 reaches chance" in {one.check for one in lab().audit()}
    found = lab(**told | {"smaller_eps": space | {"scores": 0.10}}).audit()
    assert found_of(found, "larger ε ≤ smaller").says.endswith("of pgd-20@eot-5 (ε = 4/255 (normalized))")
    alone = found_of(lab(without=["smaller eps", "eps 0"], **told).audit(), "larger ε ≤ smaller")
    assert alone.says == "needs pgd-20@eot-5 at an ε below 8/255 (normalized) on the same images"


def test_other_options_make_it_another_attack() -> None:
    other = lab(fewer_steps={"scores": 0.10, "options": {"loss": "margin"}})
    assert found_of(other.audit(), "more steps ≤ fewer").status == "not measured"
    step = lab(smaller_eps={"scores": 0.10})
    assert failed(step.audit()) == ["larger ε ≤ smaller"]
    # A step of its own belongs to a ball, not to a number of steps.
    settings = [r for r in step.rows["evaluations"] if r["eps_255"] == 4.0 or r["steps"] == 10]
    for evaluation in settings:
        evaluation["attack_settings"] = evaluation["attack_settings"].replace('"step_255": 2.0', '"step_255": 1.0')
    changed = step.audit()
    assert failed(changed) == ["larger ε ≤ smaller"]
    assert found_of(changed, "more steps ≤ fewer").status == "not measured"


def test_aggregated_momentum_is_a_method_not_knowledge() -> None:
    climbed = lab("none")
    climbed.evaluate("pgd-20", "aggmo-eot-5", 0.57, sweep="s")
    found = {finding.check: finding for finding in climbed.audit()}
    assert found["iterative ≤ single-step"].other_accuracy == 0.60  # fgsm@eot-5: fgsm has no momentum to aggregate
    assert found["white-box ≤ gradient-free"].status == "failed"  # square@eot-5 0.55
    assert found["larger k ≤ smaller"].says == "needs pgd under aggmo-eot-k with k below 5 on the same images"
    plain = found_of(lab("autoattack").audit(), "AutoAttack ≤ PGD")
    stronger = lab("autoattack")
    stronger.evaluate("pgd-20", "aggmo-eot-5", 0.40)
    assert plain.status == "passed" and failed(stronger.audit()) == ["AutoAttack ≤ PGD"]


def test_rows_of_an_older_meaning_are_not_compared_with_newer_ones() -> None:
    newer = lab(fgsm={"scores": 0.10, "noise_255": 0.0})
    assert found_of(newer.audit(), "iterative ≤ single-step").status == "not measured"


def test_a_path_that_only_the_attack_shares_is_said() -> None:
    regrouped = lab(square={"scores": 0.45, "path_sharing": "attack"})
    found = found_of(regrouped.audit(), "white-box ≤ gradient-free")
    assert found.status == "failed"
    assert found.says.endswith(
        "; images of a batch were attacked on the same draws, a chance that is not in the interval"
    )
    every = {"claim": "enumerate", "larger_k": {"scores": 0.45}}
    unseen = found_of(lab(**every, enumerate={"path_sharing": "attack"}).audit(), "enumerate ≤ eot")
    assert unseen.status == "failed" and not unseen.says.endswith("interval")  # all paths were attacked: no chance


def test_draws_of_an_example_are_pooled_and_networks_averaged() -> None:
    both = Lab()
    for network, variant_scores, counterpart in (("a", [2, 1, 0, 2], [1, 0, 0, 1]), ("b", [2, 2, 2, 2], [0, 0, 0, 0])):
        both.evaluate("pgd-20", "eot-5", variant_scores, network=network, draws=2, natural=[2] * 4, sweep="s")
        both.evaluate("fgsm", "eot-5", counterpart, network=network, draws=1, natural=[1] * 4)
    found = found_of(both.audit(), "iterative ≤ single-step")
    assert (found.n, found.accuracy) == (4, pytest.approx((5 / 8 + 1) / 2))  # four examples of two networks
    assert found.other_accuracy == pytest.approx((2 / 4 + 0) / 2)
    # The examples differ by 1/2 · (0 + 1), 1/2 · (1/2 + 1), 1/2 · (0 + 1) and 1/2 · (0 + 1).
    assert (found.low, found.high) == ((interval := paired({0.5: 3, 0.75: 1})).low, interval.high)
    assert len(found.units) == len(found.other_units) == 2


def test_only_the_examples_that_both_have_count() -> None:
    part = lab(fgsm={"scores": right(0.7, 40)})
    found = found_of(part.audit(), "iterative ≤ single-step")
    assert (found.n, found.accuracy, found.other_accuracy, found.status) == (40, 1.0, 0.7, "failed")


def test_the_worst_of_several_counterparts_is_held_to_a_sterner_level() -> None:
    several = lab("autoattack")
    found = found_of(several.audit(), "AutoAttack ≤ PGD")
    assert found.level == pytest.approx(1 - 0.05 / 4)  # pgd-10, pgd-20, pgd-40, pgd-20 with 5 restarts
    assert found_of(lab("autoattack", without=["more restarts"]).audit(), "AutoAttack ≤ PGD").level > 0.98


# -- chance ------------------------------------------------------------------------------------------------------------


def test_noise_alone_fails_an_order_about_as_often_as_its_level_says() -> None:
    generator = np.random.default_rng(0)
    many, networks, n, draws = Lab(), 240, 100, 4
    for at in range(networks):
        rates = generator.beta(0.6, 0.6, n)  # PGD and FGSM are equally strong on every example
        for attack, sweep in (("pgd-20", "s"), ("fgsm", None)):
            many.evaluate(
                attack, "transfer", drawn(generator, rates, draws), draws=draws, natural=[draws] * n,
                network=f"net-{at}", variant=f"v{at}", sweep=sweep, global_generator=None,
            )  # fmt: skip
    counted = marks(many.connect(), "s")
    assert len(counted) == networks
    failures = sum(counts.failed for counts in counted.values())
    assert 1 <= failures <= 13  # 2.5 % of 240 are 6; 13 are three standard errors more


def test_chance_that_a_batch_shares_is_not_taken_for_a_violation() -> None:
    batch = 40  # one path decides for all of a batch: of ten, five went one way under PGD, three under FGSM
    shares = {"batch": batch, "scores": [1] * 5 * batch + [0] * 5 * batch}
    other = {"batch": batch, "scores": [one for one in [1, 1, 0, 0, 0, 0, 0, 0, 0, 1] for _ in range(batch)]}
    alone = lab(pgd=shares, fgsm=other)
    assert "iterative ≤ single-step" in failed(alone.audit())
    together = lab(pgd=shares | {"path_sharing": "batch"}, fgsm=other | {"path_sharing": "batch"})
    assert "iterative ≤ single-step" not in failed(together.audit())
    one_batch = lab(pgd=shares | {"path_sharing": "batch", "batch": N}, fgsm=other)
    found = found_of(one_batch.audit(), "iterative ≤ single-step")
    assert found.status == "not measured"
    assert found.says.endswith("in several batches as the images of one hang together")


def test_what_is_above_within_chance_is_not_called_not_above() -> None:
    few = lab(pgd={"scores": [1] * 21 + [0] * 29}, fgsm={"scores": [0] * 4 + [1] * 19 + [0] * 27})
    found = found_of(few.audit(), "iterative ≤ single-step")
    assert found.says == "42.00 % is above the 38.00 % of fgsm@eot-5 by 4.00, within chance"
    assert found.status == "passed" and found.low is not None and found.low < 0 < (found.difference or 0)
    below = found_of(lab().audit(), "iterative ≤ single-step")
    assert below.says == "50.00 % is not above the 60.00 % of fgsm@eot-5"


@pytest.mark.parametrize(
    ("check", "other"),
    [
        ("steps suffice", "more_steps"),
        ("k suffices", "larger_k"),
        ("restarts change nothing", "more_restarts"),
        ("ε = 0 equals natural", "eps_0"),
    ],
)
def test_a_few_images_cannot_tell_that_nothing_changes(check: str, other: str) -> None:
    for n, status in ((5, "not measured"), (N, "passed")):
        found = found_of(lab(**{other: {"scores": right(0.8 if other == "eps_0" else 0.5, N)[:n]}}).audit(), check)
        assert (found.status, found.n) == (status, n)
        assert found.low is not None and found.high is not None
        assert (found.high > 0.05) == (status == "not measured")
        if status == "not measured":
            ends = f"[{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
            assert found.says == f"cannot tell: the interval is {ends} on n = 5"
            assert show([found], every=True).count("interval") == 1


def test_the_largest_budget_cannot_tell_either_from_a_few_images() -> None:
    few = lab(without=["more steps"], fewer_steps={"scores": [1] * 5})
    assert found_of(few.audit(), "steps suffice").says.startswith("cannot tell: the interval is [-")
    # A fall that is sure is a fall, however wide its interval.
    sure = lab(more_steps={"scores": [0] * 20})
    assert found_of(sure.audit(), "steps suffice").status == "failed"


# -- what is printed ---------------------------------------------------------------------------------------------------


def test_the_table_for_people() -> None:
    spoilt = lab(fgsm={"scores": 0.45}).audit()
    lines = show(spoilt).splitlines()
    assert lines[0] == "BN+IN"
    assert lines[1] == (
        "  ✗ pgd-20@eot-5, iterative ≤ single-step: 50.00 % is above the 45.00 % of fgsm@eot-5 "
        f"(+5.00 [+{100 * spoilt[2].low:.2f}, +{100 * spoilt[2].high:.2f}] on n = 400 images)"
    )
    assert lines[2:] == ["  15 passed, 1 failed, 0 not measured"]
    every = show(spoilt, every=True).splitlines()
    assert len(every) == len(lines) + 15 and sum(line.startswith("  ✓") for line in every) == 15
    assert show(lab(without=["fgsm"]).audit()).splitlines()[-1].startswith("--all lists every check")


def test_csv_and_json_hold_every_check_with_every_field() -> None:
    findings = lab().audit()
    from_json = json.loads(show(findings, "json"))
    from_csv = list(csv.DictReader(io.StringIO(show(findings, "csv"))))
    assert len(from_json) == len(from_csv) == len(findings) == 16
    assert list(from_json[0]) == list(from_csv[0])
    assert {"accuracy", "other_accuracy", "low", "high", "n", "units", "other_units"} <= set(from_json[0])
    assert json.loads(from_csv[1]["other_units"]) == from_json[1]["other_units"] == list(findings[1].other_units)
    with pytest.raises(QueryError, match="unknown format 'html'"):
        show(findings, "html")


def test_marks_count_each_cell_as_the_findings_do() -> None:
    two = lab(fgsm={"scores": 0.45}, larger_k={"sweep": "s"})
    counted = marks(two.connect(), "s")
    assert set(counted) == {("BN+IN", "pgd-20", "eot-5"), ("BN+IN", "pgd-20", "eot-10")}
    assert counted["BN+IN", "pgd-20", "eot-5"] == Counts(passed=15, failed=1, not_measured=0)
    for cell, counts in counted.items():
        statuses = [
            found.status for found in two.audit() if (found.variant, found.attack, found.knowledge) == cell
        ]  # fmt: skip
        assert counts == Counts(*(statuses.count(status) for status in ("passed", "failed", "not measured")))


def test_a_cell_that_has_run_nothing_claims_nothing() -> None:
    waiting = lab()
    waiting.plan("not yet", "s", "BN+IN", "pgd-50", "eot-5")
    assert {found.attack for found in waiting.audit()} == {"pgd-20"}
    assert show([]) == "nothing to audit: no attack has rows yet\n"
    assert audits.waiting(waiting.connect(), "s") == []
    waiting.plan("nor this", "s", "GN", "pgd-50", "eot-5")
    assert audits.waiting(waiting.connect(), "s") == ["GN"]
    lines = show(waiting.audit(), waiting=audits.waiting(waiting.connect(), "s")).splitlines()
    assert lines[0] == "BN+IN" and lines[-2:] == ["GN", "  no rows yet"]


# -- printed tables ----------------------------------------------------------------------------------------------------


def printed(variant: str) -> dict[tuple[str, str], audits.Finding]:
    held = [found for found in audits.published() if found.variant == variant]
    assert held
    return {(found.attack, found.check): found for found in held}


def test_the_contradictions_of_the_rna_papers_table_1_are_named() -> None:
    found = printed("RNA (NeurIPS 2022) Table 1: ResNet-18 RNA")
    wrong = {key: finding for key, finding in found.items() if finding.status == "failed"}
    compared = {key: (finding.accuracy, finding.other_accuracy) for key, finding in wrong.items()}
    assert compared == {
        ("autoattack", "AutoAttack ≤ PGD"): (0.6561, 0.6069),
        ("autoattack", "iterative ≤ single-step"): (0.6561, 0.6310),
        ("deepfool", "unbounded ≈ 0 or its distortion stated"): (0.7673, None),
        ("cw", "attack ≤ natural"): (0.8445, 0.8429),
        ("cw", "unbounded ≈ 0 or its distortion stated"): (0.8445, None),
    }
    excess = wrong["cw", "attack ≤ natural"]
    assert (excess.low, excess.high, excess.n) == (None, None, 10_000)
    # 1.96 · sqrt((.8445 · .1555 + .8429 · .1571) / 10,000): the reader sees that 0.16 is within chance
    assert excess.half_width == pytest.approx(0.01007, abs=5e-5)
    assert excess.difference == pytest.approx(0.0016)
    text = show(audits.published())
    assert "65.61 % is above the 60.69 % of pgd-20@transfer (+4.92, unpaired ±1.34 at n = 10,000)" in text


def test_the_plain_rows_keep_their_orders() -> None:
    for number in (1, 2):
        for method in ("BN", "IN", "GN32", "LN"):
            found = printed(f"RNA (NeurIPS 2022) Table {number}: ResNet-18 {method}")
            wrong = [key for key, finding in found.items() if finding.status == "failed"]
            assert wrong == [("cw", "unbounded ≈ 0 or its distortion stated")]
            assert found["deepfool", "unbounded ≈ 0 or its distortion stated"].status == "passed"
            for check in ("iterative ≤ single-step", "AutoAttack ≤ PGD", "attack ≤ natural"):
                assert found["autoattack", check].status == "passed"
            assert found["pgd-20", "steps suffice"].status == "not measured"
            assert found["pgd-20", "steps suffice"].says == "the paper does not say"


def test_table_3_is_audited_row_by_row() -> None:
    source = "RNA (NeurIPS 2022) Table 3: WideResNet32"
    passed = {name: printed(f"{source} {name}")["autoattack", "AutoAttack ≤ PGD"] for name in ("AWP", "SAT", "RPI+RPT")}
    assert {name: (one.status, one.accuracy, one.other_accuracy) for name, one in passed.items()} == {
        "AWP": ("passed", 0.5404, 0.5814), "SAT": ("passed", 0.5183, 0.5601), "RPI+RPT": ("passed", 0.5330, 0.5396),
    }  # fmt: skip
    assert printed(f"{source} RNA")["autoattack", "AutoAttack ≤ PGD"].status == "failed"
    assert {attack for attack, _ in printed(f"{source} RobNet")} == {"pgd-20"}  # AutoAttack is not printed there
    imagenet = printed("RNA (NeurIPS 2022) Table 3: ResNet-50 RNA")
    assert {found.status for found in imagenet.values()} == {"not measured"}  # one number cannot contradict itself


def test_figure_5_keeps_the_orders_of_steps_and_radii() -> None:
    found = [one for one in audits.published() if one.variant.startswith("RNA (NeurIPS 2022) Figure 5")]
    judged = {(one.attack, one.check, one.accuracy, one.other_accuracy) for one in found if one.status == "passed"}
    assert ("pgd-100", "more steps ≤ fewer", 0.5994, 0.6070) in judged
    assert ("pgd-20", "larger ε ≤ smaller", 0.2490, 0.8006) in judged


def test_two_sources_of_one_method_are_not_compared_with_each_other() -> None:
    for number in ("10", "100"):
        found = printed(f"MindSpore model zoo, CIFAR-{number}: ResNet-18 RNA")
        assert {attack for attack, _ in found} == {"fgsm", "pgd-20", "mifgsm"}
        assert "failed" not in {finding.status for finding in found.values()}  # the zoo prints no AutoAttack, no CW


def test_nobody_is_told_to_run_a_paper_again_and_each_attack_has_one_name() -> None:
    findings = audits.published()
    unsaid = [found for found in findings if found.status == "not measured"]
    assert unsaid and {found.says for found in unsaid} == {"the paper does not say"}
    assert "mifgsm" in {found.attack for found in findings}
    assert "mi-fgsm" not in show(findings, every=True)


def test_equal_printed_numbers_are_no_excess() -> None:
    row = {"data": "cifar10", "model": "m", "method": "x", "source": "t", "eps_255": 8.0, "text": "65.61"}
    lines = [Line(**row, attack=attack) for attack in ("natural", "fgsm", "pgd-20", "autoattack-standard")]
    made, numbers = audits.printed.claims(lines)
    assert [found.check for found in said_by._findings(made, numbers) if found.status == "failed"] == []


# -- in the sweep's table ----------------------------------------------------------------------------------------------


def claimed(book: Any) -> Any:
    """Return the connection of two cells of a random network, of which `fixed` is above `transfer`."""
    network = book.trained("BN", log2_paths=20.0)
    for knowledge, scores in (("transfer", [0, 1] * 50), ("fixed", [1] * 100)):
        book.cell("BN", "pgd", knowledge, [scores], network_id=network)
    return connect(book.close())


def test_a_table_carries_the_audit_of_each_variant_and_marks_the_cells_that_fail(book: Any) -> None:
    header, _, line, _, caption = table(claimed(book), "s").splitlines()
    assert [cell.strip() for cell in header.split("|")[-2:-1]] == ["audit"]
    cells = [cell.strip() for cell in line.split("|")[3:-1]]
    assert cells[0].startswith("50.0 ") and not cells[0].endswith("✗")
    assert cells[1].startswith("100.0 ") and cells[1].endswith(" ✗")  # fixed ≤ transfer
    findings = audits.audit(connect(book.store), "s")
    assert failed(findings) == ["fixed ≤ transfer"]
    statuses = [found.status for found in findings]
    assert cells[2] == f"{statuses.count('passed')} ✓ 1 ✗ {statuses.count('not measured')} ?"
    assert caption.endswith("see rna-ray audit s.")
    always = ", always of the accuracy over fresh draws, whatever the answer here: see rna-ray audit s."
    assert always not in caption
    assert table(connect(book.store), "s", answer="worst").rstrip().endswith(always)
    assert table(connect(book.store), "s", answer="all").rstrip().endswith(always)


def test_a_table_of_differences_carries_the_audit_too(book: Any) -> None:
    claimed(book)
    other = book.trained("IN", log2_paths=20.0)
    book.cell("IN", "pgd", "transfer", [[0, 1] * 50], network_id=other)
    header, _, line, _, caption = table(connect(book.close()), "s", against="BN").splitlines()
    assert [cell.strip() for cell in header.split("|")[-2:-1]] == ["audit"]
    assert line.split("|")[-2].strip() == audits.summed(marks(connect(book.store), "s"), "IN")
    assert caption.endswith("see rna-ray audit s.")


def test_latex_has_the_marks_in_ascii_and_csv_the_counts(book: Any) -> None:
    connection = claimed(book)
    latex = table(connection, "s", "latex")
    assert r"2 $\surd$ 1 $\times$ " in latex and "✗" not in latex and "✓" not in latex
    rows = json.loads(table(connection, "s", "json"))
    assert [(row["audit_passed"], row["audit_failed"]) for row in rows] == [(1, 0), (1, 1)]
    assert list(rows[0])[-4:] == ["audit_passed", "audit_failed", "audit_not_measured", "source"]
    (first, _) = csv.DictReader(io.StringIO(table(connection, "s", "csv")))
    assert int(first["audit_not_measured"]) == rows[0]["audit_not_measured"] > 3


def test_a_table_without_claims_has_no_audit(book: Any) -> None:
    book.cell("BN", "natural", "none", [[1, 0]])
    assert "audit" not in table(connect(book.close()), "s")


# -- the command, and its page -----------------------------------------------------------------------------------------


def audited(*words: str) -> Any:
    return CliRunner().invoke(app, ["audit", *words])


def test_the_command_exits_by_what_it_found(book: Any) -> None:
    book.cell("BN", "fgsm", "fixed", [[1, 0] * 50])  # the Book's clean answers are all right
    store = ["--store", book.close().uri]
    clean = audited(*store)
    assert (clean.exit_code, clean.output.splitlines()[0]) == (0, "BN")
    assert audited("s", *store).output == clean.output
    assert len(json.loads(audited(*store, "--format", "json").output)) > len(clean.output.splitlines())
    assert audited("s", *store, "--all").output.count(" ? fgsm@fixed, ") > 3
    published = audited("--published")
    assert published.exit_code == 1 and "65.61 % is above the 60.69 % of pgd-20@transfer" in published.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "unknown sweep of .*'nothing'"),
        (["s", "--published"], "--published audits printed tables, 's' is a sweep"),
        (["--published", "--format", "html"], "unknown format 'html'"),
    ],
)
def test_a_mistake_is_one_sentence(book: Any, words: list[str], said: str) -> None:
    book.cell("BN", "fgsm", "fixed", [[1, 0]])
    with pytest.raises(UserError, match=said):
        CliRunner().invoke(app, ["audit", *words, "--store", book.close().uri], catch_exceptions=False)


def test_the_page_explains_every_check() -> None:
    page = (Path(__file__).parents[3] / "docs" / "audit.md").read_text(encoding="utf-8")
    explained = re.findall(r"\*\*([^*]+?)\.?\*\*", page.split("## The checks")[1])
    assert sorted(explained) == sorted(check.name for check in CHECKS)
