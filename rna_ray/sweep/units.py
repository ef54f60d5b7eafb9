"""The unit: one piece of work, named by a digest of all that decides its result and of nothing else."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

Kind = Literal["train", "import", "evaluate", "probe", "certify"]
Examples = tuple[int, int]
_GAP = "\0"

NAMES: Mapping[Kind, str] = MappingProxyType(
    {
        "train": "trials", "import": "imports", "evaluate": "evaluations", "probe": "probes",
        "certify": "certifications",
    }
)
"""What people call the units of each kind."""

# Bumped by hand when the meaning of a kind's code changes, so that results of the old meaning are not taken for new.
VERSIONS: Mapping[str, int] = MappingProxyType(
    {"train": 1, "import": 1, "evaluate": 2, "probe": 1, "certify": 1}
)


def canonical(value: object) -> str:
    """Return the one JSON text of a value: keys sorted, no spaces, ASCII; 8 and 8.0 differ, -0.0 and 0.0 do not.

    Raises ValueError for NaN and infinities, TypeError for what is no JSON value.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object) -> str:
    """Return the BLAKE2b-128 hex digest of a value's canonical JSON."""
    return hashlib.blake2b(canonical(value).encode(), digest_size=16).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a JSON key is a text")
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value + 0.0 if isinstance(value, float) else value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """One piece of work. Two units are the same exactly where kind, version and settings are."""

    kind: Kind
    settings: Mapping[str, Any]
    """All that decides the result, resolved: JSON values only, no default left out."""
    version: int
    """The meaning of the code: `VERSIONS[kind]`."""
    needs: tuple[str, ...] = ()
    """The ids of the units whose files this one reads."""

    @functools.cached_property
    def id(self) -> str:
        """The content id: 32 hex characters."""
        return digest({"kind": self.kind, "version": self.version, "settings": self.settings})

    def __hash__(self) -> int:
        return hash(self.id)


def train(settings: Mapping[str, Any]) -> Unit:
    """Return the unit that trains a network."""
    return Unit(kind="train", settings=settings, version=VERSIONS["train"])


def imported(settings: Mapping[str, Any]) -> Unit:
    """Return the unit that takes a network of the user's own into the store."""
    return Unit(kind="import", settings=settings, version=VERSIONS["import"])


def evaluate(settings: Mapping[str, Any], *, examples: Examples) -> Unit:
    """Return the unit that attacks a network, or a `source` in its stead, on the test images [start, stop)."""
    return cut("evaluate", settings, [examples])[0]


def probe(settings: Mapping[str, Any], *, examples: Examples) -> Unit:
    """Return the unit that measures a network, or a pair with a `source`, on the test images [start, stop)."""
    return cut("probe", settings, [examples])[0]


def certify(settings: Mapping[str, Any], *, examples: Examples) -> Unit:
    """Return the unit that counts a network's answers under noise on the test images [start, stop)."""
    return cut("certify", settings, [examples])[0]


def cut(kind: Kind, settings: Mapping[str, Any], parts: Iterable[Examples]) -> list[Unit]:
    """Return the units that do the same on parts of the test images, each [start, stop).

    `evaluation` in their settings is what they share, a digest of all but their examples. The text that an id digests
    is written once, with a gap for the examples: that makes a plan of 100,000 units a matter of seconds.
    """
    version, needs = VERSIONS[kind], _needs(kind, settings)
    whole = {**settings, "evaluation": digest({"kind": kind, "version": version, "settings": settings})}
    text = canonical({"kind": kind, "version": version, "settings": {**whole, "examples": _GAP}})
    before, after = text.split(canonical(_GAP))
    begun = hashlib.blake2b(before.encode(), digest_size=16)
    found = []
    for start, stop in parts:
        unit = Unit(kind=kind, settings={**whole, "examples": [start, stop]}, version=version, needs=needs)
        hashed = begun.copy()
        hashed.update(f"[{start},{stop}]{after}".encode())
        vars(unit)["id"] = hashed.hexdigest()  # where cached_property keeps it
        found.append(unit)
    return found


def _needs(kind: Kind, settings: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_probed(settings)) if kind == "probe" else (settings["network"], *_source(settings))


def checkpoints(unit: Unit) -> dict[str, str]:
    """Return the ids of the networks whose weights a unit reads, each with the checkpoint that it takes."""
    if unit.kind == "probe":
        return _probed(unit.settings)
    settings = unit.settings
    if unit.kind in ("evaluate", "certify"):
        return {settings["network"]: settings["checkpoint"], **_source(settings)}
    return {}


def _source(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the id of the network that an evaluation attacks in the stead of its own, with the checkpoint taken."""
    source = settings.get("source")
    return {source["id"]: source["checkpoint"]} if source and source["id"] != settings["network"] else {}


def _probed(settings: Mapping[str, Any]) -> dict[str, str]:
    roles = [settings[role] for role in ("source", "network") if role in settings]
    return {role["id"]: role["checkpoint"] for role in roles}
