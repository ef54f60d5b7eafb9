"""The queries of the RNA paper's theory: Theorem 3.1's bound and Eq. 5 and 6 by layer, worked out by hand."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rna_ray.analysis.statistics import wilson
from rna_ray.analysis.tables import table
from rna_ray.store import connect
from rna_ray.store.records import SCHEMAS, from_rows

_FILLED = {pa.string(): "x", pa.bool_(): False, pa.timestamp("us", tz="UTC"): datetime(2024, 5, 6, tzinfo=UTC)}


def probed(
    book: Any, variant: str, probe: str, rows: list[dict[str, Any]], *, source: str | None = None, seed: int = 0,
    **record: Any,
) -> None:
    """Plan a probe unit and write what it measured."""
    unit = f"{probe}-{len(book.plan)}"
    book._ask(
        variant, seed, unit_id=unit, kind="probe", attack=probe, evaluation=unit, position=len(book.plan), source=source
    )
    shared = {"unit_id": unit, "evaluation": unit, "network_id": variant, "probe": probe}
    given = shared | record
    whole = {
        column.name: given.get(column.name, None if column.nullable else _FILLED.get(column.type, 0))
        for column in SCHEMAS["probes"]
    }
    measures = from_rows("measures", [shared | row for row in rows])
    book.store.commit(unit, {"measures": measures, "probes": from_rows("probes", [whole])}, record="probes")


def pair(members: dict[str, str], examples: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Return the rows of one pair: whatever an example does not say is quiet."""
    quiet = {f"{prefix}{name}_{side}": value for prefix, value in (("", 0.0), ("target_", 0.0))
             for name in ("loss", "gradient_norm", "smoothness") for side in "ab"}  # fmt: skip
    quiet |= {"target_loss_a": 9.0, "target_loss_b": 9.0, "cosine": 0.0, "label": 1.0, "target": 2.0}
    quiet |= {f"{which}prediction_{side}": 1.0 for which in ("", "adversarial_") for side in "ab"}
    return [
        {**members, "example": number, "measure": name, "value": float(value)}
        for number, given in enumerate(examples)
        for name, value in (quiet | given).items()
    ]


def rows(book: Any, name: str) -> list[dict[str, Any]]:
    return json.loads(table(connect(book.close()), name, "json"))


BOTH = {"member": "BN", "other": "IN"}
HIT = {"adversarial_prediction_a": 2, "adversarial_prediction_b": 2}


def test_the_bound_is_the_theorems(book) -> None:
    examples: list[dict[str, float]] = [
        {"loss_a": 0.1, "loss_b": 0.3, "gradient_norm_a": 0.5, "cosine": -0.5, "smoothness_b": -0.8},
        {"loss_a": 0.2, "loss_b": 0.2, "target_gradient_norm_b": 2.0, "cosine": 0.28, **HIT},
        {"target_loss_b": 4.0, "target_smoothness_a": 0.6, "adversarial_prediction_a": 2},
        {"loss_b": 0.2, "prediction_a": 3, **HIT},  # wrong before the attack: nothing was transferred
    ]
    probed(book, "BN+IN", "bound", pair(BOTH, examples), eps_255=127.5)
    (row,) = rows(book, "bound")
    assert [row[key] for key in ("sweep", "variant_a", "variant_b", "member_a", "member_b", "seed", "n", "eps")] == [
        "s", "BN+IN", "BN+IN", "BN", "IN", 0, 4, 0.5,
    ]  # fmt: skip
    assert (row["risk_a"], row["risk_b"]) == (pytest.approx(0.3 / 4), pytest.approx(0.7 / 4))
    assert [row[key] for key in ("target_loss", "gradient_norm", "similarity", "smoothness")] == [4.0, 2.0, 0.28, 0.8]
    denominator = 4 - 2 * 0.5 * (math.sqrt(1.28 / 2) + 1) - 0.8 * 0.25
    assert row["denominator"] == pytest.approx(denominator)
    assert row["bound"] == pytest.approx(0.25 / denominator) and row["vacuous"] is False
    assert row["bound_at_zero"] == pytest.approx(0.25 / 4)
    assert row["transfer_rate"] == 0.25 and (row["low"], row["high"]) == pytest.approx(wilson(1, 4))
    assert (row["error_a"], row["error_b"], row["hit_rate"]) == (0.25, 0, 0.5)
    quantiles = {
        "target_loss_q": np.quantile([9, 9, 4, 9], 0.05),
        "gradient_norm_q": np.quantile([0.5, 2, 0, 0], 0.95),
        "similarity_q": np.quantile([-0.5, 0.28, 0, 0], 0.95),
        "smoothness_q": np.quantile([0.8, 0, 0.6, 0], 0.95),
    }
    assert {key: row[key] for key in quantiles} == pytest.approx(quantiles)
    likely = (
        quantiles["target_loss_q"]
        - quantiles["gradient_norm_q"] * 0.5 * (math.sqrt((1 + quantiles["similarity_q"]) / 2) + 1)
        - quantiles["smoothness_q"] * 0.25
    )
    assert (row["denominator_q"], row["not_a_bound_q"]) == pytest.approx((likely, 0.25 / likely))


