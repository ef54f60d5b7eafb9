"""The grammar of norm spaces, and what a space becomes at a layer. Imports no torch.

    space   = term { "+" term }
    term    = family [ count | "[" size [ "-" size ] "]" ] [ "(" option { "," option } ")" ]
    family  = "BN" | "IN" | "LN" | "GN" | "BGN" | "RN" | "MinMax" | "none"
    option  = "affine=" ( "true" | "false" ) | "track=" ( "true" | "mean" | "false" ) | "p=" number

A count (`GN32`) is a number of groups, a bracket (`GN[1-64]`) a range of group sizes, the powers of two in it; a
bracket applies to every bare family before it, so `BGN+GN[1-4]` is BGN and GN, each with sizes 1, 2 and 4 (RNA,
Table 5).
BN is BGN with groups of one channel, IN is GN with groups of one channel, LN is GN with one group (RNA, Section 3.1).

RN is RobustNorm, a channel's distance from its mean over the power p of its range, p = 0.2 where none is stated
(RobustNorm, Eq. 14; `RN(p=1)` is Eq. 12), MinMax its distance from its least value over its range (Eq. 11), none no
norm. `track` says which statistics of a batch are tracked for inference: those of BN and BGN are unless `track=false`
is stated, those of RN and MinMax are not unless `track=true`, or for RN `track=mean`: its mean alone.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, Literal

from rna_ray.errors import SpaceError, unknown

Statistics = Literal["batch", "example", "minmax", "none", "range"]
"""Moments of the batch or of each example, a batch's range with or without its mean, or nothing."""

Track = Literal["all", "mean", "none"]
"""Which of a batch's statistics are tracked while training, to stand in for those of a test batch."""

_MOST_POWER, _DECIMALS = 2.0, 6
TRACKS: dict[Track, str] = {"all": "true", "mean": "mean", "none": "false"}
"""How `track` is written."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Family:
    """What a family's name stands for, and what its options can be."""

    statistics: Statistics
    whole: tuple[Literal["count", "size"], int] | None = None
    """The groups of families that need neither count nor sizes."""
    affine: bool = True
    """Whether it can have a weight and a bias for each channel."""
    tracks: tuple[Track, ...] = ("all",)
    """What it can track, first what it does where nothing is stated; one alone is no choice."""
    power: float | None = None
    """The power where none is stated; None where it has none."""

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """The options with few values as they are written, and what each says of a member."""
        affine: dict[str, dict[str, Any]] = {"affine=true": {"affine": True}, "affine=false": {"affine": False}}
        tracks: dict[str, dict[str, Any]] = {f"track={TRACKS[track]}": {"track": track} for track in self.tracks}
        return (affine if self.affine else {}) | (tracks if len(self.tracks) > 1 else {})

    @property
    def known(self) -> str:
        """The options that it takes, in words."""
        power = [] if self.power is None else [f"p=NUMBER above 0 up to {_MOST_POWER:g}, of up to {_DECIMALS} decimals"]
        return ", ".join([*self.options, *power]) or "none"


_FAMILIES: dict[str, _Family] = {
    "BN": _Family(statistics="batch", whole=("size", 1), tracks=("all", "none")),
    "IN": _Family(statistics="example", whole=("size", 1)),
    "LN": _Family(statistics="example", whole=("count", 1)),
    "GN": _Family(statistics="example"),
    "BGN": _Family(statistics="batch", tracks=("all", "none")),
    "RN": _Family(statistics="range", whole=("size", 1), tracks=("none", "all", "mean"), power=0.2),
    "MinMax": _Family(statistics="minmax", whole=("size", 1), tracks=("none", "all")),
    "none": _Family(statistics="none", whole=("size", 1), affine=False),
}
_TOKEN = re.compile(r"(?P<family>[A-Za-z]+)(?P<count>\d+)?(?P<bracket>\[[^\]]*\]?)?(?P<options>\([^)]*\)?)?")
_BRACKET = re.compile(r"\[(\d+)(?:-(\d+))?\]")


