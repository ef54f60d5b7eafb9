"""A spec becomes a plan: units, each once and trains before what needs them, and the cells of the table they fill."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rna_ray import data
from rna_ray.errors import SweepError, UserError
from rna_ray.networks import source
from rna_ray.store import staging
from rna_ray.sweep import certifications, evaluations, expand, networks, priorities, probes
from rna_ray.sweep.certifications import Smoothing
from rna_ray.sweep.evaluations import Cell
from rna_ray.sweep.experiment import SweepSpec
from rna_ray.sweep.networks import Digest, Found, Images
from rna_ray.sweep.probes import Measurement
from rna_ray.sweep.sections import Data, Pool, Share, TrainShare
from rna_ray.sweep.units import Kind, Unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One network that a sweep asks for; trials may share a unit."""

    row: Mapping[str, Any]
    """The variant's axes, as the user wrote them."""
    variant: str
    """The variant's label."""
    network: str
    """The id of the unit that trains or imports it."""
    kind: Kind
    """Whether that is a train or an import unit."""
    race: str = ""
    """What it shares with the other points of its search."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Where:
    """What units need to run, and what does not count: folders and resources."""

    roots: Mapping[str, str | None]
    """The folder of each data set, by its name."""
    download: bool
    """Whether missing files may be fetched."""
    train: TrainShare
    """What a training unit takes, and in how many processes it trains."""
    evaluate: Pool
    """What an evaluation actor takes; importing a network takes as much."""
    sources: Mapping[str, source.Source] = dataclasses.field(default_factory=dict)
    """Where each imported network, and the weights given for one, come from, by the id of its unit."""

    def share(self, kind: Kind) -> Share:
        """Return what a unit of a kind takes of the machine."""
        return self.train if kind == "train" else self.evaluate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a sweep asks for, done or not."""

    sweep: str
    spec: SweepSpec
    units: tuple[Unit, ...]
    trials: tuple[Trial, ...]
    cells: tuple[Cell, ...]
    probes: tuple[Measurement, ...] = ()
    certifications: tuple[Smoothing, ...] = ()
    costs: Mapping[str, int]
    """Estimated multiply-adds of each unit, by id."""
    priorities: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """How urgent each unit is, by id: the units stand in that order, the highest first."""
    where: Where


def plan(spec: SweepSpec, *, digest: Digest | None = None) -> Plan:
    """Return the plan of a spec; the same spec gives the same plan, in the same order.

    `digest` gives a data set's content digest and is there for tests. Raises UserError, naming the variant, where a
    norm does not fit its network, or more images are asked for than there are, or the data set's files are missing.
    """
    images = _once(_found if digest is None else lambda given: {"name": given.name, "digest": digest(given)})
    found = [networks.found(variant, images, spec) for variant in expand.variants(spec)]
    cells, measured = list(_cells(found, spec)), list(_measurements(found, spec))
    smoothed = list(_smoothings(found, spec))
    asked = [*cells, *measured, *smoothed]
    wanted = [{one.unit: one.cost} for one in found] + [cut for _, cut, _ in asked]
    units_by_id = {unit.id: unit for cut in wanted for unit in cut}
    urgent = priorities.settled(found, [(cut, priority) for _, cut, priority in asked])
    probes.refuse_repeats([one for one, *_ in measured], units_by_id)
    certifications.refuse_repeats(one for one, *_ in smoothed)
    trials = tuple(
        Trial(
            row=one.variant.row, variant=one.variant.label, network=one.unit.id, kind=one.unit.kind,
            race=one.variant.race,
        )
        for one in found
    )  # fmt: skip
    return Plan(
        sweep=spec.name, spec=spec, units=priorities.ordered(units_by_id.values(), urgent), trials=trials,
        cells=evaluations.once(cell for cell, *_ in cells), probes=tuple(one for one, *_ in measured),
        certifications=tuple(one for one, *_ in smoothed),
        costs={unit.id: cost for cut in wanted for unit, cost in cut.items()}, priorities=urgent,
        where=_where(spec, found),
    )  # fmt: skip


def _ids(variants: Sequence[expand.Variant]) -> set[int]:
    """Return which variants these are: comparing each with each of thousands would take minutes."""
    return set(map(id, variants))


def _cells(found: Sequence[Found], spec: SweepSpec) -> Iterator[tuple[Cell, dict[Unit, int], int]]:
    """Yield what the entries of `evaluation:` ask for, network by network, with the entry's priority."""
    variants = [one.variant for one in found]
    labels = evaluations.labels(spec.evaluation)
    meant = [_ids(expand.meant(entry, variants)) for entry in spec.evaluation]
    for one in found:
        for at, entry in enumerate(spec.evaluation):
            if id(one.variant) in meant[at]:
                with _entry(f"evaluation.{at}"):
                    source = evaluations.source_of(entry, one, found)
                    for cell, cut in evaluations.cells(entry, labels[at], one, source):
                        yield cell, cut, entry.priority


def _measurements(found: Sequence[Found], spec: SweepSpec) -> Iterator[tuple[Measurement, dict[Unit, int], int]]:
    """Yield what the entries of `probes:` ask for, entry by entry, with the entry's priority."""
    variants = [one.variant for one in found]
    for at, (entry, label) in enumerate(zip(spec.probes, evaluations.labels(spec.probes), strict=True)):
        meant = _ids(expand.meant(entry, variants))
        with _entry(f"probes.{at}"):
            for one, cut in probes.measurements(entry, label, [one for one in found if id(one.variant) in meant]):
                yield one, cut, entry.priority


def _smoothings(found: Sequence[Found], spec: SweepSpec) -> Iterator[tuple[Smoothing, dict[Unit, int], int]]:
    """Yield what the entries of `certification:` ask for, network by network, with the entry's priority."""
    variants = [one.variant for one in found]
    meant = [_ids(expand.meant(entry, variants)) for entry in spec.certification]
    for one in found:
        for at, entry in enumerate(spec.certification):
            if id(one.variant) in meant[at]:
                with _entry(f"certification.{at}"):
                    for smoothing, cut in certifications.smoothings(entry, one):
                        yield smoothing, cut, entry.priority


@contextlib.contextmanager
def _entry(key: str) -> Iterator[None]:
    """Let a user's mistake inside the block say in which entry it is."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{key}.{error}") from None


def _where(spec: SweepSpec, found: list[Found]) -> Where:
    roots: dict[str, str | None] = {}
    for one in found:
        given = one.variant.experiment.data
        if roots.setdefault(given.name, given.root) != given.root:
            raise SweepError(f"data.root: {given.name} cannot lie in both {roots[given.name]} and {given.root}")
    sources: dict[str, source.Source] = {}
    for one in found:
        if one.source and (first := sources.setdefault(one.unit.id, one.source)).root != one.source.root:
            name = one.variant.experiment.network.function
            raise SweepError(f"network.root: the same {name} cannot lie in both {first.root} and {one.source.root}")
    download = any(one.variant.experiment.data.download for one in found)
    return Where(
        roots=roots, download=download, train=spec.resources.train, evaluate=spec.resources.evaluate, sources=sources
    )


def _found(given: Data) -> Mapping[str, Any]:
    return data.described(given.name, staging.folder(given.name, given.root), given.download, given.side)


def _once(images: Images) -> Images:
    """Return the same, but reading each data set once a plan."""
    known: dict[tuple[str, str | None, int | None], Mapping[str, Any]] = {}

    def look_up(given: Data) -> Mapping[str, Any]:
        key = given.name, given.root, given.side
        if key not in known:
            known[key] = images(given)
        return known[key]

    return look_up
