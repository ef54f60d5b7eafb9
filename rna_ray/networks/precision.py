"""fp32 or bf16 on any device: bf16 is torch's autocast, but for products on a CPU that has no instructions for them.

There torch would multiply bf16 value by value, 10 to 30 times slower than fp32. So products take numbers rounded to
bf16, add in fp32, as bf16's instructions do, and are rounded once, on the way forth and on the way back: about as fast
as fp32, and what autocast gives but for the order of sums.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_PRODUCTS = frozenset({
    F.conv1d, F.conv2d, F.conv3d, F.conv_transpose2d, F.linear, torch.matmul, torch.mm, torch.bmm, torch.addmm,
    torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.mm, torch.Tensor.bmm,
})  # fmt: skip
"""What autocast computes in bf16, of what image classifiers hold."""


def arithmetic(device: str, *, bf16: bool) -> AbstractContextManager[Any]:
    """Let a device (its type) compute in bf16 inside the block, or in fp32."""
    if not bf16 and not torch.is_autocast_enabled(device):
        return contextlib.nullcontext()
    autocast = torch.autocast(device, torch.bfloat16, enabled=bf16)
    return _rounding(autocast) if bf16 and device == "cpu" and not multiplies_bf16() else autocast


@contextlib.contextmanager
def _rounding(autocast: torch.autocast) -> Iterator[None]:
    with autocast, _Rounded():
        yield


@functools.cache
def multiplies_bf16() -> bool:
    """Return whether torch has fast products in bf16 for this processor: with AVX-512, AMX, or Arm's bf16."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class _Rounded(TorchFunctionMode):
    """Products of rounded numbers in fp32, their answers rounded."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if function not in _PRODUCTS:
            return function(*args, **given)
        with torch.autocast("cpu", enabled=False):
            answer = function(*map(_rounded, args), **{name: _rounded(value) for name, value in given.items()})
        return answer.bfloat16() if answer.dtype is torch.float32 else answer


def _rounded(value: Any) -> Any:
    """Return the numbers of bf16 in fp32; what is no tensor of numbers as it is."""
    if isinstance(value, torch.Tensor) and value.dtype in (torch.float32, torch.bfloat16):
        return value.bfloat16().float()
    return value
