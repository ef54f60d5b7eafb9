"""Certified radii under Gaussian noise, from counts alone: how far an image may move (ℓ2) and keep its class.

f answers an image x under noise N(0, σ²I) with class i with probability p_i. If p1 is at most the probability of the
class and p2 at least that of every other, the most likely class is the same for all x' with ||x - x'|| below

    renyi             σ · sqrt(sup over α > 1 of -(2/α) log(1 - p1 - p2 + 2 M(1-α))), where M(r) is the generalised mean
                      ((p1^r + p2^r) / 2)^(1/r)                    Li et al. 2019 (STN), Theorem 2
    pixeldp           σ · sup ε / sqrt(2 log(1.25/δ)) over ε <= 1, δ with p1 >= e^(2ε) p2 + (1 + e^ε) δ
                                                                   Lecuyer et al. 2019, Proposition 1 and Theorem 1
    cohen             σ · Φ⁻¹(p1), for p1 > 1/2                    Cohen et al. 2019, Theorem 1 with p2 = 1 - p1
    cohen-two-sided   σ/2 · (Φ⁻¹(p1) - Φ⁻¹(p2))                    Cohen et al. 2019, Theorem 1, which is tight

All are 0 where p1 <= p2 (cohen: p1 <= 1/2), and none is ever larger than its formula: the search for a supremum only
looks at values that are valid themselves, and what floats may add in rounding is taken away. They stand apart: the best
of several on the same counts would need a correction of its own. Where the network draws paths too, f averages over
paths and noise both, and nothing here changes. numpy and scipy alone: no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

ALPHA = 0.05
"""The probability with which a certificate may be wrong (STN, Section 4: 95 %)."""

_SHY = 1 - 1e-12
"""What a value is multiplied by so that rounding never made it larger; errors stay below 5e-13 (tests: mpmath)."""
_NDTRI_ERROR = 4e-15
"""More than the largest relative error of scipy's Φ⁻¹."""
_ORDERS = (np.log(1e-6), np.log(1e6))
"""Where log(α - 1) is looked for; α → 1 is taken as well."""


def renyi_radius(p1: ArrayLike, p2: ArrayLike, sigma: ArrayLike) -> Any:
    """Return STN's radius in the units of sigma, for p1 at most the class's probability and p2 at least any other's.

    Floats or arrays, broadcast. What p2 exceeds 1 - p1 by cannot be and is taken off. ValueError for a p outside of
    [0, 1] or a sigma that is not above 0.
    """
    p1, p2, sigma = _checked(p1, p2, sigma)
    above = p1 > p2
    between = above & (p2 > 0)
    first, second = np.where(between, p1, 0.5)[..., None], np.where(between, p2, 0.25)[..., None]
    with np.errstate(divide="ignore", under="ignore"):
        searched = _highest(lambda at: _renyi_squared(first, second, np.exp(at)), *_ORDERS, first.shape)
        limit = _renyi_squared(first, second, np.zeros(1))[..., 0]
        alone = -2 * np.log1p(-p1)  # p2 = 0, where the limit α → 1 is the best
    squared = np.where(between, np.maximum(searched, limit), alone)
    return _shyly(above, np.sqrt(squared), sigma)


def _renyi_squared(p1: Floats, p2: Floats, beta: Floats) -> Floats:
    """Return the squared radius per sigma at α = 1 + beta, for p1 > p2 > 0; beta = 0 is the limit.

    With p1 = g e^(t/2), p2 = g e^(-t/2) the generalised mean is g cosh(beta t/2)^(-1/beta), and what p1 + p2 exceeds
    twice that by is a sum of two terms that are not negative: nothing cancels, however close p1 and p2 are.
    """
    t, g = _log_ratio(p1, p2), np.sqrt(p1) * np.sqrt(p2)
    with np.errstate(invalid="ignore"):  # 0 / 0 where beta is 0
        shrunk = np.where(beta > 0, -_log_cosh(beta * t / 2) / beta, 0.0)
    excess = 2 * g * (2 * np.sinh(t / 4) ** 2 - np.expm1(shrunk))
    rest = (1 - p1 - p2) + 2 * g * np.exp(shrunk)  # 1 - excess, exact where that is small
    return -2 / (1 + beta) * np.where(excess < 0.5, np.log1p(-np.minimum(excess, 0.5)), np.log(rest))


