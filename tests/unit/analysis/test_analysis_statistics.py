"""Intervals against published values, their own definition, and how often they cover what was simulated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from math import isclose

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import binomtest

from rna_ray.analysis import statistics
from rna_ray.analysis.statistics import (
    Variance,
    batch_variance,
    components,
    mcnemar,
    mean_interval,
    paired,
    wilson,
)


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


def test_mcnemar_is_the_binomial_test_of_the_discordant() -> None:
    for b, c in ((0, 5), (3, 9), (10, 10), (120, 80)):
        assert mcnemar(b, c) == binomtest(b, b + c, 0.5).pvalue
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(0, 0) == 1.0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer resamples, for what is repeated hundreds of times."""
    monkeypatch.setattr(statistics, "RESAMPLES", 2000)


def coverage(repetitions: int, covers: Callable[[np.random.Generator], bool]) -> float:
    rng = np.random.default_rng(7)
    return sum(covers(rng) for _ in range(repetitions)) / repetitions


@pytest.mark.slow
@pytest.mark.parametrize(("n", "better", "worse"), [(60, 0.2, 0.1), (200, 0.12, 0.08), (1000, 0.03, 0.01)])
@pytest.mark.usefixtures("quick")
def test_the_paired_interval_covers_a_difference_of_right_and_wrong(n: int, better: float, worse: float) -> None:
    def covers(rng: np.random.Generator) -> bool:
        up, down, same = rng.multinomial(n, [better, worse, 1 - better - worse])
        found = paired({1.0: int(up), -1.0: int(down), 0.0: int(same)})
        return found.low <= better - worse <= found.high

    assert 0.92 <= coverage(400, covers) <= 0.985


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_it_covers_a_difference_of_means_over_draws() -> None:
    def covers(rng: np.random.Generator) -> bool:
        common = rng.beta(2, 1, 150)
        a, b = rng.binomial(10, common), rng.binomial(10, 0.8 * common)  # means 2/3 and 0.8 of it
        found = paired(Counter(((a - b) / 10).round(9).tolist()))
        return found.low <= 0.2 * 2 / 3 <= found.high

    assert 0.92 <= coverage(400, covers) <= 0.985


def test_for_many_examples_the_bootstrap_is_the_normal_interval() -> None:
    counts = {-1.0: 900, -0.5: 1500, 0.0: 12_000, 0.5: 2600, 1.0: 1000}
    values, n = np.repeat(list(counts), list(counts.values())), sum(counts.values())
    found = paired(counts)
    half = 1.959964 * values.std() / n**0.5
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.03 * half)
    assert found == paired(counts)  # the same rows, the same table


@pytest.mark.parametrize("n", [1, 10, 100, 1000])
def test_examples_that_all_agree_do_not_make_an_interval_of_no_width(n: int) -> None:
    found = paired({0.0: n})
    assert (found.mean, found.p) == (0.0, 1.0)
    assert found.high == pytest.approx(-found.low)
    assert 2 / n <= found.high * (n + 2) / n <= 4 / n or n == 1  # the rule of three: 3/n
    always = paired({1.0: n})
    assert always.high == always.mean == 1.0
    assert always.low < 1 - 1 / (n + 2)


def test_p_follows_the_interval_where_differences_are_fractions() -> None:
    for excess in range(0, 60, 4):
        found = paired({0.1: 40 + excess, -0.1: 40, 0.5: 3, -0.5: 3, 0.0: 900})
        assert (found.p < 0.05) == (found.low > 0), excess
    assert found.p < 0.05


def test_no_examples_cannot_be_compared() -> None:
    for nothing in ({}, {0.0: 0}):
        with pytest.raises(ValueError, match="no examples"):
            paired(nothing)


