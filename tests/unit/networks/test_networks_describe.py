"""What is said of a network without torch is what torch builds."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from rna_ray.errors import SweepError
from rna_ray.networks.build import Network, build
from rna_ray.networks.describe import NETWORKS, describe, network
from rna_ray.networks.norms import Norm

IMAGES = [(3, 32, 32), (1, 28, 28), (1, 8, 8), (3, 13, 9)]
BUILT = [(name, shape) for name in NETWORKS for shape in IMAGES if name != "stn-mnist" or min(shape[1:]) >= 9]


def built(name: str, shape: tuple[int, int, int], width: int) -> Network:
    settings = {"name": name, "width": width, "norm": "BN", "layer_based": False, "paths": "example"}
    return build(settings, shape=shape, classes=7, mean=(0.5,) * shape[0], std=(0.2,) * shape[0], seed=0)


def measure(module: nn.Module, x: torch.Tensor) -> tuple[dict[str, tuple[int, ...]], int]:
    """Return the size at which each norm layer stands, by its own name, and the multiply-adds of one example."""
    sizes: dict[str, tuple[int, ...]] = {}
    macs = 0

    def count(part: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal macs
        if isinstance(part, Norm):
            sizes[part.name] = tuple(inputs[0].shape[1:])
        elif isinstance(part, nn.Conv2d):
            macs += output[0].numel() * part.weight[0].numel()
        elif isinstance(part, nn.Linear):
            macs += part.weight.numel()

    for part in module.modules():
        part.register_forward_hook(count)
    module.eval()(x)
    return sizes, macs


@pytest.mark.parametrize(("name", "shape"), BUILT)
def test_a_description_equals_the_built_network(name: str, shape: tuple[int, int, int]) -> None:
    description = describe(name, width=8, image_shape=shape, classes=7)
    module = built(name, shape, 8)
    sizes, macs = measure(module, torch.rand(1, *shape))
    assert {layer.name: (layer.channels, layer.height, layer.width) for layer in description.layers} == sizes
    assert macs == description.macs
    assert bool(sizes) == network(name).norms
    norms = {name.removeprefix("body."): part for name, part in module.named_modules() if isinstance(part, Norm)}
    assert [layer.name for layer in description.layers] == list(norms)
    assert all(part.name == name for name, part in norms.items())


def test_resnet18_has_twenty_norm_layers_and_the_papers_cost() -> None:
    description = describe("resnet18", width=None, image_shape=(3, 32, 32), classes=10)
    assert len(description.layers) == 20
    assert description.layers[0].channels == 64
    assert description.layers[-1].channels == 512
    assert description.macs == pytest.approx(0.556e9, rel=0.01)
    assert len(describe("resnet8", width=16, image_shape=(1, 8, 8), classes=10).layers) == 9


def test_wide_resnet_34_is_widened_behind_a_stem_of_16() -> None:
    description = describe("wide-resnet-34", width=None, image_shape=(3, 32, 32), classes=10)
    assert len(description.layers) == 31
    assert [layer.channels for layer in description.layers[:3]] == [16, 160, 160]
    assert (description.layers[-1].name, description.layers[-1].channels) == ("norm", 640)
    assert description.macs == pytest.approx(6.66e9, rel=0.01)


def test_resnet50_has_53_norm_layers_and_the_published_cost() -> None:
    description = describe("resnet50", width=None, image_shape=(3, 224, 224), classes=1000)
    assert len(description.layers) == 53
    assert (description.layers[0].height, description.layers[1].height, description.layers[-1].height) == (112, 56, 7)
    assert description.macs == pytest.approx(4.09e9, rel=0.01)


@pytest.mark.parametrize(("name", "layers"), [("cifar-resnet20", 21), ("cifar-resnet38", 39), ("cifar-resnet50", 51)])
def test_cifar_resnets_have_three_stages_of_16_32_and_64_channels(name: str, layers: int) -> None:
    description = describe(name, width=None, image_shape=(3, 32, 32), classes=10)
    assert len(description.layers) == layers
    sizes = {(layer.channels, layer.height) for layer in description.layers}
    assert sizes == {(16, 32), (32, 16), (64, 8)}


@pytest.mark.parametrize(("name", "layers", "macs"), [("vgg11", 8, 0.153e9), ("vgg16", 13, 0.313e9)])
def test_vggs_have_a_norm_after_each_convolution_and_the_known_cost(name: str, layers: int, macs: float) -> None:
    description = describe(name, width=None, image_shape=(3, 32, 32), classes=10)
    assert len(description.layers) == layers
    assert {(layer.channels, layer.height) for layer in description.layers} == {
        (64, 32), (128, 16), (256, 8), (512, 4), (512, 2)
    }  # fmt: skip
    assert description.macs == pytest.approx(macs, rel=0.01)


def test_networks_build_alike_from_a_seed_and_leave_the_global_generator() -> None:
    before = torch.get_rng_state()
    one, same = (built("resnet8", (1, 8, 8), 4).state_dict() for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)


def test_an_unknown_network_lists_the_known_ones() -> None:
    with pytest.raises(SweepError, match=r"unknown network 'resnet19'; did you mean 'resnet18'\? Known: .*resnet8"):
        network("resnet19")


def test_descriptions_and_spaces_import_no_torch() -> None:
    code = "import sys, rna_ray.networks.describe, rna_ray.networks.spaces; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
