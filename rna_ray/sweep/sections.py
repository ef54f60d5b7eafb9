"""The sections of a sweep file as frozen models, one sentence under each field.

Fields that do not count towards a unit's id are declared with `uncounted`. What a setting means is written here; what
makes two settings the same unit is in `networks`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from rna_ray import data
from rna_ray.errors import SweepError, UserError
from rna_ray.networks import describe, source, spaces
from rna_ray.sweep.section import Section, Whole, absolute, as_tuple, known, refusal, uncounted

Eps = Annotated[float, Field(gt=0, le=255)]
Fractions = Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], BeforeValidator(as_tuple)]
PerChannel = Annotated[tuple[float, ...], BeforeValidator(as_tuple), Field(min_length=1)]


def _sha256(given: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", given):
        raise SweepError(f"{given!r} is not the 64 hexadecimal digits, in small letters, that sha256sum prints")


class Data(Section):
    """Which images are learned and attacked."""

    name: Annotated[str, known(data.record)]
    """The data set; `rna_ray.data.DATASETS` lists them."""
    root: str | None = uncounted(None)
    """The folder that holds the data set's files, where it needs any; or a URI, which each machine copies once."""
    download: bool = uncounted(False)
    """Whether missing files may be fetched."""
    side: Whole | None = None
    """With `folder`: the pixels to which each image's shorter side is resized, the centre of which is taken; null is
    the images' own, which are then squares of one size."""
    train_examples: Whole | None = None
    """How many training images to learn from; null is all that are not held out."""
    held_out: int = Field(512, ge=0)
    """How many training images are kept from training, to choose the best checkpoint by."""

    @field_validator("root")
    @classmethod
    def _absolute(cls, root: str | None) -> str | None:
        """Workers run in folders of their own, and a sweep may be resumed from another."""
        return root if root is None or "://" in root else absolute(root)

    @model_validator(mode="after")
    def _side_of_a_folder(self) -> Data:
        if self.side is not None and self.name != "folder":
            raise refusal(f"side: goes with name: folder only; images of {self.name} have theirs", kind="refused_key")
        return self

    @model_validator(mode="after")
    def _no_download_to_a_uri(self) -> Data:
        if self.download and self.root is not None and "://" in self.root:
            raise SweepError(f"download: nothing is fetched into {self.root}; leave it out, or give a folder as root")
        return self


NAMED_ONLY = ("name", "width", "norm", "last_norm", "layer_based", "activation", "mean", "std")
IMPORTED_ONLY = ("import", "root", "random")
GIVEN = ("weights", "weights_sha256")


