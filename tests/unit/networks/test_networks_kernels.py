"""Mixed paths by torch's norm kernels, as on a CPU, against the plain formulas in float64, which they never serve."""

from __future__ import annotations

import pytest
import torch
from test_networks_norms import images, norm

from rna_ray.networks import kernels
from rna_ray.networks.norms import Norm

SPACES = (
    "BN+BGN[2]+BGN8+IN+GN[4]+LN+BN(affine=false)", "RN", "RN(p=0.7)+BN", "MinMax+IN", "RN(track=true)+GN[2]", "none+LN",
)  # fmt: skip
EXAMPLES = 12
SIZES = (5, 9)
"""25 and 81 pixels a channel: few and many of them are measured in two ways."""


def everything(layer: Norm, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the output, the gradients, a product with the loss's second derivatives, and the statistics kept."""
    members = len(layer.members)
    layer.path = None if members == 1 else torch.arange(len(x)).remainder(members)
    z = x.clone().requires_grad_()
    y = layer(z)
    names = dict(layer.named_parameters())
    loss = (y * images(11, *x.shape[:3]).to(y)).tanh().square().sum()
    (once,) = torch.autograd.grad(loss, z, retain_graph=True)
    to_x, *to_names = torch.autograd.grad(loss, [z, *names.values()], create_graph=True, materialize_grads=True)
    found = {"y": y, "once": once, "to_x": to_x}
    found.update({f"to_{name}": one for name, one in zip(names, to_names, strict=True)})
    (found["second"],) = torch.autograd.grad((to_x * images(4, *x.shape[:3]).to(x)).sum(), z)
    return {name: one.detach() for name, one in (*found.items(), *layer.named_buffers())}


def agree(layer: Norm, twin: Norm, x: torch.Tensor, *, within: float = 1e-5) -> None:
    """Compare with a twin in float64; what differs is within a share of the largest value of its kind."""
    assert kernels.suit(x) and not kernels.suit(x.double())
    ours, plain = everything(layer, x), everything(twin, x.double())
    assert plain["second"].abs().max() > 1e-3
    for name, expected in plain.items():
        off = (ours[name].double() - expected).abs().max() / expected.abs().max().clamp_min(1e-3)
        assert off < (10 if name == "second" else 1) * within, (name, off)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("space", SPACES)
def test_they_give_what_the_plain_formulas_give(space: str, training: bool, size: int) -> None:
    layer, twin = norm(space), norm(space).double()
    for seed in range(2):  # in training first, so that there are statistics to answer with
        agree(layer, twin, images(seed, EXAMPLES, size=size))
    agree(layer.train(training), twin.train(training), images(2, EXAMPLES, size=size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("space", SPACES)
def test_they_do_so_where_pixels_tie_and_channels_are_constant(space: str, size: int) -> None:
    x = images(3, EXAMPLES, size=size).clamp(-1, 1)
    x[:, 2] = 0.5
    x[4] = -0.25
    agree(norm(space), norm(space).double(), x, within=1e-4)  # 1/√ε is large


@pytest.mark.parametrize("space", SPACES)
def test_they_do_so_however_the_batch_lies_in_memory(space: str) -> None:
    x = images(5, EXAMPLES)
    agree(norm(space), norm(space).double(), x.contiguous(memory_format=torch.channels_last))
    agree(norm(space), norm(space).double(), images(5, EXAMPLES, size=10)[:, :, ::2, ::2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_each_example_answers_for_itself_its_answer_is_its_members_to_the_bit(dtype: torch.dtype) -> None:
    layer, x = norm(SPACES[0]), images(8, 2 * EXAMPLES, size=9)
    everything(layer, x)
    layer.eval()
    path_N, x = torch.randint(len(layer.members) - 1, (len(x),)), x.to(dtype)  # the last member: nobody's
    for path in (path_N, path_N.clamp_max(0)):
        layer.path = path
        together = layer(x)
        for member in path.unique().tolist():
            layer.path = member
            assert torch.equal(together[path == member], layer(x)[path == member])


def test_what_follows_may_work_in_place() -> None:
    layer, twin = norm("BN+IN"), norm("BN+IN")
    layer.path = twin.path = torch.arange(EXAMPLES).remainder(2)
    x, z = (images(6, EXAMPLES).requires_grad_() for _ in range(2))
    torch.relu_(layer(x)).sum().backward()
    torch.relu(twin(z)).sum().backward()
    assert torch.equal(x.grad, z.grad)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("space", SPACES)
def test_bfloat16_costs_its_rounding_and_no_more(space: str, size: int) -> None:
    """An output is rounded once, 2^-8 of it; a gradient is a sum of two that were rounded."""
    layer, twin, x = norm(space), norm(space).double(), images(7, EXAMPLES, size=size).bfloat16()
    agree(layer, twin, x, within=2**-5)
    torch.testing.assert_close(layer(x).double(), twin(x.double()), rtol=2**-8, atol=1e-5)
    assert all(buffer.dtype is torch.float32 for buffer in layer.buffers())
    layer, twin, x = layer.eval(), twin.eval(), images(8, EXAMPLES, size=size).bfloat16()
    torch.testing.assert_close(layer(x).double(), twin(x.double()), rtol=2**-8, atol=1e-5)
