"""WideResNet-34 and the CIFAR ResNets against their known sizes, a reference block, ResNet-50 and VGG against
torchvision's; the activations."""

from __future__ import annotations

import math
import pickle
from typing import get_args

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from rna_ray.errors import SpaceError
from rna_ray.networks.activation import ACTIVATIONS
from rna_ray.networks.build import Network, build
from rna_ray.networks.describe import NETWORKS, describe
from rna_ray.networks.paths import following, random_layers
from rna_ray.networks.wide_resnet import PreactivationBlock
from rna_ray.sweep.sections import Network as NetworkSection

SMALL = ("cifar-resnet20", "cifar-resnet38", "cifar-resnet50", "vgg11", "vgg16")
BARE = ("stn-mnist", "stn-cifar10")


def built(name: str, *, width: int, norm: str = "BN", side: int = 32, **more: str) -> Network:
    settings = {"name": name, "width": width, "norm": norm, "layer_based": False, "paths": "example", **more}
    return build(settings, shape=(3, side, side), classes=10, mean=(0.5,) * 3, std=(0.2,) * 3, seed=0)


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


def assert_answers_agree(theirs: nn.Module, ours: nn.Module, x: torch.Tensor) -> None:
    """With running statistics, then with the batch's own, which move the running ones."""
    for training in (False, True):
        expected, found = theirs.train(training)(x), ours.train(training)(x)
        assert expected.std() > 0.01
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_resnet50_is_torchvisions_parameter_for_parameter() -> None:
    torch.manual_seed(3)
    theirs = stirred(torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [3, 4, 6, 3], num_classes=10))
    x, body = torch.randn(2, 3, 64, 80), built("resnet50", width=64).body
    with torch.no_grad():
        momentum(theirs, 1.0).train()(x + 0.1)  # running statistics under which 53 layers neither blow up nor fade
        momentum(theirs, 0.1)
        body.load_state_dict(from_torchvision(theirs.state_dict()), strict=True)
        assert_answers_agree(theirs, body, x)
    running = from_torchvision(theirs.state_dict())
    assert all(torch.allclose(tensor, running[key], atol=1e-4) for key, tensor in body.state_dict().items())


@pytest.mark.parametrize(
    ("name", "published"), [("cifar-resnet20", 269_722), ("cifar-resnet38", 561_370), ("cifar-resnet50", 755_802)]
)
def test_a_cifar_resnet_has_the_published_parameters_and_its_projected_shortcuts(name: str, published: int) -> None:
    """He et al., Table 6: 0.27M for ResNet-20, 0.46M for 32, 0.66M for 44, 0.85M for 56, with 97,216 for each n."""
    body = built(name, width=NETWORKS[name].width).body
    sizes = {key: parameter.numel() for key, parameter in body.named_parameters()}
    projected = sum(size for key, size in sizes.items() if ".shortcut" in key)
    assert sum(sizes.values()) - projected == published
    assert projected == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert projected < 0.0103 * published


def their_vgg(name: str) -> nn.Module:
    """Return torchvision's VGG with batch norms, its classifier one linear layer."""
    theirs = getattr(torchvision.models, f"{name}_bn")(init_weights=False)
    return nn.Sequential(theirs.features, nn.Flatten(), nn.Linear(512, 10))


def to_our_vgg(theirs: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and statistics of `their_vgg` under our names."""
    ours: dict[str, torch.Tensor] = {}
    stage = at = 0
    for layer in theirs[0]:
        place = f"stages.{stage}.{at}"
        if isinstance(layer, nn.Conv2d):
            ours |= {f"{place}.conv.{key}": tensor for key, tensor in layer.state_dict().items()}
        elif isinstance(layer, nn.BatchNorm2d):
            held = {key: tensor for key, tensor in layer.state_dict().items() if key != "num_batches_tracked"}
            ours |= {f"{place}.norm.members.0.{key}": tensor for key, tensor in held.items()}
            at += 1
        elif isinstance(layer, nn.MaxPool2d):
            stage, at = stage + 1, 0
    return ours | {f"head.{key}": tensor for key, tensor in theirs[2].state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parameters"), [("vgg11", 9_231_114), ("vgg16", 14_728_266)])
def test_a_vgg_is_torchvisions_parameter_for_parameter(name: str, parameters: int) -> None:
    theirs, body = stirred(their_vgg(name)), built(name, width=64).body
    assert sum(parameter.numel() for parameter in body.parameters()) == parameters
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        momentum(theirs, 1.0).train()(x + 0.1)  # running statistics under which 13 layers neither blow up nor fade
        momentum(theirs, 0.1)
        body.load_state_dict(to_our_vgg(theirs), strict=True)
        assert_answers_agree(theirs, body, x)
    running = to_our_vgg(theirs)
    assert all(torch.allclose(tensor, running[key], atol=1e-4) for key, tensor in body.state_dict().items())


@pytest.mark.parametrize("name", SMALL)
def test_bn_and_in_are_drawn_at_every_layer_of_a_32x32_image(name: str) -> None:
    network = built(name, width=4, norm="BN+IN").train()
    x = torch.rand(4, 3, 32, 32)
    layers = random_layers(network)
    assert len(layers) == len(describe(name, width=4, image_shape=(3, 32, 32), classes=10).layers)
    logits = []
    for member in range(2):
        with following(network, torch.full((4, len(layers)), member)):
            logits.append(network(x))
    assert torch.isfinite(torch.stack(logits)).all() and not torch.allclose(*logits, atol=1e-3)
    logits[1].square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)


@pytest.mark.parametrize(("side", "layer"), [(16, r"stages\.4\.0\.norm"), (8, r"stages\.3\.0\.norm")])
@pytest.mark.parametrize("name", ["vgg11", "vgg16"])
def test_instance_norm_of_a_single_pixel_is_refused_by_the_layers_name(name: str, side: int, layer: str) -> None:
    with pytest.raises(SpaceError, match=rf"IN: layer {layer} has 1x1 pixels"):
        built(name, width=4, norm="BN+IN", side=side)


def test_the_activations_are_those_that_a_sweep_may_name() -> None:
    named, nothing = get_args(NetworkSection.model_fields["activation"].annotation)
    assert get_args(named) == tuple(ACTIVATIONS) and nothing is type(None)


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


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "wide-resnet-34", "resnet50", *SMALL, *BARE])
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
