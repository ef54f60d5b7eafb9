"""The points of a search: what of a sweep is drawn from ranges and choices, instead of being listed in its grid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, field_validator, model_validator

from rna_ray.sweep.section import SEVERAL, Section, Whole, as_tuple, refusal, uncounted
from rna_ray.sweep.units import canonical, digest

By = Literal["natural_correct", "adversarial_correct", "natural_loss", "adversarial_loss"]
_DIGITS = 4
"""The significant digits of a number that is drawn, so that labels stay short and say all of it."""
_MOST = 2.0**53
"""Up to here a float tells whole numbers apart."""
_HEX = 13
"""The hex digits of a digest that make a fraction: 52 bits, which a float holds exactly."""


class Domain(Section):
    """What a dotted key may take: a number of a range, or one of a list."""

    low: float | None = uncounted(None)
    """The least number."""
    high: float | None = uncounted(None)
    """The greatest number."""
    log: bool = uncounted(False)
    """Whether each factor is as likely as any other, instead of each difference."""
    whole: bool = uncounted(False)
    """Whether only whole numbers are drawn."""
    values: Annotated[tuple[Any, ...] | None, SEVERAL] = uncounted(None)
    """In place of a range, the values of which each is as likely; a list is short for that."""

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return {"values": given} if isinstance(given, list | tuple) else given

    @model_validator(mode="after")
    def _one_kind(self) -> Domain:
        if self.values is not None:
            if self.model_fields_set != {"values"}:
                raise refusal("give a list of values, or a range from low to high, not both")
            return self
        if self.low is None or self.high is None:
            raise refusal("give a list of values, or a range such as {low: 0.01, high: 0.3, log: true}")
        if self.low >= self.high:
            raise refusal(f"low: {self.low:g} is not below high, {self.high:g}", kind="refused_key")
        if self.log and self.low <= 0:
            raise refusal(f"low: {self.low:g} has no logarithm; with log, low is above 0", kind="refused_key")
        if self.whole and not all(abs(end) <= _MOST and end == int(end) for end in (self.low, self.high)):
            raise refusal("whole: low and high are then whole numbers too, within ±2^53", kind="refused_key")
        return self

    def at(self, fraction: float) -> Any:
        """Return the value at a fraction in [0, 1) of the domain, a number to four significant digits."""
        if self.values is not None:
            return self.values[int(fraction * len(self.values))]
        assert self.low is not None and self.high is not None
        margin = 0.5 if self.whole else 0.0  # so that the ends are as likely as what lies between
        low, high = self.low - margin, self.high + margin
        found = low * (high / low) ** fraction if self.log else low + (high - low) * fraction
        if self.whole:
            return min(max(math.floor(found + 0.5), int(self.low)), int(self.high))
        return self._said(found)

    def drawn(self, value: Any) -> Any:
        """Return a value as a sampler's parameter: a number, or its place in the list."""
        if self.values is None:
            return value
        return [canonical(one) for one in self.values].index(canonical(value))

    def given(self, parameter: Any) -> Any:
        """Return what a sampler's parameter stands for, a number to four significant digits."""
        if self.values is not None:
            return self.values[parameter]
        return parameter if self.whole else self._said(parameter)

    def _said(self, number: float) -> float:
        assert self.low is not None and self.high is not None
        return min(max(float(f"{number:.{_DIGITS}g}"), self.low), self.high)


class EarlyStopping(Section):
    """When points that are behind are trained no further (ASHA, Li et al. 2020), by Ray Tune's own scheduler."""

    grace: Whole = uncounted(1)
    """After how many epochs points are first compared; then after factor times as many, and so on."""
    factor: int = uncounted(3, ge=2)
    """What part goes on each time: whoever is not among the best 1/factor of those that came so far is stopped."""


class Search(Section):
    """Settings that are drawn, not listed: the points at which each variant and grid point is tried."""

    trials: int = uncounted(..., ge=1, le=10_000)
    """How many points are tried in each variant and grid point; one that is drawn again is tried once."""
    over: Mapping[str, Domain] = uncounted(...)
    """Dotted keys and what each is drawn from: a range {low, high, log, whole}, or a list of values."""
    seed: int = uncounted(0, ge=0, lt=2**63)
    """What other points follow from."""
    sampler: Literal["random", "optuna"] = uncounted("random")
    """How points are drawn: each by itself, or by optuna (TPE) in view of what came of those before."""
    at_once: Whole = uncounted(4)
    """With optuna: how many points of each variant and grid point are drawn at a time, the first ones as by random."""
    asked: Mapping[str, Annotated[tuple[Mapping[str, Any], ...], BeforeValidator(as_tuple)]] = uncounted({})
    """With optuna: the points that were drawn so far, which a run keeps here, in the store's plan."""
    by: By = uncounted("adversarial_correct")
    """What points are compared by, a column of `epochs`: the most right held-out images win, or the least loss."""
    early_stopping: EarlyStopping | None = uncounted(None)
    """When points that are behind are trained no further; null is never."""

    @property
    def compares(self) -> bool:
        """Whether anything hangs on how well points do."""
        return self.early_stopping is not None or self.sampler != "random"

    @field_validator("over")
    @classmethod
    def _something(cls, over: Mapping[str, Domain]) -> Mapping[str, Domain]:
        if not over:
            raise refusal("name at least one key, such as training.lr")
        return over


def worth(by: By, row: Mapping[str, Any]) -> float:
    """Return what a point is worth after an epoch, given its row: the more the better."""
    return -row[by] if by.endswith("_loss") else row[by] / row["held_out"]


def points(search: Search, race: str) -> tuple[Mapping[str, Any], ...]:
    """Return the points that a search has so far in one of its races, each once.

    At random these are all, and those of fewer trials the first ones of more.
    """
    if search.sampler == "random":
        return _drawn(search, search.trials)
    return search.asked.get(race, ())[: search.trials] or _drawn(search, min(search.at_once, search.trials))


def _drawn(search: Search, trials: int) -> tuple[dict[str, Any], ...]:
    found: dict[str, dict[str, Any]] = {}
    for number in range(trials):
        point = {key: domain.at(_fraction(search.seed, number, key)) for key, domain in search.over.items()}
        found.setdefault(canonical(point), point)
    return tuple(found.values())


def _fraction(seed: int, number: int, key: str) -> float:
    """Return a number uniform over [0, 1) that follows from these alone."""
    return int(digest({"search": seed, "point": number, "key": key})[:_HEX], 16) / 16**_HEX
