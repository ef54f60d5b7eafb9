"""What an honest evaluation keeps: each check of a claim, its counterpart, and when it fails.

All are written in accuracy. An order fails only where the interval of the paired difference lies above zero. Sources:
Athalye et al. 2018; Carlini et al. 2019; Croce & Hein 2020; Gao et al. 2022. docs/audit.md explains each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from rna_ray.analysis.audit.claims import EXPECTATIONS, LEVEL, Claim, Comparison, Evidence, Pair, Setting
from rna_ray.analysis.cells import PIXEL
from rna_ray.analysis.statistics import mean_interval

Status = Literal["passed", "failed", "not measured"]

FLAT = 0.01
"""A budget suffices where a larger one lowers accuracy by no more: one point, the last figure that papers compare by.
The RNA paper's own PGD moves by less, 0.76 points, from 10 steps to 100 (Figure 5a)."""
WIDE = 0.05
"""How far beyond zero the interval may reach where a check that nothing changes passes: a wider one cannot tell. Five
points are what 500 images leave where one in three changes, either way alike: few images cannot pass by being few."""
ZERO_GRADIENTS = FLAT
"""The share of examples that may have met a gradient of exactly zero: fewer could not hide more than FLAT."""
NEAR_ZERO = 0.05
"""What an unbounded attack may leave: searches that end early leave 0.35 to 2.86 % in the RNA paper's own baselines."""

_WHOLE_255 = 255.0  # a ball that holds every image, where it is one of pixels
_METHOD = ("attack", "options", "loss", "step_255", "steps", "restarts", "random_start")  # what makes it another attack
_BLIND_TO = (*_METHOD, "knowledge", "k", "crafted")  # what makes no other noise
_NATURAL = "the clean images"
_L = "\N{SCRIPT SMALL L}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a check found: its status, in a sentence, and the comparison or the one accuracy that it rests on."""

    status: Status
    says: str
    pair: Pair | None = None
    comparison: Comparison | None = None
    accuracy: float | None = None
    n: int | None = None
    level: float = LEVEL


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.2f} %"


@dataclass(frozen=True, kw_only=True)
class Check(ABC):
    """One thing that an honest claim keeps."""

    name: str
    applies: Callable[[Setting], bool]
    """Whether it can say anything of such a claim."""
    transfers: bool = False
    """Whether it holds too of an attack crafted on another network: a stronger one need not transfer better."""

    def concerns(self, claim: Claim) -> bool:
        """Return whether it applies to a claim."""
        return self.applies(claim.setting)

    def pairs(self, claim: Claim) -> list[Pair]:
        """Return the comparisons that it may want."""
        return []

    @abstractmethod
    def judge(self, claim: Claim, evidence: Evidence) -> Verdict:
        """Return its verdict on a claim to which it applies."""

    def _measured(self, claim: Claim, evidence: Evidence) -> dict[Pair, Comparison]:
        found = {pair: evidence.compare(pair) for pair in self.pairs(claim)}
        return {pair: comparison for pair, comparison in found.items() if comparison is not None}


def _own(claim: Claim) -> Pair:
    """Return the claim with the clean images of its own rows."""
    return Pair(claim.rows, claim.rows, natural=True)


def _missing(claim: Claim, needs: str) -> Verdict:
    shared = ", in several batches as the images of one hang together" if claim.rows.batch else ""
    return Verdict(status="not measured", says=f"needs {needs} on the same images{shared}")


def _above(claim: Claim, pair: Pair, found: Comparison, level: float) -> Verdict:
    above = found.above(level)
    other = _NATURAL if pair.natural else pair.y.setting.unlike(claim.setting)
    higher = found.difference > 0
    says = f"{_percent(found.x)} is {'above' if higher else 'not above'} the {_percent(found.y)} of {other}"
    if higher and not above:
        says += f" by {100 * found.difference:.2f}, within chance"
    return Verdict(status="failed" if above else "passed", says=says, pair=pair, comparison=found, level=level)


