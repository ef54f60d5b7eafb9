"""What a variant becomes: its network, checked and settled, and the unit that trains it or takes it into the store."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rna_ray import data
from rna_ray.errors import CheckpointError, NetworkError, SpaceError, SweepError
from rna_ray.networks import describe, source, spaces
from rna_ray.store import weights
from rna_ray.sweep import cost, units
from rna_ray.sweep.expand import Variant
from rna_ray.sweep.experiment import Experiment, SweepSpec
from rna_ray.sweep.sections import Data, Loss, Schedule, TrainingAttack
from rna_ray.sweep.units import Unit

Digest = Callable[[Data], str]
Images = Callable[[Data], Mapping[str, Any]]
"""What stands for a data set in the settings of units: its name, its digest, and what was found in a folder."""

_BEFORE: Mapping[str, Any] = {
    "activation": "relu", "last_norm": None, "mean": None, "std": None, "weights_sha256": None, "loss": None,
    "weight_perturbation": None, "eps_space": "pixel", "optimizer": "sgd", "noise_255": 0.0,
}  # fmt: skip
"""The settings of our networks and their training that came later, and what was while there was no choice."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A variant's network, checked and settled: to be trained, or to be imported."""

    variant: Variant
    unit: Unit
    cost: int
    """Estimated multiply-adds of the unit."""
    images: Mapping[str, Any]
    """What stands for its data set in the settings of units."""
    info: data.DataInfo
    macs: int
    """Multiply-adds of one image's pass."""
    paths: float
    """How many paths there are; inf where an imported network may answer otherwise from pass to pass."""
    attack: TrainingAttack
    """What it is trained under, or if it is not trained here the others are: entries take its ball and step."""
    source: source.Source | None
    """Where an imported network or given weights come from."""
    space: spaces.Space | None = None
    """The norms of a network of ours, at the layers of its description; nothing is known of an imported one's."""
    layers: tuple[spaces.NormLayer, ...] = ()

    @functools.cached_property  # each entry asks again
    def batch_dependent(self) -> bool:
        """Whether an image's answer hangs on the others of its batch; an imported network is refused for that."""
        return self.space is not None and self.space.batch_dependent(self.layers)


def found(variant: Variant, look: Images, spec: SweepSpec) -> Found:
    """Return a variant's network; what does not fit together is a UserError that names the variant."""
    make = _named if variant.experiment.network.function is None else _imported
    try:
        return make(variant, look, spec)
    except (NetworkError, SpaceError, SweepError) as error:
        raise type(error)(f"variant {variant.label!r}: {error}") from None


def _named(variant: Variant, look: Images, spec: SweepSpec) -> Found:
    """Return a network of ours that is trained, or evaluated with the weights that are given as they are."""
    given = variant.experiment
    images = look(given.data)
    info = data.info(images)
    assert given.network.name is not None
    described = describe.describe(
        given.network.name, width=given.network.width, image_shape=info.shape, classes=info.classes,
        last_norm=given.network.last_norm,
    )  # fmt: skip
    space = spaces.parse(given.network.norm or "none")
    paths = space.paths(described.layers, layer_based=given.network.layer_based)
    random = paths > 1
    lies = source.Source(None, spec.within(given.network.weights)) if given.network.weights else None
    settings = {
        "network": _network(given, info, space, random, lies),
        "precision": given.precision,
        "compile": given.compile and random and given.network.paths == "example",
        "seed": given.seed,
    }
    if given.training is None:
        unit = units.imported({**settings, "data": images})
        macs = _imported_macs(described.macs)
    else:
        trained = {"data": _data(given.data, info, images), "training": _training(given, info, random)}
        batch = min(trained["training"]["batch"], trained["data"]["train_examples"])
        if (workers := spec.resources.train.processes) > batch:
            raise SweepError(f"resources.train: {workers} workers cannot share batches of {batch} images; ask for less")
        if space.batch_dependent(described.layers) and given.data.held_out % batch:
            raise SweepError(
                f"data.held_out: {given.data.held_out} images are no whole batches of training.batch, {batch}, and "
                f"{space.canonical} answers with statistics of the batch; allowed are multiples of it"
            )
        unit = units.train({**settings, **trained})
        macs = cost.training(unit.settings, described.macs)
    return Found(
        variant=variant, unit=unit, cost=macs, images=images, info=info, macs=described.macs, paths=paths,
        attack=_under(given, spec), source=lies, space=space, layers=described.layers,
    )  # fmt: skip


def _imported(variant: Variant, look: Images, spec: SweepSpec) -> Found:
    """Return a network that is imported; what counts is the content of its files, not where they lie."""
    given = variant.experiment
    network, images = given.network, look(given.data)
    info = data.info(images)
    assert network.function is not None
    lies = source.Source(spec.within(network.root), spec.within(network.weights) if network.weights else None)
    try:
        code = source.sha256(source.find(network.function, lies.root))
    except NetworkError as error:
        raise NetworkError(f"network.import: {error}") from None
    unit = units.imported({
        "data": images,
        "network": {
            "import": network.function,
            "source_sha256": code,
            "weights_sha256": _weights_sha256(given, lies),
            "random": network.random,
            "paths": network.paths if network.random else "example",
        },
        "precision": given.precision,
        "compile": False,
        "seed": given.seed,
    })  # fmt: skip
    macs = describe.describe(cost.ASSUMED, width=None, image_shape=info.shape, classes=info.classes).macs
    return Found(
        variant=variant, unit=unit, cost=_imported_macs(macs), images=images, info=info, macs=macs,
        paths=math.inf if network.random else 1, attack=_under(given, spec), source=lies,
    )  # fmt: skip


def _imported_macs(macs: int) -> int:
    return 2 * source.CHECKED * macs


