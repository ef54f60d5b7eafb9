"""A spec becomes a plan: units, each once and trains before what needs them, and the cells of the table they fill."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rna_ray import data
from rna_ray.errors import SpaceError, SweepError, UserError
from rna_ray.networks import describe, spaces
from rna_ray.sweep import evaluations, expand, units
from rna_ray.sweep.evaluations import Asked
from rna_ray.sweep.expand import Variant
from rna_ray.sweep.experiment import Experiment, SweepSpec
from rna_ray.sweep.sections import Data, Pool, Schedule, Share, TrainingAttack
from rna_ray.sweep.units import Unit

Digest = Callable[[Data], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the table that a sweep asks for; cells may share units."""

    row: Mapping[str, Any]
    """The variant's axes: {"network.norm": "BN+IN", "seed": 0}, as the user wrote them."""
    variant: str
    """The variant's label."""
    attack: str
    """The attack's label: pgd-20."""
    knowledge: str
    """The knowledge asked for, or none where the attack does not look at the network."""
    evaluation: str
    """The digest that the units of this evaluation share."""
    network: str
    """The id of the train unit."""
    units: tuple[str, ...]
    """The ids of the evaluate units, in the order of their examples."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One network that a sweep asks for; trials may share a unit."""

    row: Mapping[str, Any]
    """The variant's axes, as the user wrote them."""
    variant: str
    """The variant's label."""
    network: str
    """The id of the train unit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Where:
    """What units need to run, and what does not count: folders and resources."""

    roots: Mapping[str, str | None]
    """The folder of each data set, by its name."""
    download: bool
    """Whether missing files may be fetched."""
    train: Share
    """What a training unit takes."""
    evaluate: Pool
    """What an evaluation actor takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a sweep asks for, done or not."""

    sweep: str
    spec: SweepSpec
    units: tuple[Unit, ...]
    trials: tuple[Trial, ...]
    cells: tuple[Cell, ...]
    costs: Mapping[str, int]
    """Estimated multiply-adds of each unit, by id."""
    where: Where


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A variant's network, checked and settled."""

    variant: Variant
    unit: Unit
    info: data.DataInfo
    macs: int
    paths: int
    """How many paths there are."""


def plan(spec: SweepSpec, *, digest: Digest | None = None) -> Plan:
    """Return the plan of a spec; the same spec gives the same plan, in the same order.

    `digest` gives a data set's content digest and is there for tests. Raises UserError, naming the variant, where a
    norm does not fit its network, or more images are asked for than there are, or the data set's files are missing.
    """
    digests = _once(digest or _content)
    variants = expand.variants(spec)
    found = [_trained(variant, digests) for variant in variants]
    units_by_id = {one.unit.id: one.unit for one in found}
    costs = {one.unit.id: _train_cost(one) for one in found}
    cells: list[Cell] = []
    labels = evaluations.labels(spec.evaluation)
    meant = [expand.meant(entry, variants) for entry in spec.evaluation]
    for one in found:
        for at, label in enumerate(labels):
            if one.variant in meant[at]:
                cells += [_cell(one, asked, units_by_id, costs) for asked in _asked(one, at, label, spec)]
    _refuse_repeats(cells)
    trials = tuple(Trial(row=one.variant.row, variant=one.variant.label, network=one.unit.id) for one in found)
    return Plan(
        sweep=spec.name, spec=spec, units=tuple(units_by_id.values()), trials=trials, cells=tuple(cells), costs=costs,
        where=_where(spec, found),
    )  # fmt: skip


def _trained(variant: Variant, digest: Digest) -> Trained:
    given = variant.experiment
    info = data.info(given.data.name)
    try:
        described = describe.describe(
            given.network.name, width=given.network.width, image_shape=info.shape, classes=info.classes
        )
        space = spaces.parse(given.network.norm)
        paths = space.paths(described.layers, layer_based=given.network.layer_based)
        random = paths > 1
        settings = {
            "data": _data(given.data, info, digest),
            "network": _network(given, space, random),
            "training": _training(given, info, random),
            "precision": given.precision,
            "compile": given.compile and not (random and given.network.paths == "batch"),
            "seed": given.seed,
        }
    except (SpaceError, SweepError) as error:
        raise type(error)(f"variant {variant.label!r}: {error}") from None
    return Trained(variant=variant, unit=units.train(settings), info=info, macs=described.macs, paths=paths)


