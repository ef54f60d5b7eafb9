"""A spec becomes a plan: units, each once and trains before what needs them, and the cells of the table they fill."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rna_ray import data
from rna_ray.errors import NetworkError, SpaceError, SweepError, UserError
from rna_ray.networks import describe, source, spaces
from rna_ray.sweep import cost, evaluations, expand, probes, units
from rna_ray.sweep.evaluations import Asked
from rna_ray.sweep.expand import Variant
from rna_ray.sweep.experiment import Experiment, SweepSpec
from rna_ray.sweep.probes import Measurement
from rna_ray.sweep.sections import Data, Evaluation, Pool, Schedule, Training, TrainingAttack, TrainShare
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
    """The id of the unit that trains or imports the network."""
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
    """The id of the unit that trains or imports it."""
    kind: units.Kind = "train"
    """Whether that is a train or an import unit."""


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
    """Where each imported network comes from, by the id of its unit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a sweep asks for, done or not."""

    sweep: str
    spec: SweepSpec
    units: tuple[Unit, ...]
    trials: tuple[Trial, ...]
    cells: tuple[Cell, ...]
    probes: tuple[Measurement, ...] = ()
    costs: Mapping[str, int]
    """Estimated multiply-adds of each unit, by id."""
    where: Where


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A variant's network, checked and settled: to be trained, or to be imported."""

    variant: Variant
    unit: Unit
    info: data.DataInfo
    macs: int
    paths: float
    """How many paths there are; inf where an imported network may answer otherwise from pass to pass."""
    source: source.Source | None = None
    """Where an imported network comes from."""
    space: spaces.Space | None = None
    """The norms of a network that is trained; its layers are those of its description."""
    layers: tuple[spaces.NormLayer, ...] = ()


def plan(spec: SweepSpec, *, digest: Digest | None = None) -> Plan:
    """Return the plan of a spec; the same spec gives the same plan, in the same order.

    `digest` gives a data set's content digest and is there for tests. Raises UserError, naming the variant, where a
    norm does not fit its network, or more images are asked for than there are, or the data set's files are missing.
    """
    digests = _once(digest or _content)
    variants = expand.variants(spec)
    found = [_found(variant, digests, spec) for variant in variants]
    units_by_id = {one.unit.id: one.unit for one in found}
    costs = {one.unit.id: _cost(one) for one in found}
    cells: list[Cell] = []
    labels = evaluations.labels(spec.evaluation)
    meant = [expand.meant(entry, variants) for entry in spec.evaluation]
    for one in found:
        for at, label in enumerate(labels):
            if one.variant in meant[at]:
                cells += [_cell(one, asked, units_by_id, costs) for asked in _asked(one, at, label, spec)]
    _refuse_repeats(cells)
    measured = _measurements(found, spec, units_by_id, costs)
    probes.refuse_repeats(measured, units_by_id)
    trials = tuple(
        Trial(row=one.variant.row, variant=one.variant.label, network=one.unit.id, kind=one.unit.kind) for one in found
    )
    return Plan(
        sweep=spec.name, spec=spec, units=tuple(units_by_id.values()), trials=trials, cells=tuple(cells),
        probes=measured, costs=costs, where=_where(spec, found),
    )  # fmt: skip


def _found(variant: Variant, digest: Digest, spec: SweepSpec) -> Found:
    try:
        if variant.experiment.network.function is not None:
            return _imported(variant, digest, spec)
        return _named(variant, digest, spec)
    except (NetworkError, SpaceError, SweepError) as error:
        raise type(error)(f"variant {variant.label!r}: {error}") from None


