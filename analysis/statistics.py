"""Intervals and comparisons of accuracies: what the examples, the paths and shared paths leave open, kept apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isclose, sqrt
from statistics import NormalDist

import numpy as np
from scipy import stats

RESAMPLES = 10_000
_SEED = 20221128  # any number, but always the same one: the same rows give the same table
_TINY = 1e-12


@dataclass(frozen=True)
class Variance:
    """A squared standard error of a mean, and with how many degrees of freedom it was estimated (inf: known)."""

    value: float
    df: float

    def half_width(self, level: float) -> float:
        """Return the half width of Student's interval."""
        return float(stats.t.ppf(0.5 + level / 2, self.df)) * sqrt(self.value) if self.value else 0.0


@dataclass(frozen=True)
class Paired:
    """The mean difference of two accuracies over the same n examples, its interval, and its two-sided p value."""

    n: int
    mean: float
    low: float
    high: float
    p: float


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a proportion; successes may be fractional, n = 0 says nothing: (0, 1).

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p, z2 = successes / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def mean_interval(
    mean: float, n: int, level: float = 0.95, *, paths: Variance | None = None, batches: Variance | None = None
) -> tuple[float, float]:
    """Return an interval for the mean of n scores in [0, 1], such as correct draws over draws.

    It is Wilson's, as if each score were 0 or 1. That is conservative: scores in [0, 1] of mean p have a variance of
    at most p(1 - p), reached only by 0 and 1. n counts examples; draws and seeds of one example are not independent.

    Independent examples bring the chance of their own paths with them. Where a batch shares a path, say what that adds
    (`paths`: taken in quadrature), or what the batches show in all (`batches`: the interval is at least that wide).
    """
    low, high = wilson(mean * n, n, level)
    low, high = _widened(mean, low, high, level, paths, batches)
    return max(0.0, min(low, mean)), min(1.0, max(high, mean))  # mean · n / n may round to its other side


def student(mean: float, standard_error: float | None, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Student's interval for the mean of n independent values; where one value shows no spread, all numbers.

    Source: Student, The probable error of a mean, Biometrika 6, 1908.
    """
    if standard_error is None or n < 2:
        return -inf, inf
    half = Variance(standard_error**2, n - 1).half_width(level)
    return mean - half, mean + half


def _widened(
    mean: float, low: float, high: float, level: float, paths: Variance | None, batches: Variance | None
) -> tuple[float, float]:
    added = paths.half_width(level) if paths else 0.0
    least = batches.half_width(level) if batches else 0.0
    below, above = (max(least, sqrt(side**2 + added**2)) for side in (mean - low, high - mean))
    return mean - below, mean + above


def batch_variance(batches: Sequence[tuple[float, int]]) -> Variance | None:
    """Return the squared standard error of a mean over examples, from (sum of scores, examples) of each batch.

    Batches are the independent ones, examples within one need not be: the ratio estimator's linearised variance,
    B/(B - 1) · Σ_b (sum_b - n_b · mean)² / n², with B - 1 degrees of freedom. None for fewer than two batches.
    Source: W. G. Cochran, Sampling Techniques, 3rd ed., 1977, section 9A (clusters of unequal sizes).
    """
    if len(batches) < 2:
        return None
    sums, sizes = np.array(batches, dtype=float).T
    residuals = sums - sizes * (sums.sum() / sizes.sum())
    factor = len(batches) / (len(batches) - 1)
    return Variance(factor * float(residuals @ residuals) / float(sizes.sum()) ** 2, len(batches) - 1)


def components(total: float | None, paths: float | None) -> tuple[float | None, float | None]:
    """Return the standard errors (of the paths, of the examples) of a mean whose squared standard error is `total`.

    Scores scatter over examples because examples differ and because each was answered on some paths: what the paths do
    not explain is the examples'. Both None where the paths' part is not known, as it is not from one draw.
    """
    if paths is None:
        return None, None
    return sqrt(paths), None if total is None else sqrt(max(0.0, total - paths))


def mcnemar(b: int, c: int) -> float:
    """Return the exact two-sided p value of b examples that only the first gets right against c for the second.

    Source: Q. McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12,
    1947; exact as the binomial test of b in b + c with probability 1/2.
    """
    return float(stats.binomtest(b, b + c).pvalue) if b + c else 1.0


def paired(
    differences: Mapping[float, int],
    level: float = 0.95,
    *,
    paths: Variance | None = None,
    batches: Variance | None = None,
) -> Paired:
    """Compare two accuracies on the same examples: a histogram of differences in [-1, 1], value → how many examples.

    The interval is the percentile bootstrap over examples, drawn from the histogram, so that its cost does not grow
    with n. One example at +1 and one at -1 are added before: n examples that all agree cannot rule out that another
    one would not. Source: D. G. Bonett and R. M. Price, Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data, J. Educ. Behav. Stat. 37, 2012, where this keeps the coverage near its level.

    p is McNemar's where all differences are -1, 0 or 1; else twice the share of resamples beyond zero (never below
    2 / (RESAMPLES + 1)), so that it is below 1 - level where the interval leaves zero out. A sign-flip test was not
    taken: it is of the sharper claim that differences are symmetric about zero, and could contradict the interval.

    `paths` and `batches` are as for mean_interval, for the mean difference. ValueError for no examples.
    """
    if (n := sum(differences.values())) < 1:
        raise ValueError("no examples to compare")
    values, counts = (np.array(column) for column in zip(*sorted(differences.items()), strict=True))
    mean = float(values @ counts) / n
    means = _resampled(values, counts)
    low, high = (float(end) for end in np.quantile(means, (0.5 - level / 2, 0.5 + level / 2)))
    low, high = _widened(mean, min(low, mean), max(high, mean), level, paths, batches)
    spread = float((values - mean) ** 2 @ counts) / n / n
    p = max(_p(differences, means), _shared_p(mean, spread, paths, batches))
    return Paired(n, mean, max(-1.0, low), min(1.0, high), p)


def _resampled(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the means of RESAMPLES bootstrap samples, with one more example at +1 and one at -1 to draw from."""
    values, counts = np.append(values, (1.0, -1.0)), np.append(counts, (1, 1))
    n = counts.sum()
    return np.random.default_rng(_SEED).multinomial(n, counts / n, size=RESAMPLES) @ values / n


def _p(differences: Mapping[float, int], means: np.ndarray) -> float:
    if set(differences) <= {-1.0, 0.0, 1.0}:
        return mcnemar(differences.get(1.0, 0), differences.get(-1.0, 0))
    tail = min((means <= _TINY).sum(), (means >= -_TINY).sum())
    return min(1.0, 2 * float(tail + 1) / (RESAMPLES + 1))


def _shared_p(mean: float, spread: float, paths: Variance | None, batches: Variance | None) -> float:
    """Return Student's p value of the mean with the chance that examples share, 0 where they share none."""
    found = [0.0]
    if paths and paths.value:
        found.append(_student(mean, Variance(spread + paths.value, paths.df)))
    if batches:
        found.append(_student(mean, batches))
    return max(found)


def _student(mean: float, variance: Variance) -> float:
    if not variance.value:
        return 1.0 if isclose(mean, 0, abs_tol=_TINY) else 0.0
    return float(2 * stats.t.sf(abs(mean) / sqrt(variance.value), variance.df))
