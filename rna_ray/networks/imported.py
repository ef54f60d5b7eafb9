"""A network of the user's own: built by his function, taken for what it does with images, never trained here."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rna_ray.errors import NetworkError, sentence
from rna_ray.networks import source
from rna_ray.networks.build import Network
from rna_ray.networks.paths import PathSpace, following, mode, random_layers
from rna_ray.randomness import Randomness, global_state, seeded_generators

NEIGHBOURS = 1e-2
"""By how much a logit may change with an image's neighbours: rounding, and no more."""

_RANDOM = (
    "network.random: false was said of {}, but two passes over the same {} images gave other logits; leave it out"
)


def build(settings: Mapping[str, Any], *, root: str, seed: int) -> Network:
    """Return the network of an import unit's `network` settings, as the user's function builds it.

    The module must be the one whose digest the settings hold. Inside the function, the global generators start from
    `seed`; after it they are as they were. Raises NetworkError, naming this machine, where the module is missing,
    another one, or does not give a torch module. Call it inside `source.importing(root)`.
    """
    text = settings["import"]
    with seeded_generators(seed):
        body = _called(text, _function(text, root, settings["source_sha256"]))
    if not isinstance(body, nn.Module):
        raise NetworkError(f"network.import {text} returned {_kind(body)}; it must return a torch.nn.Module")
    if odd := [key for key, value in body.state_dict().items() if not isinstance(value, torch.Tensor)]:
        raise NetworkError(f"network.import {text}: the state {odd[0]} is no tensor, so it cannot be stored")
    return Network(body, path_space_of(body), mean=(0.0,), std=(1.0,), draws_globally=True)


def path_space_of(body: nn.Module) -> PathSpace:
    """Return the paths through the random norm layers of a module: those `rna_ray.randomize` left, else layer-free.

    Raises NetworkError where a part that draws once for all its layers stands beside other random layers.
    """
    layers = random_layers(body)
    parts = [part.paths for part in body.modules() if isinstance(getattr(part, "paths", None), PathSpace)]
    free = PathSpace(tuple(len(layer.members) for layer in layers))
    for paths in parts:
        if paths.choices is not None:
            if paths.sizes != free.sizes:
                raise NetworkError(
                    "a network with layer_based random norms and others beside them has no one path space; "
                    "call rna_ray.randomize once, on all of it"
                )
            return paths
    return free


def check(network: Network, images: torch.Tensor, *, classes: int, random: bool, name: str) -> None:
    """Raise NetworkError unless a network maps images (N, C, H, W) in [0, 1] to finite logits (N, classes).

    Where `random` is false, two passes under other global seeds and other paths must also agree bit for bit. An image's
    answer must not depend on its neighbours, which attacks that regroup images would change; looked at where nothing
    is drawn from a global generator.
    """
    answers = []
    with mode(network, "eval"), torch.no_grad():
        for draw in range(1 if random else 2):
            paths = network.paths.draw(Randomness(name), "check", torch.arange(len(images), device=images.device))
            if draw and network.paths.sizes:
                paths = (paths + 1) % torch.tensor(network.paths.sizes, device=images.device)
            with seeded_generators(draw):
                before = global_state(images.device)
                with following(network, paths):
                    answers.append(_answer(network, images, name))
                drew = global_state(images.device) != before
            _check_answer(answers[-1], len(images), classes, name)
            with seeded_generators(draw), following(network, paths):
                repeats = torch.equal(answers[-1], _answer(network, images, name))
            if not repeats and not random:
                raise NetworkError(_RANDOM.format(name, len(images)))
            if not draw and not drew and repeats:
                half = len(images) // 2
                with following(network, paths[:half]):
                    _check_alone(answers[0][:half], _answer(network, images[:half], name), name)
    if not random and not torch.equal(*answers):
        raise NetworkError(_RANDOM.format(name, len(images)))


def _function(text: str, root: str, sha256: str) -> Any:
    """Return the user's function, from the very file that was planned."""
    module, _, name = text.partition(":")
    try:
        file = source.find(text, root)
    except NetworkError as error:
        raise NetworkError(f"network.import: on {platform.node()} {error}") from None
    if source.sha256(file) != sha256:
        raise NetworkError(
            f"network.import: {file} on {platform.node()} is not the file that was planned: give every node the same"
        )
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        where = f"{file} cannot be imported on {platform.node()}"
        raise NetworkError(f"network.import: {where}: {sentence(error)}") from error
    if Path(imported.__file__ or "") != file:
        raise NetworkError(f"network.import: {module} is {imported.__file__} in this process already, not {file}")
    if not callable(function := getattr(imported, name, None)):
        raise NetworkError(f"network.import: {file} has no function {name}")
    return function


def _called(text: str, function: Any) -> Any:
    try:
        return function()
    except (Exception, SystemExit) as error:
        where = f"{text}() did not return on {platform.node()}"
        raise NetworkError(f"network.import: {where}: {sentence(error)}") from error


def _answer(network: Network, images: torch.Tensor, name: str) -> Any:
    try:
        return network(images)
    except Exception as error:
        raise NetworkError(f"{name} cannot take images {tuple(images.shape)} in [0, 1]: {sentence(error)}") from error


def _check_answer(answer: Any, examples: int, classes: int, name: str) -> None:
    if not isinstance(answer, torch.Tensor) or not answer.is_floating_point() or answer.shape != (examples, classes):
        raise NetworkError(
            f"{name} must answer {examples} images with logits ({examples}, {classes}), and gave {_kind(answer)}"
        )
    if not answer.isfinite().all():
        raise NetworkError(f"{name} gave logits that are not finite for test images")


def _check_alone(together: torch.Tensor, alone: torch.Tensor, name: str) -> None:
    if not torch.allclose(together.float(), alone.float(), rtol=NEIGHBOURS, atol=NEIGHBOURS):
        raise NetworkError(
            f"{name} answers an image otherwise when its neighbours are others, as a norm with the batch's own "
            "statistics does; give it running statistics"
        )


def _kind(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    return f"an object of type {type(value).__name__}"
