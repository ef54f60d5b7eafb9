"""The networks that a sweep can name, described without torch: their norm layers, their cost, where they are built.

A new network is one file with a module built as `build(norm, width=…, channels=…, classes=…, activation=…)`, and one
record here; where the record says `sized`, `size=…`, the images' (height, width), is given too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from rna_ray.errors import SweepError, unknown
from rna_ray.networks.spaces import NormLayer, parse_one

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
    norms: bool = True  # whether it has norm layers; one without takes the norm `none` alone
    activation: str = "relu"  # its own, where a sweep names none
    sized: bool = False  # whether the size of its layers hangs on that of the images


class _Walk:
    """Follows one image through a network: the size it has, the multiply-adds so far, the norm layers it passed."""

    def __init__(self, shape: Shape) -> None:
        self.channels, self.height, self.width = shape
        self.macs = 0
        self.layers: list[NormLayer] = []

    def shrink(self, stride: int) -> None:
        """Go through a padded window, which leaves the size, divided by its stride and rounded up."""
        self.height, self.width = -(-self.height // stride), -(-self.width // stride)

    def conv(self, channels: int, kernel: int, stride: int = 1) -> None:
        self.shrink(stride)
        self.branch(self.channels, channels, kernel)
        self.channels = channels

    def branch(self, inputs: int, channels: int, kernel: int) -> None:
        """Count a convolution that ends where the walk stands, such as a shortcut's."""
        self.macs += inputs * channels * kernel * kernel * self.height * self.width

    def valid(self, channels: int, kernel: int) -> None:
        """Go through a convolution without padding, which takes kernel - 1 pixels off the size."""
        self.height, self.width = self.height - kernel + 1, self.width - kernel + 1
        self.branch(self.channels, channels, kernel)
        self.channels = channels

    def norm(self, name: str) -> None:
        self.layers.append(NormLayer(name=name, channels=self.channels, height=self.height, width=self.width))

    def end(self, classes: int) -> Description:
        """Return what was seen, with the head after average pooling."""
        return Description(layers=tuple(self.layers), macs=self.macs + self.channels * classes)


def _residual(blocks: tuple[int, ...]) -> Callable[[int, Shape, int], Description]:
    """Describe a residual network of basic blocks, its width doubled and its size halved at each stage."""

    def describe(width: int, shape: Shape, classes: int) -> Description:
        walk = _Walk(shape)
        walk.conv(width, 3)
        walk.norm("norm")
        for place, channels, stride in _blocks(blocks, width):
            inputs = walk.channels
            walk.conv(channels, 3, stride)
            walk.norm(f"{place}.norm1")
            walk.conv(channels, 3)
            walk.norm(f"{place}.norm2")
            if inputs != channels:
                walk.branch(inputs, channels, 1)
                walk.norm(f"{place}.shortcut_norm")
        return walk.end(classes)

    return describe


def _wide(depth: int) -> Callable[[int, Shape, int], Description]:
    """Describe a wide residual network: pre-activation blocks, `depth` in each of three stages, after 16 channels."""

    def describe(width: int, shape: Shape, classes: int) -> Description:
        walk = _Walk(shape)
        walk.conv(16, 3)
        for place, channels, stride in _blocks((depth,) * 3, width):
            inputs = walk.channels
            walk.norm(f"{place}.norm1")
            walk.conv(channels, 3, stride)
            walk.norm(f"{place}.norm2")
            walk.conv(channels, 3)
            if inputs != channels:
                walk.branch(inputs, channels, 1)
        walk.norm("norm")
        return walk.end(classes)

    return describe


def _bottleneck(blocks: tuple[int, ...]) -> Callable[[int, Shape, int], Description]:
    """Describe a residual network of bottlenecks behind the ImageNet stem."""

    def describe(width: int, shape: Shape, classes: int) -> Description:
        walk = _Walk(shape)
        walk.conv(width, 7, 2)
        walk.norm("norm")
        walk.shrink(2)
        for place, channels, stride in _blocks(blocks, width):
            inputs = walk.channels
            walk.conv(channels, 1)
            walk.norm(f"{place}.norm1")
            walk.conv(channels, 3, stride)
            walk.norm(f"{place}.norm2")
            walk.conv(4 * channels, 1)
            walk.norm(f"{place}.norm3")
            if inputs != 4 * channels:
                walk.branch(inputs, 4 * channels, 1)
                walk.norm(f"{place}.shortcut_norm")
        return walk.end(classes)

    return describe


def _vgg(depths: tuple[int, ...]) -> Callable[[int, Shape, int], Description]:
    """Describe a VGG: stages of convolutions, each ended by pooling, with doubled channels up to the fourth."""

    def describe(width: int, shape: Shape, classes: int) -> Description:
        walk = _Walk(shape)
        for stage, depth in enumerate(depths):
            for at in range(depth):
                walk.conv(width << min(stage, 3), 3)
                walk.norm(f"stages.{stage}.{at}.norm")
            walk.shrink(2)
        return walk.end(classes)

    return describe


