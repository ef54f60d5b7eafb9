"""From multiply-adds to time: rough, and said to be so; measured rates take its place as soon as there are any."""

from __future__ import annotations

CPU_MACS_PER_SECOND = 2.0e10
"""Multiply-adds a second of one CPU core on a small ResNet in fp32, as measured on a server core with AVX-512."""

GPU_MACS_PER_SECOND = 5.0e12
"""The same of one GPU: an assumption of ours, not yet measured."""


def seconds(macs: float, *, gpu: bool = False) -> float:
    """Return the estimated seconds of this many multiply-adds on one core, or on one GPU."""
    return macs / (GPU_MACS_PER_SECOND if gpu else CPU_MACS_PER_SECOND)
