"""What units cost in multiply-adds, and those in time: rough; a store's measured rates take the place of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CPU_MACS_PER_SECOND = 2.0e10
"""Multiply-adds a second of one CPU core on a small ResNet in fp32, as measured on a server core with AVX-512."""

GPU_MACS_PER_SECOND = 5.0e12
"""The same of one GPU: an assumption of ours, not yet measured."""

COMPILED_MACS = 10**13
"""From so many multiply-adds on, for each norm at a layer, a unit's network is compiled on a CPU: several times what
pays for its graphs, except where torch's cache on that machine has none of them yet, once a machine
(docs/benchmarks.md). The time that graphs take grows with the norms that they hold."""

ASSUMED = "resnet18"
"""Whose multiply-adds are taken for an imported network's, which only torch could count."""


def training(settings: Mapping[str, Any], macs: int) -> int:
    """Return the multiply-adds of a training with these settings, of a network that takes `macs` for an image."""
    given = settings["training"]
    steps = given["attack"]["steps"] if given["attack"] else 0
    images = settings["data"]["train_examples"] * given["epochs"]
    # Every loss but cross-entropy looks at the images as they are too, and AWP twice at all.
    updates = (2 if "loss" in given else 1) * (2 if "weight_perturbation" in given else 1)
    return 3 * macs * images * (updates + steps)  # a backward pass costs two forward ones


def assumed(*, gpu: bool) -> float:
    """Return the multiply-adds a second of one core, or of one GPU, where none was measured."""
    return GPU_MACS_PER_SECOND if gpu else CPU_MACS_PER_SECOND


def clock(seconds: float) -> str:
    """Return a duration as people say it: 40 s, 3 min 20 s, 5 h 10 min, 3 d 4 h."""
    whole = round(seconds)
    for unit, size, part, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {part}"
    return f"{whole} s"
