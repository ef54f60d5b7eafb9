"""RobustNorm and its kin against references in float64, written from the paper's equations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rna_ray.networks import paths
from rna_ray.networks.norms import Norm
from rna_ray.networks.spaces import NormLayer, parse

CHANNELS, SIZE, EXAMPLES = 6, 4, 5


def norm(space: str, seed: int = 0) -> Norm:
    """A layer in float64 whose affine parameters are all different."""
    at = NormLayer(name="n", channels=CHANNELS, height=SIZE, width=SIZE)
    layer = Norm(CHANNELS, parse(space).at(at), name="n").double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) + 1)
    return layer


def images(seed: int = 0, examples: int = EXAMPLES) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, CHANNELS, SIZE, SIZE, generator=generator, dtype=torch.float64)
    return x * (1 + torch.arange(CHANNELS).view(-1, 1, 1)) + torch.arange(CHANNELS).view(-1, 1, 1)


def reference(x: torch.Tensor, power: float, *, from_mean: bool, member: torch.nn.Module) -> torch.Tensor:
    """Equations 14 and, from the least value with p = 1, 11: channel by channel, by loops over plain numbers."""
    found = torch.empty_like(x)
    for channel in range(x.shape[1]):
        values = x[:, channel].flatten().tolist()
        centre = sum(values) / len(values) if from_mean else min(values)
        divisor = (max(values) - min(values)) ** power + 1e-5
        found[:, channel] = (x[:, channel] - centre) / divisor
    return found * member.weight.view(-1, 1, 1) + member.bias.view(-1, 1, 1)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(("space", "power"), [("RN", 0.2), ("RN(p=0.7)", 0.7), ("RN(p=1)", 1.0), ("MinMax", 1.0)])
def test_it_is_the_papers_equation_in_training_and_at_inference(space: str, power: float, mode: str) -> None:
    layer, x = norm(space), images()
    with paths.mode(layer, mode):
        y = layer(x)
    expected = reference(x, power, from_mean=space != "MinMax", member=layer.members[0])
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    single = layer.float()
    torch.testing.assert_close(single(x.float()).double(), expected, rtol=1e-5, atol=1e-5)


@given(st.floats(0.05, 1.5), st.integers(0, 99))
def test_its_gradient_is_that_of_the_equation_through_every_statistic(power: float, seed: int) -> None:
    """The derivative written out: of the mean, and of the range at the one pixel that is its end."""
    layer, x = norm(f"RN(p={power:.3f})"), images(seed).requires_grad_()
    p, n = float(f"{power:.3f}"), EXAMPLES * SIZE * SIZE
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    (layer(x) * upstream).sum().backward()
    gamma = layer.members[0].weight.detach()
    for channel in range(CHANNELS):
        values, g = x.detach()[:, channel].flatten(), upstream[:, channel].flatten() * gamma[channel]
        span = values.max() - values.min()
        divisor = span**p + 1e-5
        expected = (g - g.sum() / n) / divisor
        pull = -(g * (values - values.mean())).sum() / divisor**2 * p * span ** (p - 1)
        expected[values.argmax()] += pull
        expected[values.argmin()] -= pull
        torch.testing.assert_close(x.grad[:, channel].flatten(), expected, rtol=1e-9, atol=1e-9)


def test_pixels_that_tie_for_an_end_share_its_gradient() -> None:
    layer = norm("RN")
    x = images()
    x[0, 0, 0, 0] = x[1, 0, 2, 2] = x[1, 0, 3, 3] = 50.0
    x.requires_grad_()
    (layer(x)[0, 1:].sum() + layer(x)[:, 0].square().sum()).backward()
    tied = x.grad[:, 0].flatten()[(x[:, 0] == 50).flatten()]
    assert len(tied) == 3
    torch.testing.assert_close(tied, tied[:1].expand(3), rtol=1e-12, atol=0)


@pytest.mark.parametrize("space", ["RN", "MinMax", "RN(track=true)", "RN+BN"])
def test_a_constant_channel_becomes_its_bias_with_a_gradient_of_zero(space: str) -> None:
    layer = norm(space)
    layer.path = torch.zeros(EXAMPLES, dtype=torch.int64) + len(layer.members) - 1  # the last one: RN after BN
    x = images()
    x[:, 2] = 3.7
    x.requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    member = layer.members[-1]
    torch.testing.assert_close(y[:, 2], member.bias[2].expand_as(y[:, 2]), rtol=0, atol=0)
    assert not x.grad[:, 2].any()
    assert torch.isfinite(x.grad).all() and torch.isfinite(member.weight.grad).all()


def test_tracked_statistics_answer_at_inference_and_the_rest_is_the_batchs() -> None:
    seen, test = [images(seed) for seed in range(3)], images(9)
    centre, ranged = torch.zeros(CHANNELS, dtype=torch.float64), torch.ones(CHANNELS, dtype=torch.float64)
    for x in seen:
        flat = x.transpose(0, 1).flatten(1)
        centre = 0.9 * centre + 0.1 * flat.mean(1)
        ranged = 0.9 * ranged + 0.1 * (flat.amax(1) - flat.amin(1)) ** 0.2
    flat = test.transpose(0, 1).flatten(1)
    own = (flat.amax(1) - flat.amin(1)) ** 0.2
    for space, divisor in (("RN(track=true)", ranged), ("RN(track=mean)", own)):
        layer = norm(space)
        for x in seen:
            layer(x)
        layer.eval()
        member = layer.members[0]
        scale = member.weight / (divisor + 1e-5)
        expected = (test - centre.view(-1, 1, 1)) * scale.view(-1, 1, 1) + member.bias.view(-1, 1, 1)
        torch.testing.assert_close(layer(test), expected, rtol=1e-12, atol=1e-12)
        with paths.mode(layer, "train_frozen"):  # the batch's own statistics, and nothing is tracked
            layer(test)
        torch.testing.assert_close(layer(test), expected, rtol=1e-12, atol=1e-12)


def test_batch_norm_without_tracking_is_itself_in_training() -> None:
    plain, untracked = norm("BN"), norm("BN(track=false)")
    x = images()
    torch.testing.assert_close(untracked(x), plain(x), rtol=0, atol=0)
    expected = untracked(x)
    untracked.eval()
    torch.testing.assert_close(untracked(x), expected, rtol=0, atol=0)
    assert not [name for name in untracked.state_dict() if "running" in name]
    assert (untracked(x[:1]) - untracked(x)[:1]).abs().max() > 0.1  # an answer hangs on its neighbours


def test_no_norm_is_the_input_itself() -> None:
    layer, x = norm("none"), images()
    assert layer(x) is x
    assert not list(layer.parameters())


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_in_a_mixture_each_example_is_what_it_is_where_all_take_its_member(mode: str) -> None:
    layer, x = norm("BN(track=false)+IN+MinMax+none+RN+RN(p=0.5,track=true)"), images(examples=12)
    twins = [norm("BN(track=false)+IN+MinMax+none+RN+RN(p=0.5,track=true)") for _ in layer.members]
    layer.path = torch.arange(12) % len(layer.members)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with paths.mode(layer, mode):
        y = layer(x)
    for index, twin in enumerate(twins):
        twin.path = index
        with paths.mode(twin, mode):
            whole = twin(x)
        taken = layer.path == index
        torch.testing.assert_close(y[taken], whole[taken], rtol=1e-10, atol=1e-10)
    z = x.clone().requires_grad_()
    with paths.mode(layer, mode):
        (layer(z) * upstream).sum().backward()
    assert torch.isfinite(z.grad).all()


def test_under_bfloat16_statistics_stay_in_float32() -> None:
    layer, x = norm("RN").float(), images().to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype is torch.bfloat16
    expected = reference(x.double(), 0.2, from_mean=True, member=layer.members[0])
    torch.testing.assert_close(y.double(), expected, rtol=2e-2, atol=2e-2)  # one rounding, of the output
