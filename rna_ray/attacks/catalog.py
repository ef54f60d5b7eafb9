"""The attacks that a sweep can name, described without torch: their options, their bounds, their cost.

Defaults are the RNA paper's settings (Section 5.1). A new attack is one record here and its code beside this file.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from rna_ray.errors import SweepError, unknown

Value = bool | int | float | str
Passes = Callable[[Mapping[str, Value], int], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """A setting of an attack; its type is its default's, a float takes whole numbers too."""

    name: str
    default: Value
    about: str
    choices: tuple[str, ...] = ()
    minimum: float = 0.0
    above: bool = True  # whether the minimum itself is out
    maximum: float = math.inf
    later: bool = False
    """Whether it came after its attacks, and its default is what was before: only another value counts."""
    labelled: bool = False
    """Whether labels say it where it is not the default, as in pgd-20-margin; for options that are `later`."""

    def check(self, given: object) -> Value:
        """Return the value in this option's type; a wrong type or a value out of range is a SweepError."""
        if isinstance(self.default, bool):
            return self._require(isinstance(given, bool), given)
        if isinstance(self.default, str):
            return self._require(given in self.choices, given)
        number = isinstance(given, int if isinstance(self.default, int) else int | float)
        self._require(number and not isinstance(given, bool) and self._inside(given), given)
        return type(self.default)(given)  # type: ignore[call-overload]

    @property
    def allowed(self) -> str:
        """The values that this option takes, in words."""
        if isinstance(self.default, bool):
            return "true or false"
        if self.choices:
            return " or ".join(self.choices)
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        least = f"{'above' if self.above else 'from'} {self.minimum:g}"
        return f"{kind} {least}" + ("" if math.isinf(self.maximum) else f" up to {self.maximum:g}")

    def _inside(self, number: object) -> bool:
        assert isinstance(number, int | float)
        low = number > self.minimum if self.above else number >= self.minimum
        return low and number <= self.maximum and math.isfinite(number)

    def _require(self, holds: bool, given: object) -> Value:
        if not holds:
            raise SweepError(f"{self.name}: {given!r} is not {self.allowed}")
        return given  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named:
    """What an entry of a sweep can name: an attack, or a probe."""

    kind: ClassVar[str]
    """What it is: attack."""

    name: str
    about: str
    options: tuple[Option, ...]
    label: str  # how tables call it, from its options

    def called(self, given: Mapping[str, object]) -> str:
        """Return how tables call it with these options: pgd-20, or pgd-20-margin."""
        settings = self.settings(given)
        more = [str(settings[option.name]) for option in self.options if option.labelled and option.name in settings]
        return "-".join([self.label.format(**settings), *more])

    def settings(self, given: Mapping[str, object]) -> dict[str, Any]:
        """Return all of its settings, defaults filled in; of options that came later, only what is not the default.

        Raises SweepError for an option that it does not have, and for a value that the option cannot take.
        """
        options = {option.name: option for option in self.options}
        for name in given:
            if name not in options:
                raise SweepError(f"{name}: " + unknown(f"option of {self.kind} {self.name}:", name, options))
        found = {name: option.check(given.get(name, option.default)) for name, option in options.items()}
        if found.get("threat") == "linf":  # an ℓ2 ball may well be larger than the range of a pixel
            for option in self.options:
                if option.name in (EPS.name, STEP.name):
                    dataclasses.replace(option, maximum=255.0).check(given.get(option.name, option.default))
        neutral = {option.name: option.default for option in self.options if option.later}
        return {name: value for name, value in found.items() if name not in neutral or value != neutral[name]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(Named):
    """An attack that a sweep can name."""

    kind: ClassVar[str] = "attack"

    bounded: bool  # whether it stays in an ε ball; the others look for the smallest perturbation
    adaptive: bool = True  # whether it looks at the network, so that what it knows of the path matters
    aggregates: bool = False  # whether its steps may follow aggregated momentum (aggmo-eot-k)
    knowledge: tuple[str, ...] = ("transfer",)  # what it knows where an entry does not say
    members: bool = False  # whether it walks from member to member, so that it must know them all
    library: Literal["own", "torchattacks", "pyautoattack", "foolbox"]  # whose code draws the attack's random numbers
    passes: Passes  # estimated forward-backward passes for one example, from its settings and the number of classes


def find(name: str) -> Attack:
    """Return an attack's record; an unknown name is a SweepError that lists those that exist."""
    if name not in ATTACKS:
        raise SweepError(unknown("attack", name, ATTACKS))
    return ATTACKS[name]


THREAT = Option(name="threat", default="linf", choices=("linf", "l2"), about="The norm of the ball around the image.")
LINF = dataclasses.replace(THREAT, choices=("linf",))
EPS = Option(name="eps_255", default=8.0, above=False, about="The ball's radius, in 255ths of the pixel range.")
STEP = Option(name="step_255", default=2.0, about="A step's length, in 255ths of the pixel range.")
SPACE = Option(
    name="eps_space",
    default="pixel",
    choices=("pixel", "normalized"),
    later=True,
    about="Where lengths are measured: in pixels, or once these are divided by the network's per-channel std.",
)
PIXEL = dataclasses.replace(SPACE, choices=("pixel",))
"""For attacks that cannot measure in another space."""
RESTARTS = Option(name="restarts", default=1, about="The number of starts, of which the best counts.")
RANDOM_START = Option(name="random_start", default=True, about="Whether to start anywhere in the ball.")
LOSS = Option(
    name="loss",
    default="cross-entropy",
    choices=("cross-entropy", "margin"),
    later=True,
    labelled=True,
    about="What it climbs: the cross-entropy, or the margin, the largest other logit minus the true one; of several "
    "draws a step, the mean of each draw's gradient (STN, Section 6.2).",
)


def _steps(default: int) -> Option:
    return Option(name="steps", default=default, about="The number of steps.")


def _number(settings: Mapping[str, Value], name: str) -> float:
    return float(settings[name])


def _each_step(settings: Mapping[str, Value], classes: int) -> float:
    return _number(settings, "steps") * float(settings.get("restarts", 1))


def _queries(settings: Mapping[str, Value], classes: int) -> float:
    return _number(settings, "queries") / 3  # a query is a forward pass: a third of forward and backward


def _autoattack(settings: Mapping[str, Value], classes: int) -> float:
    """Return the passes of an example that withstands everything, the most it can cost.

    `standard`: APGD-CE, targeted APGD and targeted FAB of 100 steps, then 5,000 queries of Square; `rand`: APGD on two
    losses, each step averaged over 20 draws (Croce & Hein 2020).
    """
    targets = min(9, classes - 1)
    return 100 + 100 * targets + 200 * targets + 5000 / 3 if settings["version"] == "standard" else 2 * 100 * 20


def _cascade(settings: Mapping[str, Value], classes: int) -> float:
    """Return the passes of an example that withstands everything: one step, three times `steps`, and the queries."""
    return 1 + 3 * _number(settings, "steps") + _queries(settings, classes)


_RECORDS = (
    Attack(
        name="natural",
        about="No attack: the image as it is.",
        options=(),
        bounded=True,
        adaptive=False,
        library="own",
        label="natural",
        passes=lambda settings, classes: 0,
    ),
    Attack(
        name="noise",
        about="A random point of the ball, which any attack must beat.",
        options=(
            Option(
                name="kind",
                default="uniform",
                choices=("uniform", "gaussian"),
                about="How the point is drawn: uniformly, or from a Gaussian clipped to the ball.",
            ),
            THREAT,
            EPS,
            SPACE,
        ),
        bounded=True,
        adaptive=False,
        library="own",
        label="noise-{kind}",
        passes=lambda settings, classes: 0,
    ),
    Attack(
        name="gaussian",
        about="Gaussian noise within no ball, clipped to [0, 1] pixels: blind to the network.",
        options=(
            Option(name="std_255", default=25.5, maximum=255.0, about="The noise's standard deviation, in 255ths."),
            SPACE,
        ),
        bounded=False,
        adaptive=False,
        library="own",
        label="gaussian-{std_255:g}",
        passes=lambda settings, classes: 0,
    ),
    Attack(
        name="fgsm",
        about="One step to the ball's surface along the gradient (Goodfellow et al. 2015).",
        options=(THREAT, EPS, SPACE),
        bounded=True,
        library="own",
        label="fgsm",
        passes=lambda settings, classes: 1,
    ),
    Attack(
        name="bim",
        about="Iterated FGSM, which is PGD from the image itself (Kurakin et al. 2017).",
        options=(LINF, EPS, STEP, SPACE, _steps(20)),
        bounded=True,
        library="own",
        label="bim-{steps}",
        passes=_each_step,
    ),
    Attack(
        name="pgd",
        about="Projected gradient descent (Madry et al. 2018).",
        options=(THREAT, EPS, STEP, SPACE, _steps(20), RANDOM_START, RESTARTS, LOSS),
        bounded=True,
        aggregates=True,
        library="own",
        label="pgd-{steps}",
        passes=_each_step,
    ),
    Attack(
        name="mifgsm",
        about="Iterated FGSM with momentum (Dong et al. 2018).",
        options=(
            LINF,
            EPS,
            STEP,
            SPACE,
            _steps(5),
            Option(name="decay", default=1.0, above=False, about="How much of the last steps' direction is kept."),
        ),
        bounded=True,
        library="own",
        label="mifgsm-{steps}",
        passes=_each_step,
    ),
    Attack(
        name="cw",
        about="The smallest l2 perturbation by optimisation (Carlini & Wagner 2017); cannot move pixels at 0 or 1 "
        "unless they are inset.",
        options=(
            Option(name="c", default=1e-4, about="The weight of misclassification against the perturbation's size."),
            Option(
                name="kappa",
                default=0.0,
                above=False,
                about="How far below 0 the margin still counts as a loss, so that the search goes on; of all images on "
                "the way the shortest misclassified one is kept, by whatever margin, as torchattacks does.",
            ),
            _steps(1000),
            Option(name="lr", default=0.01, about="The learning rate of the optimisation."),
            Option(
                name="inset",
                default=0.0,
                above=False,
                maximum=0.1,
                later=True,
                about="How far into [0, 1] pixels are moved first: the search cannot move one at 0 or 1, as most of "
                "MNIST's are; 0.001 lets it.",
            ),
            Option(
                name="expectation",
                default="prediction",
                choices=("prediction", "margin"),
                later=True,
                labelled=True,
                about="Of several draws a step: the margin of the logarithm of their mean prediction, or the mean of "
                "the draws' margins, which is the expected margin of the STN paper (Section 6.2); cut off at 0 "
                "after the mean, whatever kappa. Of one draw both are its own margin.",
            ),
        ),
        bounded=False,
        library="torchattacks",
        label="cw-{steps}",
        passes=_each_step,
    ),
    Attack(
        name="deepfool",
        about="The smallest l2 perturbation by linearising the classes' borders (Moosavi-Dezfooli 2016), unbounded.",
        options=(
            _steps(50),
            Option(name="overshoot", default=0.02, above=False, about="How far to go beyond the border: a fraction."),
        ),
        bounded=False,
        library="torchattacks",
        label="deepfool-{steps}",
        # A step takes a backward pass for each class; most examples cross a border within about five steps.
        passes=lambda settings, classes: min(5.0, _number(settings, "steps")) * (1 + 2 * classes) / 3,
    ),
    Attack(
        name="boundary",
        about="The smallest l2 perturbation by a walk along the border (Brendel et al. 2018), which asks for classes "
        "alone; unbounded.",
        options=(_steps(25000),),
        bounded=False,
        library="foolbox",
        knowledge=("resample",),  # it asks the defence itself, which draws afresh at every query
        label="boundary-{steps}",
        # A query a step, and another one at every tenth; the queries that find a start are few beside them.
        passes=lambda settings, classes: 1.1 * _number(settings, "steps") / 3,
    ),
    Attack(
        name="arc",
        about="A walk over the borders of every member in turn (Dbouk & Shanbhag 2022); knows them all: enumerate.",
        options=(
            THREAT,
            EPS,
            STEP,
            PIXEL,
            _steps(20),
            Option(name="borders", default=3, about="How many other classes may be behind the nearest border."),
        ),
        bounded=True,
        members=True,
        knowledge=("enumerate",),
        library="own",
        label="arc-{steps}",
        # For each member and step: a gradient for each border, and the answers of (here: two) members.
        passes=lambda settings, classes: _number(settings, "steps") * (3 + 2 * _number(settings, "borders")) / 3,
    ),
    Attack(
        name="autoattack",
        about="The ensemble of APGD, FAB and Square (Croce & Hein 2020).",
        options=(
            Option(
                name="version",
                default="standard",
                choices=("standard", "rand"),
                about="Which ensemble: the standard one, or the one for randomised defences.",
            ),
            THREAT,
            EPS,
            PIXEL,
        ),
        bounded=True,
        library="pyautoattack",
        label="autoattack-{version}",
        passes=_autoattack,
    ),
    Attack(
        name="square",
        about="Random squares, kept where they raise the loss: needs no gradient (Andriushchenko et al. 2020).",
        options=(THREAT, EPS, PIXEL, Option(name="queries", default=5000, about="The most forward passes to spend.")),
        bounded=True,
        library="pyautoattack",
        label="square-{queries}",
        passes=_queries,
    ),
    Attack(
        name="cascade",
        about="FGSM, PGD, aggregated momentum, Auto-PGD and Square, each on what withstood those before it.",
        options=(
            THREAT,
            EPS,
            STEP,
            PIXEL,
            _steps(20),
            Option(name="queries", default=200, about="The most forward passes that Square may spend."),
        ),
        bounded=True,
        library="pyautoattack",
        label="cascade-{steps}",
        passes=_cascade,
    ),
)
REGROUPING = frozenset({"autoattack", "square", "cascade", "deepfool", "boundary"})
"""The attacks that send other batches through the network than they were given."""

ATTACKS: dict[str, Attack] = {record.name: record for record in _RECORDS}
assert len(ATTACKS) == len(_RECORDS), "two attacks share a name"