def _data(given: Data, info: data.DataInfo, digest: Digest) -> dict[str, Any]:
    left = info.train_examples - given.held_out
    examples = left if given.train_examples is None else given.train_examples
    if not 1 <= examples <= left:
        raise SweepError(
            f"data.train_examples: {examples} and {given.held_out} held out are not what {given.name} can give; "
            f"it has {info.train_examples:,} training images"
        )
    return {"name": given.name, "digest": digest(given), "train_examples": examples, "held_out": given.held_out}


def _network(given: Experiment, space: spaces.Space, random: bool) -> dict[str, Any]:
    """Return the network's settings; where there is one path, how it would be drawn cannot matter."""
    network = given.network
    return {
        "name": network.name,
        "width": describe.network(network.name).width if network.width is None else network.width,
        "norm": space.canonical,
        "layer_based": network.layer_based and random,
        "paths": network.paths if random else "example",
    }


def _training(given: Experiment, info: data.DataInfo, random: bool) -> dict[str, Any]:
    training = given.training
    objective = "whitebox" if training.objective == "blackbox" and not random else training.objective
    natural = objective == "natural"
    return {
        **training.model_dump(include={"epochs", "batch", "lr", "momentum", "weight_decay"}),
        "objective": objective,
        "schedule": _schedule(training.schedule),
        "augment": training.augment or info.augment,
        "attack": None if natural else _attack(training.attack),
        "attack_mode": None if natural else training.attack_mode,
    }


def _schedule(given: Schedule) -> dict[str, Any]:
    fields = {"step": {"name", "milestones", "gamma"}, "cosine": {"name"}, "one-cycle": {"name", "warmup"}}
    return given.model_dump(mode="json", include=fields[given.name])


def _attack(given: TrainingAttack) -> dict[str, Any]:
    """Return the attack's settings; FGSM is one step of the ball's radius from the image itself."""
    once = {"step_255": given.eps_255, "steps": 1, "random_start": False} if given.name == "fgsm" else {}
    return {**given.model_dump(), **once}


def _train_cost(one: Trained) -> int:
    settings = one.unit.settings["training"]
    steps = settings["attack"]["steps"] if settings["attack"] else 0
    images = one.unit.settings["data"]["train_examples"] * settings["epochs"]
    return 3 * one.macs * images * (1 + steps)  # a backward pass costs two forward ones


def _asked(one: Trained, at: int, label: str, spec: SweepSpec) -> Iterator[Asked]:
    experiment = one.variant.experiment
    try:
        yield from evaluations.asked(
            spec.evaluation[at], label, network=one.unit, info=one.info, paths=one.paths,
            noise_255=experiment.noise_255, attack=experiment.training.attack,
            one_draw=experiment.protocol == "paper",
        )  # fmt: skip
    except UserError as error:
        raise type(error)(f"evaluation.{at}.{error}") from None


def _cell(one: Trained, asked: Asked, found: dict[str, Unit], costs: dict[str, int]) -> Cell:
    """Return the cell of one evaluation, its units added to `found` and `costs`."""
    for unit in asked.units:
        found[unit.id] = unit
        costs[unit.id] = round(one.macs * evaluations.forward_passes(unit, one.info.classes))
    return Cell(
        row=one.variant.row,
        variant=one.variant.label,
        attack=asked.attack,
        knowledge=asked.knowledge,
        evaluation=asked.units[0].settings["evaluation"],
        network=one.unit.id,
        units=tuple(unit.id for unit in asked.units),
    )


def _refuse_repeats(cells: list[Cell]) -> None:
    """Refuse two different evaluations that a table could not tell apart."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        key = units.canonical([cell.variant, cell.row, cell.attack, cell.knowledge])
        if seen.setdefault(key, cell).units != cell.units:
            raise SweepError(
                f"evaluation: two entries ask for {cell.attack} ({cell.knowledge}) of {cell.variant!r} on other "
                "examples or batches; keep one of them"
            )


def _where(spec: SweepSpec, found: list[Trained]) -> Where:
    roots: dict[str, str | None] = {}
    for one in found:
        given = one.variant.experiment.data
        if roots.setdefault(given.name, given.root) != given.root:
            raise SweepError(f"data.root: {given.name} cannot lie in both {roots[given.name]} and {given.root}")
    download = any(one.variant.experiment.data.download for one in found)
    return Where(roots=roots, download=download, train=spec.resources.train, evaluate=spec.resources.evaluate)


def _content(given: Data) -> str:
    return data.content_digest(given.name, given.root, given.download)


def _once(digest: Digest) -> Digest:
    """Return a digest that reads each data set once a plan."""
    known: dict[tuple[str, str | None], str] = {}

    def look_up(given: Data) -> str:
        key = given.name, given.root
        if key not in known:
            known[key] = digest(given)
        return known[key]

    return look_up
