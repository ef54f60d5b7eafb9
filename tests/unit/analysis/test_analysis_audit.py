"""The audit: each check catches what is planted for it and nothing else, and lets what is honest pass."""

from __future__ import annotations

from typing import Any

import pytest
from audit_base import HONEST, NATURAL, Lab, N, failed, found_of, lab, right, row

from rna_ray.analysis.audit import judge
from rna_ray.analysis.audit.checks import CHECKS
from rna_ray.analysis.audit.claims import Setting
from rna_ray.analysis.statistics import paired

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
    below = {"attack ≥ certified", "cascade ≤ PGD", "the weights are the network's", "trained as asked"}
    assert {check.name for check in CHECKS} - set(PLANTED) == below


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
    assert quiet.audit() == [] and judge(quiet.connect(), "s") == {}


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
    assert found.says == "40.00 % at a median distortion of 0: the attack left most right images as they were"
    # Where the network was wrong of most images anyway, nothing had to move.
    wrong = lab("deepfool", deepfool={"l2": 0.0, "linf": 0.0, "scores": 0.05})
    assert failed(wrong.audit()) == []


def test_an_ensemble_is_not_above_the_pgd_that_it_begins_with() -> None:
    above = lab("none")
    above.evaluate("cascade-20", "eot-5", 0.56, sweep="s")
    assert [found.other_accuracy for found in above.audit() if found.check == "cascade ≤ PGD"] == [0.5]
    assert "cascade ≤ PGD" in failed(above.audit())


def test_a_network_that_was_made_again_since_it_was_evaluated_is_told() -> None:
    check = "the weights are the network's"
    assert check not in {found.check for found in lab().audit()}  # of a release that did not record them
    assert found_of(lab(pgd={"weights_sha256": "a" * 64}).audit(), check).status == "passed"
    assert failed(lab(pgd={"weights_sha256": "b" * 64}).audit()) == [check]  # those of its other checkpoint
    for sha256, status in {"c" * 64: "passed", "d" * 64: "failed"}.items():
        taken = lab(pgd={"source_id": "other", "source_sha256": sha256, "weights_sha256": "a" * 64})
        taken.rows["trials"].append(row("trials", unit_id="other", best_sha256="c" * 64, last_sha256="e" * 64))
        assert found_of(taken.audit(), check).status == status


def test_a_network_that_was_trained_with_smaller_batches_than_asked_is_marked() -> None:
    spoilt = lab("pgd")
    spoilt.rows["trials"].append(row("trials", unit_id="net", batch=32, batch_asked=128))
    findings = spoilt.audit()
    assert failed(findings) == ["trained as asked"]
    assert found_of(findings, "trained as asked").says == (
        "the network was trained with batches of 32 images where 128 were asked for: memory ran out"
    )
    as_asked = lab("pgd")
    as_asked.rows["trials"].append(row("trials", unit_id="net"))
    assert "trained as asked" not in {found.check for found in as_asked.audit()}