@dataclasses.dataclass(frozen=True, order=True)
class Member:
    """One norm of a space: whose statistics it takes, over how many groups or groups of which size."""

    statistics: Statistics
    by: Literal["count", "size"]
    number: int
    affine: bool = True
    track: Track = "all"
    """What of a batch's statistics is tracked; all where there are none."""
    power: float = 1.0
    """The power of the range that RobustNorm divides by."""

    def groups(self, channels: int, layer: str) -> int:
        """Return the number of groups at a layer, its count or size clamped to the channels.

        Raises SpaceError where what is left after clamping does not divide the channels.
        """
        number = min(self.number, channels)
        if channels % number:
            what = "groups" if self.by == "count" else "channels a group"
            raise SpaceError(
                f"{self}: {number} {what} do not divide the {channels} channels of layer {layer}; "
                f"allowed are divisors of {channels}"
            )
        return number if self.by == "count" else channels // number

    def __str__(self) -> str:
        options = [option for option, stated in self._options.items() if stated]
        return self._name + (f"({','.join(options)})" if options else "")

    @property
    def _name(self) -> str:
        if self.statistics not in ("batch", "example"):
            return next(name for name, family in _FAMILIES.items() if family.statistics == self.statistics)
        family = "BGN" if self.statistics == "batch" else "GN"
        whole = {("BGN", "size", 1): "BN", ("GN", "size", 1): "IN", ("GN", "count", 1): "LN"}
        spelled = f"{family}{self.number}" if self.by == "count" else f"{family}[{self.number}]"
        return whole.get((family, self.by, self.number), spelled)

    @property
    def _options(self) -> dict[str, bool]:
        """The options that give this norm, and whether each must be stated."""
        family = next(family for family in _FAMILIES.values() if family.statistics == self.statistics)
        power = f"{self.power:.{_DECIMALS}f}".rstrip("0").rstrip(".")
        return {
            "affine=false": family.affine and not self.affine,
            f"p={power}": family.power is not None and self.power != family.power,
            f"track={TRACKS[self.track]}": self.track != family.tracks[0],
        }


@dataclasses.dataclass(frozen=True, order=True)
class LayerMember:
    """A member at one layer, its number of groups settled: members that coincide there are equal."""

    statistics: Statistics
    groups: int
    affine: bool
    track: Track = "all"
    power: float = 1.0

    @property
    def batch_dependent(self) -> bool:
        """Whether an example's answer hangs on the others of its batch at inference too."""
        return self.track != "all"

    @property
    def tracked(self) -> bool:
        """Whether inference takes statistics that were tracked while training."""
        return self.statistics not in ("example", "none") and self.track != "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormLayer:
    """Where a norm stands: its module's name, and the channels and spatial size that it sees.

    `only` is the norm that stands there whatever the network's space is.
    """

    name: str
    channels: int
    height: int
    width: int
    only: Member | None = None


@dataclasses.dataclass(frozen=True)
class Space:
    """A set of norms, in canonical order: one of them is drawn for each layer of a path."""

    members: tuple[Member, ...]

    @property
    def canonical(self) -> str:
        """The one spelling of this set of norms: `IN+BN` and `BGN+GN[1-1]` both give `BN+IN`."""
        return "+".join(str(member) for member in self.members)

    def at(self, layer: NormLayer) -> tuple[LayerMember, ...]:
        """Return the members at a layer, those that coincide after clamping merged.

        Raises SpaceError where a group count does not divide the channels, or where a group of one element would
        make the output independent of the input.
        """
        resolved = [self._settle(member, layer) for member in self.members]
        return tuple(dict.fromkeys(resolved))

    def index_at(self, layer: NormLayer) -> tuple[int, ...]:
        """Return, for each member of the space, its index among the merged members of a layer."""
        merged = self.at(layer)
        return tuple(merged.index(self._settle(member, layer)) for member in self.members)

    def paths(self, layers: Sequence[NormLayer], *, layer_based: bool = False) -> int:
        """Return the number of distinct paths: the product over the layers, or the distinct whole-network choices."""
        if layer_based and layers:
            return len(set(zip(*(self.index_at(layer) for layer in layers), strict=True)))
        return math.prod(len(self.at(layer)) for layer in layers)

    def batch_dependent(self, layers: Sequence[NormLayer]) -> bool:
        """Say whether a network of these norms takes statistics of the batch that it answers for."""
        return any(member.batch_dependent for layer in layers for member in self.at(layer))

    @staticmethod
    def _settle(member: Member, layer: NormLayer) -> LayerMember:
        member = layer.only or member
        groups = member.groups(layer.channels, layer.name)
        elements = layer.channels // groups * layer.height * layer.width
        if member.statistics == "example" and elements == 1:
            raise SpaceError(
                f"{member}: layer {layer.name} has {layer.height}x{layer.width} pixels, so each group would be one "
                "element and the output would not depend on the input; choose a norm with larger groups"
            )
        return LayerMember(member.statistics, groups, member.affine, member.track, member.power)


