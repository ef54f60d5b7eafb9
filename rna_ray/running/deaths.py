"""What becomes of a unit whose process died, without a word or with its whole node."""

from __future__ import annotations

import functools
import platform

from rna_ray.errors import StoreError
from rna_ray.running.tasks import Done, Job
from rna_ray.store import open_store

RETRIES = 2
"""How often a unit is started again after its process died; an error that a unit raises is not tried again."""
NODES_LOST = 20
"""How often a unit is started again because its whole node left, which is rarely the unit's doing."""


def lost(job: Job, why: str) -> Done:
    """Record in the store that a unit's process died, as the process itself could not, and return how it ended.

    The kernel and Ray end a process for its memory without a word to it, so this says the batch.
    """
    training = job.unit.settings.get("training")
    if batch := (training or job.unit.settings).get("batch"):
        why += f"; where that was for its memory, a smaller batch than {batch} helps"
    ended = functools.partial(Done, unit_id=job.unit.id, kind=job.unit.kind, seconds=0.0)
    try:
        store = open_store(job.store)
        if said := store.failed(job.unit.id, job.attempt):
            return ended(state="failed", error=said)
        store.fail(
            job.unit.id, kind=job.unit.kind, attempt=job.attempt, error="ProcessDied", message=why, traceback="",
            host=platform.node(),
        )
    except StoreError as error:
        return ended(state="stopped", error=str(error))
    return ended(state="failed", error=why)