def _log_ratio(p1: Floats, p2: Floats) -> Floats:
    """Return log(p1 / p2) with a small relative error, also where they are close: then p1 - p2 is exact."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(p1 < 2 * p2, np.log1p((p1 - p2) / p2), np.log(p1) - np.log(p2))


def _log_cosh(x: Floats) -> Floats:
    small = np.log1p(2 * np.sinh(np.minimum(x, 1) / 2) ** 2)
    return np.where(x < 1, small, x + np.log1p(np.exp(-2 * x)) - np.log(2))


def pixeldp_radius(p1: ArrayLike, p2: ArrayLike, sigma: ArrayLike) -> Any:
    """Return PixelDP's radius, at the best ε and δ; arguments as of `renyi_radius`.

    For each ε the best δ is the largest that p1 and p2 leave, so only ε is searched: no grid over both finds more.
    """
    p1, p2, sigma = _checked(p1, p2, sigma)
    above = p1 > p2
    first, second = np.where(above, p1, 0.5)[..., None], np.where(above, p2, 0.25)[..., None]
    with np.errstate(divide="ignore", over="ignore"):
        t = _log_ratio(first, second)
    most = np.minimum(1.0, t / 2)

    def reached(share: Floats) -> Floats:
        eps = share * most
        delta = -first * np.expm1(2 * eps - t) / (1 + np.exp(eps))
        with np.errstate(divide="ignore"):
            return eps / np.sqrt(2 * (np.log(1.25) - np.log(np.maximum(delta, 0))))

    return _shyly(above, _highest(reached, 0.0, 1.0, first.shape), sigma)


def cohen_radius(p1: ArrayLike, sigma: ArrayLike) -> Any:
    """Return Cohen's one-sided radius: p2 is taken to be 1 - p1, so that one bound is enough."""
    p1, _, sigma = _checked(p1, 0.0, sigma)
    return _shyly(p1 > 0.5, special.ndtri(np.maximum(p1, 0.5)), sigma)


def cohen_two_sided_radius(p1: ArrayLike, p2: ArrayLike, sigma: ArrayLike) -> Any:
    """Return Cohen's radius from both bounds, which is tight: none of the others is larger at the same p1 and p2."""
    p1, p2, sigma = _checked(p1, p2, sigma)
    above = p1 > p2
    first, second = special.ndtri(np.where(above, p1, 0.5)), special.ndtri(np.where(above, p2, 0.25))
    finite = np.isfinite(first) & np.isfinite(second)
    rounding = np.where(finite, _NDTRI_ERROR * (np.abs(first) + np.abs(second)), 0.0)
    return _shyly(above, np.maximum(first - second - rounding, 0) / 2, sigma)


def answered(p1: ArrayLike, distance: ArrayLike, sigma: ArrayLike) -> Any:
    """Return the least probability of one answer at an ℓ2 distance, where its probability at the image is at least p1.

    Φ(Φ⁻¹(p1) - distance / sigma), of any class, certified or not: Φ⁻¹ of a smoothed probability moves by no more (Cohen
    et al. 2019, Theorem 1; Salman et al. 2019, Lemma 2). ValueError as of `renyi_radius`.
    """
    p1, _, sigma = _checked(p1, 0.0, sigma)
    least = special.ndtr(special.ndtri(p1) - np.asarray(distance, dtype=float) / sigma) * _SHY
    return _plain(np.asarray(least))


def _checked(p1: ArrayLike, p2: ArrayLike, sigma: ArrayLike) -> tuple[Floats, Floats, Floats]:
    first, second, deviation = np.broadcast_arrays(*(np.asarray(given, dtype=float) for given in (p1, p2, sigma)))
    for given in (first, second):
        if not np.all((given >= 0) & (given <= 1)):
            raise ValueError("a probability is in [0, 1], here one is not")
    if not np.all(deviation > 0):
        raise ValueError("sigma is a standard deviation above 0, here one is not")
    return first, np.minimum(second, 1 - first), deviation


def _shyly(holds: NDArray[np.bool_], per_sigma: Floats, sigma: Floats) -> Any:
    radius = np.where(holds, per_sigma, 0.0) * _SHY * sigma
    return radius if radius.ndim else float(radius)


def _highest(
    value: Callable[[Floats], Floats], low: float, high: float, shape: tuple[int, ...], points: int = 65
) -> Floats:
    """Return the highest value found between low and high, for each entry: a grid, then finer ones about its best.

    `value` takes positions (..., points) or (points,) and returns their values. What it returns is a value that was
    reached, so at most the supremum.
    """
    at = np.broadcast_to(np.linspace(low, high, points), (*shape[:-1], points))
    step, best = (high - low) / (points - 1), np.full(shape[:-1], -np.inf)
    for _ in range(10):
        found = value(at)
        where = found.argmax(axis=-1, keepdims=True)
        best = np.maximum(best, np.take_along_axis(found, where, axis=-1)[..., 0])
        centre = np.take_along_axis(at, where, axis=-1)
        at = np.clip(centre + np.linspace(-step, step, 9), low, high)
        step /= 4
    return best


def lower_bound(count: ArrayLike, n: ArrayLike, alpha: float = ALPHA) -> Any:
    """Return the one-sided Clopper-Pearson lower bound at level 1 - alpha of a probability seen `count` times in n.

    Source: C. J. Clopper and E. S. Pearson, The use of confidence or fiducial limits, Biometrika 26, 1934. 0 for none
    of n, also where n is 0. ValueError where count is not in 0 ... n, or alpha not between 0 and 1.
    """
    count, n = _counted(count, n, alpha)
    bound = special.betaincinv(np.maximum(count, 1), n - np.minimum(count, n) + 1, alpha) * _SHY
    return _plain(np.where(count > 0, bound, 0.0))


