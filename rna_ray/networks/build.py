"""Build the network that a unit's settings name, its input normalisation inside it, so that attacks live in [0, 1]."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import torch
from torch import nn

from rna_ray.networks import describe
from rna_ray.networks.activation import ACTIVATIONS
from rna_ray.networks.norms import BatchStatistics, Norm, RobustNorm
from rna_ray.networks.paths import PathSpace, member_paths, path_space
from rna_ray.networks.spaces import parse

if TYPE_CHECKING:
    from rna_ray.networks.randomize import PathSource


@final
class Network(nn.Module):
    """A body behind its input normalisation: images (N, C, H, W) in [0, 1] → logits (N, classes).

    `draws_globally` says that a forward pass may draw from a global generator, as an imported body may. `members` are
    the norms that a path can take at every layer, each with that path; none are known of an imported body.
    """

    mean: torch.Tensor
    std: torch.Tensor
    path_source: PathSource
    """What draws its paths where nobody else does: only there once `randomize.draw_paths` gave it one."""

    def __init__(
        self, body: nn.Module, paths: PathSpace, *, mean: Sequence[float], std: Sequence[float],
        draws_globally: bool = False, members: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__()
        self.members: dict[str, tuple[int, ...]] = dict(members or {})
        self.body: nn.Module = body
        self.paths: PathSpace = paths
        self.draws_globally: bool = draws_globally
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    @property
    def batch_dependent(self) -> bool:
        """Whether an image's logits hang on the others of its batch at inference too."""
        return any(isinstance(module, BatchStatistics) and module.track != "all" for module in self.modules())

    @property
    def native(self) -> bool:
        """Whether torch has a kernel for every norm, so that it runs where a whole batch shares a path."""
        return not any(isinstance(module, RobustNorm) for module in self.modules())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body((x - self.mean) / self.std)


def build(
    settings: Mapping[str, Any], *, shape: tuple[int, int, int], classes: int, mean: Sequence[float],
    std: Sequence[float], seed: int,
) -> Network:
    """Return the network of a named network's settings, initialised from a seed of its own.

    `mean` and `std` are the data set's, for settings that state none. The global generator, from which torch's
    initialisers draw, is left as it was.
    """
    name, width = settings["name"], settings["width"]
    description = describe.describe(
        name, width=width, image_shape=shape, classes=classes, last_norm=settings.get("last_norm")
    )
    layers, space = {layer.name: layer for layer in description.layers}, parse(settings["norm"])

    def norm(layer: str, channels: int) -> Norm:
        return Norm(channels, space.at(layers[layer]), name=layer)

    record = describe.network(name)
    module, function = record.build.split(":")
    size = {"size": shape[1:]} if record.sized else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = getattr(importlib.import_module(module), function)(
            norm, width=width, channels=shape[0], classes=classes,
            activation=ACTIVATIONS[settings.get("activation", "relu")], **size,
        )
    paths = path_space(space, description.layers, layer_based=settings["layer_based"])
    members = member_paths(space, description.layers)
    return Network(body, paths, mean=settings.get("mean", mean), std=settings.get("std", std), members=members)
