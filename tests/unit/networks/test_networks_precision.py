"""bf16 where the processor has no instructions for it, against torch's autocast, which is slow there but right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from rna_ray.networks import precision
from rna_ray.networks.build import build
from rna_ray.networks.paths import following
from rna_ray.networks.precision import arithmetic

NETWORK = {"name": "resnet8", "width": 8, "norm": "BN+IN", "layer_based": False, "paths": "example"}


class Products(TorchDispatchMode):
    """What each product takes and gives, forth and back."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: set[torch.dtype] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(function) for name in ("convolution", "addmm", "mm.")):
            self.taken |= {one.dtype for one in args if isinstance(one, torch.Tensor)}
        return function(*args, **(kwargs or {}))


def found(monkeypatch: pytest.MonkeyPatch, native: bool, bf16: bool) -> tuple[dict[str, torch.Tensor], Products]:
    """Return the logits, the gradients with respect to images and weights, and what products took."""
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: native)
    network = build(NETWORK, shape=(3, 16, 16), classes=10, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(6, 3, 16, 16, generator=generator).requires_grad_()
    path = torch.randint(0, 2, (6, len(network.paths.sizes)), generator=generator)
    with Products() as products:
        with following(network, path, shared=False), arithmetic("cpu", bf16=bf16):
            logits = network(x)
        F.cross_entropy(logits.float(), torch.arange(6)).backward()
    gradients = {name: one.grad for name, one in network.named_parameters() if one.grad is not None}
    assert x.grad is not None and len(gradients) > 20
    return {"logits": logits.detach(), "x": x.grad, **gradients}, products


def test_it_gives_what_autocast_gives_by_products_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    rounded, products = found(monkeypatch, native=False, bf16=True)
    autocast, _ = found(monkeypatch, native=True, bf16=True)
    exact, plain = found(monkeypatch, native=False, bf16=False)
    assert products.taken == plain.taken == {torch.float32}
    assert rounded["logits"].dtype is autocast["logits"].dtype is torch.bfloat16
    for name, expected in exact.items():
        largest = expected.abs().max().clamp_min(1e-3)
        off, usual = ((one[name].float() - expected).abs().max() / largest for one in (rounded, autocast))
        assert off < 2 * usual + 2**-8, name  # as far from fp32 as autocast is, and no farther
        assert name == "logits" or rounded[name].dtype is torch.float32


@pytest.mark.parametrize(
    "product",
    [
        lambda x, w: F.conv2d(x[..., None, None], w[..., None, None])[..., 0, 0],
        lambda x, w: F.conv1d(input=x[..., None], weight=w[..., None])[..., 0],
        F.linear, lambda x, w: x @ w.T, lambda x, w: torch.matmul(x, w.T), lambda x, w: x.mm(w.T),
        lambda x, w: torch.addmm(torch.zeros(()), x, w.T), lambda x, w: torch.bmm(x[None], w.T[None])[0],
    ],
)  # fmt: skip
def test_a_product_is_that_of_rounded_numbers_rounded(
    monkeypatch: pytest.MonkeyPatch, product: Callable[..., torch.Tensor]
) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: False)
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(5, 40, generator=generator), torch.randn(7, 40, generator=generator)
    expected = (x.bfloat16().double() @ w.bfloat16().double().T).float()
    with arithmetic("cpu", bf16=True):
        answer = product(x, w)
        assert F.relu(x).dtype is torch.float32
    assert answer.dtype is torch.bfloat16
    torch.testing.assert_close(answer.float(), expected, rtol=2**-8, atol=1e-4)
    assert product(x, w).dtype is torch.float32


def test_numbers_of_another_kind_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: False)
    x = torch.arange(6.0, dtype=torch.float64).view(2, 3)
    with arithmetic("cpu", bf16=True):
        assert (x @ x.T).dtype is torch.float64
        assert (x.long() @ x.long().T).dtype is torch.int64
        assert nn.Linear(3, 2, bias=False).double()(x).dtype is torch.float64