class Network(Section):
    """Which network is trained and attacked, or only attacked: one by name, or an import of the user's own."""

    name: Annotated[str, known(describe.network)] | None = None
    """The network; `rna_ray.networks.describe.NETWORKS` lists them."""
    width: Whole | None = None
    """The channels of the first stage; null is the network's own width."""
    norm: Annotated[str, known(spaces.parse)] | None = None
    """The norm, or the space from which each layer's norm is drawn: BN, BN+IN, GN32, BGN+GN[1-4]; a network without
    norm layers has none, and may leave this out."""
    last_norm: Annotated[str, known(spaces.parse_one)] | None = None
    """The one norm of the last norm layer, as the RNA authors' WideResNet has BN there; null is as everywhere."""
    layer_based: bool = False
    """Whether one draw serves the whole network, instead of an independent one for each layer."""
    activation: Literal["relu", "silu", "softplus", "gelu", "elu"] | None = None
    """The activation; smooth ones are for smooth adversarial training (SAT), softplus with the α of 10 as there; null
    is the network's own: elu for stn-cifar10, relu for all others."""
    paths: Literal["example", "batch"] = "example"
    """Whether each example follows a path of its own, or a whole batch one path."""
    function: Annotated[str, known(source.check)] | None = Field(None, alias="import")
    """In place of name, module:function: called without arguments, it returns a torch module of the user's own."""
    weights: Annotated[str, known(source.check_given)] | None = None
    """A file of weights, which counts by its content: where training starts, or what is evaluated; null is as built."""
    weights_sha256: Annotated[str, known(_sha256)] | None = uncounted(None)
    """The SHA-256 of that file, which is then checked; a pickle (.pth, .pt) is read only where it is stated."""
    mean: PerChannel | None = None
    """With name: the per-channel mean that is taken from images in [0, 1]; null is the data set's."""
    std: PerChannel | None = None
    """With name: the per-channel standard deviation by which they are then divided; null is the data set's."""
    root: str | None = uncounted(None)
    """With import: the folder in which the module lies, where it is not installed; null is the sweep's `folder`."""
    random: bool = True
    """With import: whether its answers may differ from pass to pass; false saves draws, and is verified."""

    @model_validator(mode="after")
    def _one_kind(self) -> Network:
        stated = {name for name, value in self.model_dump(exclude_unset=True).items() if value is not None}
        self._check_weights()
        if self.function is not None and (strangers := [name for name in NAMED_ONLY if name in stated]):
            whose = "name one or import one" if "name" in strangers else "build it in the function (rna_ray.randomize)"
            raise refusal(f"{strangers[0]}: does not go with network.import; {whose}", kind="refused_key")
        if self.function is None:
            bare = self._check_bare()
            for name in ("name",) if bare else ("name", "norm"):
                if getattr(self, name) is None:
                    about = " ".join((type(self).model_fields[name].description or "").split())
                    raise refusal(f"{name}: missing; {about}", kind="refused_key")
            if strangers := [name for name in IMPORTED_ONLY if name in stated]:
                raise refusal(f"{strangers[0]}: goes with network.import only", kind="refused_key")
        if (self.mean is None) != (self.std is None):
            missing, stated = ("std", "mean") if self.std is None else ("mean", "std")
            raise refusal(f"{missing}: missing beside network.{stated}", kind="refused_key")
        if self.std is not None and min(self.std) <= 0:
            raise refusal("std: must be above 0 in every channel", kind="refused_key")
        return self

    def _check_bare(self) -> bool:
        """Say whether the network has no norm layers; refuse norms for one."""
        if self.name is None or describe.network(self.name).norms:
            return False
        for key, norm in (("norm", self.norm), ("last_norm", self.last_norm)):
            if norm is not None and spaces.parse(norm) != spaces.parse("none"):
                raise refusal(
                    f"{key}: {self.name} has no norm layers, so {norm} cannot stand there; allowed is none, or leave "
                    "it out",
                    kind="refused_key",
                )
        return True

    def _check_weights(self) -> None:
        """Refuse weights that would be unpickled unasked, and a digest of none."""
        if self.weights is None:
            if self.weights_sha256 is not None:
                raise refusal("weights_sha256: says what network.weights holds, which is not given", kind="refused_key")
        elif self.function is not None:
            try:
                source.check_weights(self.weights)
            except UserError as error:
                raise refusal(f"weights: {error}", kind="refused_key") from None
        elif self.weights.endswith(source.PICKLES) and self.weights_sha256 is None:
            raise refusal(
                f"weights: {self.weights} is a pickle, read only where the sweep says which file it means; state what "
                f"`sha256sum {self.weights}` prints as network.weights_sha256",
                kind="refused_key",
            )


class Schedule(Section):
    """How the learning rate moves over the epochs."""

    name: Literal["step", "cosine", "one-cycle", "constant"] = "step"
    """The shape: in steps, a half cosine down to zero, one cycle up and down, or the same rate throughout."""
    milestones: Fractions = (0.5, 0.75)
    """For step: where the rate falls, as fractions of the epochs (100 and 150 of 200)."""
    gamma: float = Field(0.1, gt=0, le=1)
    """For step: the factor by which the rate falls at each milestone."""
    warmup: float = Field(0.3, gt=0, lt=1)
    """For one-cycle: the fraction of the training during which the rate rises."""

    @model_validator(mode="after")
    def _ordered(self) -> Schedule:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise refusal("milestones: must rise, each given once", kind="refused_key")
        return self


