"""Layouts in which weights for our networks are published: which of a file's names is which of ours. Names, no tensors.

* our own: what rna-ray keeps in its store.
* torchvision's ResNets: conv1, bn1, layer1.0.conv1, layer2.0.downsample.0, ..., fc, one norm a layer.
* the RNA authors' released ResNet18 (github.com/UniSerj/Random-Norm-Aggregation): conv1, bn1, layer1.0.conv1,
  layer2.0.shortcut.0, ..., linear. A layer of theirs holds one norm (bn1.weight) or, as `USNorm`, a list of them
  (bn1.norm.0.weight): `bn`; `gn_k`, GroupNorm of k groups; `gnr_k`, GroupNorm of groups of k channels; `gbn_k` and
  `gbnr_k`, the same over the batch (BGN), whose weights are (1, C, 1, 1); `in`, not affine, which has no weights.
* their WideResNet32: conv1, block1.layer.0.bn1, ..., bn1, fc. Its last norm, bn1, is always one plain BN, where our
  wide-resnet-34 draws unless the sweep says `last_norm: BN`.

A file does not say what a list was, so the sweep's norm does. The order is the one in which their training script
makes a list: `bn` first, then `in`, then for k rising `gn_k` or `gnr_k`, each followed by its `gbn_k` or `gbnr_k`.
Which of these kinds an entry is shows in its weights; what the groups of a GroupNorm are shows nowhere.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from rna_ray.errors import CheckpointError
from rna_ray.networks.spaces import Member, NormLayer, Space

Shapes = Mapping[str, tuple[int, ...]]

COUNTER = "num_batches_tracked"
"""What torch's BatchNorm keeps beside its statistics and nothing of ours needs."""
NAMED = 10
"""How many keys of each kind of misfit an error names."""

