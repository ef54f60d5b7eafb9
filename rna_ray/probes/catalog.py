"""The probes that a sweep can name, described without torch: their options, which networks they are for, their cost.

A new probe is one record here and one file beside this one; the room's docstring says what that file holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from rna_ray.attacks import catalog
from rna_ray.attacks.catalog import EPS, PIXEL, RANDOM_START, SPACE, STEP, THREAT, Named, Option
from rna_ray.errors import SweepError, unknown

Settings = Mapping[str, Any]
Scope = Literal["network", "pair", "unordered pair"]
"""Whom a unit is about: one network, an ordered pair of two that may be the same, or two different ones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extent:
    """What of a network decides what a probe of it does and costs."""

    norm: str
    """Its norm space, canonical."""
    members: int
    """The members of its norm space, those that coincide at every layer counted once."""
    layers: int
    """Its norm layers."""
    random_layers: int
    """Those of them where more than one member can be drawn."""
    tracked_layers: int
    """Its norm layers where a member takes tracked statistics at inference."""
    layer_based: bool
    """Whether one draw serves all layers."""
    batch_dependent: bool
    """Whether an image's answer hangs on the others of its batch."""
    other: str | None
    """A member of its space that takes other statistics than the moments of its groups, if there is one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbers(Option):
    """A setting that is a list of whole numbers, each of them within the bounds and given once; null is the default."""

    default: None = None  # type: ignore[assignment]

    def check(self, given: object) -> tuple[int, ...] | None:  # type: ignore[override]
        """Return the numbers; anything but null or a list of whole numbers in range is a SweepError."""
        if given is None:
            return None
        listed = isinstance(given, list | tuple) and all(type(one) is int and self._inside(one) for one in given)
        self._require(listed and 0 < len(set(given)) == len(given), given)  # type: ignore[arg-type]
        return tuple(given)  # type: ignore[arg-type]

    @property
    def allowed(self) -> str:
        """The values that this option takes, in words."""
        return f"null, or a list of whole numbers {'above' if self.above else 'from'} {self.minimum:g}, each given once"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe(Named):
    """A measurement that a sweep can name."""

    kind: ClassVar[str] = "probe"

    attack: str | None = None  # the attack whose options these are too
    scope: Callable[[Settings], Scope]
    examples: int = 1000  # how many test images where an entry does not say
    whole_batches: bool = False
    """Whether it measures batches and no examples, so that the last one must not be smaller."""
    precision: Literal["fp32", "fp64"] | None = None
    """What a probe computes in that runs its networks itself, uncompiled; None is as they were trained."""
    each: bool = False
    """Whether it looks at each image by itself, so that it is refused for networks whose answers hang on a batch."""
    parts: Callable[[Settings, Extent], Sequence[Settings]] | None = None
    """For probes of one network along paths that planning must know: the settings of each unit; SweepError for what
    does not fit the network. Unlike others, such a probe is refused for an imported network."""
    passes: Callable[[Settings, Extent | None], tuple[float, float]]
    """Estimated forward passes of an example through the network and through the source; a backward pass is two."""


def find(name: str) -> Probe:
    """Return a probe's record; an unknown name is a SweepError that lists those that exist."""
    if name not in PROBES:
        raise SweepError(unknown("probe", name, PROBES))
    return PROBES[name]


def attack_of(record: Probe, settings: Settings) -> dict[str, Any] | None:
    """Return the settings of a probe's attack, as `attacks.make` takes them; None where it makes none."""
    if record.attack is None or settings.get("images") == "natural":
        return None
    of_attack = _attack_options(record)
    return {"name": record.attack, **{name: value for name, value in settings.items() if name in of_attack}}


def options_of(record: Probe, settings: Settings) -> dict[str, Any]:
    """Return the settings of a probe that are not its attack's."""
    of_attack = _attack_options(record)
    return {name: value for name, value in settings.items() if name not in of_attack}


def _attack_options(record: Probe) -> set[str]:
    return {option.name for option in catalog.find(record.attack).options} if record.attack else set()