def _cannot_tell(pair: Pair, found: Comparison) -> Verdict:
    low, high = (f"{100 * end:+.2f}" for end in found.interval())
    says = f"cannot tell: the interval is [{low}, {high}] on n = {found.n:,}"
    return Verdict(status="not measured", says=says, pair=pair, comparison=found)


@dataclass(frozen=True, kw_only=True)
class Order(Check):
    """The claim is not above its counterpart."""

    counterpart: Callable[[Setting, Setting], bool]
    """Whether the second setting is a counterpart of the first, the claim's."""
    nearest: Callable[[Setting], float] | None = None
    """Which of several: the largest by this; without it the lowest accuracy, at Bonferroni's level for so many."""
    needs: Callable[[Claim], str] | None = None
    """What to run where there is none; without it the check does not appear then."""

    def pairs(self, claim: Claim) -> list[Pair]:
        """Return the claim with each counterpart."""
        return [Pair(claim.rows, other) for other in claim.others if self.counterpart(claim.setting, other.setting)]

    def judge(self, claim: Claim, evidence: Evidence) -> Verdict:
        """Return failed where the claim lies above."""
        measured = self._measured(claim, evidence)
        if not measured:
            assert self.needs
            return _missing(claim, self.needs(claim))
        if self.nearest:
            rank = self.nearest
            pair = max(measured, key=lambda pair: (rank(pair.y.setting), _alike(pair), measured[pair].n))
            return _above(claim, pair, measured[pair], LEVEL)
        pair = max(measured, key=lambda pair: (measured[pair].difference, measured[pair].n))
        # The worst of several is by chance more often beyond its interval than one: each gets its share of the 5 %.
        return _above(claim, pair, measured[pair], 1 - (1 - LEVEL) / len(measured))


def _alike(pair: Pair) -> bool:
    return pair.x.setting.step_255 == pair.y.setting.step_255


@dataclass(frozen=True, kw_only=True)
class Suffices(Check):
    """A larger budget lowers accuracy by no more than FLAT, or than the interval of the difference, which is not WIDE.

    The claim is compared with the largest measured budget; where it has that itself, with the next smaller one, which
    tells whether it has stopped falling.
    """

    budget: Callable[[Setting], int | None]
    axes: tuple[str, ...]
    one: str
    many: str
    needs: Callable[[Claim], str]

    def pairs(self, claim: Claim) -> list[Pair]:
        """Return the claim with each other budget."""
        others = [other for other in claim.others if claim.setting.same(other.setting, *self.axes)]
        return [Pair(claim.rows, other) for other in others if self.budget(other.setting) is not None]

    def judge(self, claim: Claim, evidence: Evidence) -> Verdict:
        """Return failed where the larger budget is lower by more than FLAT and than the interval.

        Not measured where it is not, but the interval holds a fall by more than WIDE.
        """
        measured = self._measured(claim, evidence)
        mine = self.budget(claim.setting) or 0
        if not measured:
            return _missing(claim, self.needs(claim))
        pair = max(measured, key=lambda pair: (self.budget(pair.y.setting) or 0, measured[pair].n))
        found, other = measured[pair], self.budget(pair.y.setting) or 0
        mine_is_largest = other < mine  # then this is the next smaller one
        if mine_is_largest:
            falls = found.difference < -FLAT and found.below()
            tells = found.interval()[0] >= -WIDE
            end = f"still falling, needs more than {self._count(mine)}" if falls else "it has stopped falling"
        else:
            falls = found.difference > FLAT and found.above()
            tells = found.interval()[1] <= WIDE
            end = (
                f"attacked with too few {self.many}"
                if falls
                else f"more {self.many} lower it by no more than chance or a point"
            )
        if not falls and not tells:
            return _cannot_tell(pair, found)
        says = f"{_percent(found.x)} with {self._count(mine)}, {_percent(found.y)} with {other}: {end}"
        return Verdict(status="failed" if falls else "passed", says=says, pair=pair, comparison=found)

    def _count(self, budget: int) -> str:
        return f"{budget} {self.one if budget == 1 else self.many}"


