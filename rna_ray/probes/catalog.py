"""The probes that a sweep can name, described without torch: their options, which networks they are for, their cost.

A new probe is one record here and one file beside this one; the room's docstring says what that file holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from rna_ray.attacks import catalog
from rna_ray.attacks.catalog import EPS, RANDOM_START, STEP, THREAT, Option
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
    layer_based: bool
    """Whether one draw serves all layers."""
    classes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """A measurement that a sweep can name."""

    name: str
    about: str
    options: tuple[Option, ...]
    attack: str | None = None  # the attack whose options these are too
    scope: Callable[[Settings], Scope]
    label: str  # how tables call it, from its options
    examples: int = 1000  # how many test images where an entry does not say
    parts: Callable[[Settings, Extent], Sequence[Settings]] | None = None
    """For probes of one network's paths, that planning must know: the settings of each of its units, checked."""
    passes: Callable[[Settings, Extent | None], tuple[float, float]]
    """Estimated forward passes of an example through the network and through the source; a backward pass is two."""

    def settings(self, given: Settings) -> dict[str, Any]:
        """Return all of the probe's settings, defaults filled in.

        Raises SweepError for an option that the probe does not have, and for a value that it cannot take.
        """
        options = {option.name: option for option in self.options}
        for name in given:
            if name not in options:
                raise SweepError(f"{name}: " + unknown(f"option of probe {self.name}:", name, options))
        return {name: option.check(given.get(name, option.default)) for name, option in options.items()}


def find(name: str) -> Probe:
    """Return a probe's record; an unknown name is a SweepError that lists those that exist."""
    if name not in PROBES:
        raise SweepError(unknown("probe", name, PROBES))
    return PROBES[name]


def attack_of(record: Probe, settings: Settings) -> dict[str, Any] | None:
    """Return the settings of a probe's attack, as `attacks.make` takes them; None where it has none."""
    if record.attack is None:
        return None
    names = {option.name for option in catalog.find(record.attack).options}
    return {"name": record.attack, **{name: value for name, value in settings.items() if name in names}}


def _pgd(steps: int) -> tuple[Option, ...]:
    number = Option(name="steps", default=steps, about="The number of steps.")
    return (THREAT, EPS, STEP, number, RANDOM_START)


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
)
PROBES: dict[str, Probe] = {record.name: record for record in _RECORDS}
assert len(PROBES) == len(_RECORDS), "two probes share a name"
