"""What an entry of `certification:` becomes for one network: for each noise and number of draws, units."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rna_ray.errors import SweepError
from rna_ray.sweep import evaluations, units
from rna_ray.sweep.entries import Certification
from rna_ray.sweep.networks import Found
from rna_ray.sweep.units import Unit

DRAWS_A_UNIT = 20_000
"""A unit does at least so many draws, on tens of images, where the entry does not say."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smoothing:
    """One network under one noise, its classes counted over one number of draws; smoothings may share units."""

    row: Mapping[str, Any]
    """The variant's axes, as the user wrote them."""
    variant: str
    """The variant's label."""
    noise_255: float
    """The standard deviation of the noise, in 255ths."""
    draws: int
    """How many draws bound the class's probability."""
    evaluation: str
    """The digest that its units share."""
    units: tuple[str, ...]
    """The ids of the certify units, in the order of their examples."""


def smoothings(entry: Certification, one: Found) -> Iterator[tuple[Smoothing, dict[Unit, int]]]:
    """Yield the smoothings of one entry for one network, each with its units and their estimated multiply-adds.

    Raises SweepError where there is no noise, and for a network whose draws are not independent.
    """
    if one.batch_dependent:
        norm = one.unit.settings["network"]["norm"]
        raise SweepError(
            f"only: {norm} of {one.variant.label!r} answers with statistics of the batch, so that draws are not "
            "independent and certify nothing; name here for which other variants this entry is"
        )
    own = one.variant.experiment.noise_255
    if entry.noise_255 is None and not own:
        raise SweepError(
            f"noise_255: the sweep adds no noise to {one.variant.label!r}, and without noise nothing can be certified; "
            "state one above 0, here or for the sweep, or name the other variants with `only`"
        )
    examples = evaluations.count(entry, one.info)
    for noise in entry.noise_255 or (own,):
        for draws in entry.draws:
            settings = _settings(entry, one, examples, noise, draws)
            cut = units.cut("certify", settings, _shards(entry, examples, draws))
            yield Smoothing(
                row=one.variant.row,
                variant=one.variant.label,
                noise_255=noise,
                draws=draws,
                evaluation=cut[0].settings["evaluation"],
                units=tuple(unit.id for unit in cut),
            ), {unit: one.macs * forward_passes(unit.settings) for unit in cut}  # fmt: skip


def _settings(entry: Certification, one: Found, examples: int, noise: float, draws: int) -> dict[str, Any]:
    """Return what decides the counts. Each draw of each image has a path of its own, whatever `network.paths` says."""
    network = one.unit
    return {
        "network": network.id,
        "checkpoint": evaluations.checkpoint(entry, network),
        "data": {**one.images, "split": "test"},
        "noise_255": noise,
        "draws": draws,
        "selection": entry.selection,
        "abandon": entry.abandon,
        "batch": min(entry.batch, examples * max(draws, entry.selection)),
        "precision": entry.precision or network.settings["precision"],
        "compile": network.settings["compile"] and one.paths > 1,
    }


def _shards(entry: Certification, examples: int, draws: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges [start, stop) of the units that do this many examples."""
    size = entry.shard or 10 * math.ceil(DRAWS_A_UNIT / (entry.selection + draws) / 10)
    for start in range(0, examples, size):
        yield start, min(start + size, examples)


def forward_passes(settings: Mapping[str, Any]) -> int:
    """Return the forward passes of a certify unit, those of images that it may abandon among them."""
    start, stop = settings["examples"]
    return (stop - start) * (settings["selection"] + settings["draws"])


def refuse_repeats(found: Iterable[Smoothing]) -> None:
    """Refuse two different smoothings that a table could not tell apart."""
    seen: dict[str, Smoothing] = {}
    for one in found:
        key = units.canonical([one.variant, one.row, one.noise_255, one.draws])
        if seen.setdefault(key, one).units != one.units:
            raise SweepError(
                f"certification: two entries ask for {one.draws} draws at noise_255 {one.noise_255:g} of "
                f"{one.variant!r} with other settings; keep one of them, or give both the same"
            )