@dataclass(frozen=True, kw_only=True)
class Natural(Check):
    """The attack is not above the clean images of its own rows."""

    def pairs(self, claim: Claim) -> list[Pair]:
        """Return the claim with its own clean images."""
        return [_own(claim)]

    def judge(self, claim: Claim, evidence: Evidence) -> Verdict:
        """Return failed where the claim lies above."""
        only = _own(claim)
        found = evidence.compare(only)
        return _above(claim, only, found, LEVEL) if found else _missing(claim, "the natural accuracy")


@dataclass(frozen=True, kw_only=True)
class AtRadius(Check):
    """The same attack at a radius where the answer is known: nothing changes at 0, nothing is left at 255/255."""

    eps_255: float
    axes: tuple[str, ...]

    def pairs(self, claim: Claim) -> list[Pair]:
        """Return the attack at that radius with its own clean images."""
        axes = ("eps_255", *self.axes)
        at = [rows for rows in (claim.rows, *claim.others) if rows.setting.eps_255 == self.eps_255]
        return [Pair(rows, rows, natural=True) for rows in at if claim.setting.same(rows.setting, *axes)]

    def judge(self, claim: Claim, evidence: Evidence) -> Verdict:
        """Return failed where accuracy at that radius is not what it must be."""
        measured = self._measured(claim, evidence)
        if not measured:
            return _missing(claim, f"{claim.name} with eps_255: {self.eps_255:g}")
        return self._unmoved(measured) if self.eps_255 == 0 else self._broken(measured)

    @staticmethod
    def _unmoved(measured: Mapping[Pair, Comparison]) -> Verdict:
        pair = max(measured, key=lambda pair: measured[pair].n)
        found = measured[pair]
        moved = found.above() or found.below()
        low, high = found.interval()
        if not moved and (low < -WIDE or high > WIDE):
            return _cannot_tell(pair, found)
        says = f"at ε = 0 {_percent(found.x)}, {_percent(found.y)} on the clean images"
        status: Status = "failed" if moved else "passed"
        return Verdict(status=status, says=says, pair=pair, comparison=found)

    @staticmethod
    def _broken(measured: Mapping[Pair, Comparison]) -> Verdict:
        pair = min(measured, key=lambda pair: measured[pair].x)  # that any of them gets there is enough
        found = measured[pair]
        if pair.x.classes is None:
            says = "needs the number of classes, which was not recorded: evaluate again"
            return Verdict(status="not measured", says=says, pair=pair, accuracy=found.x, n=found.n)
        low, _ = mean_interval(found.x, found.n, batches=found.x_batches)
        chance = 1 / pair.x.classes
        says = f"at ε = 255/255 {_percent(found.x)} are left, chance is {_percent(chance)}"
        status: Status = "failed" if low > chance else "passed"
        return Verdict(status=status, says=says, pair=pair, accuracy=found.x, n=found.n)


@dataclass(frozen=True, kw_only=True)
class Unbounded(Check):
    """An attack without a radius leaves next to nothing, or says how far it went."""

    def pairs(self, claim: Claim) -> list[Pair]:
        """Return the claim with its own clean images: its accuracy is all that is wanted."""
        return [_own(claim)]

    def judge(self, claim: Claim, evidence: Evidence) -> Verdict:
        """Return failed for an accuracy above NEAR_ZERO without its distortion, or where that is zero."""
        only = _own(claim)
        found = evidence.compare(only)
        if found is None:
            return _missing(claim, "the distortion")
        facts = evidence.facts(claim.rows)
        status: Status = "passed"
        if found.x > NEAR_ZERO and facts.median_l2 == 0:
            status = "failed"
            says = f"{_percent(found.x)} at a median distortion of 0: the attack left most right images as they were"
        elif facts.median_l2 is not None and facts.median_linf is not None:
            distances = f"{_L}₂ {facts.median_l2:.3g}, {_L}∞ {facts.median_linf:.3g}"
            says = f"{_percent(found.x)} at a median distortion of {distances}"
        elif found.x <= NEAR_ZERO:
            says = f"{_percent(found.x)} are left"
        else:
            status, says = "failed", f"unbounded, yet {_percent(found.x)} are left and no distortion is stated"
        return Verdict(status=status, says=says, pair=only, accuracy=found.x, n=found.n)


