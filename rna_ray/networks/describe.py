"""The networks that a sweep can name, described without torch: their norm layers, their cost, where they are built.

A new network is one file with a module built as `build(norm, width=…, channels=…, classes=…)`, and one record here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from rna_ray.errors import SweepError, unknown
from rna_ray.networks.spaces import NormLayer

Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """What `plan` needs to know of a network: its norm layers in forward order, and its multiply-adds an example."""

    layers: tuple[NormLayer, ...]
    macs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkInfo:
    """A network that a sweep can name."""

    name: str
    about: str
    width: int  # the paper's width, in channels of the first stage
    build: str  # "module:function", imported when a unit runs
    describe: Callable[[int, Shape, int], Description]


def _residual(blocks: tuple[int, ...]) -> Callable[[int, Shape, int], Description]:
    """Describe a pre-2016 residual network of basic blocks, its width doubled and its size halved at each stage."""

    def describe(width: int, shape: Shape, classes: int) -> Description:
        channels_in, height, across = shape
        layers, macs, channels = [], 0, width

        def conv(name: str, inputs: int, outputs: int, kernel: int) -> None:
            nonlocal macs
            macs += inputs * outputs * kernel * kernel * height * across
            layers.append(NormLayer(name=name, channels=outputs, height=height, width=across))

        conv("norm", channels_in, channels, 3)
        for stage, depth in enumerate(blocks):
            for block in range(depth):
                inputs, channels, place = channels, width << stage, f"stages.{stage}.{block}"
                if stage and not block:
                    height, across = -(-height // 2), -(-across // 2)
                conv(f"{place}.norm1", inputs, channels, 3)
                conv(f"{place}.norm2", channels, channels, 3)
                if inputs != channels:
                    conv(f"{place}.shortcut_norm", inputs, channels, 1)
        return Description(layers=tuple(layers), macs=macs + channels * classes)

    return describe


_RECORDS = (
    NetworkInfo(
        name="resnet18",
        about="ResNet-18 with the CIFAR stem (3x3, no pooling): four stages of two basic blocks, 20 norm layers.",
        width=64,
        build="rna_ray.networks.resnet:resnet18",
        describe=_residual((2, 2, 2, 2)),
    ),
    NetworkInfo(
        name="resnet8",
        about="Three stages of one basic block, 9 norm layers: for small images and for trying things out.",
        width=16,
        build="rna_ray.networks.resnet:resnet8",
        describe=_residual((1, 1, 1)),
    ),
)
NETWORKS: dict[str, NetworkInfo] = {record.name: record for record in _RECORDS}
assert len(NETWORKS) == len(_RECORDS), "two networks share a name"


def network(name: str) -> NetworkInfo:
    """Return the record of a network; an unknown name is a SweepError that lists the known ones."""
    if name not in NETWORKS:
        raise SweepError(unknown("network", name, NETWORKS))
    return NETWORKS[name]


def describe(name: str, *, width: int | None, image_shape: Shape, classes: int) -> Description:
    """Return a network's description for images of (channels, height, width); `width` None is the paper's."""
    record = network(name)
    return record.describe(record.width if width is None else width, image_shape, classes)