def _pgd(steps: int) -> tuple[Option, ...]:
    number = Option(name="steps", default=steps, about="The number of steps.")
    return (THREAT, EPS, STEP, SPACE, number, RANDOM_START)


def _differences(settings: Settings, extent: Extent) -> Sequence[Settings]:
    """Return the settings of each path difference; one that no two paths of the network have is a SweepError."""
    if extent.layer_based:
        raise SweepError(
            f"probe: path-transfer draws the norm of each layer by itself, and {extent.norm} is layer-based; say with "
            "`only` for which other variants this entry is"
        )
    most, rest = extent.random_layers, {name: value for name, value in settings.items() if name != "differences"}
    asked = tuple(range(0, most + 1, 2)) if settings["differences"] is None else settings["differences"]
    for difference in asked:
        if difference > most:
            raise SweepError(
                f"differences: {difference} is more than the {most} layers of {extent.norm} at which two paths can part"
            )
    return [{**rest, "difference": difference} for difference in asked]


def _similar(settings: Settings, extent: Extent) -> Sequence[Settings]:
    """Return the settings, for the members of a network that has some to compare."""
    if extent.members < 2:
        raise SweepError(
            f"between: {extent.norm} has one member and none to compare it with; say with `only` for which other "
            "variants this entry is, or write networks"
        )
    return (settings,)


def _tracking(settings: Settings, extent: Extent) -> Sequence[Settings]:
    """Return the settings, for a network that has tracked statistics to compare with."""
    if not extent.tracked_layers:
        raise SweepError(
            f"probe: statistics compares batches with what a norm tracked while training, and {extent.norm} tracks "
            "nothing; say with `only` for which other variants this entry is"
        )
    return (settings,)


def _crafted(settings: Settings) -> float:
    """Return the passes of the attack that `images: attacked` asks for."""
    return 3 * settings["steps"] if settings["images"] == "attacked" else 0


def _gradients(settings: Settings, extent: Extent | None) -> tuple[float, float]:
    """Return the passes of one gradient of each network, or of each member."""
    return (3, 3) if extent is None or settings["between"] == "networks" else (3 * extent.members, 0)


def _moments(settings: Settings, extent: Extent) -> Sequence[Settings]:
    """Return the settings, for a network of whose norms Eq. 5 and 6 speak."""
    if extent.other is not None:
        raise SweepError(
            f"probe: smoothness compares with Eq. 5 and 6, of GN and BGN, and {extent.other} of {extent.norm} is "
            "neither; say with `only` for which other variants this entry is"
        )
    return (settings,)


def _layers(settings: Settings, extent: Extent | None) -> tuple[float, float]:
    """Return the passes of two Hessian-vector products at each norm layer, of which half the network lies above."""
    return (0, 0) if extent is None else (extent.members * (5 + 6 * extent.layers), 0)


def _bounded(settings: Settings, extent: Extent | None) -> tuple[float, float]:
    """Return the passes of one attack and of four Hessian-vector products, for each ordered pair."""
    attack, each = 3 * settings["steps"] + 1, 2 * 9 + 2
    if extent is None or settings["between"] == "networks":
        return each, attack + each
    return extent.members * (extent.members - 1) * (attack + 2 * each), 0


_IMAGES = Option(
    name="images",
    default="natural",
    choices=("natural", "attacked"),
    about="Which images: as they are, or attacked by PGD, ε and step those of training.attack unless stated.",
)