def parse(text: str) -> Space:
    """Return the space that a text such as `BGN+GN[1-4]` names.

    Raises SpaceError pointing at the first character that cannot be read.
    """
    if not text.strip():
        raise SpaceError("the norm space is empty; write for example BN, BN+IN or BGN+GN[1-4]")
    members: list[Member] = []
    bare: list[_Bare] = []  # families still waiting for a bracket
    position = 0
    for part in text.split("+"):
        start = position + len(part) - len(part.lstrip())
        members += _term(text, part.strip(), start, bare)
        position += len(part) + 1
    if bare:
        at, family, _ = bare[0]
        raise _error(text, at, f"{family} needs a group count ({family}32) or group sizes ({family}[1-4])")
    return Space(tuple(sorted(set(members))))


def parse_one(text: str) -> Member:
    """Return the norm that a text such as `BN` names; SpaceError where it names several."""
    members = parse(text).members
    if len(members) > 1:
        raise SpaceError(f"norm {text!r} is a space of {len(members)} norms, where one is meant")
    return members[0]


_Bare = tuple[int, str, dict[str, Any]]  # where it stands, its family and its options


def _term(text: str, term: str, start: int, bare: list[_Bare]) -> list[Member]:
    match = _TOKEN.match(term)
    if not match:
        raise _error(text, start, "a norm is expected here")
    if match.end() != len(term):
        raise _error(text, start + match.end(), f"{term[match.end()]!r} is not part of a norm")
    name, count, bracket = match["family"], match["count"], match["bracket"]
    if name not in _FAMILIES:
        raise _error(text, start, unknown("norm", name, _FAMILIES))
    family, options = _FAMILIES[name], _options(text, match, start)
    if (count or bracket) and family.whole:
        raise _error(text, start + len(name), f"{name} takes neither a count nor sizes")
    if count and bracket:
        raise _error(text, start + match.start("bracket"), "a norm takes a count or sizes, not both")
    if family.whole:
        return [Member(family.statistics, *family.whole, **options)]
    if count:
        if int(count) < 1:
            raise _error(text, start + match.start("count"), "a group count starts at 1")
        return [Member(family.statistics, "count", int(count), **options)]
    bare.append((start, name, options))
    if not bracket:
        return []
    sizes = _sizes(text, bracket, start + match.start("bracket"))
    found = [Member(_FAMILIES[one].statistics, "size", size, **stated) for _, one, stated in bare for size in sizes]
    bare.clear()
    return found


def _options(text: str, match: re.Match[str], start: int) -> dict[str, Any]:
    """Return what a norm's options say, as fields of a member; what is not stated as its family has it."""
    family, given = _FAMILIES[match["family"]], match["options"]
    found: dict[str, Any] = {"affine": family.affine, "track": family.tracks[0]}
    if family.power is not None:
        found["power"] = family.power
    stated: set[str] = set()
    for option in given.replace(" ", "").removeprefix("(").removesuffix(")").split(",") if given else ():
        name, _, value = option.partition("=")
        says = _power(value) if name == "p" and family.power is not None else family.options.get(option)
        if says is None or name in stated or not given.endswith(")"):
            why = f"the option {given} is unknown; {match['family']} knows {family.known}, each once"
            raise _error(text, start + match.start("options"), why)
        stated.add(name)
        found |= says
    return found


def _power(value: str) -> dict[str, float] | None:
    """Return the power that a text says, None where it says none."""
    number = float(value) if re.fullmatch(rf"\d+(\.\d{{1,{_DECIMALS}}})?", value) else 0.0
    return {"power": number} if 0 < number <= _MOST_POWER else None


def _sizes(text: str, bracket: str, at: int) -> list[int]:
    match = _BRACKET.fullmatch(bracket.replace(" ", ""))
    if not match:
        raise _error(text, at, f"{bracket} is not a range of group sizes such as [4] or [1-64]")
    low, high = int(match[1]), int(match[2] or match[1])
    if not low or low & (low - 1) or high & (high - 1) or high < low:
        raise _error(text, at, f"{bracket} must run from one power of two up to another, such as [1-64]")
    return [1 << power for power in range(low.bit_length() - 1, high.bit_length())]


def _error(text: str, at: int, why: str) -> SpaceError:
    return SpaceError(f"norm {text!r}, character {at + 1}: {why}")