@dataclass(frozen=True, kw_only=True)
class Promised(Check):
    """The attack leaves what certificates of the same images promise; appears only where there are some.

    Not under `fixed`: a promise is one for draws that the attacker does not know.
    """

    def concerns(self, claim: Claim) -> bool:
        """Return whether the answers were drawn afresh, for each image by itself."""
        return super().concerns(claim) and not claim.rows.batch

    def judge(self, claim: Claim, evidence: Evidence) -> Verdict:
        """Return failed where less is left than promised: one of the two counted another network or other noise."""
        found = evidence.promised(claim.rows)
        assert found is not None
        says = f"{_percent(found.x)} are left, certificates of the same images promise at least {_percent(found.y)}"
        return Verdict(status="failed" if found.below() else "passed", says=says, comparison=found)


@dataclass(frozen=True, kw_only=True)
class Gradients(Check):
    """No more than ZERO_GRADIENTS of the examples met a gradient of exactly zero at any step."""

    def judge(self, claim: Claim, evidence: Evidence) -> Verdict:
        """Return failed for a larger share; not measured where a library took the gradients."""
        facts = evidence.facts(claim.rows)
        if not facts.looked_at:
            says = f"needs rows whose gradients were looked at, as pgd's under {claim.who} are"
            return Verdict(status="not measured", says=says)
        share = facts.zero / facts.looked_at
        says = f"{_percent(share)} of {facts.looked_at} images met a gradient of exactly zero"
        return Verdict(status="failed" if share > ZERO_GRADIENTS else "passed", says=says)


@dataclass(frozen=True, kw_only=True)
class Observed(Check):
    """A column of the evaluations is false."""

    column: str
    seen: str
    unseen: str
    optional: bool = False
    """Whether it does not appear where no one looked: rows of older releases could not."""

    def judge(self, claim: Claim, evidence: Evidence) -> Verdict:
        """Return failed where it is true; not measured where no one looked."""
        seen = claim.rows.observed.get(self.column)
        if seen is None:
            return _unrecorded(self.column)
        return Verdict(status="failed" if seen else "passed", says=self.seen if seen else self.unseen)


@dataclass(frozen=True, kw_only=True)
class Generator(Check):
    """Answers follow from the draw alone: no global generator, nothing that the network keeps from pass to pass."""

    def judge(self, claim: Claim, evidence: Evidence) -> Verdict:
        """Return failed where answers do not repeat, or only by reseeding; not measured where no one looked."""
        seen = claim.rows.observed
        if seen.get("repeats") is False:
            return Verdict(
                status="failed",
                says="the same draw gave two answers: the network keeps a generator or a state of its own, which no "
                "attacker's knowledge can be about, and its rows do not repeat",
            )
        if (globally := seen.get("global_generator")) is None:
            return _unrecorded("global_generator")
        if globally:
            return Verdict(
                status="failed",
                says="answering drew from a global generator: its draws repeat here only because rna-ray reseeds it, "
                "and other tools' numbers of this network may be replays of one draw",
            )
        return Verdict(status="passed", says="answering drew from no global generator")


@dataclass(frozen=True, kw_only=True)
class Trained(Check):
    """The network was trained as the sweep asked; appears only where it was not."""

    def concerns(self, claim: Claim) -> bool:
        """Return whether its batches were made smaller."""
        return super().concerns(claim) and claim.rows.trained_with is not None

    def judge(self, claim: Claim, evidence: Evidence) -> Verdict:
        """Return failed: the network is another than the one that was asked for."""
        assert claim.rows.trained_with is not None
        batch, asked = claim.rows.trained_with
        says = f"the network was trained with batches of {batch} images where {asked} were asked for: memory ran out"
        return Verdict(status="failed", says=says)


def _unrecorded(column: str) -> Verdict:
    return Verdict(status="not measured", says=f"needs rows that record {column}: evaluate again")


