"""Networks whose weights cannot be used any more, and where a plan's units stand where they must be made again."""

from __future__ import annotations

from collections.abc import Collection

from rna_ray.store import Store, weights
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.status import Retry, Status
from rna_ray.sweep.status import standing as by_rows
from rna_ray.sweep.units import checkpoints


def standing(plan: Plan, store: Store, retry: Retry = "failed") -> Status:
    """Return where each unit of a plan stands, from a look at its rows and at the weights that are still needed."""
    status = by_rows(plan, store, retry)
    gone = lost(store, {one for unit in status.ready for one in checkpoints(unit).items()})
    return by_rows(plan, store, retry, gone) if gone else status


def lost(store: Store, wanted: Collection[tuple[str, str]]) -> dict[str, str]:
    """Return the finished networks, of these ids and checkpoints, whose weights cannot be used, and why."""
    found = sorted(wanted)
    whole = store.files.each(lambda one: weights.look_whole(store, *one), found)
    if odd := [one for one, well in zip(found, whole, strict=True) if not well]:
        from rna_ray.running import inputs  # which builds each network, and takes torch
    said = {network: inputs.damaged_weights(store, network, name) for network, name in odd}
    return {network: why for network, why in said.items() if why is not None}