def _named(variant: Variant, digest: Digest, spec: SweepSpec) -> Found:
    """Return a network of ours that is trained, or evaluated with the weights that are given as they are."""
    given = variant.experiment
    info = data.info(given.data.name)
    assert given.network.name is not None and given.network.norm is not None
    described = describe.describe(
        given.network.name, width=given.network.width, image_shape=info.shape, classes=info.classes,
        last_norm=given.network.last_norm,
    )  # fmt: skip
    space = spaces.parse(given.network.norm)
    paths = space.paths(described.layers, layer_based=given.network.layer_based)
    random = paths > 1
    lies = source.Source(None, spec.within(given.network.weights)) if given.network.weights else None
    settings = {
        "network": {**_network(given, space, random), **_normalisation(given, info), **_given(given, lies)},
        "precision": given.precision,
        "compile": given.compile and not (random and given.network.paths == "batch"),
        "seed": given.seed,
    }
    if given.training is None:
        unit = units.imported({**settings, "data": {"name": info.name, "digest": digest(given.data)}})
    else:
        trained = {"data": _data(given.data, info, digest), "training": _training(given, info, random)}
        batch = min(trained["training"]["batch"], trained["data"]["train_examples"])
        if (workers := spec.resources.train.processes) > batch:
            raise SweepError(f"resources.train: {workers} workers cannot share batches of {batch} images; ask for less")
        unit = units.train({**settings, **trained})
    return Found(
        variant=variant, unit=unit, info=info, macs=described.macs, paths=paths, space=space, layers=described.layers,
        source=lies,
    )  # fmt: skip


def _imported(variant: Variant, digest: Digest, spec: SweepSpec) -> Found:
    """Return a network that is imported; what counts is the content of its files, not where they lie."""
    given = variant.experiment
    network, info = given.network, data.info(given.data.name)
    assert network.function is not None
    lies = source.Source(spec.within(network.root), spec.within(network.weights) if network.weights else None)
    try:
        code = source.sha256(source.find(network.function, lies.root))
    except NetworkError as error:
        raise NetworkError(f"network.import: {error}") from None
    settings = {
        "data": {"name": info.name, "digest": digest(given.data)},
        "network": {
            "import": network.function,
            "source_sha256": code,
            "weights_sha256": _given(given, lies).get("weights_sha256"),
            "random": network.random,
            "paths": network.paths if network.random else "example",
        },
        "precision": given.precision,
        "compile": False,
        "seed": given.seed,
    }
    macs = describe.describe(cost.ASSUMED, width=None, image_shape=info.shape, classes=info.classes).macs
    unit = units.imported(settings)
    return Found(variant=variant, unit=unit, info=info, macs=macs, paths=math.inf if network.random else 1, source=lies)


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
    """Return the network's settings; where there is one path, how it would be drawn cannot matter.

    The activation came later than the rest: it counts only where it is not ReLU, so that older ids stay. So does a last
    norm, only where it is another one.
    """
    network = given.network
    last = spaces.parse_one(network.last_norm) if network.last_norm else None
    return {
        "name": network.name,
        "width": describe.network(network.name).width if network.width is None else network.width,
        "norm": space.canonical,
        "layer_based": network.layer_based and random,
        "paths": network.paths if random else "example",
        **({} if network.activation == "relu" else {"activation": network.activation}),
        **({"last_norm": str(last)} if last and space.members != (last,) else {}),
    }


def _normalisation(given: Experiment, info: data.DataInfo) -> dict[str, Any]:
    """Return how images are normalised where that is stated and is not what it would be anyway."""
    mean, std = given.network.mean, given.network.std
    if mean is None or std is None:
        return {}
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != info.shape[0]:
            raise SweepError(
                f"network.{key}: {len(values)} values do not fit the {info.shape[0]} channels of {info.name}"
            )
    if given.network.weights is None and (mean, std) == (info.mean, info.std):
        return {}
    return {"mean": list(mean), "std": list(std)}  # beside weights it also says that their images were looked at so


def _given(given: Experiment, lies: source.Source | None) -> dict[str, Any]:
    """Return what counts of weights that are given, the content of their file; nothing where none are."""
    if lies is None or lies.weights is None:
        return {}
    try:
        found = source.sha256(Path(lies.weights))
    except NetworkError as error:
        raise NetworkError(f"network.weights: {error}") from None
    if given.network.weights_sha256 not in (None, found):
        raise NetworkError(f"network.weights_sha256: {lies.weights} is another file, of SHA-256 {found}")
    return {"weights_sha256": found}


