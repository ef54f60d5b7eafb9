"""Random norms for any torch model: its BatchNorm2d, GroupNorm and InstanceNorm2d layers swapped in place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar, final

import torch
from torch import nn

from rna_ray.errors import SpaceError
from rna_ray.networks.norms import Norm, start_member
from rna_ray.networks.paths import PathSpace, path_space, random_layers
from rna_ray.networks.spaces import NormLayer, Space, parse
from rna_ray.randomness import Randomness

Model = TypeVar("Model", bound=nn.Module)
Swappable = nn.BatchNorm2d | nn.GroupNorm | nn.InstanceNorm2d

_SWAPPED = (nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d)  # exact types: a subclass may do more than normalise
_NAMED_NORM = re.compile(r"[Nn]orm(?!ali[sz]e)|LRN")  # `Normalize` is what models call the scaling of their input
_SIZE = 2  # a norm does not say at which size it stands: 1x1 is refused by Norm when it meets it


@final
class PathSource:
    """The generator of a randomised model: at each call it draws one path an example, never from torch's own.

    A path is a function of (seed, call, row of the batch); `call` counts the calls, and setting it back replays them.
    `last` is the path (N, L) of the last call.
    """

    def __init__(self, paths: PathSpace, seed: int) -> None:
        self.paths: PathSpace = paths
        self.random: Randomness = Randomness(f"randomize/{seed}")
        self.call: int = 0
        self.last: torch.Tensor | None = None
        self._following = False

    def draw(self, rows: int, device: torch.device) -> torch.Tensor:
        """Return the path (N, L) of the next call."""
        self.last = self.paths.draw(self.random, "path", torch.arange(rows, device=device), step=self.call)
        self.call += 1
        return self.last

    @torch.compiler.disable  # the count of calls would be compiled in as a constant, and every call compile again
    def before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Draw a path before a call of the model, unless the caller has set one (`paths.following`)."""
        layers = random_layers(model)
        if any(layer.path is not None for layer in layers):
            return
        images = next((value for value in [*args, *kwargs.values()] if isinstance(value, torch.Tensor)), None)
        if images is None:
            raise ValueError("a randomised model draws a path for each row of a tensor, and was called without one")
        for layer, step in zip(layers, self.draw(len(images), images.device).unbind(1), strict=True):
            layer.path = step
        self._following = True

    @torch.compiler.disable
    def after(self, model: nn.Module, *_: object) -> None:
        """Forget a path that `before` drew."""
        if self._following:
            for layer in random_layers(model):
                layer.path = None
            self._following = False


def randomize(model: Model, space: str, *, layer_based: bool = False, seed: int = 0) -> Model:
    """Swap the norm layers of a torch model, in place, for random ones over a space such as `BN+IN`.

    BatchNorm2d, GroupNorm and InstanceNorm2d layers are swapped; each member of the space starts from the weight and
    bias of the layer it replaces and keeps its eps, and BN and BGN start from its running statistics (followed with
    momentum 0.1, whatever the replaced layer used). The model then draws a path for each example at each call
    (`model.path_source`, seeded with `seed`), or follows one of `model.paths` inside
    `rna_ray.networks.paths.following(model, path)`.

    Raises SpaceError, with nothing swapped, for a space that does not parse or fit, a model without norm layers, and
    one with any other normalisation: every module whose class, or one it extends, has "Norm" in its name, apart from
    wrappers around norms (torchvision's Conv2dNormActivation) and the input's `Normalize`.
    """
    parsed = parse(space)
    found = _norms(model)
    layers = [_layer(name, norm) for name, norm in found.items()]
    like = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), torch.zeros(()))
    swaps = {id(norm): _swap(norm, parsed, layer, like) for norm, layer in zip(found.values(), layers, strict=True)}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # named_children() passes over a layer that is used twice
            if id(child) in swaps:
                setattr(parent, name, swaps[id(child)])
    return draw_paths(model, path_space(parsed, layers, layer_based=layer_based), seed)


def draw_paths(model: Model, paths: PathSpace, seed: int) -> Model:
    """Let a model with random layers draw one of the paths for each example at each call, as `randomize` says."""
    source = PathSource(paths, seed)
    model.paths, model.path_source = paths, source  # type: ignore[assignment]
    model.register_forward_pre_hook(source.before, with_kwargs=True)
    model.register_forward_hook(source.after, always_call=True)
    return model


def _norms(model: nn.Module) -> dict[str, Swappable]:
    """Return the layers to swap by name, in the model's order; SpaceError names all that cannot be."""
    found: dict[str, Swappable] = {}
    refused: dict[str, str] = {}
    for name, module in model.named_modules():
        if not name or name.startswith(tuple(f"{outer}." for outer in refused)):
            continue
        if type(module) in _SWAPPED:
            found[name] = module  # type: ignore[assignment]
        elif _normalises(module):
            refused[name] = type(module).__name__
    _refuse(model, found, refused)
    return found


def _refuse(model: nn.Module, found: Mapping[str, nn.Module], refused: Mapping[str, str]) -> None:
    what, kind = "randomize swaps the BatchNorm2d, GroupNorm and InstanceNorm2d layers in a model", type(model).__name__
    if refused:
        others = ", ".join(f"{name} ({norm})" for name, norm in refused.items())
        raise SpaceError(f"{what}, but this {kind} also normalises in {others}")
    if not found:
        raise SpaceError(f"{what}, and there are none in this {kind}")
    for name in ("paths", "path_source"):
        if hasattr(model, name):
            raise SpaceError(f"randomize gives a model the attribute {name!r}, which this {kind} already has")


def _normalises(module: nn.Module) -> bool:
    """Say whether a module is a norm, by its class's name or a class it extends; wrappers around norms are not."""
    if isinstance(module, Norm):
        return True
    if not any(_NAMED_NORM.search(kind.__name__) for kind in type(module).__mro__):
        return False
    inner = any(type(child) in _SWAPPED or _normalises(child) for child in list(module.modules())[1:])
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return bool(own) or not inner


def _layer(name: str, norm: Swappable) -> NormLayer:
    channels = norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features
    return NormLayer(name=name, channels=channels, height=_SIZE, width=_SIZE)


def _swap(norm: Swappable, space: Space, layer: NormLayer, like: torch.Tensor) -> Norm:
    """Return the random layer that stands in for a norm, on its device and in its dtype (else those of `like`)."""
    reference = norm.weight if norm.weight is not None else like
    swap = Norm(layer.channels, space.at(layer), name=layer.name, eps=norm.eps).to(reference.device, reference.dtype)
    with torch.no_grad():
        for member in swap.members:
            start_member(member, norm)  # type: ignore[arg-type]
    return swap.train(norm.training)
