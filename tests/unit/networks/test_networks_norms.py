"""Each norm against torch's own layer, or, where torch has none, against a float64 reference."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rna_ray.errors import SpaceError
from rna_ray.networks import paths
from rna_ray.networks.norms import BatchGroupNorm, Norm
from rna_ray.networks.spaces import NormLayer, parse

CHANNELS, SIZE, EXAMPLES = 8, 5, 6
BOUND = {"rtol": 1e-5, "atol": 1e-5}


def norm(space: str, channels: int = CHANNELS, size: int = SIZE, seed: int = 0) -> Norm:
    """Build a layer whose affine parameters are all different."""
    layer = Norm(channels, parse(space).at(NormLayer(name="n", channels=channels, height=size, width=size)), name="n")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) + 1)
    return layer


def images(seed: int = 0, examples: int = EXAMPLES, channels: int = CHANNELS, size: int = SIZE) -> torch.Tensor:
    """Images whose examples and channels have different means and spreads."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, channels, size, size, generator=generator)
    spread = torch.rand(examples, channels, 1, 1, generator=generator) * 2 + 0.5
    return x * spread + torch.randn(examples, channels, 1, 1, generator=generator)


TORCH_LAYERS = {
    "BN": lambda: nn.BatchNorm2d(CHANNELS),
    "BN(affine=false)": lambda: nn.BatchNorm2d(CHANNELS, affine=False),
    "IN": lambda: nn.InstanceNorm2d(CHANNELS, affine=True),
    "IN(affine=false)": lambda: nn.InstanceNorm2d(CHANNELS),
    "LN": lambda: nn.GroupNorm(1, CHANNELS),
    "GN4": lambda: nn.GroupNorm(4, CHANNELS),
    "GN[4]": lambda: nn.GroupNorm(2, CHANNELS),
    "GN[4](affine=false)": lambda: nn.GroupNorm(2, CHANNELS, affine=False),
}


