"""What an entry of `evaluation:` becomes for one network: resolved settings, cut into units of whole batches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rna_ray.attacks import catalog
from rna_ray.data import DataInfo
from rna_ray.errors import SweepError
from rna_ray.sweep import expand, units
from rna_ray.sweep.entries import Entry, Evaluation, NamedEntry
from rna_ray.sweep.networks import Found
from rna_ray.sweep.sections import TrainingAttack
from rna_ray.sweep.units import Unit

DRAWS = 10
EXAMPLES = 1000
SHARD = 100
ENUMERATED = 256
"""The most paths that `enumerate` takes the mean over."""
_SAME = {"eot-1": "resample"}  # the mean over one fresh draw
INHERITED = ("threat", "eps_space", "eps_255", "step_255")


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
    source: str | None = None
    """The label of the variant whose network the attack is crafted on, where that is not this one."""
    evaluation: str
    """The digest that the units of this evaluation share."""
    network: str
    """The id of the unit that trains or imports the network."""
    units: tuple[str, ...]
    """The ids of the evaluate units, in the order of their examples."""


def cells(
    entry: Evaluation, label: str, one: Found, source: Found | None = None
) -> Iterator[tuple[Cell, dict[Unit, int]]]:
    """Yield the cells of one entry for one network, one for each knowledge, with units and their multiply-adds.

    `source` is the network that is attacked in its stead, if any. What cannot matter does not count: where the network
    that is attacked has one path and no noise every knowledge is `fixed`, where the one that answers has, one draw is
    all, and an attack that does not look at the network knows nothing.
    """
    experiment, network, info, paths = one.variant.experiment, one.unit, one.info, one.paths
    record, random, attacked = entry.record, _random(one), source or one
    for key, mode, whom in (("eval", entry.eval, one), ("attack_mode", entry.crafting, attacked)):
        if mode != "eval" and whom.variant.experiment.network.function is not None:
            raise SweepError(
                f"{key}: {mode} may change what an imported network ({whom.variant.label}) remembers of batches; write "
                "eval, or say with `only` for which other variants this entry is"
            )
    weights, examples = checkpoint(entry, network), count(entry, info)
    for whom in (one,) if source is None else (one, source):
        if "train_frozen" in (entry.eval, entry.crafting) or whom.batch_dependent:
            _check_whole_batches(entry, whom, examples)
    shared = {
        "network": network.id,
        "checkpoint": weights,
        "data": {**one.images, "split": "test"},
        "attack": {"name": record.name, **settled(entry, one)},
        "eval": entry.eval,
        "paths": network.settings["network"]["paths"],
        "noise_255": experiment.noise_255,
        "batch": min(entry.batch, examples),
        "precision": entry.precision or network.settings["precision"],
        # Where a batch shares a path, torch's native kernels run, one path after another: nothing to compile for.
        "compile": network.settings["compile"] and paths > 1 and entry.eval == entry.crafting == "eval",
    }
    if entry.crafting != entry.eval:
        shared["attack_mode"] = entry.crafting
    if source is not None:
        shared["source"] = _attacked(entry, source)
    for asked_for in entry.knowledge or record.knowledge if record.adaptive else ("none",):
        knowledge = _SAME.get(asked_for, asked_for)
        _check(record, knowledge)
        if source is not None and knowledge == "fixed" and _random(source):
            raise SweepError(
                f"knowledge: fixed is the draw that answers, which an attack on {source.variant.label!r} does not see; "
                "write transfer, resample or eot-K, over the draws of that network"
            )
        if record.adaptive and not _random(attacked):
            knowledge = "aggmo-fixed" if knowledge.startswith("aggmo-") else "fixed"
        if knowledge == "enumerate":
            _check_enumerable(attacked.paths, attacked.variant.experiment.noise_255)
        one_draw = experiment.protocol == "paper" or not random
        draws = 1 if one_draw else entry.draws or (1 if knowledge == "fixed" and source is None else DRAWS)
        settings = {**shared, "knowledge": knowledge, "draws": draws}
        if knowledge == "enumerate":
            settings["enumerated"] = attacked.paths
        cut = units.cut("evaluate", settings, shards(entry, examples))
        macs = _macs(cut, one.macs, attacked.macs, info.classes)
        yield Cell(
            row=one.variant.row,
            variant=one.variant.label,
            attack=label,
            knowledge=asked_for,
            source=source.variant.label if source else None,
            evaluation=cut[0].settings["evaluation"],
            network=network.id,
            units=tuple(unit.id for unit in cut),
        ), macs  # fmt: skip


def _macs(cut: Sequence[Unit], own: int, attacked: int, classes: int) -> dict[Unit, int]:
    """Return the estimated multiply-adds of units that differ in their examples alone: asked once for each size."""
    by_size: dict[int, int] = {}
    for unit in cut:
        start, stop = unit.settings["examples"]
        if stop - start not in by_size:
            passes = attacked * attack_passes(unit.settings, classes) + own * answer_passes(unit.settings)
            by_size[stop - start] = round(passes)
    return {unit: by_size[unit.settings["examples"][1] - unit.settings["examples"][0]] for unit in cut}


def source_of(entry: Evaluation, one: Found, found: Sequence[Found]) -> Found | None:
    """Return the network of the sweep that an entry attacks in the stead of this one, None where it attacks this one.

    It has the same images and the same seed, or is the only one of its name that has these images. Raises SweepError
    where there is no such network, or several, or where it is this very one.
    """
    if entry.source is None:
        return None
    named = expand.called(entry.source, [other.variant for other in found])
    images = [other for other in found if other.variant in named and _images(other) == _images(one)]
    fit = [other for other in images if other.variant.experiment.seed == one.variant.experiment.seed] or images
    if len(fit) != 1:
        labels = ", ".join(repr(other.variant.label) for other in fit) or "none"
        raise SweepError(
            f"source: {entry.source!r} must be one network of the images and the seed of {one.variant.label!r}; there "
            f"{'are' if fit else 'is'}: {labels}"
        )
    if (fit[0].unit, fit[0].variant.experiment.noise_255) == (one.unit, one.variant.experiment.noise_255):
        raise SweepError(
            f"source: {entry.source!r} is the network of {one.variant.label!r} itself, and an attack on that is no "
            "transfer; say with `only` for which other variants this entry is"
        )
    return fit[0]


def _images(one: Found) -> tuple[str, str]:
    data = one.unit.settings["data"]
    return data["name"], data["digest"]


def _random(one: Found) -> bool:
    return one.paths > 1 or one.variant.experiment.noise_255 > 0


def _attacked(entry: Evaluation, source: Found) -> dict[str, Any]:
    """Return what of the network that is attacked in another's stead decides the attack."""
    settings = source.unit.settings
    return {
        "id": source.unit.id,
        "checkpoint": checkpoint(entry, source.unit),
        "paths": settings["network"]["paths"],
        "noise_255": source.variant.experiment.noise_255,
        "precision": entry.precision or settings["precision"],
        "compile": settings["compile"] and source.paths > 1 and entry.crafting == "eval",
    }


