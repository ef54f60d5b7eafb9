"""The one computation for every mixture of members, against torch's kernels and against each example alone."""

from __future__ import annotations

import pytest
import torch
from test_networks_norms import BOUND, CHANNELS, EXAMPLES, images, norm

from rna_ray.networks import kernels
from rna_ray.networks.norms import BatchGroupNorm, Norm

SPACE = "BN+BGN[2]+BGN8+IN+GN[4]+LN+BN(affine=false)+IN(affine=false)"
MEMBERS = 8 - 1  # BGN8 is BN where there are 8 channels
MIXED = torch.arange(EXAMPLES * 2).remainder(MEMBERS)


@pytest.fixture(autouse=True, params=["kernels", "plain"])
def formulas(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CPU does, and what a GPU and a compiler do."""
    if request.param == "plain":
        monkeypatch.setattr(kernels, "suit", lambda x: False)


def run(layer: Norm, x: torch.Tensor, path: torch.Tensor | int) -> list[torch.Tensor]:
    """Return the output, and the gradients of the input and of every parameter, zero where there is none."""
    layer.zero_grad()
    layer.path = path
    z = x.clone().requires_grad_()
    y = layer(z)
    (y * images(11, *x.shape[:3])).sum().backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in layer.parameters()]
    return [y.detach(), z.grad.detach(), *gradients]


def batch_members(layer: Norm) -> list[BatchGroupNorm]:
    return [member for member in layer.members if isinstance(member, BatchGroupNorm)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("member", range(MEMBERS))
def test_a_constant_path_gives_what_torchs_kernels_give(member: int, training: bool) -> None:
    native, mixture = norm(SPACE), norm(SPACE)
    assert len(native.members) == MEMBERS
    for step in range(3):  # three training steps first, so that evaluation has statistics to use
        one = run(native, images(step), member)
        other = run(mixture, images(step), torch.full((EXAMPLES,), member))
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, **BOUND)
    for buffer, twin in zip(native.members[member].buffers(), mixture.members[member].buffers(), strict=True):
        torch.testing.assert_close(buffer, twin, **BOUND)
    if not training:
        native.eval(), mixture.eval()
        pairs = zip(
            run(native, images(5), member), run(mixture, images(5), torch.full((EXAMPLES,), member)), strict=True
        )
        for a, b in pairs:
            torch.testing.assert_close(a, b, **BOUND)


@pytest.mark.parametrize("member", range(MEMBERS))
@pytest.mark.parametrize("kernel", ["native", "mixture"])
def test_a_mean_of_a_hundred_spreads_costs_digits_as_in_torchs_kernels(member: int, kernel: str) -> None:
    """Digits cancel: outputs within 1e-4 (mixture 3e-5, torch 6e-5 measured), gradients within 1e-3 (4e-5 and 3e-4)."""
    path = torch.full((EXAMPLES,), member)
    x = images() + 100
    ours = run(norm(SPACE), x, member if kernel == "native" else path)
    reference = run(norm(SPACE).double(), x.double(), path)
    assert (ours[0].double() - reference[0]).abs().max() < 1e-4
    assert (ours[1].double() - reference[1]).abs().max() < 1e-3


def test_bfloat16_is_within_its_rounding() -> None:
    """Statistics are taken in fp32: only the input's and the output's rounding remain, 2^-8 of each value."""
    layer, twin = norm(SPACE), norm(SPACE)
    layer.path = twin.path = MIXED
    x = images(examples=len(MIXED)).bfloat16()
    torch.testing.assert_close(layer(x).float(), twin(x.float()), rtol=2**-8, atol=1e-6)
    for one, other in zip(layer.buffers(), twin.buffers(), strict=True):
        assert one.dtype is torch.float32
        torch.testing.assert_close(one, other)


def test_bfloat16_native_and_mixture_agree() -> None:
    for member in range(MEMBERS):
        native, mixture = norm(SPACE), norm(SPACE)
        one = run(native, images().bfloat16(), member)[0]
        other = run(mixture, images().bfloat16(), torch.full((EXAMPLES,), member))[0]
        torch.testing.assert_close(one.float(), other.float(), rtol=2**-6, atol=2**-5)


def test_autocast_leaves_scale_and_shift_in_full_precision() -> None:
    layer, twin = norm(SPACE), norm(SPACE)
    layer.path = twin.path = MIXED
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(images(examples=len(MIXED)))
    assert torch.equal(y, twin(images(examples=len(MIXED))))


def test_a_layer_cast_to_bfloat16_trains() -> None:
    layer = norm(SPACE).bfloat16()
    y, *_ = run(layer, images(examples=len(MIXED)).bfloat16(), MIXED)
    assert y.isfinite().all()
    assert all(member.running_mean.dtype is torch.bfloat16 for member in batch_members(layer))


@pytest.mark.parametrize("space", ["GN[1-8]", "LN+IN(affine=false)+none", SPACE, "RN(track=true)+RN(p=1)+GN[2]"])
def test_a_member_that_no_example_takes_has_a_gradient_of_zeros(space: str) -> None:
    """An optimizer leaves a parameter without one alone, its weight decay too, and workers would have none to sum."""
    layer = norm(space)
    run(layer, images(), torch.zeros(EXAMPLES, dtype=torch.int64))  # statistics for evaluation
    for one in (layer.eval(), layer.train()):
        one.zero_grad(set_to_none=True)
        one.path = torch.zeros(EXAMPLES, dtype=torch.int64)
        one(images(1)).square().sum().backward()
        for index, member in enumerate(one.members):
            for parameter in member.parameters():
                assert parameter.grad is not None and parameter.grad.any() == (index == 0)


def test_in_evaluation_each_example_equals_itself_alone() -> None:
    layer = norm(SPACE)
    run(layer, images(1, examples=len(MIXED)), MIXED)
    layer.eval()
    x = images(2, examples=len(MIXED))
    together = run(layer, x, MIXED)
    for row, member in enumerate(MIXED.tolist()):
        alone = run(layer, x[row : row + 1], MIXED[row : row + 1])
        assert torch.equal(alone[0][0], together[0][row])
        native = run(layer, x[row : row + 1], member)
        torch.testing.assert_close(native[0][0], together[0][row], **BOUND)


def test_in_training_batch_statistics_come_from_all_examples() -> None:
    """Each example of a mixture equals that example where the whole batch takes its member."""
    layer = norm(SPACE)
    x = images(2, examples=len(MIXED))
    together = run(layer, x, MIXED)[0]
    whole = norm(SPACE)
    for member in range(MEMBERS):
        rows = member == MIXED
        torch.testing.assert_close(together[rows], run(whole, x, member)[0][rows], **BOUND)
    for one, other in zip(batch_members(layer), batch_members(whole), strict=True):
        torch.testing.assert_close(one.running_mean, other.running_mean, **BOUND)
        torch.testing.assert_close(one.running_var, other.running_var, **BOUND)


def test_a_mixture_updates_every_batch_member_drawn_or_not() -> None:
    layer = norm("BN+BGN[2]+IN")
    run(layer, images(), torch.full((EXAMPLES,), 2))
    assert all(member.running_mean.ne(0).all() for member in batch_members(layer))


def test_a_shared_path_updates_only_the_drawn_member() -> None:
    layer = norm("BN+BGN[2]+IN")
    run(layer, images(), 1)
    assert layer.members[0].running_mean.eq(0).all() and layer.members[0].running_var.eq(1).all()
    assert layer.members[1].running_mean.ne(0).all()


def test_members_nobody_took_get_a_zero_gradient() -> None:
    layer = norm("BN+IN+LN")
    run(layer, images(), torch.tensor([0, 2, 0, 2, 0, 2]))
    assert [bool(member.weight.grad.ne(0).any()) for member in layer.members] == [True, False, True]


def test_a_diverged_member_does_not_touch_the_examples_of_others() -> None:
    layer = norm("BN+IN").eval()
    with torch.no_grad():
        layer.members[0].weight.fill_(torch.inf)
    y, *_ = run(layer, images(), torch.tensor([0, 1, 1, 1, 1, 1]))
    assert y[1:].isfinite().all() and not y[0].isfinite().any()


def test_without_any_affine_parameter() -> None:
    native, mixture = norm("LN(affine=false)+IN(affine=false)"), norm("LN(affine=false)+IN(affine=false)")
    for member in (0, 1):
        torch.testing.assert_close(
            run(native, images(), member)[0], run(mixture, images(), torch.full((EXAMPLES,), member))[0], **BOUND
        )


@pytest.mark.parametrize("training", [True, False])
def test_hessian_vector_products_match_finite_differences(training: bool) -> None:
    layer = norm(SPACE).double().train(training)
    layer.path = MIXED
    x = images(examples=len(MIXED)).double()
    direction = images(4, examples=len(MIXED)).double()

    def gradient(at: torch.Tensor, *, graph: bool = False) -> torch.Tensor:
        at = at if at.requires_grad else at.clone().requires_grad_()
        return torch.autograd.grad(layer(at).tanh().square().sum(), at, create_graph=graph)[0]

    z = x.clone().requires_grad_()
    product = torch.autograd.grad((gradient(z, graph=True) * direction).sum(), z)[0]
    step = 1e-5
    finite = (gradient(x + step * direction) - gradient(x - step * direction)) / (2 * step)
    assert product.dtype is torch.float64
    torch.testing.assert_close(product, finite, rtol=1e-6, atol=1e-6)


def test_float64_inputs_keep_their_precision() -> None:
    layer = norm(SPACE).double()
    layer.path = MIXED
    x = images(examples=len(MIXED)).double()
    mixed = layer(x)
    layer.path = 4
    rows = MIXED == 4
    torch.testing.assert_close(layer(x)[rows], mixed[rows], rtol=1e-12, atol=1e-12)
    assert layer.channels == CHANNELS