def _stn_mnist(width: int, shape: Shape, classes: int) -> Description:
    """Describe STN's network for MNIST: two convolutions without padding, a hidden layer and a head."""
    walk, (_, height, across) = _Walk(shape), shape
    if min(height, across) < 9:
        raise SweepError(
            f"network.name: stn-mnist has two 5x5 convolutions without padding, for which images of {height}x{across} "
            "pixels are too small; allowed are 9x9 and larger"
        )
    walk.valid(width, 5)
    walk.valid(width, 5)
    hidden = width * walk.height * walk.width * 2 * width
    return Description(layers=(), macs=walk.macs + hidden + 2 * width * classes)


def _stn_cifar10(width: int, shape: Shape, classes: int) -> Description:
    """Describe STN's network for CIFAR-10: three stages of two convolutions, and one that gives the logits."""
    walk = _Walk(shape)
    for stage, (channels, kernel) in enumerate(((width, 5), (2 * width, 5), (8 * width // 3, 3))):
        walk.shrink(2 if stage else 1)
        walk.conv(channels, kernel)
        walk.conv(channels, 1)
    walk.conv(classes, 1)
    return Description(layers=(), macs=walk.macs)


def _blocks(blocks: tuple[int, ...], width: int) -> Iterator[tuple[str, int, int]]:
    """Yield each block's place, channels and stride: the channels double and the size halves at each stage."""
    for stage, depth in enumerate(blocks):
        for block in range(depth):
            yield f"stages.{stage}.{block}", width << stage, 2 if stage and not block else 1


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
    NetworkInfo(
        name="wide-resnet-34",
        about="WideResNet-34: three stages of five pre-activation blocks, 31 norm layers; width 160 is widen 10.",
        width=160,
        build="rna_ray.networks.wide_resnet:wide_resnet_34",
        describe=_wide(5),
    ),
    NetworkInfo(
        name="resnet50",
        about="ResNet-50 with the ImageNet stem (7x7, max-pooling): four stages of bottlenecks, 53 norm layers.",
        width=64,
        build="rna_ray.networks.resnet50:resnet50",
        describe=_bottleneck((3, 4, 6, 3)),
    ),
    NetworkInfo(
        name="cifar-resnet20",
        about="ResNet-20 of the CIFAR kind (6n+2): three stages of 3 basic blocks, 21 norm layers.",
        width=16,
        build="rna_ray.networks.resnet:cifar_resnet20",
        describe=_residual((3, 3, 3)),
    ),
    NetworkInfo(
        name="cifar-resnet38",
        about="ResNet-38 of the CIFAR kind (6n+2): three stages of 6 basic blocks, 39 norm layers.",
        width=16,
        build="rna_ray.networks.resnet:cifar_resnet38",
        describe=_residual((6, 6, 6)),
    ),
    NetworkInfo(
        name="cifar-resnet50",
        about="ResNet-50 of the CIFAR kind (6n+2): three stages of 8 basic blocks, 51 norm layers.",
        width=16,
        build="rna_ray.networks.resnet:cifar_resnet50",
        describe=_residual((8, 8, 8)),
    ),
    NetworkInfo(
        name="vgg11",
        about="VGG-11 for small images: 8 convolutions, a norm after each, five max-poolings, one linear layer.",
        width=64,
        build="rna_ray.networks.vgg:vgg11",
        describe=_vgg((1, 1, 2, 2, 2)),
    ),
    NetworkInfo(
        name="vgg16",
        about="VGG-16 for small images: 13 convolutions, a norm after each, five max-poolings, one linear layer.",
        width=64,
        build="rna_ray.networks.vgg:vgg16",
        describe=_vgg((2, 2, 3, 3, 3)),
    ),
    NetworkInfo(
        name="stn-mnist",
        about="STN's network for MNIST: two 5x5 convolutions, a hidden layer of 128, dropout; no norm layers.",
        width=64,
        build="rna_ray.networks.convnets:stn_mnist",
        describe=_stn_mnist,
        norms=False,
        sized=True,
    ),
    NetworkInfo(
        name="stn-cifar10",
        about="STN's network for CIFAR-10: seven convolutions, two max-poolings, dropout, ELU; no norm layers.",
        width=96,
        build="rna_ray.networks.convnets:stn_cifar10",
        describe=_stn_cifar10,
        norms=False,
        activation="elu",
    ),
)
NETWORKS: dict[str, NetworkInfo] = {record.name: record for record in _RECORDS}
assert len(NETWORKS) == len(_RECORDS), "two networks share a name"


def network(name: str) -> NetworkInfo:
    """Return the record of a network; an unknown name is a SweepError that lists the known ones."""
    if name not in NETWORKS:
        raise SweepError(unknown("network", name, NETWORKS))
    return NETWORKS[name]


def describe(
    name: str, *, width: int | None, image_shape: Shape, classes: int, last_norm: str | None = None
) -> Description:
    """Return a network's description for images of (channels, height, width); `width` None is the paper's.

    `last_norm` is the one norm of the last norm layer, where that is not drawn from the network's space.
    """
    record = network(name)
    found = record.describe(record.width if width is None else width, image_shape, classes)
    if last_norm is None or not record.norms:
        return found
    *others, last = found.layers
    return dataclasses.replace(found, layers=(*others, dataclasses.replace(last, only=parse_one(last_norm))))
