"""The grammar of norm spaces, and what a space becomes at a layer. Imports no torch.

    space   = term { "+" term }
    term    = family [ count | "[" size [ "-" size ] "]" ] [ "(affine=false)" ]
    family  = "BN" | "IN" | "LN" | "GN" | "BGN"

A count (`GN32`) is a number of groups, a bracket (`GN[1-64]`) a range of group sizes, the powers of two in it; a
bracket applies to every bare family before it, so `BGN+GN[1-4]` is BGN and GN, each with sizes 1, 2 and 4 (RNA,
Table 5).
BN is BGN with groups of one channel, IN is GN with groups of one channel, LN is GN with one group (RNA, Section 3.1).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Literal

from rna_ray.errors import SpaceError, unknown

Statistics = Literal["batch", "example"]

_STATISTICS: dict[str, Statistics] = {"BN": "batch", "BGN": "batch", "IN": "example", "GN": "example", "LN": "example"}
_WHOLE = {"BN": ("size", 1), "IN": ("size", 1), "LN": ("count", 1)}  # families that need neither count nor sizes
_TOKEN = re.compile(r"(?P<family>[A-Za-z]+)(?P<count>\d+)?(?P<bracket>\[[^\]]*\]?)?(?P<options>\([^)]*\)?)?")
_BRACKET = re.compile(r"\[(\d+)(?:-(\d+))?\]")


@dataclasses.dataclass(frozen=True, order=True)
class Member:
    """One norm of a space: whose statistics it takes, over how many groups or groups of which size."""

    statistics: Statistics
    by: Literal["count", "size"]
    number: int
    affine: bool = True

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
        return self._name + ("" if self.affine else "(affine=false)")

    @property
    def _name(self) -> str:
        family = "BGN" if self.statistics == "batch" else "GN"
        whole = {("BGN", "size", 1): "BN", ("GN", "size", 1): "IN", ("GN", "count", 1): "LN"}
        spelled = f"{family}{self.number}" if self.by == "count" else f"{family}[{self.number}]"
        return whole.get((family, self.by, self.number), spelled)


@dataclasses.dataclass(frozen=True, order=True)
class LayerMember:
    """A member at one layer, its number of groups settled: members that coincide there are equal."""

    statistics: Statistics
    groups: int
    affine: bool

    @property
    def tracked(self) -> bool:
        """Whether inference takes statistics that were tracked while training."""
        return self.statistics == "batch"


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
        return LayerMember(member.statistics, groups, member.affine)


def parse(text: str) -> Space:
    """Return the space that a text such as `BGN+GN[1-4]` names.

    Raises SpaceError pointing at the first character that cannot be read.
    """
    if not text.strip():
        raise SpaceError("the norm space is empty; write for example BN, BN+IN or BGN+GN[1-4]")
    members: list[Member] = []
    bare: list[tuple[int, str, bool]] = []  # families still waiting for a bracket: position, family, affine
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


def _term(text: str, term: str, start: int, bare: list[tuple[int, str, bool]]) -> list[Member]:
    match = _TOKEN.match(term)
    if not match:
        raise _error(text, start, "a norm is expected here")
    if match.end() != len(term):
        raise _error(text, start + match.end(), f"{term[match.end()]!r} is not part of a norm")
    family, count, bracket = match["family"], match["count"], match["bracket"]
    if family not in _STATISTICS:
        raise _error(text, start, unknown("norm", family, _STATISTICS))
    affine = _affine(text, match, start)
    if (count or bracket) and family in _WHOLE:
        raise _error(text, start + len(family), f"{family} takes neither a count nor sizes")
    if count and bracket:
        raise _error(text, start + match.start("bracket"), "a norm takes a count or sizes, not both")
    if family in _WHOLE:
        return [Member(_STATISTICS[family], *_WHOLE[family], affine)]
    if count:
        return [_counted(text, family, int(count), affine, start + match.start("count"))]
    bare.append((start, family, affine))
    if not bracket:
        return []
    sizes = _sizes(text, bracket, start + match.start("bracket"))
    found = [Member(_STATISTICS[name], "size", size, scaled) for _, name, scaled in bare for size in sizes]
    bare.clear()
    return found


def _counted(text: str, family: str, count: int, affine: bool, at: int) -> Member:
    if count < 1:
        raise _error(text, at, "a group count starts at 1")
    return Member(_STATISTICS[family], "count", count, affine)


def _affine(text: str, match: re.Match[str], start: int) -> bool:
    options = match["options"]
    if options is None:
        return True
    setting = options.replace(" ", "")
    if setting not in ("(affine=false)", "(affine=true)"):
        at = start + match.start("options")
        raise _error(text, at, f"the option {options} is unknown; known are (affine=true) and (affine=false)")
    return setting == "(affine=true)"


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