def _fewer(axis: str) -> Callable[[Setting, Setting], bool]:
    def fewer(claim: Setting, other: Setting) -> bool:
        mine, theirs = getattr(claim, axis), getattr(other, axis)
        return mine is not None and theirs is not None and theirs < mine and claim.same(other, axis)

    return fewer


def _smaller_ball(claim: Setting, other: Setting) -> bool:
    return other.bounded and (other.eps_255 or 0) < (claim.eps_255 or 0) and claim.same(other, "eps_255", "step_255")


def _expects(claim: Setting) -> bool:
    return claim.bounded and claim.random and claim.knowledge in EXPECTATIONS


def _other_method(claim: Setting, other: Setting) -> bool:
    """Return whether it is any attack in the same ball that knows as much; momentum is a part of the method."""
    return claim.plain == other.plain and claim.same(other, *_METHOD, "knowledge", "k")


def _ball(claim: Claim) -> str:
    return f"at the same ε under {claim.who.removeprefix('aggmo-')}"


def _more(claim: Claim, budget: int, one: str) -> str:
    return f"{claim.setting.attack} with more than {budget} {one}{'' if budget == 1 else 's'} under {claim.who}"


def _any_k(claim: Claim) -> str:
    return f"{claim.setting.attack} under {claim.setting.knowledge}-k with k"


def _ensemble(name: str, attack: str) -> Order:
    return Order(
        name=name,
        applies=lambda claim: claim.bounded and claim.attack == attack,
        counterpart=lambda claim, other: other.attack == "pgd" and _other_method(claim, other),
        needs=lambda claim: f"pgd {_ball(claim)}",
    )


