"""The audit holds attacks against certificates: no attack leaves less than certificates of the same images promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from audit_base import Lab, N, failed, found_of, row

from rna_ray.evaluation.radii import answered, lower_bound

CHECK = "attack ≥ certified"
WEIGHTS = "a" * 64
NOISY = {"noise_255": 127.5, "precision": "fp32", "weights_sha256": WEIGHTS, "l2": 0.25}
SURE = [[100, 0]] * N  # at σ = 0.5 and a distance of 0.25: Φ(Φ⁻¹(0.05^(1/100)) - 0.5) = 0.917


def attacked(
    accuracy: float, counts: Sequence[Sequence[int]] = SURE, knowledge: str = "eot-5", attack: str = "pgd-20",
    certified: dict[str, Any] | None = None, **settings: Any,
) -> Lab:  # fmt: skip
    """Return a certified network behind noise, and an attack on it that left this accuracy."""
    found = Lab()
    found.rows["trials"].append(row("trials", unit_id="net", best_sha256=WEIGHTS, last_sha256=WEIGHTS))
    found.evaluate(attack, knowledge, accuracy, **({"sweep": "s", "threat": "l2", "natural": 1.0} | NOISY | settings))
    found.certify(counts, **({"weights_sha256": WEIGHTS} | (certified or {})))
    return found


def test_less_than_what_certificates_promise_is_caught_by_this_check_alone() -> None:
    kept, broken = attacked(0.93).audit(), attacked(0.75).audit()
    assert (found_of(kept, CHECK).status, failed(kept), failed(broken)) == ("passed", [], [CHECK])
    found = found_of(broken, CHECK)
    assert found.says == "75.00 % are left, certificates of the same images promise at least 91.70 %"
    assert (found.accuracy, found.other_accuracy, found.n) == (0.75, 0.917, N)
    assert found.low is not None and found.high is not None and found.low < found.difference == -0.167 < found.high < 0


def test_less_within_chance_passes() -> None:
    assert found_of(attacked(0.90).audit(), CHECK).status == "passed"  # 0.917 promised, ± 0.03 on 400 images


def test_a_class_that_is_certified_may_still_be_answered_seldom() -> None:
    """Its radius is beyond the attack: certified accuracy 100 %, and one answer in three wrong, as it should be."""
    counts = [[70, 30]] * N
    expected = float(answered(lower_bound(70, 100), 0.01, 0.5))
    assert 0.6 < expected < 0.62
    assert found_of(attacked(0.65, counts, l2=0.01).audit(), CHECK).status == "passed"
    assert found_of(attacked(0.50, counts, l2=0.01).audit(), CHECK).status == "failed"


def test_the_label_counts_not_the_class_that_was_chosen() -> None:
    assert found_of(attacked(0.02, certified={"label": 1}).audit(), CHECK).status == "passed"


@pytest.mark.parametrize(
    "other",
    [
        {"certified": {"noise_255": 63.75}}, {"certified": {"precision": "bf16"}}, {"certified": {"data": "other"}},
        {"certified": {"weights_sha256": "b" * 64}}, {"certified": {"network": "other"}},
        {"certified": {"abandoned": True}}, {"knowledge": "fixed"}, {"path_sharing": "batch"}, {"attack": "noise"},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_promise_is_not_of_is_not_held_to_it(other: dict[str, Any]) -> None:
    assert [found for found in attacked(0.3, **other).audit() if found.check == CHECK] == []


def test_the_images_that_both_have_count_by_the_certificate_of_most_draws() -> None:
    several = attacked(0.9, SURE[:100])
    several.certify([[600, 400]] * 50, weights_sha256=WEIGHTS)
    found = found_of(several.audit(), CHECK)
    least = [answered(lower_bound(*of), 0.25, 0.5) for of in ((100, 100), (600, 1000))]
    assert (found.n, found.accuracy) == (100, 1.0)
    assert found.other_accuracy == pytest.approx(sum(least) / 2, abs=1e-3) and found.other_accuracy < sum(least) / 2
