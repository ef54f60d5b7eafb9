"""Named random numbers: every draw is a pure function of (unit id, name, example, step, draw).

Nothing here has a state, so batches, workers, retries and resumption cannot change what is drawn, and no library that
reseeds torch's global generator can replay a path. The numbers come from SplitMix64 (Steele, Lea & Flood 2014) used as
a counter-based generator in 64-bit integer tensors: the words are the same on every device.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch

_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)

Draw = int | torch.Tensor

CACHED = 1 << 15
"""How many normals a CPU makes at once: their 64-bit words then stay in its cache, which is nearly three times as fast
as one pass over a large batch after the other."""


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _shift_right(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift as unsigned words: torch's own shift of int64 copies the sign."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _multiple(number: int | torch.Tensor) -> int | torch.Tensor:
    """Return (number + 1) times the golden ratio as signed words, of one number or of an int64 tensor of them."""
    if isinstance(number, torch.Tensor):
        return (number + 1) * _signed(_GOLDEN)  # wraps
    return _signed((number + 1) * _GOLDEN & (1 << 64) - 1)


def _mix(words: torch.Tensor) -> torch.Tensor:
    words = (words ^ _shift_right(words, 30)) * _signed(_MULTIPLIERS[0])
    words = (words ^ _shift_right(words, 27)) * _signed(_MULTIPLIERS[1])
    return words ^ _shift_right(words, 31)


class Randomness:
    """The random numbers of one unit, asked for by name, example, step and draw.

    `draw` is one number for all examples, or an int64 tensor (N,): one for each.
    """

    def __init__(self, unit_id: str) -> None:
        self.unit_id = unit_id

    def words(self, name: str, examples: torch.Tensor, size: int, *, step: int = 0, draw: Draw = 0) -> torch.Tensor:
        """Return int64 words (N, size) for examples (N,), on the examples' device."""
        state = _mix(examples.to(torch.int64) * _signed(_GOLDEN) + self._key(name))
        for number in (step, draw):
            state = _mix(state + _multiple(number))
        counter = torch.arange(1, size + 1, device=examples.device) * _signed(_GOLDEN)
        return _mix(state[:, None] + counter)

    def integers(
        self, name: str, examples: torch.Tensor, bounds: Sequence[int], *, step: int = 0, draw: Draw = 0
    ) -> torch.Tensor:
        """Return int64 (N, L): column l uniform over 0 … bounds[l] - 1."""
        words = _shift_right(self.words(name, examples, len(bounds), step=step, draw=draw), 33)
        return _shift_right(words * torch.tensor(bounds, dtype=torch.int64, device=examples.device), 31)

    def uniform(
        self, name: str, examples: torch.Tensor, shape: Sequence[int], *, step: int = 0, draw: Draw = 0
    ) -> torch.Tensor:
        """Return float32 (N, *shape), uniform over [0, 1) in steps of 2^-24."""
        words = self.words(name, examples, math.prod(shape), step=step, draw=draw)
        return (_shift_right(words, 40).float() * 2**-24).view(len(examples), *shape)

    def normal(
        self, name: str, examples: torch.Tensor, shape: Sequence[int], *, step: int = 0, draw: Draw = 0
    ) -> torch.Tensor:
        """Return float32 (N, *shape), standard normal (Box & Muller 1958)."""
        size = math.prod(shape)
        at_once = max(1, CACHED // max(1, size))
        if examples.device.type == "cpu" and len(examples) > at_once:
            draws = torch.as_tensor(draw).expand(len(examples)).split(at_once)
            parts = zip(examples.split(at_once), draws, strict=True)
            return torch.cat([self.normal(name, some, shape, step=step, draw=each) for some, each in parts])
        half = (size + 1) // 2
        u = self.uniform(name, examples, (2, half), step=step, draw=draw)
        radius = torch.sqrt(-2 * torch.log1p(-u[:, 0]))
        angle = 2 * math.pi * u[:, 1]
        both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return both[:, :size].reshape(len(examples), *shape)

    def permutation(self, name: str, size: int, *, step: int = 0) -> np.ndarray:
        """Return a permutation of 0 … size - 1, by sorting one word an element."""
        words = self.words(name, torch.arange(size), 1, step=step)[:, 0]
        return torch.argsort(words, stable=True).numpy()

    def seed(self, name: str) -> int:
        """Return a seed for a generator that only a library can draw from (initialisation, attack libraries)."""
        return self._key(name) & 0x7FFFFFFF

    def _key(self, name: str) -> int:
        digest = hashlib.blake2b(f"{self.unit_id}/{name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)


@contextlib.contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python inside the block, and leave them as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    # A GPU that nobody has used has no state to keep, and to ask for it would take its memory.
    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def global_state(device: torch.device) -> tuple[object, ...]:
    """Return the state of the global generators that code on a device may draw from; equal where none was drawn."""
    states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    _, key, position, *rest = np.random.get_state()
    return (*(state.numpy().tobytes() for state in states), key.tobytes(), position, *rest, random.getstate())