_MEMBER = re.compile(r"(.+)\.members\.(\d+)")
_BLOCK = re.compile(r"stages\.(\d+)\.(\d+)\.(\w+)")
_BN = Member("batch", "size", 1)
_IN = Member("example", "size", 1, affine=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How a file calls the modules of our networks."""

    name: str
    called: Callable[[str], str]
    """From our module's name to the file's; KeyError where the layout has no such network."""
    own: bool = False
    """Whether it is ours, so that the members of a norm have our order."""
    normalises: bool = False
    """Whether a file that does not say how its images were normalised is refused unless the sweep does."""


def _residual(shortcut: str, head: str) -> Callable[[str], str]:
    """Return what modules of residual networks are called where blocks stand in `layer1` to `layer4`."""
    outside = {"conv": "conv1", "norm": "bn1", "head": head}
    projection = {"shortcut": f"{shortcut}.0", "shortcut_norm": f"{shortcut}.1"}

    def called(module: str) -> str:
        if block := _BLOCK.fullmatch(module):
            part = projection.get(block[3], block[3].replace("norm", "bn"))
            return f"layer{int(block[1]) + 1}.{block[2]}.{part}"
        return outside[module]

    return called


def _wide(module: str) -> str:
    """Return what the RNA authors call a module of their WideResNet."""
    if block := _BLOCK.fullmatch(module):
        part = "convShortcut" if block[3] == "shortcut" else block[3].replace("norm", "bn")
        return f"block{int(block[1]) + 1}.layer.{block[2]}.{part}"
    return {"conv": "conv1", "norm": "bn1", "head": "fc"}[module]


OWN = Layout(name="our own", called=lambda module: module, own=True)
TORCHVISION = Layout(name="torchvision's", called=_residual("downsample", "fc"))
AUTHORS = Layout(name="the RNA authors'", called=_residual("shortcut", "linear"), normalises=True)
AUTHORS_WIDE = Layout(name="the RNA authors'", called=_wide, normalises=True)
LAYOUTS: Mapping[str, tuple[Layout, ...]] = {
    "resnet8": (OWN, TORCHVISION, AUTHORS),
    "resnet18": (OWN, TORCHVISION, AUTHORS),
    "resnet50": (OWN, TORCHVISION),
    "wide-resnet-34": (OWN, AUTHORS_WIDE),
}


def layout(network: str, own: Shapes, given: Iterable[str]) -> Layout:
    """Return the layout of a file: the one by whose names most of the network's layers but its norms are there."""
    names, layers = set(given), [key.removesuffix(".weight") for key in own if _is_layer(key)]

    def found(one: Layout) -> int:
        return sum(f"{one.called(layer)}.weight" in names for layer in layers)

    return max(LAYOUTS.get(network, (OWN,)), key=found)  # the first, ours, where there are none


def keys(
    own: Shapes, given: Shapes, *, layout: Layout, layers: Sequence[NormLayer], space: Space, where: str
) -> dict[str, str]:
    """Return the file's key for each of a network's (`own`), one for one.

    Raises CheckpointError naming what does not fit: another number or kind of norms at a layer, keys that are missing
    or unexpected, other shapes.
    """
    places = {layer.name: _places(given, layout, layer, space, where) for layer in layers}
    found = {key: _called(key, layout, places) for key in own}
    prefixes = {key.rpartition(".")[0] for key in found.values()}
    counters = {f"{prefix}.{COUNTER}" for prefix in prefixes}
    missing = [theirs for theirs in found.values() if theirs not in given]
    unexpected = sorted({*given} - {*found.values()} - counters)
    misshapen = [
        f"{theirs} has shape {given[theirs]}, not {own[ours]}"
        for ours, theirs in found.items()
        if theirs in given and _flat(given[theirs]) != _flat(own[ours])
    ]
    told = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    if any(some for _, some in told):
        said = "; ".join(f"{len(some)} {what} ({_first(some)})" for what, some in told if some)
        raise CheckpointError(f"{where}, read in {layout.name} layout, does not fit the network: {said}")
    return found


def is_plain(given: Shapes, layout: Layout, layers: Sequence[NormLayer]) -> bool:
    """Return whether a file holds one norm at each norm layer, and that BN with its running statistics."""
    return all([kind for _, kind in _held(given, layout, layer)] == ["bn"] for layer in layers)


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a weight without the ones by which a BGN of the RNA authors broadcasts it."""
    return shape[1:2] if len(shape) == 4 and shape[0] == shape[2] == shape[3] == 1 else shape


def _is_layer(key: str) -> bool:
    return key.endswith(".weight") and not _MEMBER.fullmatch(key.rpartition(".")[0])


def _called(key: str, layout: Layout, places: Mapping[str, Sequence[str]]) -> str:
    module, _, leaf = key.rpartition(".")
    if member := _MEMBER.fullmatch(module):
        return f"{places[member[1]][int(member[2])]}.{leaf}"
    return f"{layout.called(module)}.{leaf}"


def _places(given: Shapes, layout: Layout, layer: NormLayer, space: Space, where: str) -> list[str]:
    """Return under which prefix of a file each member of a norm layer of ours stands."""
    plain, count, held = layout.called(layer.name), len(space.at(layer)), _held(given, layout, layer)
    if layout.own or not held:  # where a layer is not there at all, its missing keys are told
        return [plain] if count == 1 and not layout.own else [_inside(plain, layout, index) for index in range(count)]
    kinds = [kind for _, kind in held]
    space = Space((layer.only,)) if layer.only else space
    listed = held[0][0] != plain
    if listed and _IN in space.members and "in" not in kinds and len(kinds) == len(space.members) - 1:
        kinds.append("in")  # at the end of a list no key says so
    members = _in_their_order(kinds, space)
    merged = space.index_at(layer)
    found = [merged[space.members.index(member)] for member in members]
    if sorted(found) != list(range(count)):
        raise CheckpointError(
            f"{where} holds {_norms(kinds)} at {plain}, the network's {space.canonical} is {_norms(_their_list(space))}"
            + (f", of which {layer.channels} channels leave {count} apart" if count < len(space.members) else "")
        )
    return [held[at][0] if (at := found.index(index)) < len(held) else plain for index in range(count)]


def _inside(plain: str, layout: Layout, index: int) -> str:
    return f"{plain}.{'members' if layout.own else 'norm'}.{index}"


def _held(given: Shapes, layout: Layout, layer: NormLayer) -> list[tuple[str, str]]:
    """Return the norms that a file holds at a layer, in its order: the prefix of each and its kind."""
    plain = layout.called(layer.name)
    inside = _inside(plain, layout, 0).removesuffix("0")
    indices = {key.removeprefix(inside).partition(".")[0] for key in given if key.startswith(inside)}
    numbers = [int(index) for index in indices if index.isdecimal()]
    if not numbers:
        return [(plain, _kind(given, plain))] if f"{plain}.weight" in given else []
    prefixes = [_inside(plain, layout, index) for index in range(max(numbers) + 1)]
    return [(prefix, _kind(given, prefix)) for prefix in prefixes]


def _kind(given: Shapes, prefix: str) -> str:
    """Return the kind of a norm in a file, its groups left open: `bn`, `gbn`, `gn`, or `in`, of which it has no key."""
    weight, mean = given.get(f"{prefix}.weight"), given.get(f"{prefix}.running_mean")
    if weight is None and mean is None:
        return "in"
    if mean is None:
        return "gn"
    return "bn" if weight == mean else "gbn"


def _in_their_order(kinds: Sequence[str], space: Space) -> list[Member]:
    """Return the members of a space in the order of a list of kinds; fewer or more where they do not match.

    Raises CheckpointError for a space that no list of theirs is.
    """
    left: dict[str, list[Member]] = {"bn": [], "in": [], "gn": [], "gbn": []}
    for member in sorted(space.members, key=lambda member: member.number):
        left[_their_kind(member, batch_norm="bn" in kinds)].append(member)
    for family in ("gn", "gbn"):
        if len({member.by for member in left[family]}) > 1:
            raise CheckpointError(
                f"norm {space.canonical} gives some groups by their number and some by their size, which no list of "
                "the RNA authors does, so nothing says in which order a file holds them"
            )
    found = [left[kind].pop(0) for kind in kinds if left[kind]]
    return found if len(found) == len(kinds) else []


def _their_kind(member: Member, *, batch_norm: bool) -> str:
    """Return the kind of a member; BN may be theirs as `bn` or as `gbnr_1`."""
    if member == _BN and batch_norm:
        return "bn"
    if member == _IN:
        return "in"
    if not member.affine or member.statistics not in ("batch", "example") or member.track != "all":
        raise CheckpointError(
            f"norm {member} is none of the RNA authors': theirs are BN, GN and BGN, all with weights, and "
            "IN(affine=false)"
        )
    return "gbn" if member.statistics == "batch" else "gn"


def _their_list(space: Space) -> list[str]:
    """Return what the RNA authors call the members of a space, in their order."""
    rising = sorted(space.members, key=lambda one: (one != _BN, one != _IN, one.number, one.statistics == "batch"))
    return [_their_name(member) for member in rising]


def _their_name(member: Member) -> str:
    if member in (_BN, _IN):
        return "bn" if member == _BN else "in"
    family = "gbn" if member.statistics == "batch" else "gn"
    return f"{family}{'r' if member.by == 'size' else ''}_{member.number}"


def _norms(names: Sequence[str]) -> str:
    return f"{len(names)} norm{'s' * (len(names) != 1)} ({', '.join(names)})"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