_RECORDS = (
    Probe(
        name="transfer",
        about="PGD on one network, answered by another or by itself on another draw (RNA, Figure 1c and d).",
        options=_pgd(7),
        attack="pgd",
        scope=lambda settings: "pair",
        label="transfer-{steps}",
        passes=lambda settings, extent: (2, 3 * settings["steps"] + 1),
    ),
    Probe(
        name="path-transfer",
        about="PGD along one path of a network, answered along another so many layers away (RNA, Figure 5c).",
        options=(
            *_pgd(20),
            Option(name="pairs", default=10, about="The number of pairs of paths for each difference."),
            Numbers(
                name="differences",
                above=False,
                about="At how many layers two paths part; null is every second number, from 0 to the random layers'.",
            ),
        ),
        attack="pgd",
        scope=lambda settings: "network",
        label="path-transfer-{steps}",
        parts=_differences,
        passes=lambda settings, extent: (settings["pairs"] * (3 * settings["steps"] + 3), 0),
    ),
    Probe(
        name="similarity",
        about="The cosine of the loss's gradients with respect to natural images (RNA, Figure 3).",
        options=(
            Option(
                name="between",
                default="networks",
                choices=("networks", "members"),
                about="Whose gradients: two networks', on one draw each, the same where their spaces are, or those "
                "along two members of one network.",
            ),
        ),
        scope=lambda settings: "unordered pair" if settings["between"] == "networks" else "network",
        label="similarity-{between}",
        parts=_similar,
        passes=_gradients,
    ),
    Probe(
        name="surface",
        about="The loss on a plane: along the gradient's sign, and along a random orthogonal (RNA, Figure 2).",
        options=(
            Option(name="radius_255", default=16.0, maximum=255.0, about="How far to go each way, in 255ths a pixel."),
            Option(name="points", default=25, minimum=2.0, above=False, about="The points along each axis."),
        ),
        scope=lambda settings: "network",
        label="surface",
        examples=16,
        precision="fp32",
        each=True,
        passes=lambda settings, extent: (settings["points"] ** 2 + 9, 0),
    ),
    Probe(
        name="smoothness",
        about="The gradient's norm and curvature at each norm layer, for each member (RNA, Eq. 5 and 6).",
        options=(),
        scope=lambda settings: "network",
        label="smoothness",
        examples=200,
        precision="fp64",
        each=True,
        parts=_moments,
        passes=_layers,
    ),
    Probe(
        name="bound",
        about="What Theorem 3.1 bounds transfer by, and the transfer, for ordered pairs (RNA, Eq. 7).",
        options=(
            Option(
                name="between",
                default="members",
                choices=("members", "networks"),
                about="Who is attacked and who answers: two members of one network, or two networks, on one draw each.",
            ),
            dataclasses.replace(THREAT, default="l2", choices=("l2",)),
            dataclasses.replace(EPS, default=128.0),
            dataclasses.replace(STEP, default=16.0),
            PIXEL,
            Option(name="steps", default=20, about="The number of steps of the targeted attack."),
        ),
        attack="pgd",
        scope=lambda settings: "pair" if settings["between"] == "networks" else "network",
        label="bound-{between}",
        precision="fp32",
        each=True,
        parts=_similar,
        passes=_bounded,
    ),
    Probe(
        name="landscape",
        about="The loss over two random filter-normalised weight directions (RobustNorm, Figure 9; Li et al. 2018).",
        options=(
            Option(name="radius", default=1.0, about="How far to go each way; 1 is the length of each filter."),
            Option(name="points", default=25, minimum=2.0, above=False, about="The points along each axis."),
            _IMAGES,
            *_pgd(10),
        ),
        attack="pgd",
        scope=lambda settings: "network",
        label="landscape-{images}",
        examples=200,
        precision="fp32",
        passes=lambda settings, extent: (settings["points"] ** 2 + _crafted(settings), 0),
    ),
    Probe(
        name="statistics",
        about="A test batch's mean and variance in each channel, beside the tracked ones (RobustNorm, Figure 1).",
        options=(_IMAGES, *_pgd(10)),
        attack="pgd",
        scope=lambda settings: "network",
        label="statistics-{images}",
        precision="fp32",  # in bf16 a small step towards an attacked image is none
        whole_batches=True,
        parts=_tracking,
        passes=lambda settings, extent: ((extent.members if extent else 1) * (1 + _crafted(settings)), 0),
    ),
)
PROBES: dict[str, Probe] = {record.name: record for record in _RECORDS}
assert len(PROBES) == len(_RECORDS), "two probes share a name"
