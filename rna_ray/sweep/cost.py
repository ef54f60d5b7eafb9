"""From multiply-adds to time: rough, and said to be so; measured rates take its place as soon as there are any."""

from __future__ import annotations

CPU_MACS_PER_SECOND = 2.0e10
"""Multiply-adds a second of one CPU core on a small ResNet in fp32, as measured on a server core with AVX-512."""

GPU_MACS_PER_SECOND = 5.0e12
"""The same of one GPU: an assumption of ours, not yet measured."""


ASSUMED = "resnet18"
"""Whose multiply-adds are taken for an imported network's, which only torch could count."""


def seconds(macs: float, *, gpu: bool = False) -> float:
    """Return the estimated seconds of this many multiply-adds on one core, or on one GPU."""
    return macs / (GPU_MACS_PER_SECOND if gpu else CPU_MACS_PER_SECOND)


def clock(seconds: float) -> str:
    """Return a duration as people say it: 40 s, 3 min 20 s, 5 h 10 min, 3 d 4 h."""
    whole = round(seconds)
    for unit, size, part, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {part}"
    return f"{whole} s"
