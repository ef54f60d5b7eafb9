"""Units wait in a line: the most urgent first, then those that came first."""

from __future__ import annotations

from rna_ray.running.queue import Queue
from rna_ray.sweep.units import Unit, train


def unit(name: str) -> Unit:
    return train({"name": name})


def test_the_most_urgent_is_taken_first_and_of_those_the_first() -> None:
    a, b, c, d = map(unit, "abcd")
    queue = Queue({a.id: 0, b.id: 2, c.id: 2})  # d has none stated: 0
    for one in (a, b, c, d):
        queue.append((one, 0))
    assert queue.first() == (b, 0)
    assert len(queue) == 4 and [queue.popleft() for _ in range(4)] == [(b, 0), (c, 0), (a, 0), (d, 0)]
    assert not queue


def test_a_unit_that_comes_back_is_the_first_of_its_priority() -> None:
    a, b, urgent = map(unit, ("a", "b", "urgent"))
    queue = Queue({urgent.id: 1})
    for one in (a, b, urgent):
        queue.append((one, 0))
    queue.popleft()
    queue.popleft()  # a, whose process dies
    queue.append((urgent, 0))
    queue.appendleft((a, 1))
    assert [queue.popleft() for _ in range(3)] == [(urgent, 0), (a, 1), (b, 0)]
