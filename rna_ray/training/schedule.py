"""Learning rates as pure functions of the progress, so that resuming needs no state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def learning_rate(peak: float, schedule: Mapping[str, Any], progress: float) -> float:
    """Return the learning rate after a fraction `progress` in [0, 1) of all updates.

    constant: the peak throughout; step: multiplied by gamma at each milestone; cosine: half a cosine down to 0
    (Loshchilov & Hutter 2017); one-cycle: a cosine from peak/25 up to the peak during the warm-up, then one down to 0
    (after Smith & Topin 2018).
    """
    return peak * _FACTORS[schedule["name"]](schedule, progress)


def _constant(schedule: Mapping[str, Any], progress: float) -> float:
    return 1.0


def _step(schedule: Mapping[str, Any], progress: float) -> float:
    return schedule["gamma"] ** sum(progress >= milestone for milestone in schedule["milestones"])


def _cosine(schedule: Mapping[str, Any], progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _one_cycle(schedule: Mapping[str, Any], progress: float) -> float:
    warmup = schedule["warmup"]
    if progress < warmup:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * progress / warmup)) / 2
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


_FACTORS = {"constant": _constant, "step": _step, "cosine": _cosine, "one-cycle": _one_cycle}
