"""What a network does while it answers that would make an attack's verdict worthless; columns, never a log.

They are what AutoAttack's own checks look for (Croce & Hein 2020, its flags), and whether a global generator is drawn
from: attack libraries reseed it, so a network that draws its path there replays the same "random" paths.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from rna_ray.evaluation.knowledge import Defence

TOLERANCE = 1e-5
LOOKS = 5
"""The draws that are compared where it is not known that they differ: of two paths that a batch shares, all five are
the same one in 6 % of the cases."""
KNOWN = 2
"""The draws that are looked at where it is known."""
IMAGES = 16
"""Of how many images, at most; where images hang together, those of the whole batch are looked at."""


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """How a network answered a batch of clean images; the names are those of the columns in `evaluations`."""

    classes: int
    random_output: bool
    softmax_output: bool
    optimizes: bool
    global_generator: bool
    repeats: bool
    """Whether the same draw gave the same logits twice; if not, the network keeps a generator or a state of its own."""


@torch.no_grad()
def observe(defence: Defence, x: torch.Tensor) -> Behaviour:
    """Return how a defence behaves on clean images (N, C, H, W) in [0, 1], seen over draws that neither side uses.

    At most `IMAGES` of them, uncompiled where it is compiled for batches of another size.
    """
    if not defence.together:
        some = torch.arange(min(len(x), IMAGES), device=x.device)
        defence, x = defence.rows(some), x[some]
    known, passes = bool(defence.paths.sizes or defence.noise), defence.passes
    looks = (0, *range(KNOWN if known else LOOKS))
    passes.drew_globally = False
    with _counting() as taken:
        again, one, *others = (passes.logits(x, defence.seen_draws(x, draw))[0] for draw in looks)
    drew, passes.drew_globally = passes.drew_globally, None
    whole = ((one.sum(1) - 1).abs() < TOLERANCE).all() and one.min() > -TOLERANCE
    return Behaviour(
        classes=one.shape[1], softmax_output=bool(whole),
        random_output=known or not all(torch.equal(one, other) for other in others),
        optimizes=bool(taken), global_generator=drew,
        repeats=drew or torch.equal(one, again),
    )  # fmt: skip


@contextlib.contextmanager
def _counting() -> Iterator[list[int]]:
    """Collect the gradients that are taken inside the block, however torch's functions for it are called.

    All of them begin with this one, which AutoAttack's check looks for too; a network may know the others by names of
    its own (`from torch.autograd import grad`).
    """
    taken: list[int] = []
    original = torch.autograd._make_grads

    def make_grads(outputs: Any, *args: Any, **options: Any) -> Any:
        taken.append(len(outputs))
        return original(outputs, *args, **options)

    with mock.patch.object(torch.autograd, "_make_grads", make_grads):
        yield taken
