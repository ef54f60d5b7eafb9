"""Intervals against published values and their own definition."""

from __future__ import annotations

from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rna_ray.analysis.statistics import mean_interval, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_newcombes_printed_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_it_holds_the_mean_grows_with_the_level_and_is_symmetric(n: int, p: float, level: float) -> None:
    low, high = mean_interval(p, n, level)
    assert 0 <= low <= p <= high <= 1
    wider = mean_interval(p, n, 0.999)
    assert wider[0] <= low + 1e-12
    assert wider[1] >= high - 1e-12
    mirrored = mean_interval(1 - p, n, level)
    assert isclose(mirrored[0], 1 - high, abs_tol=1e-9)


def test_no_example_says_nothing_and_impossible_counts_are_refused() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    for successes, n in ((-1, 3), (4, 3), (float("nan"), 3)):
        with pytest.raises(ValueError, match="successes"):
            wilson(successes, n)