def _training(given: Experiment, info: data.DataInfo, random: bool) -> dict[str, Any]:
    training = given.training
    assert training is not None
    if training.augment == "resized-crop-flip" and not info.in_files:
        raise SweepError(
            f"training.augment: resized-crop-flip is for images in files, such as imagenet's, not for {info.name}; "
            "allowed are none, crop and crop-flip"
        )
    objective = "whitebox" if training.objective == "blackbox" and not random else training.objective
    natural = objective == "natural"
    return {
        **training.model_dump(include={"epochs", "batch", "lr", "momentum", "weight_decay"}),
        "objective": objective,
        "schedule": _schedule(training.schedule),
        "augment": training.augment or info.augment,
        "attack": None if natural else _attack(training.attack),
        "attack_mode": None if natural else training.attack_mode,
        **_loss(training),
    }


def _loss(training: Training) -> dict[str, Any]:
    """Return what came to the settings of a training later: it counts only where it is not what was before."""
    counted: dict[str, Any] = {}
    if training.loss.name != "cross-entropy":
        beta = training.loss.beta or {"trades": 6.0, "mart": 5.0}[training.loss.name]
        counted["loss"] = {"name": training.loss.name, "beta": beta}
    if training.weight_perturbation:
        counted["weight_perturbation"] = training.weight_perturbation.model_dump()
    return counted


def _schedule(given: Schedule) -> dict[str, Any]:
    fields = {"step": {"name", "milestones", "gamma"}, "cosine": {"name"}, "one-cycle": {"name", "warmup"}}
    return given.model_dump(mode="json", include=fields[given.name])


def _attack(given: TrainingAttack) -> dict[str, Any]:
    """Return the attack's settings; FGSM is one step of the ball's radius from the image itself."""
    once = {"step_255": given.eps_255, "steps": 1, "random_start": False} if given.name == "fgsm" else {}
    return {**given.model_dump(), **once}


def _cost(one: Found) -> int:
    if one.unit.kind == "import":
        return 2 * source.CHECKED * one.macs
    return cost.training(one.unit.settings, one.macs)


def _asked(one: Found, at: int, label: str, spec: SweepSpec) -> Iterator[Asked]:
    experiment = one.variant.experiment
    # Attacks take their ε from how the sweep's other networks are trained: a column holds one threat.
    training = experiment.training or spec.training
    try:
        yield from evaluations.asked(
            _meant(spec.evaluation[at], one), label, network=one.unit, info=one.info, paths=one.paths,
            noise_255=experiment.noise_255, attack=training.attack if training else TrainingAttack(),
            one_draw=experiment.protocol == "paper",
        )  # fmt: skip
    except UserError as error:
        raise type(error)(f"evaluation.{at}.{error}") from None


def _measurements(
    found: list[Found], spec: SweepSpec, units_by_id: dict[str, Unit], costs: dict[str, int]
) -> tuple[Measurement, ...]:
    """Return what the entries of `probes:` ask for, their units added to `units_by_id` and `costs`."""
    measured: list[Measurement] = []
    variants, training = [one.variant for one in found], spec.training.attack if spec.training else TrainingAttack()
    for at, (entry, label) in enumerate(zip(spec.probes, evaluations.labels(spec.probes), strict=True)):
        try:
            for one, cut in probes.measurements(entry, label, found, expand.meant(entry, variants), training):
                measured.append(one)
                costs |= {unit.id: cost for unit, cost in cut.items()}
                units_by_id |= {unit.id: unit for unit in cut}
        except UserError as error:
            raise type(error)(f"probes.{at}.{error}") from None
    return tuple(measured)


def _meant(entry: Evaluation, one: Found) -> Evaluation:
    """Return an entry as it is meant for this network: one not trained here has no other weights than its last."""
    if one.unit.kind == "train":
        return entry
    if entry.eval != "eval" and one.variant.experiment.network.function is not None:
        raise SweepError(
            f"eval: {entry.eval} may change what an imported network ({one.variant.label}) remembers of batches; write "
            "eval, or say with `only` for which other variants this entry is"
        )
    return entry.model_copy(update={"checkpoint": "last"})


def _cell(one: Found, asked: Asked, found: dict[str, Unit], costs: dict[str, int]) -> Cell:
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
                "examples or batches (a suite stands for its entries); keep one of them, or give both the same"
            )


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
