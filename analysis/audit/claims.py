"""A claim of a table, the rows that it rests on, and what it can be compared with on the same examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import NamedTuple, Protocol

from rna_ray.analysis.cells import length
from rna_ray.analysis.statistics import Variance, paired

LEVEL = 0.95

_BLIND = frozenset({"natural", "noise", "gaussian"})
_SINGLE_STEP = frozenset({"fgsm"})
_GRADIENT_FREE = frozenset({"square", "boundary"})
EXPECTATIONS = frozenset({"eot", "aggmo-eot"})
"""The knowledge that has a k."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How an evaluation attacked and answered: all but the network, the examples and the number of draws."""

    attack: str
    options: str = "{}"
    """What else the attack was told, as canonical JSON."""
    loss: str | None = None
    """What it climbs, where that is not what it climbs by default."""
    source: str | None = None
    """The network that was attacked in the stead of the one that answers, if any: such rows are compared with rows of
    the same source alone."""
    threat: str = "linf"
    eps_255: float | None = None
    """None where the attack looks for the smallest perturbation."""
    eps_space: str = "pixel"
    step_255: float | None = None
    steps: int | None = None
    restarts: int = 1
    random_start: bool = False
    knowledge: str = "none"
    """The word without its number; `resample` is eot with k = 1."""
    k: int | None = None
    random: bool = True
    """Whether the network has more than one path, or answers through noise."""
    crafted: tuple[object, ...] = ()
    """The mode, and the batch, with which the attack was crafted, where the network answered in another."""
    where: tuple[object, ...] = ()
    """The checkpoint, data, mode, noise and precision, which no check varies."""

    @property
    def adaptive(self) -> bool:
        """Whether it looks at the network: the others are what attacks are compared with."""
        return self.attack not in _BLIND

    @property
    def bounded(self) -> bool:
        """Whether it is an attack within a ball of its own radius, which is not empty."""
        return self.adaptive and self.eps_255 is not None and self.eps_255 > 0

    @property
    def radius(self) -> str:
        """The radius for people, as in 8/255, with its space where that is not pixels."""
        return length(self.eps_255 or 0.0, self.eps_space)

    @property
    def gradient_free(self) -> bool:
        """Whether it asks for outputs alone."""
        return self.attack in _GRADIENT_FREE

    @property
    def single_step(self) -> bool:
        """Whether it takes the gradient once."""
        return self.attack in _SINGLE_STEP

    @property
    def iterative(self) -> bool:
        """Whether it is a bounded attack that follows the gradient for more than a step."""
        return self.bounded and not self.single_step and not self.gradient_free and self.steps != 1

    @property
    def who(self) -> str:
        """The attacker's knowledge in the sweep file's word."""
        if self.knowledge == "eot" and self.k == 1:
            return "resample"
        return f"{self.knowledge}-{self.k}" if self.knowledge in EXPECTATIONS else self.knowledge

    @property
    def plain(self) -> tuple[str, int | None]:
        """The knowledge without aggregated momentum, which is a way to climb and one that few attacks have."""
        return self.knowledge.removeprefix("aggmo-"), self.k

    @property
    def label(self) -> str:
        """The attack for people with its steps, as in pgd-20."""
        parts = [self.attack, *([] if self.steps is None else [str(self.steps)]), *([self.loss] if self.loss else [])]
        return "-".join(parts) + (" from another network" if self.source else "")

    @property
    def name(self) -> str:
        """The attack for people, as in pgd-20@eot-10."""
        return self.label + ("" if self.who == "none" else f"@{self.who}")

    def same(self, other: Setting, *but: str) -> bool:
        """Return whether all is equal but for the fields named."""
        return all(getattr(self, name) == getattr(other, name) for name in _FIELDS if name not in but)

    def unlike(self, other: Setting) -> str:
        """Return this setting for people, with the radius and restarts where the other has others."""
        notes = []
        if self.eps_255 != other.eps_255 and self.eps_255 is not None:
            notes.append(f"ε = {self.radius}")
        if self.restarts != other.restarts and (self.random_start or self.restarts > 1):
            notes.append(f"{self.restarts} restart{'' if self.restarts == 1 else 's'}")
        return self.name + (f" ({', '.join(notes)})" if notes else "")