class TrainingAttack(Section):
    """The attack inside adversarial training; evaluation entries take its threat, ε, step and space where it states
    them."""

    name: Literal["pgd", "fgsm"] = "pgd"
    """The attack: pgd, or fgsm, which is one step of eps_255 from the image itself."""
    threat: Literal["linf", "l2"] = "linf"
    """The norm of the ball around the image."""
    eps_255: Eps = 8.0
    """The ball's radius, in 255ths of the pixel range."""
    step_255: Eps = 2.0
    """For pgd: the length of a step, in 255ths of the pixel range."""
    eps_space: Literal["pixel", "normalized"] = "pixel"
    """Where these are measured: in pixels, or once images are divided by the network's std (0.03 is eps_255: 7.65)."""
    steps: Whole = 10
    """For pgd: the number of steps."""
    random_start: bool = True
    """For pgd: whether to start anywhere in the ball, not at the image; trades starts from little noise instead."""


class Loss(Section):
    """What an update minimises; the attack inside training climbs it too, but for mart cross-entropy."""

    name: Literal["cross-entropy", "mixed", "trades", "mart", "stability"] = "cross-entropy"
    """The loss: cross-entropy on attacked images, mixed (on images as they are too, each half: Goodfellow et al. 2015),
    trades (Zhang et al. 2019), mart (Wang et al. 2020), or without an attack stability (to noise: STN, Section 5.1)."""
    beta: float | None = Field(None, gt=0)
    """For trades and mart: what the divergence between clean and attacked predictions weighs; null is as published, 6
    and 5."""
    gamma: float | None = Field(None, gt=0)
    """For stability: what the cross-entropy between clean and noisy predictions weighs; null is 1."""
    target: Literal["softmax", "logits"] | None = None
    """For stability: what noisy predictions are held to, the clean probabilities (the paper's text), or the clean
    logits as if they were probabilities, held constant (its later code); null is softmax."""

    @model_validator(mode="after")
    def _named(self) -> Loss:
        for key, names in (("beta", "trades or mart"), ("gamma", "stability"), ("target", "stability")):
            if getattr(self, key) is not None and "name" not in self.model_fields_set:
                raise refusal(f"name: missing beside training.loss.{key}; write {names}", kind="refused_key")
        return self


class WeightPerturbation(Section):
    """Adversarial weight perturbation (AWP; Wu et al. 2020): updates at the weights where the loss is worse."""

    gamma: float = Field(0.005, gt=0)
    """How far each layer's weights move, relative to their norm."""
    warmup: int = Field(0, ge=0)
    """The number of epochs before, without perturbation."""


class Training(Section):
    """How the network is trained: on images as they are or under attack, with or without noise."""

    objective: Literal["natural", "whitebox", "blackbox"]
    """What is learned: natural images, or images attacked on the update's path (whitebox) or another (blackbox)."""
    epochs: Whole = 200
    """The number of passes over the training images."""
    batch: Whole = 128
    """The number of images in an update."""
    lr: float = Field(0.1, gt=0)
    """The highest learning rate."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """What makes updates of gradients: SGD with momentum, or Adam (Kingma & Ba 2015) with its published constants."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """For sgd: the momentum."""
    weight_decay: float = Field(5.0e-4, ge=0)
    """The weight decay, added to the gradient: in adam too, which then scales it like any gradient."""
    schedule: Schedule = Schedule()
    """How the learning rate moves over the epochs."""
    augment: Literal["none", "crop", "crop-flip", "resized-crop-flip"] | None = None
    """Random crops of the images padded by 4, with or without flips, or for imagenet random parts of an image, resized
    and flipped; null is what suits the data set."""
    attack: TrainingAttack = TrainingAttack()
    """The attack inside adversarial training."""
    attack_mode: Literal["train", "eval", "train_frozen"] = "train_frozen"
    """The network's mode under that attack; train_frozen takes batch statistics without updating the running ones."""
    loss: Loss = Loss()
    """What an update minimises."""
    noise_255: float | None = Field(None, ge=0, le=1275)
    """The standard deviation of the Gaussian noise on the images that are learned, and on held-out ones, in 255ths,
    drawn as the defence draws its own; null is the sweep's noise_255."""
    weight_perturbation: WeightPerturbation | None = None
    """Adversarial weight perturbation (AWP), with any loss; null is none."""

    @model_validator(mode="after")
    def _goes_together(self) -> Training:
        name, perturbation = self.loss.name, self.weight_perturbation
        if name == "stability" and self.objective != "natural":
            raise refusal(
                f"loss.name: stability compares images with noisy ones, and objective {self.objective} attacks them; "
                "write objective natural, or another loss",
                kind="refused_key",
            )
        if name not in ("cross-entropy", "stability") and self.objective == "natural":
            raise refusal(
                f"loss.name: {name} learns from attacked images, and objective natural attacks none; write whitebox or "
                "blackbox, or the loss cross-entropy",
                kind="refused_key",
            )
        if name == "trades" and (self.attack.name != "pgd" or not self.attack.random_start):
            raise refusal(
                "loss.name: the divergence that trades climbs is flat at the image itself; write attack.name pgd with "
                "random_start true, which starts it from a little noise",
                kind="refused_key",
            )
        if perturbation and perturbation.warmup >= self.epochs:
            raise refusal(
                f"weight_perturbation.warmup: {perturbation.warmup} of {self.epochs} epochs leave none that perturbs "
                "weights; allowed is less than training.epochs",
                kind="refused_key",
            )
        return self


