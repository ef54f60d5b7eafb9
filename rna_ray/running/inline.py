"""Do units one after the other in this process, so that pdb and plain profilers work."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from rna_ray.errors import ResourceError
from rna_ray.running.progress import Progress
from rna_ray.running.stop import Stop
from rna_ray.running.tasks import Tasks
from rna_ray.running.work import perform
from rna_ray.training.fit import Stopped

if TYPE_CHECKING:
    from rna_ray.running.races import Races


def check(tasks: Tasks) -> None:
    """Raise ResourceError where units ask for a GPU that this machine does not have."""
    asked = max(tasks.share(kind).gpu for kind in tasks.kinds) if tasks.kinds else 0
    if asked > torch.cuda.device_count():
        raise ResourceError(
            f"resources ask for {asked:g} GPU a unit, and this machine has {torch.cuda.device_count()}; "
            "set resources.train.gpu and resources.evaluate.gpu to 0, or run on a cluster with --address auto"
        )


def run(tasks: Tasks, progress: Progress, stop: Stop, races: Races | None = None) -> None:
    """Do every unit in the plan's order; a unit whose network could not be made, or was stopped early, is left out.

    Returns before all is done once the run is to stop: after the unit, a training as soon as its state is written.
    """
    left_out: set[str] = set()

    def epoch(unit_id: str, row: dict[str, Any]) -> None:
        progress.epoch(unit_id, row)
        if races and races.epoch(unit_id, row):
            raise Stopped("stopped early")

    for unit in tasks.units:
        if stop.asked:
            return
        if left_out & set(unit.needs):
            continue
        progress.begun(unit.id)
        with stop.gently() if unit.kind == "train" else contextlib.nullcontext():
            done = perform(tasks.job(unit), lambda row, unit=unit: epoch(unit.id, row))
        if races and unit.id in races.stopped:
            progress.stopped_early(unit.id)
            left_out.add(unit.id)
            continue
        if done.state == "stopped":
            stop.ask(done.error)
            return
        progress.finished(done)
        if done.state == "failed":
            left_out.add(unit.id)