# `random` is the network's: rows that are blind to it do not say, and counterparts are of the same networks anyway.
_FIELDS = tuple(entry.name for entry in fields(Setting) if entry.name != "random")


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """The rows of one setting on one or several networks, and what their evaluations say of the networks."""

    setting: Setting
    units: tuple[str, ...] = ()
    evaluations: tuple[str, ...] = ()
    classes: int | None = None
    observed: Mapping[str, bool | None] = field(default_factory=dict)
    """Column → whether any of the evaluations saw it (`repeats`: all of them); None where it was not looked at."""
    batch: int | None = None
    """The examples that share a path, None where each has its own."""
    attacked_together: bool = False
    """Whether the attack saw the same draws for a batch, though answers are drawn for each example."""
    trained_with: tuple[int, int] | None = None
    """The batch that a network was trained with, and the larger one that was asked for, where memory allowed less."""


class Pair(NamedTuple):
    """A comparison: accuracy under the attack of `x` minus that of `y`, or of y's clean images."""

    x: Rows
    y: Rows
    natural: bool = False


@dataclass(frozen=True)
class Comparison:
    """Two accuracies over the same n examples, and the histogram of their differences; empty for printed numbers."""

    n: int
    x: float
    y: float
    differences: Mapping[float, int] = field(default_factory=dict)
    batches: Variance | None = None
    """What the batches show of the difference, where their examples share a path."""
    x_batches: Variance | None = None
    """The same of x alone."""

    @property
    def difference(self) -> float:
        """x - y."""
        return round(self.x - self.y, 12)  # 0.5 - 0.5 of two printed numbers is 0

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the interval of the difference; printed numbers have none, there it is the difference itself."""
        if not self.differences:
            return self.difference, self.difference
        return _interval(tuple(sorted(self.differences.items())), level, self.batches)

    def above(self, level: float = LEVEL) -> bool:
        """Return whether x is above y by more than the interval."""
        return self.difference > 0 and self.interval(level)[0] > 0  # most are not above: they need no bootstrap

    def below(self, level: float = LEVEL) -> bool:
        """Return whether x is below y by more than the interval."""
        return self.difference < 0 and self.interval(level)[1] < 0


@lru_cache(maxsize=4096)
def _interval(histogram: tuple[tuple[float, int], ...], level: float, batches: Variance | None) -> tuple[float, float]:
    found = paired(dict(histogram), level, batches=batches)
    return found.low, found.high


@dataclass(frozen=True)
class Facts:
    """What rows say by themselves: on how many a gradient was looked at and met zero, and the median distortions."""

    looked_at: int = 0
    zero: int = 0
    median_l2: float | None = None
    median_linf: float | None = None


class Evidence(Protocol):
    """Where numbers come from: the store's rows, or a printed table."""

    def compare(self, pair: Pair) -> Comparison | None:
        """Return the comparison on the examples that both have; None where there are none."""

    def facts(self, rows: Rows) -> Facts:
        """Return what the rows say by themselves."""

    def promised(self, rows: Rows) -> Comparison | None:
        """Return their accuracy beside what certificates of the same images promise at least; None without any."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A cell of a table: its labels there, its rows, and all rows of the same networks to compare them with."""

    variant: str
    attack: str
    knowledge: str
    rows: Rows
    others: Sequence[Rows] = ()

    @property
    def setting(self) -> Setting:
        """How the claim was made."""
        return self.rows.setting

    @property
    def who(self) -> str:
        """The attacker's knowledge; as asked for where the network has one path, whose rows hold a settled word.

        So too where another network was attacked, whose paths are not this one's.
        """
        return self.setting.who if self.setting.random and self.setting.source is None else self.knowledge

    @property
    def name(self) -> str:
        """The attack for people, as in pgd-20@transfer."""
        return f"{self.setting.label}@{self.who}"
