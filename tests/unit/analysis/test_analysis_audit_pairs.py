"""The audit compares what differs in one thing alone, and is silent where there is only chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from audit_base import HONEST, Lab, N, counted_by_cell, drawn, failed, found_of, lab, right, row

from rna_ray.analysis.audit import show
from rna_ray.analysis.audit.claims import Setting
from rna_ray.analysis.statistics import paired

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


@pytest.mark.slow
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
    counted = counted_by_cell(many.connect())
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
    of_attack = {"path_sharing": "attack", "knowledge": "fixed"}  # it answers on the path that it was attacked on
    known = lab(pgd=shares | of_attack, fgsm=other | of_attack)
    assert "iterative ≤ single-step" not in failed(known.audit())
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
