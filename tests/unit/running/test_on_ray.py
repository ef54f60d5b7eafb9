"""Starting a Ray of one's own, without one: what is tried again, and what is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rna_ray.running import on_ray


def failing(*errors: Exception | None) -> tuple[Callable[[], None], list[Exception | None]]:
    """Return what fails with these errors in turn, and those that it has not raised yet."""
    left = list(errors)

    def begin() -> None:
        if (error := left.pop(0)) is not None:
            raise error

    return begin, left


def test_a_node_that_does_not_start_in_time_is_started_once_more() -> None:
    begin, left = failing(Exception("The current node timed out during startup."), None)
    on_ray._begin_here(begin)
    assert not left


@pytest.mark.parametrize(
    ("errors", "untried"),
    [
        ([Exception("timed out"), Exception("timed out again"), None], 1),
        ([ValueError("a wrong argument"), None], 1),  # what another try would not change
    ],
)
def test_it_is_not_tried_for_ever(errors: list[Exception | None], untried: int) -> None:
    begin, left = failing(*errors)
    with pytest.raises(Exception, match=str(errors[-2])):
        on_ray._begin_here(begin)
    assert len(left) == untried
