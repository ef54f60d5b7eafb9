"""Plan minus what is done, checked, then done: what `rna-ray run` does, and what resuming is."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from rna_ray.running.progress import Progress
from rna_ray.running.provenance import code
from rna_ray.running.tasks import Done, Tasks
from rna_ray.store import Store
from rna_ray.store.records import from_rows
from rna_ray.sweep import spec as specs
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.status import Retry, Status, standing
from rna_ray.sweep.units import canonical, checkpoints


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """How a run ended."""

    status: Status
    ran: int
    failures: tuple[Done, ...]
    seconds: float
    seconds_computed: float
    """The sum of the seconds that the units took."""


def run(plan: Plan, store: Store, *, address: str, retry: Retry = "failed", console: Console) -> Summary:
    """Do what a plan asks for and the store lacks; return where it stands then.

    `address` is `inline` for this process, `local` for a Ray of its own, else a cluster's. Raises UserError before
    anything is started or written; KeyboardInterrupt where the user stops it, all that is finished kept.
    """
    started = time.perf_counter()
    status = standing(plan, store, retry)
    attempts = {unit_id: len(rows) for unit_id, rows in store.failures().items()}
    tasks = Tasks.of(status, store=absolute(store), where=plan.where, attempts=attempts, code=code())
    if not tasks.units:
        _remember(plan, store)
        return Summary(status=status, ran=0, failures=(), seconds=0.0, seconds_computed=0.0)
    _check_weights(status, store)
    if address == "inline":
        progress = _inline(plan, store, status, tasks, console)
    else:
        progress = _on_ray(plan, store, status, tasks, address, console)
    return Summary(
        status=standing(plan, store, "none"), ran=sum(progress.done.values()), failures=tuple(progress.failures),
        seconds=time.perf_counter() - started, seconds_computed=progress.seconds_computed,
    )


def _inline(plan: Plan, store: Store, status: Status, tasks: Tasks, console: Console) -> Progress:
    from rna_ray.running import inline

    inline.check(tasks)
    _remember(plan, store)
    progress = Progress(status, slots=1, console=console)
    with progress.shown():
        inline.run(tasks, progress)
    return progress


def _on_ray(plan: Plan, store: Store, status: Status, tasks: Tasks, address: str, console: Console) -> Progress:
    from rna_ray.running import on_ray

    with on_ray.cluster(address):
        on_ray.check(tasks)
        _remember(plan, store)
        progress = Progress(status, slots=on_ray.slots_for(tasks), console=console)
        with progress.shown():
            on_ray.run(tasks, progress)
    return progress


def _check_weights(status: Status, store: Store) -> None:
    """Raise CheckpointError where a network that units need is in the store, but its weights do not fit it."""
    wanted = {one for unit in status.ready for one in checkpoints(unit).items()}
    if wanted:
        from rna_ray.running import inputs
    for network, name in sorted(wanted):
        inputs.check_weights(store, network, name)


def absolute(store: Store) -> str:
    """Return an address of the store that other processes understand, whatever folder they run in."""
    return str(store.files.root) if store.files.local else store.uri


def _remember(plan: Plan, store: Store) -> None:
    """Write the plan where tables and `resume` find it, in place of the sweep's plan before."""
    store.put_plan(plan.sweep, from_rows("plans", list(_rows(plan))))


def _rows(plan: Plan) -> Iterator[dict[str, Any]]:
    shared = {"sweep": plan.sweep, "spec": specs.to_json(plan.spec)}
    for trial in plan.trials:
        said = {"variant": trial.variant, "axes": canonical(trial.row)}
        yield {**shared, **said, "unit_id": trial.network, "kind": trial.kind}
    for position, cell in enumerate(plan.cells):
        said = {"variant": cell.variant, "axes": canonical(cell.row), "position": position}
        asked = {"attack": cell.attack, "knowledge": cell.knowledge, "evaluation": cell.evaluation}
        asked |= {"source": cell.source}
        for unit_id in cell.units:
            yield {**shared, **said, **asked, "unit_id": unit_id, "kind": "evaluate"}
    for position, one in enumerate(plan.probes, start=len(plan.cells)):
        said = {"variant": one.variant, "axes": canonical(one.row), "position": position, "source": one.source}
        asked = {"attack": one.probe, "evaluation": one.evaluation}
        for unit_id in one.units:
            yield {**shared, **said, **asked, "unit_id": unit_id, "kind": "probe"}
    for position, one in enumerate(plan.certifications, start=len(plan.cells) + len(plan.probes)):
        said = {"variant": one.variant, "axes": canonical(one.row), "position": position}
        for unit_id in one.units:
            yield {**shared, **said, "evaluation": one.evaluation, "unit_id": unit_id, "kind": "certify"}
