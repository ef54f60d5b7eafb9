"""The line of units that can be done now: the most urgent first, those of one priority in the order that they came."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from rna_ray.sweep.units import Unit


class Queue:
    """Units with how often each one's process died."""

    def __init__(self, priorities: Mapping[str, int]) -> None:
        self._priorities = priorities
        self._heap: list[tuple[int, int, Unit, int]] = []
        self._last = self._first = 0

    def __len__(self) -> int:
        return len(self._heap)

    def append(self, waiting: tuple[Unit, int]) -> None:
        """Let a unit wait behind those of its priority."""
        self._last += 1
        self._push(self._last, *waiting)

    def appendleft(self, waiting: tuple[Unit, int]) -> None:
        """Let a unit wait before those of its priority."""
        self._first -= 1
        self._push(self._first, *waiting)

    def first(self) -> tuple[Unit, int]:
        """Return the next unit, which waits on; IndexError where none waits."""
        *_, unit, deaths = self._heap[0]
        return unit, deaths

    def popleft(self) -> tuple[Unit, int]:
        """Take the next unit; IndexError where none waits."""
        *_, unit, deaths = heapq.heappop(self._heap)
        return unit, deaths

    def _push(self, place: int, unit: Unit, deaths: int) -> None:
        heapq.heappush(self._heap, (-self._priorities.get(unit.id, 0), place, unit, deaths))
