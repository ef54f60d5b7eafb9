"""Set a dotted key in a tree of mappings and lists: `training.epochs`, `evaluation.*.examples`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rna_ray.errors import SweepError

Tree = dict[str, Any]
_OF_KEYS = ("grid", "variants", "presets", "search.over")  # their own keys may hold dots: grid.network.norm


def override(tree: Mapping[str, Any], key: str, value: Any) -> Tree:
    """Return a copy of a tree with one dotted key set; what the key does not lead to is a SweepError.

    A list is entered by an index from 0, or by `*` for each of its entries. Missing sections are made on the way.
    """
    parts = _parts(tree, key)
    if not all(parts):
        raise SweepError(f"{key!r} is not a dotted key such as training.epochs")
    changed = _changed(tree, parts, value, key)
    assert isinstance(changed, dict)
    return changed


def _parts(tree: Mapping[str, Any], key: str) -> list[str]:
    """Return the keys that a dotted key leads through."""
    section = next((one for one in _OF_KEYS if key.startswith(f"{one}.")), None)
    if section is None:
        return key.split(".")
    held: Any = tree
    for part in section.split("."):
        held = held.get(part) if isinstance(held, Mapping) else None
    return [*section.split("."), *_own(held, key.removeprefix(f"{section}."))]


def _own(section: Any, rest: str) -> list[str]:
    """Return the parts of a key of such a section; of an own key that is a mapping, as a variant's, one may be set."""
    named = section if isinstance(section, Mapping) and rest not in section else {}
    within = [name for name, held in named.items() if isinstance(held, Mapping) and rest.startswith(f"{name}.")]
    name = max(within, key=len, default=None)
    return [rest] if name is None else [name, rest.removeprefix(f"{name}.")]


def overrides(tree: Mapping[str, Any], values: Mapping[str, Any]) -> Tree:
    """Return a copy of a tree with several dotted keys set, in their order."""
    for key, value in values.items():
        tree = override(tree, key, value)
    return dict(tree)


def _changed(node: Any, parts: Sequence[str], value: Any, key: str) -> Any:
    if not parts:
        return value
    part, rest = parts[0], parts[1:]
    if isinstance(node, list):
        chosen = _entries(node, part, key)
        return [_changed(one, rest, value, key) if at in chosen else one for at, one in enumerate(node)]
    if node is None and part == "*":
        raise SweepError(f"{key}: there is no list whose entries {part!r} could mean")
    if node is None or isinstance(node, Mapping):
        held = node or {}
        return {**held, part: _changed(held.get(part), rest, value, key)}
    raise SweepError(f"{key}: {node!r} stands where {part!r} should be a key")


def _entries(node: list[Any], part: str, key: str) -> range:
    if part == "*":
        return range(len(node))
    if part.isdecimal() and int(part) < len(node):
        return range(int(part), int(part) + 1)
    raise SweepError(f"{key}: {part!r} is not an entry of the list; allowed are 0 to {len(node) - 1}, or * for all")


def covers(axis: str, key: str) -> bool:
    """Whether setting `axis` afterwards would undo a setting of `key`."""
    return key == axis or key.startswith(f"{axis}.")