def upper_bound(count: ArrayLike, n: ArrayLike, alpha: float = ALPHA) -> Any:
    """Return the one-sided upper bound, as `lower_bound`; 1 for n of n, also where n is 0."""
    count, n = _counted(count, n, alpha)
    bound = special.betainccinv(count + 1, np.maximum(n - count, 1), alpha) * (2 - _SHY)
    return _plain(np.where(count < n, np.minimum(bound, 1.0), 1.0))


def _counted(count: ArrayLike, n: ArrayLike, alpha: float) -> tuple[Floats, Floats]:
    counts, draws = np.broadcast_arrays(np.asarray(count, dtype=float), np.asarray(n, dtype=float))
    if not np.all((counts >= 0) & (counts <= draws)):
        raise ValueError("a count is between 0 and the n draws, here one is not")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is between 0 and 1, not {alpha}")
    return counts, draws


def _plain(values: Floats) -> Any:
    return values if values.ndim else float(values)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One of the radii."""

    about: str
    """How people call it."""
    bounds: int
    """How many confidence bounds it needs; each holds at level 1 - alpha / bounds, all together at 1 - alpha."""
    radius: Callable[[Floats, Floats, ArrayLike], Any]
    """Of lower(p1), upper(p2) and sigma."""


METHODS: Mapping[str, Method] = {
    "renyi": Method(about="STN (Rényi)", bounds=2, radius=renyi_radius),
    "pixeldp": Method(about="PixelDP", bounds=2, radius=pixeldp_radius),
    "cohen": Method(about="Cohen", bounds=1, radius=lambda p1, _, sigma: cohen_radius(p1, sigma)),
    "cohen-two-sided": Method(about="Cohen, two-sided", bounds=2, radius=cohen_two_sided_radius),
}


def bounds(count: ArrayLike, runner_up: ArrayLike, n: ArrayLike, alpha: float, method: str) -> tuple[Any, Any]:
    """Return lower(p1) and upper(p2) as the method needs them, from how often of n the class and the runner-up came.

    The runner-up is the class with the highest count among the others. It need not be the most likely of them, but its
    upper bound covers that one's probability all the same: the bound rises with the count, so it is no smaller than the
    bound from the count of the most likely one, which is a class fixed before any draw. And p2 is at most 1 - p1.
    """
    level = alpha / METHODS[method].bounds
    lower = lower_bound(count, n, level)
    if METHODS[method].bounds == 1:
        return lower, 1 - lower
    return lower, np.minimum(upper_bound(runner_up, n, level), 1 - lower)


def largest(n: int, sigma: float, method: str, alpha: float = ALPHA) -> float:
    """Return the largest radius that n draws can certify: all n gave one class."""
    return float(METHODS[method].radius(*bounds(n, 0, n, alpha, method), sigma))


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """What N images are certified for, each an array (N,)."""

    predictions: NDArray[np.int64]
    """The class that the selection draws chose: the lowest of the most frequent."""
    lower: Floats
    upper: Floats
    radius: Floats
    """In the units of sigma; 0 is an abstention."""

    @property
    def abstains(self) -> NDArray[np.bool_]:
        """Where nothing is certified, not even the class at the image itself."""
        return self.radius == 0


def certify(
    selection_counts: ArrayLike,
    counts: ArrayLike,
    sigma: ArrayLike,
    alpha: float = ALPHA,
    method: str = "renyi",
    abandoned: ArrayLike = False,
) -> Certificates:
    """Certify N images from how often each of C classes came: (N, C) selection counts, and (N, C) counts that bound.

    The class is chosen by the selection counts alone, its probability bounded by the other counts alone; choosing by
    the counts that bound it would make the bound too high. An image with no counts, or that was abandoned before all
    its draws were made, has radius 0: an abstention. sigma, abandoned: one for all or (N,). Each certificate holds with
    probability at least 1 - alpha. ValueError for an unknown method or for counts of another shape.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    chosen, held = np.asarray(selection_counts), np.asarray(counts)
    if chosen.shape != held.shape or chosen.ndim != 2 or chosen.shape[1] < 2:
        raise ValueError(f"counts are (N, C) with C of at least 2, not {chosen.shape} and {held.shape}")
    predictions = chosen.argmax(axis=1)
    n = held.sum(axis=1)
    first = np.take_along_axis(held, predictions[:, None], axis=1)[:, 0]
    others = held.copy()
    np.put_along_axis(others, predictions[:, None], -1, axis=1)
    # Few images differ in what the bounds and radii are computed from.
    deviation = np.broadcast_to(np.asarray(sigma, dtype=float), first.shape)
    keys, back = np.unique(np.stack([first, others.max(axis=1), n, deviation], axis=1), axis=0, return_inverse=True)
    lower, upper = bounds(keys[:, 0], keys[:, 1], keys[:, 2], alpha, method)
    radius = METHODS[method].radius(lower, upper, keys[:, 3])
    back = back.reshape(-1)
    certified = np.where(np.asarray(abandoned) | (n == 0), 0.0, radius[back])
    return Certificates(predictions=predictions, lower=lower[back], upper=upper[back], radius=certified)
