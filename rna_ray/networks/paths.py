"""Paths: which member each example takes at each random layer, drawn, followed, recorded and compared.

A path is an int64 tensor (N, L): for each example and each layer with more than one member, the index of the member.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from rna_ray.networks.norms import BatchStatistics, Norm
from rna_ray.networks.spaces import NormLayer, Space
from rna_ray.randomness import Draw, Randomness

MODES = ("train", "eval", "train_frozen")


@dataclasses.dataclass(frozen=True)
class PathSpace:
    """The paths through a network: how many members each random layer has, and which combinations may be drawn.

    `choices` is None for layer-free spaces (an independent draw a layer, n^L paths), else the rows (n, L) of which a
    layer-based draw takes one for the whole network.
    """

    sizes: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...] | None = None

    def draw(
        self, random: Randomness, name: str, examples: torch.Tensor, *, step: int = 0, draw: Draw = 0
    ) -> torch.Tensor:
        """Return the path (N, L) of each example (N,): a pure function of its arguments."""
        if not self.sizes:
            return torch.zeros(len(examples), 0, dtype=torch.int64, device=examples.device)
        if self.choices is None:
            return random.integers(name, examples, self.sizes, step=step, draw=draw)
        index = random.integers(name, examples, [len(self.choices)], step=step, draw=draw)[:, 0]
        return torch.tensor(self.choices, device=examples.device)[index]

    def only(self, path_L: torch.Tensor) -> PathSpace:
        """Return the space in which every draw is this one path (L,)."""
        return dataclasses.replace(self, choices=(tuple(path_L.tolist()),)) if self.sizes else self

    def all(self) -> torch.Tensor:
        """Return every path (P, L); only for spaces small enough to list."""
        if self.choices is not None:
            return torch.tensor(self.choices)
        if not self.sizes:
            return torch.zeros(1, 0, dtype=torch.int64)
        return torch.cartesian_prod(*(torch.arange(size) for size in self.sizes)).view(-1, len(self.sizes))


def path_space(space: Space, layers: Sequence[NormLayer], *, layer_based: bool) -> PathSpace:
    """Return the paths of a space over a network's layers; layers at which its members coincide are not random."""
    sizes = tuple(size for layer in layers if (size := len(space.at(layer))) > 1)
    return PathSpace(sizes, tuple(member_paths(space, layers).values()) if layer_based and sizes else None)


def member_paths(space: Space, layers: Sequence[NormLayer]) -> dict[str, tuple[int, ...]]:
    """Return for each member of a space the path that takes it at every random layer of a network.

    Of members that coincide at every layer, the first one stands for all.
    """
    columns = [space.index_at(layer) for layer in layers if len(space.at(layer)) > 1]
    paths = zip(*columns, strict=True) if columns else [()]
    named: dict[tuple[int, ...], str] = {}
    for member, path in zip(space.members, paths, strict=False):
        named.setdefault(path, str(member))
    return {name: path for path, name in named.items()}


def random_layers(network: nn.Module) -> list[Norm]:
    """Return a network's norm layers with more than one member, in the order of a path's columns."""
    return [module for module in network.modules() if isinstance(module, Norm) and len(module.members) > 1]


def following(network: nn.Module, path: torch.Tensor, *, shared: bool = False) -> AbstractContextManager[None]:
    """Let a network follow a path (N, L), or with `shared` one path (L,) for the whole batch, inside the block."""
    if not path.shape[-1]:  # a random layer would say that nobody gave it a path
        return contextlib.nullcontext()
    return _following(network, path, shared)


@contextlib.contextmanager
def _following(network: nn.Module, path: torch.Tensor, shared: bool) -> Iterator[None]:
    layers = random_layers(network)
    if path.shape[-1] != len(layers):
        raise ValueError(f"a path has a column for each of the {len(layers)} random layers, not {path.shape[-1]}")
    before = [layer.path for layer in layers]
    steps: Sequence[int] | tuple[torch.Tensor, ...] = path.tolist() if shared else path.unbind(1)
    try:
        for layer, step in zip(layers, steps, strict=True):
            layer.path = step
        yield
    finally:
        for layer, step in zip(layers, before, strict=True):
            layer.path = step


@contextlib.contextmanager
def mode(network: nn.Module, name: str) -> Iterator[None]:
    """Put a network into `train`, `eval` or `train_frozen` inside the block, and back.

    `train_frozen` normalises by the batch's statistics without updating the running ones.
    """
    if name not in MODES:
        raise ValueError(f"a network's mode is one of {', '.join(MODES)}, not {name!r}")
    training = {module: module.training for module in network.modules()}
    tracking = [module for module in network.modules() if isinstance(module, BatchStatistics)]
    updated = [module.update for module in tracking]
    network.train(name != "eval")
    for module in tracking:
        module.update = name == "train"
    try:
        yield
    finally:
        for module, was in training.items():
            module.training = was
        for module, was in zip(tracking, updated, strict=True):
            module.update = was


@contextlib.contextmanager
def constant(network: nn.Module) -> Iterator[None]:
    """Let a network's parameters take no gradient inside the block: a compiled one would compute it, asked or not."""
    asked = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_()


def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the path difference (N,): the number of layers at which two paths part (RNA, Section 5.2)."""
    return (a != b).sum(-1)
