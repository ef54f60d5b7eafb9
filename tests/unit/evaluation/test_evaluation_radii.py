"""Certified radii: never above what slow arithmetic of 50 digits allows, close below it, 0 where nothing is known."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from scipy import stats

from rna_ray.evaluation import radii
from rna_ray.evaluation.radii import (
    METHODS,
    answered,
    certify,
    cohen_radius,
    cohen_two_sided_radius,
    largest,
    lower_bound,
    pixeldp_radius,
    renyi_radius,
    upper_bound,
)

TWO_SIDED = {"renyi": renyi_radius, "pixeldp": pixeldp_radius, "cohen-two-sided": cohen_two_sided_radius}


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(50):
        yield


def probabilities(*, apart: bool = True) -> st.SearchStrategy[tuple[float, float]]:
    """Pairs p1 > p2 with p1 + p2 <= 1, of every size: tiny ones, sums of one, and pairs close together."""
    free = st.tuples(st.floats(0, 1), st.floats(0, 1))
    sure = st.floats(0.5, 1, exclude_min=True).map(lambda p1: (p1, 1 - p1))
    near_one = st.floats(-15, -1).map(lambda power: (1 - 10**power, 10**power))
    tiny = st.tuples(st.floats(0.01, 1), st.floats(-300, -1).map(lambda power: 10**power))
    close = st.tuples(st.floats(0.01, 0.5), st.floats(-14, -1)).map(lambda at: (at[0], at[0] * (1 - 10 ** at[1])))
    pairs = st.one_of(free, sure, near_one, tiny, close)
    ordered = pairs.map(lambda pair: (max(pair), min(pair)))
    return ordered.map(lambda pair: (pair[0], min(pair[1], 1 - pair[0]))).filter(
        lambda pair: pair[0] > max(pair[1], 1e-6)
    )


# -- slow references ---------------------------------------------------------------------------------------------------


def highest(value: Callable[[mpf], mpf], low: float, high: float) -> mpf:
    """The maximum: a grid, then ternary search about its best point."""
    grid = [mpf(low) + (mpf(high) - mpf(low)) * at / 60 for at in range(61)]
    values = [value(at) for at in grid]
    best = max(range(61), key=values.__getitem__)
    low, high = grid[max(0, best - 1)], grid[min(60, best + 1)]
    for _ in range(40):
        third = (high - low) / 3
        if value(low + third) < value(high - third):
            low += third
        else:
            high -= third
    return max(value((low + high) / 2), *values)


def slow_renyi(p1: float, p2: float) -> mpf:
    p1, p2 = mpf(p1), mpf(p2)
    limit = -2 * mpmath.log(1 - (mpmath.sqrt(p1) - mpmath.sqrt(p2)) ** 2) if p1 < 1 else mpmath.inf
    if p2 == 0:
        return mpmath.sqrt(limit)

    def squared(at: mpf) -> mpf:
        alpha = 1 + mpmath.exp(at)
        mean = ((p1 ** (1 - alpha) + p2 ** (1 - alpha)) / 2) ** (1 / (1 - alpha))
        return -2 / alpha * mpmath.log(1 - p1 - p2 + 2 * mean)

    return mpmath.sqrt(max(limit, highest(squared, -14, 10)))


def slow_pixeldp(p1: float, p2: float) -> mpf:
    p1, p2 = mpf(p1), mpf(p2)
    most = min(mpf(1), mpmath.log(p1 / p2) / 2) if p2 else mpf(1)

    def reached(eps: mpf) -> mpf:
        delta = (p1 - mpmath.exp(2 * eps) * p2) / (1 + mpmath.exp(eps))
        return eps / mpmath.sqrt(2 * mpmath.log(mpf("1.25") / delta)) if delta > 0 else mpf(0)

    return highest(reached, mpf(0), most)


def quantile(p: float | mpf) -> mpf:
    with mp.workdps(80):
        p = mpf(p)
        if p in (0, 1):
            return mpmath.inf if p else -mpmath.inf
        # From scipy's value, Newton's steps on log Φ or log(1 - Φ): mpmath has no inverse that reaches the tails.
        sign, tail = (-1, p) if p < 0.5 else (1, 1 - p)
        x = mpf(float(stats.norm.isf(float(tail))))
        for _ in range(6):
            survival = mpmath.erfc(x / mpmath.sqrt(2)) / 2
            x += (mpmath.log(survival) - mpmath.log(tail)) * survival / mpmath.npdf(x)
        return sign * x


SLOW = {
    "renyi": slow_renyi,
    "pixeldp": slow_pixeldp,
    "cohen-two-sided": lambda p1, p2: (quantile(p1) - quantile(p2)) / 2,
}


def at_least(count: int, n: int, p: mpf) -> mpf:
    """The probability of `count` or more of n, summed term by term."""
    return mpmath.fsum(mpmath.binomial(n, k) * p**k * (1 - p) ** (n - k) for k in range(count, n + 1))


# -- radii -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", SLOW)
@given(pair=probabilities(), sigma=st.floats(1e-3, 10))
@example(pair=(0.5, 0.5 - 2**-54), sigma=1.0)
@example(pair=(0.3, math.nextafter(0.3, 0)), sigma=1.0)
@example(pair=(1 - 2**-53, 2**-53), sigma=1.0)
@example(pair=(0.7, 5e-324), sigma=1.0)
@example(pair=(0.7, 0.0), sigma=0.5)
@settings(max_examples=30, deadline=None)
def test_a_radius_is_never_larger_than_the_formula_and_hardly_smaller(method, pair, sigma) -> None:
    ours, exact = TWO_SIDED[method](*pair, sigma), mpf(sigma) * SLOW[method](*pair)
    assert ours <= exact
    cancels = mpf(2) ** -46 * sigma if method == "cohen-two-sided" else 0  # of two quantiles
    assert ours >= exact * (1 - mpf("1e-8")) - cancels


@given(p1=st.one_of(st.floats(0.5, 1, exclude_min=True), st.floats(-15, -1).map(lambda power: 1 - 10**power)))
@example(p1=math.nextafter(0.5, 1))
@settings(max_examples=60, deadline=None)
def test_the_one_sided_radius_is_the_quantile(p1: float) -> None:
    exact = quantile(p1)
    assert exact * (1 - mpf("1e-11")) <= cohen_radius(p1, 1) <= exact


def test_none_is_larger_than_the_tight_one_and_stns_is_above_pixeldps_from_a_fifth_on() -> None:
    p1, p2 = np.sort(np.random.default_rng(0).dirichlet((1, 1, 1), 3000)[:, :2])[:, ::-1].T
    tight, stn, pixeldp = (radius(p1, p2, 1) for radius in (cohen_two_sided_radius, renyi_radius, pixeldp_radius))
    assert (np.maximum(stn, pixeldp) <= tight).all()
    fifth = p1 + p2 >= 0.2  # where STN's Figure 4 looks
    assert fifth.sum() > 2000 and (stn > pixeldp)[fifth].all()
    assert renyi_radius(0.03, 0.001, 1) < pixeldp_radius(0.03, 0.001, 1)  # so not "strictly higher" everywhere


@pytest.mark.parametrize("method", TWO_SIDED)
def test_a_surer_class_has_no_smaller_radius(method: str) -> None:
    p1, p2, more, less = np.random.default_rng(0).random((4, 2000))
    surer, before = TWO_SIDED[method](p1 + (1 - p1) * more, p2 * less, 1), TWO_SIDED[method](p1, p2, 1)
    assert (surer >= before * (1 - 1e-9)).all() and (before > 0).sum() > 500


@pytest.mark.parametrize(
    ("p1", "p2", "renyi", "cohen"), [(0.9, 0.05, 1.249, 1.463), (0.99, 0.01, 1.908, 2.326)]
)
def test_checked_values(p1: float, p2: float, renyi: float, cohen: float) -> None:
    assert renyi_radius(p1, p2, 1) == pytest.approx(renyi, abs=5e-4)
    assert cohen_two_sided_radius(p1, p2, 1) == pytest.approx(cohen, abs=5e-4)
    assert renyi_radius(p1, p2, 0.7) == pytest.approx(0.7 * renyi_radius(p1, p2, 1))


def test_closed_forms() -> None:
    assert renyi_radius(0.8, 0, 1) == pytest.approx(math.sqrt(-2 * math.log(0.2)))  # α → 1
    assert renyi_radius(0.25 + 1e-9, 0.25 - 1e-9, 1) == pytest.approx(math.sqrt(8) * 1e-9)  # sqrt(2 (p1 - p2)² / 4p)
    assert cohen_two_sided_radius(0.9, 0.1, 1) == pytest.approx(cohen_radius(0.9, 1)) == pytest.approx(1.2815515655)
    assert pixeldp_radius(1, 0, 1) == pytest.approx(1 / math.sqrt(2 * math.log(1.25 * (1 + math.e))))  # ε = 1
    assert renyi_radius(1, 0, 1) == cohen_radius(1, 1) == cohen_two_sided_radius(1, 0, 1) == math.inf


@pytest.mark.parametrize("method", TWO_SIDED)
def test_bounds_that_cross_certify_nothing(method: str) -> None:
    pairs = np.array([(0.4, 0.4), (0.2, 0.6), (0.0, 0.0), (0.0, 1.0), (0.5, 0.9), (0.3, 0.300001)])
    assert TWO_SIDED[method](*pairs.T, 1).tolist() == [0] * 6
    assert cohen_radius(np.array([0, 0.3, 0.5]), 1).tolist() == [0, 0, 0]


def test_p2_is_at_most_what_p1_leaves() -> None:
    for radius in TWO_SIDED.values():
        assert radius(0.75, 0.5, 1) == radius(0.75, 0.25, 1) > 0


def test_arrays_broadcast_and_floats_stay_floats() -> None:
    p1, p2 = np.array([[0.9], [0.6], [0.2]]), np.array([0.05, 0.3])
    for radius in TWO_SIDED.values():
        found = radius(p1, p2, 0.5)
        assert found.shape == (3, 2)
        alone = [[radius(float(a), float(b), 0.5) for b in p2] for a in p1[:, 0]]
        assert found.tolist() == alone and type(alone[0][0]) is float


def test_what_is_no_probability_or_no_deviation_is_refused() -> None:
    for p1, p2, sigma, said in ((1.1, 0, 1, "probability"), (0.5, math.nan, 1, "probability"), (1, 0, 0, "sigma")):
        with pytest.raises(ValueError, match=said):
            renyi_radius(p1, p2, sigma)


@given(p1=st.floats(1e-9, 1 - 1e-9), distance=st.floats(0, 5), sigma=st.floats(0.05, 5))
@settings(max_examples=40, deadline=None)
def test_one_answer_is_as_likely_as_that_of_a_half_space(p1: float, distance: float, sigma: float) -> None:
    """The tight case: a half-space whose border the image nears by all of the distance."""
    exact = mpmath.ncdf(quantile(p1) - mpf(distance) / mpf(sigma))
    found = answered(p1, distance, sigma)
    assert found <= exact * (1 + mpf("1e-11")) and found >= exact * (1 - mpf("1e-8")) - mpf("1e-300")


def test_one_answer_at_the_ends() -> None:
    assert answered(np.array([0, 1, 0.8]), np.array([0.1, 9, 0]), 1).tolist() == pytest.approx([0, 1, 0.8])
    edge = cohen_radius(0.9, 0.5)  # there the class is as likely as all others together
    assert answered(0.9, edge, 0.5) == pytest.approx(0.5) and type(answered(0.9, edge, 0.5)) is float


# -- bounds ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 120).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(1e-4, 0.5))
@settings(max_examples=40, deadline=None)
def test_bounds_are_where_the_tail_is_alpha_and_err_to_the_safe_side(counted, alpha: float) -> None:
    count, n = counted
    low, high = mpf(lower_bound(count, n, alpha)), mpf(upper_bound(count, n, alpha))
    if count:
        assert alpha * (1 - 1e-7) <= at_least(count, n, low) <= alpha
    if count < n:
        assert alpha * (1 - 1e-7) <= 1 - at_least(count + 1, n, high) <= alpha
    assert (low == 0) == (count == 0) and (high == 1) == (count == n) and low < high


@pytest.mark.parametrize("n", [1, 100, 10_000, 1_000_000])
def test_bounds_of_all_and_of_none_have_closed_forms(n: int) -> None:
    exact = mpf("0.025") ** (mpf(1) / n)
    assert exact * (1 - mpf("1e-11")) <= lower_bound(n, n, 0.025) <= exact
    assert 1 - exact <= upper_bound(0, n, 0.025) <= (1 - exact) * (1 + mpf("1e-9"))


def test_no_draws_say_nothing() -> None:
    assert (lower_bound(0, 0), upper_bound(0, 0)) == (0, 1)
    assert lower_bound([0, 5], [0, 5]).tolist() == [0, pytest.approx(0.05 ** (1 / 5))]


@pytest.mark.parametrize(("count", "n", "alpha"), [(-1, 3, 0.05), (4, 3, 0.05), (1, 3, 0.0), (1, 3, 1.0)])
def test_impossible_counts_and_levels_are_refused(count: int, n: int, alpha: float) -> None:
    for bound in (lower_bound, upper_bound):
        with pytest.raises(ValueError, match=r"between 0 and"):
            bound(count, n, alpha)


def test_what_n_draws_can_certify_at_most() -> None:
    assert [round(largest(n, 1, "renyi"), 3) for n in (100, 1000, 10_000)] == [1.458, 2.214, 2.83]
    one_bound = lower_bound(100, 100, 0.05)
    assert renyi_radius(one_bound, 1 - one_bound, 1) == pytest.approx(1.535, abs=5e-4)
    assert largest(100, 0.7, "renyi") == pytest.approx(1.02, abs=5e-3)  # not the 1.4 of STN's Figure 1
    assert largest(100, 1.083, "renyi") < 1.58 < largest(100, 1.084, "renyi")  # Table 1 needs that much noise
    assert largest(100, 1, "cohen") == pytest.approx(stats.norm.ppf(0.05**0.01))


# -- certificates ------------------------------------------------------------------------------------------------------

SELECTED = [[9, 1, 0], [0, 2, 8], [4, 4, 2], [1, 9, 0]]
COUNTED = [[95, 3, 2], [10, 80, 10], [50, 45, 5], [0, 0, 0]]


@pytest.mark.parametrize("method", METHODS)
def test_the_class_comes_from_the_selection_and_its_bounds_from_the_other_counts(method: str) -> None:
    found = certify(SELECTED, COUNTED, 0.5, method=method)
    assert found.predictions.tolist() == [0, 2, 0, 1]  # a tie: the first
    level = 0.05 / METHODS[method].bounds
    assert found.lower[:3] == pytest.approx([lower_bound(count, 100, level) for count in (95, 10, 50)])
    assert found.abstains.tolist() == [False, True, True, True]  # the second was chosen wrongly, the last has no draws
    if method != "cohen":
        runner_up = np.minimum(upper_bound([3, 80], 100, level), 1 - found.lower[:2])
        assert found.upper[:2] == pytest.approx(runner_up)
    alone = METHODS[method].radius(found.lower[0], found.upper[0], 0.5)
    assert found.radius.tolist() == [pytest.approx(alone), 0, 0, 0]


def test_an_abandoned_image_is_an_abstention_whatever_was_counted() -> None:
    found = certify(SELECTED[:1] * 2, COUNTED[:1] * 2, [0.5, 1.0], abandoned=[True, False])
    assert found.radius.tolist() == [0, pytest.approx(largest(100, 1, "renyi"), rel=0.4)]


def test_each_image_has_its_sigma() -> None:
    found = certify(SELECTED[:1] * 2, COUNTED[:1] * 2, [0.5, 1.0])
    assert found.radius[1] == pytest.approx(2 * found.radius[0])


def test_no_image_is_no_certificate() -> None:
    assert certify(np.zeros((0, 3), int), np.zeros((0, 3), int), 0.5).radius.shape == (0,)


@pytest.mark.parametrize("method", METHODS)
def test_many_images_are_certified_as_one_by_one(method: str) -> None:
    generator = np.random.default_rng(0)
    counts = generator.multinomial(50, [0.85, 0.1, 0.05], size=40)
    chosen = generator.multinomial(10, [0.6, 0.3, 0.1], size=40)
    together = certify(chosen, counts, 0.5, method=method).radius.tolist()
    assert together == [certify([a], [b], 0.5, method=method).radius[0] for a, b in zip(chosen, counts, strict=True)]
    assert len(set(together)) >= 10


@pytest.mark.parametrize(
    ("chosen", "held", "method", "said"),
    [([[1, 0]], [[1, 0]], "best", "unknown method 'best'"), ([[1, 0]], [[1, 0, 0]], "renyi", r"\(1, 2\) and \(1, 3\)"),
     ([[1]], [[1]], "renyi", "C of at least 2")],
)  # fmt: skip
def test_unknown_methods_and_other_shapes_are_refused(chosen, held, method: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        certify(chosen, held, 1, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("truth", [(0.6, 0.3, 0.1), (0.45, 0.4, 0.15), (0.9, 0.05, 0.05), (0.5, 0.25, 0.25)])
def test_a_certificate_is_wrong_less_often_than_alpha(method: str, truth: tuple[float, float, float]) -> None:
    """Every possible count of 24 draws, weighted with its probability: how often the radius is above the true one."""
    n, alpha, radius = 24, 0.2, METHODS[method].radius
    counts = np.array([(i, j, n - i - j) for i, j in itertools.product(range(n + 1), repeat=2) if i + j <= n])
    weights = stats.multinomial(n, truth).pmf(counts)
    chosen = np.tile([1, 0, 0], (len(counts), 1))
    certified = certify(chosen, counts, 1.0, alpha, method).radius
    true = radius(truth[0], 1 - truth[0] if method == "cohen" else truth[1], 1.0)
    wrong = weights[certified > true].sum()
    assert wrong <= alpha
    assert weights.sum() == pytest.approx(1) and weights[certified > 0].sum() > 0.05  # it does certify


def test_the_module_is_light() -> None:
    code = "import sys, rna_ray.evaluation.radii; print({'torch', 'ray', 'pyarrow', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
    assert set(METHODS) == {"renyi", "pixeldp", "cohen", "cohen-two-sided"} and radii.ALPHA == 0.05
