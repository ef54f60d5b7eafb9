"""A trained network as probes take it: the one place that makes their defences."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, final

import torch

from rna_ray.attacks.expectation import Forward, Passes
from rna_ray.attacks.make import make
from rna_ray.evaluation.batches import Batch
from rna_ray.evaluation.knowledge import Defence, Knowledge
from rna_ray.networks.build import Network
from rna_ray.networks.paths import PathSpace
from rna_ray.randomness import Randomness


@dataclasses.dataclass
class Rows:
    """What a probe measured: rows of the views `measures` and `transfers`, without what all rows of a unit share."""

    measures: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    transfers: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def extend(self, other: Rows) -> None:
        """Take in the rows of the next batch."""
        self.measures += other.measures
        self.transfers += other.transfers


@final
class Subject:
    """A network under a probe. An attacker of its defences knows no draw of the answer's: knowledge `transfer`.

    `settings` are those of the role, `network` or `source`, in a probe unit's settings. `forward` is the network
    compiled, and is used where each example takes a path of its own.
    """

    def __init__(
        self, network: Network, settings: Mapping[str, Any], random: Randomness, *, batch: int,
        forward: Forward | None = None,
    ) -> None:
        self.network, self.settings, self.random = network, settings, random
        self.batch, self.forward = batch, forward
        self.native = True
        """Whether every defence so far ran on torch's own kernels."""

    @property
    def noise(self) -> float:
        """The standard deviation of the defence's Gaussian noise, in [0, 1] pixels."""
        return self.settings["noise_255"] / 255

    @functools.cached_property
    def double(self) -> Network:
        """A copy of the network in float64."""
        return copy.deepcopy(self.network).double()

    def drawn(self, batch: Batch, *, draw: int = 0) -> Defence:
        """Return the defence that draws its paths as the network does: one draw attacked, another one answers."""
        random = bool(self.network.paths.sizes or self.noise)
        return self._defence(self.network.paths, batch, draw, shared=random and self.settings["paths"] == "batch")

    def along(self, path_L: torch.Tensor, batch: Batch, *, draw: int = 0) -> Defence:
        """Return the defence whose every pass, attacked or answered, follows one given path (L,)."""
        return self._defence(self.network.paths.only(path_L), batch, draw, shared=not self.noise)

    def _defence(self, paths: PathSpace, batch: Batch, draw: int, *, shared: bool) -> Defence:
        passes = Passes(
            self.network, forward=None if shared else self.forward, batch=self.batch,
            bf16=self.settings["precision"] == "bf16", shared=shared,
        )
        self.native &= passes.native
        knowledge = Knowledge("transfer")
        return Defence(passes, paths, self.random, batch.examples, knowledge, draws=1, draw=draw, noise=self.noise)


def attacked(settings: Mapping[str, Any], defence: Defence, batch: Batch) -> torch.Tensor:
    """Return a batch's images (N, C, H, W), attacked where the unit's settings name an attack."""
    if settings["attack"] is None:
        return batch.x
    return make(settings["attack"], std=defence.passes.network.std).perturb(defence, batch.x, batch.y).x_adv


def predicted(defence: Defence, x: torch.Tensor, name: str = "adversarial") -> torch.Tensor:
    """Return the class (N,) that a defence of one draw answers for each image; `natural` draws apart from others."""
    return defence.answer(x, name)[:, 0].argmax(1)


@torch.no_grad()
def seen(defence: Defence, x: torch.Tensor) -> torch.Tensor:
    """Return the class (N,) of each image on the draw that the attacker sees."""
    return defence.attack_passes.logits(x, defence.attacker_draws(x, 0))[0].argmax(1)