def _under(given: Experiment, spec: SweepSpec) -> TrainingAttack:
    training = given.training or spec.training
    return training.attack if training else TrainingAttack()


def _counted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without those that came later and are what was before, so that older ids stay."""
    return {name: value for name, value in settings.items() if name not in _BEFORE or value != _BEFORE[name]}


def _data(given: Data, info: data.DataInfo, images: Mapping[str, Any]) -> dict[str, Any]:
    left = info.train_examples - given.held_out
    if left < 1:
        raise SweepError(
            f"data.held_out: {given.held_out} leaves nothing to train on; {given.name} has {info.train_examples:,} "
            "training images"
        )
    examples = left if given.train_examples is None else given.train_examples
    if not 1 <= examples <= left:
        raise SweepError(
            f"data.train_examples: {examples} and {given.held_out} held out are not what {given.name} can give; "
            f"it has {info.train_examples:,} training images"
        )
    return {**images, "train_examples": examples, "held_out": given.held_out}


def _network(
    given: Experiment, info: data.DataInfo, space: spaces.Space, random: bool, lies: source.Source | None
) -> dict[str, Any]:
    """Return the network's settings; where there is one path, how it would be drawn cannot matter."""
    network, record = given.network, describe.network(given.network.name or "")
    last = spaces.parse_one(network.last_norm) if network.last_norm else None
    mean, std = _normalisation(given, info)
    return _counted({
        "name": network.name,
        "width": record.width if network.width is None else network.width,
        "norm": space.canonical,
        "layer_based": network.layer_based and random,
        "paths": network.paths if random else "example",
        "activation": network.activation or record.activation,
        "last_norm": str(last) if last and space.members != (last,) else None,
        "mean": mean,
        "std": std,
        "weights_sha256": _weights_sha256(given, lies),
    })  # fmt: skip


def _normalisation(given: Experiment, info: data.DataInfo) -> tuple[list[float] | None, list[float] | None]:
    """Return the mean and deviation of images where they are stated and are not what they would be anyway."""
    mean, std = given.network.mean, given.network.std
    if mean is None or std is None:
        return None, None
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != info.shape[0]:
            raise SweepError(
                f"network.{key}: {len(values)} values do not fit the {info.shape[0]} channels of {info.name}"
            )
    if given.network.weights is None and (mean, std) == (info.mean, info.std):
        return None, None
    return list(mean), list(std)  # beside weights it also says that their images were looked at so


def _weights_sha256(given: Experiment, lies: source.Source | None) -> str | None:
    """Return the SHA-256 of the weights that are given, None where none are."""
    if lies is None or lies.weights is None:
        return None
    try:
        found = source.sha256(Path(lies.weights))
        if lies.weights.endswith(source.SUFFIX):  # a pickle is not looked into
            weights.given_shapes(lies.weights)
    except (NetworkError, CheckpointError) as error:
        raise NetworkError(f"network.weights: {error}") from None
    if given.network.weights_sha256 not in (None, found):
        raise NetworkError(f"network.weights_sha256: {lies.weights} is another file, of SHA-256 {found}")
    return found


def _training(given: Experiment, info: data.DataInfo, random: bool) -> dict[str, Any]:
    training = given.training
    assert training is not None
    if training.augment == "resized-crop-flip" and not info.in_files:
        raise SweepError(
            f"training.augment: resized-crop-flip is for images in files, such as imagenet's, not for {info.name}; "
            "allowed are none, crop and crop-flip"
        )
    noise = given.noise_255 if training.noise_255 is None else training.noise_255
    drawn = random or bool(noise)  # else who attacks another draw attacks the same one
    objective = "whitebox" if training.objective == "blackbox" and not drawn else training.objective
    natural, perturbation = objective == "natural", training.weight_perturbation
    if training.loss.name == "stability" and not noise:
        raise SweepError(
            "training.loss.name: stability compares images with noisy ones, and there is no noise; state "
            "training.noise_255 above 0, or the sweep's own noise_255"
        )
    return _counted({
        **training.model_dump(include={"epochs", "batch", "lr", "weight_decay", "optimizer"}),
        **({"momentum": training.momentum} if training.optimizer == "sgd" else {}),
        "objective": objective,
        "schedule": _schedule(training.schedule),
        "augment": training.augment or info.augment,
        "attack": None if natural else _attack(training.attack),
        "attack_mode": None if natural else training.attack_mode,
        "loss": _loss(training.loss),
        "noise_255": noise,
        "weight_perturbation": perturbation.model_dump() if perturbation else None,
    })  # fmt: skip


def _loss(given: Loss) -> dict[str, Any] | None:
    """Return a loss that is not cross-entropy, its weights as published where none are stated."""
    if given.name == "cross-entropy":
        return None
    if given.name == "mixed":
        return {"name": given.name}
    if given.name == "stability":
        return {"name": given.name, "gamma": given.gamma or 1.0, "target": given.target or "softmax"}
    return {"name": given.name, "beta": given.beta or {"trades": 6.0, "mart": 5.0}[given.name]}


def _schedule(given: Schedule) -> dict[str, Any]:
    fields = {
        "step": {"name", "milestones", "gamma"}, "cosine": {"name"}, "one-cycle": {"name", "warmup"},
        "constant": {"name"},
    }  # fmt: skip
    return given.model_dump(mode="json", include=fields[given.name])


def _attack(given: TrainingAttack) -> dict[str, Any]:
    """Return the attack's settings; FGSM is one step of the ball's radius from the image itself."""
    once = {"step_255": given.eps_255, "steps": 1, "random_start": False} if given.name == "fgsm" else {}
    return _counted({**given.model_dump(), **once})
