"""Which trial Tune is told to run next."""

from __future__ import annotations

import dataclasses

import pytest

from rna_ray.running import trials


@dataclasses.dataclass(frozen=True)
class Trial:
    number: int
    status: str


class Controller:
    """What a scheduler sees of Tune: trials in their order, and which of them have a process, or one that starts."""

    def __init__(self, states: str, processes: set[int]) -> None:
        self._trials = [Trial(number, status) for number, status in enumerate(states.split())]
        self._tune_controller, self._trial_to_actor = self, {self._trials[number]: "" for number in processes}

    def get_trials(self) -> list[Trial]:
        return self._trials

    def get_live_trials(self) -> set[Trial]:
        return {trial for trial in self._trials if trial.status != "TERMINATED"}


@pytest.mark.parametrize(
    ("states", "processes", "chosen"),
    [
        ("PENDING PENDING", set(), 0),
        ("TERMINATED PENDING PENDING", {1}, 2),  # whose process starts waits for it
        ("TERMINATED TERMINATED PENDING", {2}, 2),  # but takes another's where no other trial would
        ("RUNNING PENDING PENDING PENDING", {0, 1}, 2),
        ("TERMINATED PAUSED", set(), 1),
        ("TERMINATED RUNNING", {1}, None),
    ],
)
def test_a_free_process_is_given_to_a_trial_that_has_none(states: str, processes: set[int], chosen: int | None) -> None:
    found = trials._Yielding("no run's").choose_trial_to_run(Controller(states, processes))
    assert (None if found is None else found.number) == chosen
