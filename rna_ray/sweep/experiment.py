"""The sweep file as a model: one experiment, what varies in it, and how its networks are attacked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from rna_ray.errors import SweepError
from rna_ray.sweep import problems
from rna_ray.sweep.entries import Certification, Evaluation, Probe
from rna_ray.sweep.logging import Logging
from rna_ray.sweep.search import Search
from rna_ray.sweep.section import Name, Section, absolute, as_tuple, uncounted
from rna_ray.sweep.sections import Budget, Data, Network, Resources, Training

Model = TypeVar("Model", bound=BaseModel)
Axis = Annotated[tuple[Any, ...], BeforeValidator(as_tuple), Field(min_length=1)]


class Experiment(Section):
    """One network and how it is trained: a variant of a sweep, all of whose settings are settled."""

    protocol: Literal["ours", "paper"] = "ours"
    """Our defaults, or the RNA paper's: per-batch paths, attack in train mode, IN not affine, transfer, one draw."""
    data: Data
    """Which images are learned and attacked."""
    network: Network
    """Which network is trained, or imported."""
    training: Training | None = None
    """How the network is trained; left out where it is imported, or evaluated with network.weights as they are."""
    seed: int = Field(0, ge=0, lt=2**63)
    """What a repetition changes: the initial weights, the order of the images, every draw."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """The arithmetic: fp32, or bf16 autocast."""
    noise_255: float = Field(0.0, ge=0, le=1275)
    """The standard deviation of the Gaussian noise that the defence adds to what it answers, in 255ths (STN)."""
    compile: bool = False
    """Whether a network of several paths is compiled, where each example follows its own and there is a compiler: on a
    GPU always, on a CPU in units of 10,000,000,000,000 multiply-adds and more for each norm of its space, in bf16
    where it multiplies that, but never a network with a strided 1x1 convolution of fewer than 16 channels."""
    priority: int = uncounted(0)
    """How urgent the network's units are: the higher the earlier, trainings before what needs them."""


class SweepSpec(Experiment):
    """A sweep file: an experiment, what varies in it, and how its networks are attacked."""

    name: Name = uncounted(...)
    """The sweep's name in the store."""
    about: str = uncounted("")
    """What the sweep is for, in free words."""
    folder: str = uncounted(".")
    """Where relative network.root and network.weights start; by default where the sweep was first run."""
    grid: Mapping[str, Axis] = uncounted({})
    """Dotted keys and the list of values that each takes; the sweep is their product."""
    variants: Mapping[str, Mapping[str, Any]] = uncounted({})
    """Named variants and the dotted keys that each sets; with a grid, every variant runs the whole grid. `seed` may be
    a list: the repetitions of this variant alone."""
    search: Search | None = uncounted(None)
    """Dotted keys whose values are drawn, beside those that the grid lists."""
    evaluation: Annotated[tuple[Evaluation, ...], BeforeValidator(as_tuple)] = ()
    """The attacks on every network."""
    probes: Annotated[tuple[Probe, ...], BeforeValidator(as_tuple)] = ()
    """What else is measured on every network, or on every pair of networks."""
    certification: Annotated[tuple[Certification, ...], BeforeValidator(as_tuple)] = ()
    """What is counted on every network under noise, for certified radii."""
    resources: Resources = uncounted(Resources())
    """What of the machine the units take."""
    budget: Budget = uncounted(Budget())
    """What it may take at most."""
    logging: Logging = uncounted(Logging())
    """Where each training's metrics go, epoch by epoch, beside the store."""
    presets: Mapping[str, Mapping[str, Any]] = uncounted({})
    """Named scales and the dotted keys that each sets before the grid expands, `grid.seed` among them."""

    @model_validator(mode="before")
    @classmethod
    def _placed(cls, given: Any) -> Any:
        """State the folder, so that a sweep that is resumed from elsewhere finds what it found before."""
        folder = given.get("folder", ".") if isinstance(given, Mapping) else None
        return {**given, "folder": absolute(folder)} if isinstance(folder, str) else given

    def within(self, path: str | None) -> str:
        """Return a path of network.root or network.weights in full."""
        return str(Path(self.folder, os.path.expanduser(path or "")))


def validated(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Return a model of plain values; the first problem is a SweepError of one sentence."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SweepError(problems.sentence(error, model)) from None