CHECKS: tuple[Check, ...] = (
    Natural(name="attack ≤ natural", applies=lambda claim: claim.adaptive, transfers=True),
    Order(
        name="attack ≤ random noise",
        applies=lambda claim: claim.bounded,
        counterpart=lambda claim, other: other.attack == "noise" and claim.same(other, *_BLIND_TO),
        needs=lambda claim: "noise at the same ε",
    ),
    Order(
        name="iterative ≤ single-step",
        applies=lambda claim: claim.iterative,
        counterpart=lambda claim, other: other.single_step and _other_method(claim, other),
        needs=lambda claim: f"fgsm {_ball(claim)}",
    ),
    Order(
        name="more steps ≤ fewer",
        applies=lambda claim: claim.bounded and (claim.steps or 0) > 1,
        counterpart=_fewer("steps"),
        nearest=lambda other: other.steps or 0,
        needs=lambda claim: f"{claim.setting.attack} with fewer than {claim.setting.steps} steps under {claim.who}",
    ),
    Suffices(
        name="steps suffice",
        applies=lambda claim: claim.bounded and claim.steps is not None,
        budget=lambda setting: setting.steps,
        axes=("steps",),
        one="step",
        many="steps",
        needs=lambda claim: _more(claim, claim.setting.steps or 0, "step"),
    ),
    Suffices(
        name="restarts change nothing",
        applies=lambda claim: claim.bounded and (claim.random_start or claim.restarts > 1),
        budget=lambda setting: setting.restarts,
        axes=("restarts",),
        one="restart",
        many="restarts",
        needs=lambda claim: _more(claim, claim.setting.restarts, "restart"),
    ),
    Order(
        name="larger ε ≤ smaller",
        applies=lambda claim: claim.bounded,
        counterpart=_smaller_ball,
        nearest=lambda other: other.eps_255 or 0,
        transfers=True,
        needs=lambda claim: f"{claim.name} at an ε below {claim.setting.radius}",
    ),
    AtRadius(
        name="ε = 0 equals natural",
        applies=lambda claim: claim.adaptive and claim.eps_255 is not None,
        eps_255=0.0,
        axes=("step_255",),
        transfers=True,
    ),
    AtRadius(
        name="ε → 1 reaches chance",
        applies=lambda claim: claim.iterative and claim.threat == "linf" and claim.eps_space == PIXEL,
        eps_255=_WHOLE_255,
        axes=("step_255", "steps", "restarts"),  # a ball so large asks for longer ways
    ),
    Order(
        name="fixed ≤ transfer",
        applies=lambda claim: claim.adaptive and claim.eps_255 != 0 and claim.random and claim.knowledge == "fixed",
        counterpart=lambda claim, other: other.knowledge == "transfer" and claim.same(other, "knowledge", "k"),
        needs=lambda claim: f"{claim.setting.attack} under transfer",
    ),
    Order(
        name="larger k ≤ smaller",
        applies=lambda claim: _expects(claim) and (claim.k or 0) > 1,
        counterpart=_fewer("k"),
        nearest=lambda other: other.k or 0,
        needs=lambda claim: f"{_any_k(claim)} below {claim.setting.k}",
    ),
    Suffices(
        name="k suffices",
        applies=_expects,
        budget=lambda setting: setting.k,
        axes=("k",),
        one="draw a step",
        many="draws a step",
        needs=lambda claim: f"{_any_k(claim)} above {claim.setting.k}",
    ),
    Order(
        name="enumerate ≤ eot",
        applies=lambda claim: claim.bounded and claim.random and claim.knowledge == "enumerate",
        counterpart=lambda claim, other: other.knowledge == "eot" and claim.same(other, "knowledge", "k"),
        nearest=lambda other: other.k or 0,
    ),
    _ensemble("AutoAttack ≤ PGD", "autoattack"),
    _ensemble("cascade ≤ PGD", "cascade"),  # it begins with PGD
    Order(
        name="white-box ≤ gradient-free",
        applies=lambda claim: claim.iterative,
        counterpart=lambda claim, other: other.gradient_free and _other_method(claim, other),
        needs=lambda claim: f"square {_ball(claim)}",
    ),
    Unbounded(
        name="unbounded ≈ 0 or its distortion stated",
        applies=lambda claim: claim.adaptive and claim.eps_255 is None,
        transfers=True,
    ),
    Promised(
        name="attack ≥ certified",
        applies=lambda claim: claim.adaptive and claim.random and claim.knowledge != "fixed",
        transfers=True,
    ),
    Gradients(name="gradients are not zero", applies=lambda claim: claim.adaptive and not claim.gradient_free),
    Generator(name="the path's generator is its own", applies=lambda claim: claim.adaptive, transfers=True),
    Observed(
        name="outputs are logits",
        applies=lambda claim: claim.adaptive,
        column="softmax_output",
        seen="the outputs look like probabilities: losses on logits lose their gradient there",
        unseen="the outputs are not probabilities",
    ),
    Observed(
        name="no optimisation at inference",
        applies=lambda claim: claim.adaptive,
        column="optimizes",
        seen="the network took gradients while it answered: an attack that does not go through them is not adaptive",
        unseen="the network took no gradients while it answered",
    ),
    Observed(
        name="the weights are the network's",
        applies=lambda claim: claim.adaptive,
        column="other_weights",
        seen="the network was made again since, and its weights are others: evaluate it again",
        unseen="the weights that answered are those of the network's record",
        transfers=True,
        optional=True,
    ),
    Trained(name="trained as asked", applies=lambda claim: claim.adaptive, transfers=True),
)


def wanted(claim: Claim) -> list[tuple[Check, list[Pair]]]:
    """Return the checks that apply to a claim, each with the comparisons that it may want."""
    able = (check for check in CHECKS if check.transfers or claim.setting.source is None)
    return [(check, check.pairs(claim)) for check in able if check.concerns(claim)]


def judged(claim: Claim, evidence: Evidence) -> Iterator[tuple[Check, Verdict]]:
    """Yield each check that applies to a claim with its verdict."""
    for check, pairs in wanted(claim):
        optional = isinstance(check, Order) and check.needs is None
        if optional and not any(evidence.compare(pair) for pair in pairs):
            continue
        if isinstance(check, Promised) and evidence.promised(claim.rows) is None:
            continue
        if isinstance(check, Observed) and check.optional and claim.rows.observed.get(check.column) is None:
            continue
        yield check, check.judge(claim, evidence)