def test_what_is_shared_widens_both_intervals_and_raises_p() -> None:
    counts = {1.0: 60, -1.0: 30, 0.0: 910}
    alone, paths = paired(counts), paired(counts, paths=Variance(0.03**2, 8))
    assert alone.p < 0.01 < 0.2 < paths.p
    half = stats.t.ppf(0.975, 8) * 0.03
    assert paths.high - paths.mean == pytest.approx(((alone.high - alone.mean) ** 2 + half**2) ** 0.5)
    assert paired(counts, batches=Variance(0.05**2, 3)).p == pytest.approx(2 * stats.t.sf(0.03 / 0.05, 3))
    assert paired(counts, batches=Variance(1e-9, 3)).low == alone.low  # batches never narrow it
    low, high = mean_interval(0.5, 1000)
    assert mean_interval(0.5, 1000, batches=Variance(0.05**2, 3))[1] == 0.5 + stats.t.ppf(0.975, 3) * 0.05
    assert mean_interval(0.5, 1000, batches=Variance(1e-9, 3)) == pytest.approx((low, high))
    assert mean_interval(0.9, 1000, paths=Variance(0.2, 1)) == (0.0, 1.0)


def test_components_add_up_and_are_those_of_the_simulation() -> None:
    """Accuracy p of an example is Beta(2, 1): variance 1/18, and E[p(1 - p)] = 1/6; five draws each."""
    rng, n, m, found = np.random.default_rng(3), 200, 5, []
    for _ in range(400):
        scores = rng.binomial(m, rng.beta(2, 1, n)) / m
        found.append(components(scores.var(ddof=1) / n, (scores * (1 - scores)).sum() / (m - 1) / n**2))
    paths, examples = (np.square(found).mean(0) * n).tolist()
    assert paths == pytest.approx(1 / 6 / m, rel=0.02)
    assert examples == pytest.approx(1 / 18, rel=0.03)
    assert components(0.04, None) == (None, None)
    assert components(0.01, 0.04) == (0.2, 0.0)


def test_the_batches_variance_is_that_of_unequal_clusters() -> None:
    assert batch_variance([(3, 4)]) is None
    found = batch_variance([(4, 4), (0, 4), (1, 2)])  # mean 0.5: residuals 2, -2, 0
    assert found == Variance(3 / 2 * 8 / 100, 2)


def shared_draws(rng: np.random.Generator, batches: int, size: int, draws: int) -> np.ndarray:
    """Return (batches, size, draws) of right or wrong, of mean 0.7: a draw moves its whole batch up or down."""
    examples, moves = rng.uniform(0.5, 0.9, (batches, size, 1)), rng.choice([-0.1, 0.1], (batches, 1, draws))
    return rng.random((batches, size, draws)) < examples + moves


def test_draws_that_batches_share_are_in_the_interval() -> None:
    """The old interval, over examples alone, covers far too rarely."""

    def covers(rng: np.random.Generator, aware: bool) -> bool:
        right = shared_draws(rng, 4, 250, 2)
        per_draw = right.sum(1)  # (batches, draws)
        variance = float((per_draw.var(1, ddof=1) / 2).sum()) / 1000**2
        low, high = mean_interval(right.mean(), 1000, paths=Variance(variance, 4) if aware else None)
        return low <= 0.7 <= high

    assert coverage(400, partial(covers, aware=False)) < 0.85
    assert 0.92 <= coverage(400, partial(covers, aware=True)) <= 0.99


def test_one_draw_for_each_batch_is_in_the_interval() -> None:
    def covers(rng: np.random.Generator, aware: bool) -> bool:
        right = shared_draws(rng, 8, 125, 1)
        batches = batch_variance([(float(batch.sum()), batch.size) for batch in right])
        low, high = mean_interval(right.mean(), 1000, batches=batches if aware else None)
        return low <= 0.7 <= high

    assert coverage(400, partial(covers, aware=False)) < 0.75
    assert 0.92 <= coverage(400, partial(covers, aware=True)) <= 0.985


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_paired_batches_that_share_draws_are_covered_too() -> None:
    def covers(rng: np.random.Generator, aware: bool) -> bool:
        differences = shared_draws(rng, 8, 125, 1).astype(float) - shared_draws(rng, 8, 125, 1)
        batches = batch_variance([(float(batch.sum()), batch.size) for batch in differences])
        found = paired(Counter(differences.ravel().tolist()), batches=batches if aware else None)
        assert (found.low > 0 or found.high < 0) <= (found.p < 0.06)
        return found.low <= 0 <= found.high

    assert coverage(400, partial(covers, aware=False)) < 0.75
    assert 0.92 <= coverage(400, partial(covers, aware=True)) <= 0.985
