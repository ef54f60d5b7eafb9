"""Weights that others trained, for a network of ours: read from their file and loaded strictly."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from rna_ray import data
from rna_ray.errors import CheckpointError
from rna_ray.networks import describe, published, source
from rna_ray.networks.build import Network
from rna_ray.networks.norms import Norm, start_member
from rna_ray.networks.spaces import parse
from rna_ray.training.checkpoint import Tensors, load

UNDER = ("state_dict", "model", "net")
"""Keys under which a checkpoint of a training holds its weights."""
PREFIXES = ("module.", "body.")
"""What DataParallel puts before every key, and what a checkpoint of our own store has before those of the network."""
NORMALISE = ("normalize.mean", "normalize.std")
"""Where the RNA authors' networks keep the mean and standard deviation of the images."""
PUBLISHED = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
"""What the RNA authors' code normalises by, on CIFAR-10 and CIFAR-100 alike."""
TOLERANCE = 1e-6

_GLOBAL = re.compile(r"GLOBAL (\S+)")  # how torch names what a pickle would call


def read(path: Path, sha256: str) -> Tensors:
    """Return a file's weights by name, without the prefixes that wrappers put before all names.

    A pickle (.pth, .pt) is read as tensors and plain values only; nothing in it is run. Raises CheckpointError where
    the content is not that of the SHA-256, or holds no weights.
    """
    found = _unpickled(path, sha256) if path.suffix in source.PICKLES else load(path, sha256)[0]
    tensors = _state(found, path)
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return tensors


def start(
    network: Network, tensors: Tensors, settings: Mapping[str, Any], *, where: str, single: Callable[[], Network] | None
) -> None:
    """Load weights into a network built from a unit's settings.

    `single` builds the same network with BN alone, for a network that is about to be trained: weights of plain BN then
    start every member of its norms, as `rna_ray.randomize` does. Else each norm of the file is one of the network's.
    Raises CheckpointError naming the keys that do not fit (`published`), or another normalisation of the images.
    """
    named, info = settings["network"], data.info(settings["data"])
    layers = describe.describe(
        named["name"], width=named["width"], image_shape=info.shape, classes=info.classes,
        last_norm=named.get("last_norm"),
    ).layers  # fmt: skip
    own = _shapes(network.body.state_dict())
    layout = published.layout(named["name"], own, tensors)
    tensors = _without_normalisation(tensors, network, layout, where, stated="mean" in named)
    given, space = _shapes(tensors), parse(named["norm"])
    if single is None or not published.is_plain(given, layout, layers):
        keys = published.keys(own, given, layout=layout, layers=layers, space=space, where=where)
        _load(network, keys, tensors)
        return
    plain, layers = single(), tuple(dataclasses.replace(layer, only=None) for layer in layers)
    keys = published.keys(
        _shapes(plain.body.state_dict()), given, layout=layout, layers=layers, space=parse("BN"), where=where
    )
    _load(plain, keys, tensors)
    _spread(plain, network)


def _unpickled(path: Path, sha256: str) -> Any:
    """Return what a pickle holds, from the very bytes that have the SHA-256."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(f"{path} is not the file that was planned")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file raises is anyone's guess
        other = _GLOBAL.search(str(error))
        raise CheckpointError(
            f"{path} holds more than tensors and plain values ({other[1] if other else type(error).__name__}), or is "
            "damaged: torch.load(weights_only=True) refuses it; save its state dict alone"
        ) from error


def _state(found: Any, path: Path) -> Tensors:
    """Return the state dict that a file holds, as it is or under one of the usual keys."""
    held = [found[key] for key in UNDER if key in found] if isinstance(found, Mapping) else []
    state = found if not held else held[0]
    if len(held) > 1 or not isinstance(state, Mapping) or not state or not _all_tensors(state):
        keys = ", ".join(map(str, list(found)[:5])) if isinstance(found, Mapping) else type(found).__name__
        raise CheckpointError(
            f"{path} holds no state dict: {keys}; it must be one, or hold one under one of {', '.join(UNDER)}"
        )
    return dict(state)


def _all_tensors(state: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items())


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _without_normalisation(
    tensors: Tensors, network: Network, layout: published.Layout, where: str, *, stated: bool
) -> Tensors:
    """Return a file's weights without the constants of its input, once these are the network's."""
    if not layout.normalises:
        return tensors
    if not {*NORMALISE} & {*tensors}:
        if not stated:
            mean, std = map(list, PUBLISHED)
            raise CheckpointError(
                f"{where}, read in {layout.name} layout, does not say how its images were normalised: state "
                f"network.mean and network.std (their code: {mean} and {std})"
            )
        return tensors
    for key, own in zip(NORMALISE, (network.mean, network.std), strict=True):
        given = tensors.get(key, torch.zeros(0)).flatten().to(own)
        if given.shape != own.flatten().shape or not torch.allclose(given, own.flatten(), rtol=0, atol=TOLERANCE):
            raise CheckpointError(
                f"{where} normalises its images by {key} {_rounded(given)}, the network by {_rounded(own.flatten())}: "
                f"state network.mean and network.std as the file has them"
            )
    return {key: tensor for key, tensor in tensors.items() if key not in NORMALISE}


def _rounded(values: torch.Tensor) -> list[float]:
    return [round(value, 6) for value in values.tolist()]


def _load(network: Network, keys: Mapping[str, str], tensors: Tensors) -> None:
    own = network.body.state_dict()
    network.body.load_state_dict({key: tensors[theirs].reshape(own[key].shape) for key, theirs in keys.items()})


@torch.no_grad()
def _spread(plain: Network, network: Network) -> None:
    """Copy a network of plain BN into one with more norms: each member starts as the BN of its layer."""
    norms = {name: module for name, module in plain.body.named_modules() if isinstance(module, Norm)}
    rest = {key: value for key, value in plain.body.state_dict().items() if ".members." not in key}
    unexpected = network.body.load_state_dict(rest, strict=False).unexpected_keys
    assert not unexpected, unexpected
    for name, module in network.body.named_modules():
        if isinstance(module, Norm):
            for member in module.members:
                start_member(member, norms[name].members[0])  # type: ignore[arg-type]