class Share(Section):
    """What a unit takes of the machine."""

    cpu: float = uncounted(1.0, ge=0)
    """The CPUs that a unit takes; fractions let several share one."""
    gpu: float = uncounted(0.0, ge=0)
    """The GPUs that a unit takes; fractions let several share one."""
    limit: float | None = uncounted(None, gt=0)
    """The seconds that an attempt at a unit may take before it counts as failed; null is as long as it takes."""
    smaller_batches: bool = uncounted(False)
    """Whether a unit that runs out of memory is done with the largest half, quarter … of its batch that fits, which its
    rows then say, instead of failing."""

    @model_validator(mode="after")
    def _something(self) -> Share:
        if not self.cpu and not self.gpu:
            raise refusal("a unit that takes neither CPU nor GPU cannot be placed; give it some of either")
        return self

    @field_validator("gpu")
    @classmethod
    def _whole_above_one(cls, gpu: float) -> float:
        if gpu > 1 and gpu != int(gpu):
            raise refusal(f"{gpu:g} GPUs cannot be given; allowed are fractions of one, and whole numbers")
        return gpu


class TrainShare(Share):
    """What a training unit takes, and in how many processes it trains."""

    workers: Whole | None = uncounted(None)
    """The number of processes that share every batch of a training; null is one, or one a GPU where there are more."""
    checkpoint: float = uncounted(600.0, gt=0)
    """The seconds between the checkpoints of a training within an epoch: what a machine that dies costs at most."""

    @property
    def processes(self) -> int:
        """The number of processes that train one network together."""
        return self.workers or max(1, int(self.gpu))

    @model_validator(mode="after")
    def _one_a_gpu(self) -> TrainShare:
        if self.workers and self.gpu and self.workers != max(1, int(self.gpu)):
            raise refusal(
                f"workers: {self.workers} do not go with {self.gpu:g} GPU; one worker a GPU is what there is: leave "
                "workers out",
                kind="refused_key",
            )
        return self


class Pool(Share):
    """What an evaluation actor takes, and how many there are."""

    actors: Whole | None = uncounted(None)
    """The number of evaluation actors; null is as many as fit."""


class Budget(Section):
    """What the sweep may take at most; a run that reaches it ends as by Ctrl-C, resumable."""

    hours: float | None = uncounted(None, ge=0)
    """The wall hours of one run; null is no limit."""
    gpu_hours: float | None = uncounted(None, ge=0)
    """The GPU hours of all runs together: of the units in the store and of those that run; null is no limit."""


class Resources(Section):
    """What of the machine the units take."""

    train: TrainShare = uncounted(TrainShare())
    """What a training unit takes."""
    evaluate: Pool = uncounted(Pool())
    """What an evaluation actor takes, and how many there are."""
