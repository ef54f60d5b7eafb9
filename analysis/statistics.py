"""Intervals for accuracies, without a dependency."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist


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


def mean_interval(mean: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return an interval for the mean of n independent scores in [0, 1], such as correct draws over draws.

    It is Wilson's, as if each score were 0 or 1. That is conservative: scores in [0, 1] of mean p have a variance of
    at most p(1 - p), reached only by 0 and 1. n counts examples; draws and seeds of one example are not independent.
    """
    low, high = wilson(mean * n, n, level)
    return min(low, mean), max(high, mean)  # mean · n / n may round to its other side
