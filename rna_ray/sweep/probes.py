"""What an entry of `probes:` becomes: for every network, or every pair of networks, settings cut into units."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rna_ray.errors import SweepError
from rna_ray.probes import catalog
from rna_ray.probes.catalog import Extent, Scope
from rna_ray.sweep import evaluations, units
from rna_ray.sweep.entries import Probe
from rna_ray.sweep.networks import Found
from rna_ray.sweep.units import Unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One probe of one network, or of one pair, that a sweep asks for; measurements may share units."""

    row: Mapping[str, Any]
    """The axes of the variant: of a pair, of the one that answers."""
    variant: str
    """That variant's label."""
    source: str | None
    """The label of a pair's other variant: the one that is attacked."""
    probe: str
    """The probe's label: transfer-7."""
    evaluation: str
    """The digest that its units share."""
    units: tuple[str, ...]
    """The ids of the probe units, in the order of their examples."""


def measurements(entry: Probe, label: str, found: Sequence[Found]) -> Iterator[tuple[Measurement, dict[Unit, int]]]:
    """Yield the measurements of one entry on some networks, each with its units and their estimated multiply-adds."""
    record = entry.record
    options = record.settings(entry.options)
    if not (whom := list(_whom(record.scope(options), found))):
        labels = ", ".join(dict.fromkeys(one.variant.label for one in found))
        raise SweepError(
            f"probe: {label} is about two networks of one seed and data set, and no two of {labels} are that; allow "
            "more with `only`"
        )
    for source, one in whom:
        _check_batches(entry, record, label, (one,) if source is None else (source, one))
        settings = evaluations.settled(entry, source or one)
        for part in _parts(record, settings, one) if source is None else [settings]:
            cut = _units(entry, record, part, source, one)
            yield Measurement(
                row=one.variant.row,
                variant=one.variant.label,
                source=source.variant.label if source else None,
                probe=label,
                evaluation=next(iter(cut)).settings["evaluation"],
                units=tuple(unit.id for unit in cut),
            ), cut  # fmt: skip


def _check_batches(entry: Probe, record: catalog.Probe, label: str, about: Sequence[Found]) -> None:
    """Refuse what would measure a network on other batches than those that it answers for, or a smaller batch."""
    examples = _count(entry, record, about[0])
    if record.whole_batches and examples % entry.batch:
        raise SweepError(
            f"examples: {record.name} compares whole batches, and {examples} is not a multiple of batch, {entry.batch}"
        )
    dependent = next((one for one in about if one.batch_dependent), None)
    if dependent is None:
        return
    who = f"{dependent.unit.settings['network']['norm']} of {dependent.variant.label!r}"
    if record.each:
        raise SweepError(
            f"probe: {label} looks at each image by itself, and {who} answers with statistics of a batch; say with "
            "`only` for which other variants this entry is"
        )
    if examples % entry.batch:
        raise SweepError(
            f"probe: {who} answers with statistics of a batch, so that none may shrink, and {examples} examples are no "
            f"whole batches of {entry.batch}; allowed are multiples of it"
        )


def _whom(scope: Scope, found: Sequence[Found]) -> Iterator[tuple[Found | None, Found]]:
    """Yield whom units are about, a pair's source first: two networks of one seed that see the same images."""
    if scope == "network":
        yield from ((None, one) for one in found)
        return
    pairs = itertools.product(found, found) if scope == "pair" else itertools.combinations(found, 2)
    yield from (pair for pair in pairs if _setting(pair[0]) == _setting(pair[1]))


def _setting(one: Found) -> tuple[str, str, int]:
    data = one.unit.settings["data"]
    return data["name"], data["digest"], one.variant.experiment.seed


def _parts(record: catalog.Probe, settings: Mapping[str, Any], one: Found) -> Sequence[Mapping[str, Any]]:
    """Return the settings of each of the units that a probe is cut into, apart from their examples."""
    if record.parts is None:
        return (settings,)
    if (extent := extent_of(one)) is None:
        raise SweepError(
            f"probe: {record.name} follows paths through norms, and a plan knows none of an imported network "
            f"({one.variant.label}); say with `only` for which other variants this entry is"
        )
    return record.parts(settings, extent)


def extent_of(one: Found) -> Extent | None:
    """Return what of a network decides its probes; None for an imported one, of which a plan knows nothing."""
    if one.space is None:
        return None
    sizes = [len(one.space.at(layer)) for layer in one.layers]
    return Extent(
        norm=one.space.canonical,
        members=one.space.paths(one.layers, layer_based=True),
        layers=len(sizes),
        random_layers=sum(size > 1 for size in sizes),
        tracked_layers=sum(any(member.tracked for member in one.space.at(layer)) for layer in one.layers),
        layer_based=one.unit.settings["network"]["layer_based"],
        batch_dependent=one.batch_dependent,
        other=next((str(norm) for norm in one.space.members if norm.statistics not in ("batch", "example")), None),
    )


def _units(
    entry: Probe, record: catalog.Probe, settings: Mapping[str, Any], source: Found | None, one: Found
) -> dict[Unit, int]:
    """Return a measurement's units with their estimated multiply-adds."""
    examples = _count(entry, record, one)
    roles = {"source": source, "network": one} if source else {"network": one}
    whole = {
        "probe": record.name,
        "data": {**one.images, "split": "test"},
        "attack": catalog.attack_of(record, settings),
        "options": catalog.options_of(record, settings),
        "batch": min(entry.batch, examples),
        **{role: _role(entry, record, each, drawn=source is not None) for role, each in roles.items()},
    }
    passes, source_passes = record.passes(settings, extent_of(one))
    macs = one.macs * passes + (source.macs * source_passes if source else 0)
    parts = list(evaluations.shards(entry, examples))
    cut = units.cut("probe", whole, parts)
    return {unit: round(macs * (stop - start)) for unit, (start, stop) in zip(cut, parts, strict=True)}


def _count(entry: Probe, record: catalog.Probe, one: Found) -> int:
    """Return how many test images a probe measures: where it needs whole batches, as many of these as there are."""
    most = min(record.examples, one.info.test_examples)
    whole = most // entry.batch * entry.batch
    return evaluations.count(entry, one.info, whole if record.whole_batches and whole else most)


def _role(entry: Probe, record: catalog.Probe, one: Found, *, drawn: bool) -> dict[str, Any]:
    """Return what of one network decides a probe of it."""
    settings = one.unit.settings
    return {
        "id": one.unit.id,
        "checkpoint": evaluations.checkpoint(entry, one.unit),
        "paths": settings["network"]["paths"],
        "noise_255": one.variant.experiment.noise_255,
        "precision": record.precision or settings["precision"],
        # A probe of one network gives the paths itself, and a whole batch shares them: torch's native kernels run.
        "compile": settings["compile"] and one.paths > 1 and drawn and record.precision is None,
    }


def refuse_repeats(found: Sequence[Measurement], units_by_id: Mapping[str, Unit]) -> None:
    """Refuse two different measurements that nothing could tell apart."""
    seen: dict[str, Measurement] = {}
    for one in found:
        settings = units_by_id[one.units[0]].settings
        key = units.canonical([one.variant, one.row, one.source, one.probe, settings["attack"], settings["options"]])
        if seen.setdefault(key, one).units != one.units:
            raise SweepError(
                f"probes: two entries ask for {one.probe} of {one.variant!r} on other examples or shards; keep one of "
                "them, or give both the same"
            )