def once(found: Iterable[Cell]) -> tuple[Cell, ...]:
    """Return the cells, each once; SweepError for two different ones that a table could not tell apart."""
    seen: dict[str, Cell] = {}
    for cell in found:
        key = units.canonical([cell.variant, cell.row, cell.attack, cell.knowledge])
        if seen.setdefault(key, cell).units != cell.units:
            raise SweepError(
                f"evaluation: two entries ask for {cell.attack} ({cell.knowledge}) of {cell.variant!r} on other "
                "examples or shards (a suite stands for its entries); keep one of them, or give both the same"
            )
    return tuple(seen.values())


def shards(entry: NamedEntry, examples: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges [start, stop) of the units that do this many examples: whole batches, the last as it comes."""
    size = entry.shard or math.ceil(SHARD / entry.batch) * entry.batch
    for start in range(0, examples, size):
        yield start, min(start + size, examples)


def checkpoint(entry: Entry, network: Unit) -> str:
    """Return which weights of a network an entry takes: one that is not trained here has no other than its last.

    Raises SweepError where it asks for the best and none were chosen.
    """
    if network.kind == "import":
        return "last"
    if entry.checkpoint == "best" and not network.settings["data"]["held_out"]:
        raise SweepError("checkpoint: best is chosen on held-out images, but data.held_out is 0; write last")
    return entry.checkpoint


def _check_whole_batches(entry: Evaluation, one: Found, examples: int) -> None:
    """Refuse what would shrink a batch whose statistics a network takes, or regroup it while it is attacked."""
    if "train_frozen" in (entry.eval, entry.crafting):
        key = "eval" if entry.eval == "train_frozen" else "attack_mode"
        who, instead = f"{key}: train_frozen", "write eval"
    else:
        who = f"attack: {one.unit.settings['network']['norm']} of {one.variant.label!r}"
        instead = "say with `only` for which other variants this entry is"
    if entry.record.name in catalog.REGROUPING and (entry.crafting == "train_frozen" or one.batch_dependent):
        name = entry.record.name
        raise SweepError(f"{who} takes each batch's statistics, and {name} attacks parts of a batch; {instead}")
    if examples % entry.batch:
        raise SweepError(
            f"{who} takes each batch's statistics, so that none may shrink, and {examples} examples are no whole "
            f"batches of {entry.batch}; allowed are multiples of it"
        )


def _check(record: catalog.Attack, knowledge: str) -> None:
    if knowledge.startswith("aggmo-") and not record.aggregates:
        able = " and ".join(one.name for one in catalog.ATTACKS.values() if one.aggregates)
        raise SweepError(f"knowledge: {knowledge} aggregates the momentum of {able}; {record.name} has no use for it")
    if record.members and knowledge != "enumerate":
        raise SweepError(f"knowledge: {record.name} walks from path to path and must know them all; write enumerate")


def _check_enumerable(paths: float, noise_255: float) -> None:
    if paths == math.inf:
        raise SweepError("knowledge: enumerate lists paths, and a plan knows none of an imported network; take eot-K")
    if noise_255:
        raise SweepError("knowledge: enumerate lists paths, and Gaussian noise has no list; take eot-K")
    if paths > ENUMERATED:
        raise SweepError(
            f"knowledge: enumerate lists up to {ENUMERATED} paths, this network has {paths:.3g}; take eot-K, or keep "
            "the entry to smaller spaces with only"
        )


def forward_passes(settings: Mapping[str, Any], classes: int) -> float:
    """Return the estimated forward passes of an evaluate unit over all its examples; a backward pass is two."""
    return attack_passes(settings, classes) + answer_passes(settings)


def answer_passes(settings: Mapping[str, Any]) -> float:
    """Return the forward passes of an evaluate unit's answers: the draws score the natural and the attacked image."""
    start, stop = settings["examples"]
    return (stop - start) * 2 * settings["draws"]


def attack_passes(settings: Mapping[str, Any], classes: int) -> float:
    """Return the estimated forward passes of an evaluate unit's attack, through the network that is attacked."""
    start, stop = settings["examples"]
    knowledge = settings["knowledge"]
    attack = catalog.find(settings["attack"]["name"]).passes(settings["attack"], classes)
    if "eot-" in knowledge:
        attack *= int(knowledge.rpartition("-")[2])
    elif knowledge == "enumerate":
        attack *= settings["enumerated"]
    elif knowledge == "fixed" and "source" not in settings:
        attack *= settings["draws"]  # each path that will answer is attacked by itself
    return (stop - start) * 3 * attack


def labels(entries: Sequence[NamedEntry]) -> tuple[str, ...]:
    """Return how tables call each entry's attack or probe; those that would be called the same say how they differ."""
    groups: dict[str, list[NamedEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.called, []).append(entry)
    return tuple(" ".join([entry.called, *_apart(entry, groups[entry.called])]) for entry in entries)


def _apart(entry: NamedEntry, group: Sequence[NamedEntry]) -> list[str]:
    stated, mine = [other.distinguishing for other in group], entry.distinguishing
    keys = dict.fromkeys(key for one in stated for key in one)
    return [f"{key}={mine[key]}" for key in keys if key in mine and any(one.get(key) != mine[key] for one in stated)]


def count(entry: Entry, info: DataInfo, default: int = EXAMPLES) -> int:
    """Return how many test images an entry asks for; SweepError where there are not so many."""
    examples = entry.examples or min(default, info.test_examples)
    if examples > info.test_examples:
        raise SweepError(f"examples: {examples} are more than the {info.test_examples} test images of {info.name}")
    return examples


def settled(entry: NamedEntry, attacked: Found) -> dict[str, Any]:
    """Return all options of what an entry names; threat, space, ε and step are those that training.attack states, if
    left out.

    An ε means nothing under another norm or in another space, so an entry with another threat or space than training's
    must state its own. Raises SweepError for that, for a space that what is named cannot measure in, and for one that
    needs to know of the attacked network what an imported one does not say.
    """
    options = {option.name: option for option in entry.record.options}
    found = entry.record.settings({**_inherited(entry, options, attacked.attack), **entry.options})
    if found.get("eps_space") == "normalized" and attacked.space is None:
        raise SweepError(
            f"eps_space: normalized divides by the std of the network's input normalisation, and an imported network "
            f"({attacked.variant.label}) has its own inside and does not say it; write pixel, or say with `only` for "
            "which other variants this entry is"
        )
    return found


def _inherited(entry: NamedEntry, options: Mapping[str, catalog.Option], training: TrainingAttack) -> dict[str, Any]:
    stated = entry.options
    taken = {name: getattr(training, name) for name in INHERITED if name in training.model_fields_set & set(options)}
    space = stated.get("eps_space", training.eps_space)
    if "eps_space" in options and space not in options["eps_space"].choices:
        raise SweepError(
            f"eps_space: {entry.record.name} measures in pixels only, and training.attack is {space}; write pixel, and "
            "an eps_255 of its own"
        )
    if "threat" not in options:
        return taken
    threat = stated.get("threat", training.threat)
    able = threat in options["threat"].choices
    if able and (threat, space) == (training.threat, training.eps_space):
        return taken
    if "eps_255" not in stated:
        under = f"under {training.threat}" if space == training.eps_space else f"in {training.eps_space} space"
        raise SweepError(f"eps_255: state it, as training.attack is {under} and this attack is not")
    return {name: taken[name] for name in (("threat", "eps_space") if able else ("eps_space",)) if name in taken}
