"""Do units one after the other in this process, so that pdb and plain profilers work."""

from __future__ import annotations

import torch

from rna_ray.errors import ResourceError
from rna_ray.running.progress import Progress
from rna_ray.running.tasks import Tasks
from rna_ray.running.work import perform


def check(tasks: Tasks) -> None:
    """Raise ResourceError where units ask for a GPU that this machine does not have."""
    asked = max(tasks.share(kind).gpu for kind in tasks.kinds) if tasks.kinds else 0
    if asked > torch.cuda.device_count():
        raise ResourceError(
            f"resources ask for {asked:g} GPU a unit, and this machine has {torch.cuda.device_count()}; "
            "set resources.train.gpu and resources.evaluate.gpu to 0, or run on a cluster with --address auto"
        )


def run(tasks: Tasks, progress: Progress) -> None:
    """Do every unit in the plan's order; a unit whose network could not be trained or imported is left out."""
    failed: set[str] = set()
    for unit in tasks.units:
        if failed & set(unit.needs):
            continue
        done = perform(tasks.job(unit), lambda row, unit=unit: progress.epoch(unit.id, row))
        progress.finished(done)
        if done.state == "failed":
            failed.add(unit.id)