def compare(ours: nn.Module, theirs: nn.Module, x: torch.Tensor) -> None:
    """Both give the same output and the same gradients of a loss that weighs every element differently."""
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(9))
    results = []
    for layer in (ours, theirs):
        layer.zero_grad()
        z = x.clone().requires_grad_()
        y = layer(z)
        (y * weights).sum().backward()
        results.append([y.detach(), z.grad, *(parameter.grad for parameter in layer.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, **BOUND)


@pytest.mark.parametrize("name", TORCH_LAYERS)
@pytest.mark.parametrize("kernel", ["native", "mixture"])
def test_a_norm_equals_torchs_own_in_training_and_evaluation(name: str, kernel: str) -> None:
    """A mixture in which everyone takes the first member must be that member, and leave the others' gradients zero."""
    ours, theirs = norm(name), TORCH_LAYERS[name]()
    if kernel == "mixture":
        ours = norm(f"{name}+GN[2](affine=false)")
        member = [str(m) for m in parse(f"{name}+GN[2](affine=false)").members].index(parse(name).canonical)
        ours.path = torch.full((EXAMPLES,), member)
        ours.members[1 - member].requires_grad_(False)
        ours = ours.members[member] if kernel == "native" else ours
    theirs.load_state_dict(own_state(ours, theirs), strict=False)
    for step in range(3):
        compare(ours, theirs, images(step))
    ours.eval(), theirs.eval()
    compare(ours, theirs, images(7))
    if isinstance(theirs, nn.BatchNorm2d):
        tracked = next(module for module in ours.modules() if isinstance(module, BatchGroupNorm))
        torch.testing.assert_close(tracked.running_mean, theirs.running_mean, **BOUND)
        torch.testing.assert_close(tracked.running_var, theirs.running_var, **BOUND)


def own_state(ours: nn.Module, theirs: nn.Module) -> dict[str, torch.Tensor]:
    """Name the affine parameters of a layer as torch's layer names its own."""
    wanted = [name for name, _ in theirs.named_parameters()]
    return dict(zip(wanted, (parameter.detach() for parameter in ours.parameters()), strict=True))


def batch_group_norm(
    x: torch.Tensor, groups: int, weight: torch.Tensor, bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (output, group means, unbiased group variances) of batch group normalisation in training, by loops."""
    y, means, variances = torch.zeros_like(x), [], []
    size = x.shape[1] // groups
    for group in range(groups):
        values = x[:, group * size : (group + 1) * size]
        mean = values.sum() / values.numel()
        spread = ((values - mean) ** 2).sum()
        means.append(mean), variances.append(spread / (values.numel() - 1))
        y[:, group * size : (group + 1) * size] = (values - mean) / torch.sqrt(spread / values.numel() + 1e-5)
    return y * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1), torch.stack(means), torch.stack(variances)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
@pytest.mark.parametrize("kernel", ["native", "mixture"])
def test_batch_group_norm_equals_its_definition(groups: int, kernel: str) -> None:
    layer = norm(f"BGN{groups}+GN[2](affine=false)")
    member = layer.members[0]
    layer.path = 0 if kernel == "native" else torch.zeros(EXAMPLES, dtype=torch.int64)
    running_mean, running_var = torch.zeros(groups, dtype=torch.float64), torch.ones(groups, dtype=torch.float64)
    for step in range(4):
        x = images(step)
        z = x.double().requires_grad_()
        expected, mean, variance = batch_group_norm(z, groups, member.weight.double(), member.bias.double())
        ours = x.clone().requires_grad_()
        y = layer(ours)
        running_mean = 0.9 * running_mean + 0.1 * mean.detach()
        running_var = 0.9 * running_var + 0.1 * variance.detach()
        torch.testing.assert_close(y.double(), expected, **BOUND)
        gradients = [torch.autograd.grad((out.cos() * out).sum(), at)[0] for out, at in ((y, ours), (expected, z))]
        torch.testing.assert_close(gradients[0].double(), gradients[1], **BOUND)
    torch.testing.assert_close(member.running_mean.double(), running_mean, **BOUND)
    torch.testing.assert_close(member.running_var.double(), running_var, **BOUND)
    layer.eval()
    x = images(9)
    rows = [value.repeat_interleave(CHANNELS // groups).view(1, -1, 1, 1) for value in (running_mean, running_var)]
    expected = (x.double() - rows[0]) / torch.sqrt(rows[1] + 1e-5)
    expected = expected * member.weight.view(1, -1, 1, 1) + member.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(layer(x).double(), expected, **BOUND)


@pytest.mark.parametrize("mode", ["train", "train_frozen"])
@pytest.mark.parametrize("space", ["BN", "BN(affine=false)", "BN+LN"])
def test_one_sample_in_training_does_not_divide_by_zero(space: str, mode: str) -> None:
    layer = norm(space, size=1)
    batch = layer.members[0]
    layer.path = torch.zeros(1, dtype=torch.int64)
    x = images(examples=1, size=1).requires_grad_()
    with paths.mode(layer, mode):
        y = layer(x)
    y.sum().backward()
    bias = torch.zeros(CHANNELS) if batch.bias is None else batch.bias
    torch.testing.assert_close(y.flatten(), bias, rtol=0, atol=1e-3)  # 1/sqrt(eps) times the rounding of x
    torch.testing.assert_close(x.grad, torch.zeros_like(x), rtol=0, atol=1e-3)
    mean, variance = (0.1 * x.flatten(), 0.9) if mode == "train" else (torch.zeros(CHANNELS), 1.0)
    torch.testing.assert_close(batch.running_mean, mean.detach())
    torch.testing.assert_close(batch.running_var, torch.full((CHANNELS,), variance))


@pytest.mark.parametrize("space", ["BN", "BGN[4]", "BN+BGN[4]+IN"])
def test_train_frozen_takes_the_batchs_statistics_and_updates_none(space: str) -> None:
    layer, twin = norm(space), norm(space)
    for each in (layer, twin):
        each.path = torch.arange(EXAMPLES) % len(each.members)
    layer.eval()
    with paths.mode(layer, "train_frozen"):
        y = layer(images())
    torch.testing.assert_close(y, twin(images()))
    assert not layer.training
    batch = [member for member in layer.members if isinstance(member, BatchGroupNorm)]
    assert all(member.update and member.running_mean.eq(0).all() and member.running_var.eq(1).all() for member in batch)
    with pytest.raises(ValueError, match="'frozen'"), paths.mode(layer, "frozen"):
        pass


def test_one_pixel_and_a_wrong_shape_are_refused_naming_the_layer() -> None:
    layer = norm("BN+IN")
    layer.path = 0
    with pytest.raises(SpaceError, match="layer n sees 1x1 pixels"):
        layer(images(size=1))
    with pytest.raises(SpaceError, match=r"layer n normalises \(N, 8, H, W\), but was given \(6, 4, 5, 5\)"):
        layer(images(channels=4))
    with pytest.raises(SpaceError, match=r"\(6, 8\)"):
        layer(images()[:, :, 0, 0])


def test_a_random_layer_without_a_path_says_so() -> None:
    with pytest.raises(RuntimeError, match="layer n holds 2 norms and no path"):
        norm("BN+IN")(images())


def test_layers_keep_the_memory_format_and_dtype_of_their_input() -> None:
    layer = norm("BN+BGN[4]+IN")
    x = images().to(memory_format=torch.channels_last)
    for path in (0, 1, 2, torch.tensor([0, 1, 2, 0, 1, 2])):
        layer.path = path
        torch.testing.assert_close(layer.eval()(x), layer(x.contiguous()), **BOUND)
        assert layer(x.bfloat16()).dtype is torch.bfloat16


def test_group_norm_is_what_torch_computes_in_float64() -> None:
    x = images().double()
    layer = norm("GN[2]").double()
    member = layer.members[0]
    torch.testing.assert_close(layer(x), F.group_norm(x, 4, member.weight, member.bias), rtol=1e-12, atol=1e-12)
