"""What a norm layer of mixed paths measures and gives, by torch's own norm kernels; for a CPU, where these are fast.

They read and write a batch (N, C, H, W) in fp32 or bf16 once where the plain formulas of `norms` do so a dozen times,
and compute in fp32. To the batch-norm kernels it is one image of N·C channels. All is twice differentiable.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.ops import aten

Pair = tuple[torch.Tensor, torch.Tensor]

_EPS = 1e-5
"""Added to variances while a kernel runs, and taken out again: a constant channel does not divide by zero."""
_FEW = 64
"""Up to so many pixels a channel, what a kernel costs for each channel is more than the plain formulas' passes."""


def suit(x: torch.Tensor) -> bool:
    """Return whether the kernels serve a batch; of the plain formulas a compiler makes better ones."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and not torch.compiler.is_compiling()


def moments(x: torch.Tensor) -> Pair:
    """Return the mean and the biased variance (N, C), in fp32, of each example's channels."""
    return _Moments.apply(x)


def ends(x: torch.Tensor) -> Pair:
    """Return the least and the greatest value (C,), in fp32, of each channel in the batch; all that tie share it."""
    return _Ends.apply(x)


def rescaled(
    x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """Return (x - mean)·scale + shift, all but x (N, C), where mean and variance are x's own `moments`."""
    deviation = (variance + _EPS).sqrt()
    rows = (mean.detach(), deviation.detach().reciprocal(), scale * deviation, shift)
    return _Rescaled.apply(_flat(x), *(row.reshape(-1) for row in rows)).view(x.shape)


def permuted(x: torch.Tensor, order: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """Return the examples x[order] of a batch; order (N,) has each one once, and x[order][back] is x."""
    return _Permuted.apply(x, order, back)


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> Pair:
        mean, variance = (_of_few if x.shape[2] * x.shape[3] <= _FEW else _of_many)(x)
        ctx.save_for_backward(x, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, to_mean: torch.Tensor, to_variance: torch.Tensor) -> torch.Tensor:
        x, mean = ctx.saved_tensors
        pixels = x.shape[2] * x.shape[3]
        weight = to_variance * (2 / pixels)
        bias = to_mean / pixels - weight * mean
        return _affine(_flat(x), weight.reshape(-1), bias.reshape(-1)).view(x.shape)


def _of_few(x: torch.Tensor) -> Pair:
    wide = x.float()
    mean = wide.mean((2, 3))
    deviation = torch.linalg.vector_norm(wide - mean[:, :, None, None], dim=(2, 3))
    return mean, deviation.square() / (x.shape[2] * x.shape[3])


def _of_many(x: torch.Tensor) -> Pair:
    n, channels, one = *x.shape[:2], torch.ones(x.shape[1])
    _, mean, inverse = aten.native_group_norm(
        x.contiguous(), one, torch.zeros_like(one), n, channels, x.shape[2] * x.shape[3], channels, _EPS
    )  # fmt: skip
    return mean, (inverse.square().reciprocal() - _EPS).clamp_min(0)


class _Ends(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> Pair:
        lows, highs = x.amin((2, 3)), x.amax((2, 3))  # far faster than aminmax
        low, high = lows.amin(0), highs.amax(0)
        ctx.save_for_backward(x, lows == low, highs == high, low, high)
        return low.float(), high.float()

    @staticmethod
    def backward(ctx: Any, to_low: torch.Tensor, to_high: torch.Tensor) -> torch.Tensor:
        x, has_low, has_high, low, high = ctx.saved_tensors
        found = torch.zeros_like(x)
        for has, end, given in ((has_low, low, to_low), (has_high, high, to_high)):
            examples, channels = has.nonzero(as_tuple=True)
            ties = (x[examples, channels] == end[channels, None, None]).float()
            count = torch.zeros_like(given).index_add(0, channels, ties.sum((1, 2)))
            shares = ties * (given / count)[channels, None, None]
            found = found.index_put((examples, channels), shares.to(x.dtype), accumulate=True)
        return found


class _Rescaled(torch.autograd.Function):
    """The weight is of what is left once x is centred and divided by its deviation, as in a batch norm's kernel."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, mean: torch.Tensor, inverse: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(x, mean, inverse, weight)
        scale = weight * inverse
        return _affine(x, scale, bias - mean * scale)

    @staticmethod
    def backward(ctx: Any, to_y: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, mean, inverse, weight = ctx.saved_tensors
        if x.dtype is torch.bfloat16 and not torch.is_grad_enabled():
            # The same by the kernel of a group norm: it adds bf16 by vectors, but has no second derivative.
            channels, pixels = len(weight), x.shape[2] * x.shape[3]
            to_x, to_weight, to_bias = aten.native_group_norm_backward(
                to_y.contiguous(), x.contiguous(), mean[None], inverse[None], weight, 1, channels, pixels, channels,
                [True, True, True],
            )  # fmt: skip
        else:
            to_x, to_weight, to_bias = aten.native_batch_norm_backward(
                to_y, x, weight, None, None, mean, inverse, True, _EPS, [True, True, True]
            )
        return to_x, None, None, to_weight, to_bias


def _flat(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(1, -1, *x.shape[2:])


def _affine(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return x·weight + bias of one image (1, D, H, W), where weight and bias are (D,)."""
    return aten.native_batch_norm(
        x, weight, bias, torch.zeros_like(weight), torch.ones_like(weight), False, 0.0, 0.0
    )[0]  # fmt: skip


class _Permuted(torch.autograd.Function):
    """Its gradient is permuted back; that of an index adds, as if an example could be there twice."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, order: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(order, back)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, to_y: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        order, back = ctx.saved_tensors
        return permuted(to_y, back, order), None, None
