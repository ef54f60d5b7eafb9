"""WideResNet-34 against its known size and a reference block; ResNet-50 against torchvision's; the activations."""

from __future__ import annotations

import math
import pickle
from typing import get_args

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from rna_ray.networks.activation import ACTIVATIONS
from rna_ray.networks.build import Network, build
from rna_ray.networks.paths import random_layers
from rna_ray.networks.wide_resnet import PreactivationBlock
from rna_ray.sweep.sections import Network as NetworkSection


def built(name: str, *, width: int, norm: str = "BN", **more: str) -> Network:
    settings = {"name": name, "width": width, "norm": norm, "layer_based": False, "paths": "example", **more}
    return build(settings, shape=(3, 32, 32), classes=10, mean=(0.5,) * 3, std=(0.2,) * 3, seed=0)


def stirred(module: nn.Module) -> nn.Module:
    """Give every parameter and running statistic another value than its first one, so that each is seen."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*module.parameters(), *(one for one in module.buffers() if one.is_floating_point())):
            tensor.mul_(1 + 0.2 * torch.rand(tensor.shape, generator=random))
            tensor.add_(0.05 * torch.rand(tensor.shape, generator=random))
    return module


def test_wide_resnet_34_10_has_the_known_number_of_parameters() -> None:
    with torch.device("meta"):
        body = built("wide-resnet-34", width=160).body
    assert sum(parameter.numel() for parameter in body.parameters()) == 46_160_474


def test_a_preactivation_block_is_the_papers() -> None:
    block = stirred(PreactivationBlock("block", 4, 8, 2, lambda name, channels: nn.BatchNorm2d(channels), F.relu))
    x = torch.randn(3, 4, 6, 6)
    o1 = torch.relu(F.batch_norm(x, None, None, block.norm1.weight, block.norm1.bias, training=True))
    y = F.conv2d(o1, block.conv1.weight, stride=2, padding=1)
    o2 = torch.relu(F.batch_norm(y, None, None, block.norm2.weight, block.norm2.bias, training=True))
    expected = F.conv2d(o2, block.conv2.weight, padding=1) + F.conv2d(o1, block.shortcut.weight, stride=2)
    assert torch.allclose(block(x), expected, atol=1e-5)
    same = stirred(PreactivationBlock("block", 4, 4, 1, lambda name, channels: nn.Identity(), F.relu))
    y = F.conv2d(torch.relu(x), same.conv1.weight, padding=1)
    expected = x + F.conv2d(torch.relu(y), same.conv2.weight, padding=1)
    assert not hasattr(same, "shortcut") and torch.allclose(same(x), expected, atol=1e-5)


def test_every_norm_of_a_wide_resnet_is_of_the_space_the_stems_clamped() -> None:
    network = built("wide-resnet-34", width=32, norm="BN+GN32")
    layers = random_layers(network)
    assert len(layers) == 31 and layers[-1].name == "norm"
    assert [member.groups for member in layers[0].members] == [16, 16]  # 32 groups of 16 channels are 16
    assert [member.groups for member in layers[-1].members] == [128, 32]


def from_torchvision(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return torchvision's parameters under our names: the same tensors, one for one."""
    stem = {"conv1": "conv", "bn1": "norm.members.0", "fc": "head"}
    shortcut = {"0": "shortcut", "1": "shortcut_norm.members.0"}
    block = {f"conv{at}": f"conv{at}" for at in (1, 2, 3)} | {f"bn{at}": f"norm{at}.members.0" for at in (1, 2, 3)}
    ours = {}
    for key, tensor in theirs.items():
        if key.endswith("num_batches_tracked"):
            continue
        *place, part, what = key.split(".")
        if not place:
            ours[f"{stem[part]}.{what}"] = tensor
        else:
            stage, at, *below = place
            name = shortcut[part] if below else block[part]
            ours[f"stages.{int(stage.removeprefix('layer')) - 1}.{at}.{name}.{what}"] = tensor
    return ours


def momentum(network: nn.Module, value: float) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = value
    return network


@pytest.mark.parametrize("training", [False, True])
def test_resnet50_is_torchvisions_parameter_for_parameter(training: bool) -> None:
    theirs = stirred(torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [3, 4, 6, 3], num_classes=10))
    x, body = torch.randn(2, 3, 64, 80), built("resnet50", width=64).body
    with torch.no_grad():
        momentum(theirs, 1.0).train()(x + 0.1)  # running statistics under which 53 layers neither blow up nor fade
        momentum(theirs, 0.1)
        body.load_state_dict(from_torchvision(theirs.state_dict()), strict=True)
        expected, found = theirs.train(training)(x), body.train(training)(x)
    assert expected.std() > 0.01
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    running = from_torchvision(theirs.state_dict())
    assert all(torch.allclose(tensor, running[key], atol=1e-4) for key, tensor in body.state_dict().items())


def test_the_activations_are_those_that_a_sweep_may_name() -> None:
    assert get_args(NetworkSection.model_fields["activation"].annotation) == tuple(ACTIVATIONS)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda x: max(x, 0.0)),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("softplus", lambda x: math.log1p(math.exp(10 * x)) / 10),
        ("gelu", lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2),
        ("elu", lambda x: x if x > 0 else math.expm1(x)),
    ],
)
def test_an_activation_is_its_formula(name: str, formula) -> None:
    x = torch.linspace(-4, 4, 101)
    assert torch.allclose(ACTIVATIONS[name](x), torch.tensor([formula(one) for one in x.tolist()]), atol=1e-6)


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "wide-resnet-34", "resnet50"])
def test_an_activation_takes_every_relus_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    relu, smooth = (built(name, width=4, activation=one).eval() for one in ("relu", "softplus"))
    x = torch.rand(2, 3, 32, 32)
    logits = smooth(x)
    assert not torch.allclose(logits, relu(x), atol=1e-4)
    monkeypatch.setattr(F, "relu", None)
    monkeypatch.setattr(torch, "relu", None)
    assert torch.equal(smooth(x), logits)
    assert torch.equal(pickle.loads(pickle.dumps(smooth))(x), logits)


def test_without_an_activation_a_network_is_what_it_was() -> None:
    without, named = built("resnet8", width=4), built("resnet8", width=4, activation="relu")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(without.eval()(x), named.eval()(x))