@pytest.mark.parametrize(
    ("example", "at_zero"),
    [
        ({"gradient_norm_a": 50.0}, 0),  # the denominator is negative
        ({"target_loss_a": 0.0}, None),  # it is zero
        ({"loss_a": 9.0}, 1),  # the bound is 1
    ],
)
def test_a_bound_that_says_nothing_is_vacuous(book, example: dict[str, float], at_zero: float | None) -> None:
    probed(book, "BN+IN", "bound", pair(BOTH, [example]), eps_255=127.5)
    (row,) = rows(book, "bound")
    assert row["bound"] is None and row["vacuous"] is True and row["transfer_rate"] == 0
    assert row["bound_at_zero"] == at_zero


def test_pairs_networks_and_seeds_stay_apart(book) -> None:
    other = {"member": "IN", "other": "BN"}
    probed(book, "BN+IN", "bound", pair(BOTH, [{}]) + pair(other, [HIT]), eps_255=127.5)
    probed(book, "BN+IN", "bound", pair(BOTH, [HIT]), eps_255=127.5, seed=1)
    probed(book, "IN", "bound", pair({}, [HIT, {}]), eps_255=127.5, source="BN", source_id="BN")
    keys = ("variant_a", "variant_b", "member_a", "member_b", "seed", "n", "transfer_rate")
    assert [[row[key] for key in keys] for row in rows(book, "bound")] == [
        ["BN+IN", "BN+IN", "BN", "IN", 0, 1, 0],
        ["BN+IN", "BN+IN", "IN", "BN", 0, 1, 1],
        ["BN+IN", "BN+IN", "BN", "IN", 1, 1, 1],
        ["BN", "IN", None, None, 0, 2, 0.5],
    ]


def layer(name: str, depth: int, **values: list[float]) -> list[dict[str, Any]]:
    return [
        {"member": "IN", "layer": name, "x": float(depth), "example": number, "measure": measure, "value": value}
        for measure, listed in values.items()
        for number, value in enumerate(listed)
    ]


def test_smoothness_sums_up_each_layer(book) -> None:
    first = layer(
        "norm", 0, gradient_norm=[1.0, 2.0, 3.0, 0.0], gradient_norm_eq5=[1.0, 2.0, 1.5, 0.0],
        gradient_norm_scaled=[2.0, 4.0, 3.0, 0.0], curvature=[0.5, 2.0, -1.0, 0.0], curvature_eq6=[1.0, 1.0, -1.0, 0.0],
    )  # fmt: skip
    # Deeper than its name would sort, and equal but for rounding.
    deep = layer(
        "a", 10, gradient_norm=[1.0], gradient_norm_eq5=[1.0], gradient_norm_scaled=[1.0], curvature=[1.0 + 1e-12],
        curvature_eq6=[1.0],
    )  # fmt: skip
    probed(book, "BN+IN", "smoothness", deep + first)
    norm, last = rows(book, "smoothness")
    assert [norm[key] for key in ("variant", "member", "seed", "depth", "layer", "n", "zero")] == [
        "BN+IN", "IN", 0, 0, "norm", 4, 1,
    ]  # fmt: skip
    assert [norm[key] for key in ("gradient_norm_25", "gradient_norm", "gradient_norm_75")] == [0.75, 1.5, 2.25]
    assert [norm[key] for key in ("norm_ratio_25", "norm_ratio", "norm_ratio_75")] == [1, 1, 1.5]
    assert [norm[key] for key in ("projection_25", "projection", "projection_75")] == [0.5, 0.5, 0.75]
    assert [norm[key] for key in ("curvature", "curvature_eq6")] == [0.5, 1.0]
    assert [norm[key] for key in ("eq6_ratio_25", "eq6_ratio", "eq6_ratio_75")] == [0.75, 1, 1.5]
    assert norm["eq6_holds"] == pytest.approx(2 / 3)
    assert (norm["eq6_low"], norm["eq6_high"]) == pytest.approx(wilson(2, 3))
    assert (last["layer"], last["depth"], last["eq6_holds"]) == ("a", 10, 1)


def test_a_store_without_such_probes_says_so(book) -> None:
    book.trained("BN")
    connection = connect(book.close())
    for name in ("bound", "smoothness"):
        assert table(connection, name) == f"no {name} probe is in this store yet\n"
