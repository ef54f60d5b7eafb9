"""Plan minus what is done, checked, then done: what `rna-ray run` does, and what resuming is."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console

from rna_ray.errors import RunStopped, StoreError
from rna_ray.running import display, drivers, lost, rounds
from rna_ray.running.budget import Spending
from rna_ray.running.progress import Known, Progress
from rna_ray.running.provenance import code
from rna_ray.running.state import asked
from rna_ray.running.stop import Stop, interrupts
from rna_ray.running.tasks import Done, Tasks
from rna_ray.store import Store, footers
from rna_ray.store.records import RECORDS, from_rows
from rna_ray.sweep import plan as planning
from rna_ray.sweep import spec as specs
from rna_ray.sweep import throughput
from rna_ray.sweep.certifications import Smoothing
from rna_ray.sweep.evaluations import Cell
from rna_ray.sweep.forecast import ONE
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.probes import Measurement
from rna_ray.sweep.sections import Budget
from rna_ray.sweep.status import Retry, Status, standing
from rna_ray.sweep.units import Kind, canonical, checkpoints

if TYPE_CHECKING:
    from rna_ray.running.logs import Logs
    from rna_ray.running.machines import Machines
    from rna_ray.running.races import Races

Say = Callable[[str], None]
Ledger = Callable[..., Progress]
AtWork = Callable[[Progress], contextlib.AbstractContextManager[None]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """How a run ended."""

    status: Status
    ran: int
    failures: tuple[Done, ...]
    seconds: float
    seconds_computed: float
    """The sum of the seconds that the units took."""

    def then(self, later: Summary) -> Summary:
        """Return how a run ended that went on with another round."""
        return Summary(
            status=later.status, ran=self.ran + later.ran, failures=self.failures + later.failures,
            seconds=self.seconds + later.seconds, seconds_computed=self.seconds_computed + later.seconds_computed,
        )


def run(
    plan: Plan, store: Store, *, address: str, retry: Retry = "failed", console: Console, budget: Budget | None = None,
    events: TextIO | None = None,
) -> Summary:
    """Do what a plan asks for and the store lacks; return where it stands then.

    `address` is `inline` for this process, `local` for a Ray of its own, else a cluster's. Raises UserError before
    anything is started or written; KeyboardInterrupt where the user stops it, and RunStopped where something else does,
    such as a budget that is used up, all that is finished kept. `budget` stands for the sweep's own; `events` takes a
    line of JSON for each change (`display`). A search that asks for points in rounds is done to its end.
    """
    rounds.check(plan.spec)
    began, given = time.monotonic(), {"address": address, "console": console, "events": events}
    limit = budget or plan.spec.budget
    ended = _run(plan, store, retry=retry, spending=Spending.of(plan, limit, store, started=began), **given)
    while (spec := rounds.further(plan, store)) is not None:
        plan = planning.plan(spec)
        spending = Spending.of(plan, limit, store, started=began)
        ended = ended.then(_run(plan, store, retry="none", spending=spending, **given))  # one try a command
    return ended


def _run(
    plan: Plan, store: Store, *, address: str, retry: Retry, console: Console, spending: Spending,
    events: TextIO | None,
) -> Summary:
    """Do what a plan asks for and the store lacks: a whole run, or a round of one."""
    started, stop = time.perf_counter(), Stop()
    used_up = spending.reason()
    with contextlib.ExitStack() as held:
        if address == "inline" or used_up or not standing(plan, store, retry, look=False).to_do:
            found, machines = _find(plan, store, retry), None
        else:
            found, machines = _find_as_ray_starts(plan, store, retry, address, held)
        say: Say = functools.partial(console.print, highlight=False, soft_wrap=True, markup=False)
        if events is console.file:  # where each line is one of JSON
            say = lambda line: None  # noqa: E731
        if not found.tasks.units:
            _remember(plan, store, found, say)
            return Summary(status=found.status, ran=0, failures=(), seconds=0.0, seconds_computed=0.0)
        if used_up:
            _remember(plan, store, found, say)
            raise RunStopped(used_up)
        _say_who_else(store, say)
        at_work = functools.partial(_at_work, plan, store, found, say, stop, spending, address, events)
        known = functools.partial(_known, plan, store)
        ledger = functools.partial(
            Progress, found.status, sweep=plan.sweep, store=store.uri, known=known, stop=stop, console=console
        )
        races = _races(plan, store)
        if address == "inline":
            progress = _inline(ledger, found.tasks, stop, at_work, races)
        else:
            progress = _on_ray(ledger, found.tasks, stop, at_work, machines or _ray(plan, address, held), races, say)
    if stop.asked and not _ended(plan, store):
        if stop.reason is None:
            raise KeyboardInterrupt
        raise RunStopped(stop.reason)
    return Summary(
        status=standing(plan, store, "none"), ran=sum(progress.done.values()), failures=tuple(progress.failures),
        seconds=time.perf_counter() - started, seconds_computed=progress.seconds_computed,
    )


def _ended(plan: Plan, store: Store) -> bool:
    """Return whether nothing is left of a run that was asked to stop, as far as the store tells."""
    with contextlib.suppress(StoreError):  # it may be what the run was stopped for
        return not standing(plan, store, "none", look=False).to_do
    return False


_DROPPED = (
    "{0}: the store knows it with other settings, which ask for {1} that these do not; tables of {0} leave them out "
    "from now on, their results stay"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found:
    """What a run finds in the store, and what that leaves to do."""

    status: Status
    tasks: Tasks
    rows: list[dict[str, Any]] | None
    """The plan's, where the store does not hold them."""
    dropped: int
    """How many units the sweep's plan in the store asks for that this one does not."""


def _find(plan: Plan, store: Store, retry: Retry) -> _Found:
    status = lost.standing(plan, store, retry)
    tasks = Tasks.of(
        status, store=absolute(store), where=plan.where, attempts=store.attempts(), code=code(),
        driver=drivers.fresh_id(),
    )  # fmt: skip
    rows, dropped = _news(plan, store)
    return _Found(status=status, tasks=tasks, rows=rows, dropped=dropped)


def _find_as_ray_starts(
    plan: Plan, store: Store, retry: Retry, address: str, held: contextlib.ExitStack
) -> tuple[_Found, Machines]:
    """Look into the store while Ray starts: both take seconds where there are many units, and Ray mostly waits."""
    from rna_ray.running import on_ray  # noqa: F401 - before the look begins, which it would only compete with

    with ThreadPoolExecutor(1) as aside:
        finding = aside.submit(_find, plan, store, retry)
        machines = _ray(plan, address, held)
        return finding.result(), machines


def _ray(plan: Plan, address: str, held: contextlib.ExitStack) -> Machines:
    from rna_ray.running import on_ray

    return held.enter_context(on_ray.cluster(address, plan.where.sources.values()))


def _known(plan: Plan, store: Store) -> Known:
    """Return what the display knows of a plan's units, and how fast the store's were, as far as these can be read."""
    measured: list[throughput.Measured] = []
    with contextlib.suppress(StoreError):
        measured = throughput.measured(store)
    return Known(asked=asked(plan_rows(plan)), usual=throughput.usual(plan, measured))


def _races(plan: Plan, store: Store) -> Races | None:
    """Return the races that decide which trainings are stopped early; None where nobody asks for them."""
    if plan.spec.search is None or plan.spec.search.early_stopping is None:
        return None
    from rna_ray.running.races import Races  # here, as it brings Tune along

    return Races.of(plan, store)


def _inline(ledger: Ledger, tasks: Tasks, stop: Stop, at_work: AtWork, races: Races | None) -> Progress:
    from rna_ray.running import inline

    inline.check(tasks)
    progress = ledger(slots=lambda: ONE)
    with at_work(progress):
        inline.run(tasks, progress, stop, races)
    return progress


def _on_ray(
    ledger: Ledger, tasks: Tasks, stop: Stop, at_work: AtWork, machines: Machines, races: Races | None, say: Say
) -> Progress:
    from rna_ray.running import on_ray, pool

    on_ray.check(tasks, machines)
    with on_ray.seen(tasks, machines) as sight:
        progress = ledger(slots=pool.Room(tasks, machines).slots)
        with at_work(progress):  # in here, as Ray takes SIGTERM for itself when it starts
            if (awaited := on_ray.awaited(tasks, machines)) is not None:
                say(awaited)
            on_ray.run(tasks, progress, stop, machines, sight, races)
    return progress


def _logs(plan: Plan, tasks: Tasks, store: Store, console: Console, address: str) -> Logs | None:
    """Return what logs the trainings' metrics; None where there are none, or nobody asks for them."""
    asked = plan.spec.logging
    if "train" not in tasks.kinds or not (asked.tensorboard or asked.mlflow or asked.wandb):
        return None
    from rna_ray.running import logs  # here, as it brings Tune along

    return logs.opened(plan, store, console=console, inline=address == "inline")


@contextlib.contextmanager
def _at_work(
    plan: Plan, store: Store, found: _Found, say: Say, stop: Stop, spending: Spending, address: str,
    events: TextIO | None, progress: Progress,
) -> Iterator[None]:
    """Remove what is damaged, write the plan, and let who looks, workers and loggers see this driver inside the block.

    There, Ctrl-C asks it to stop.
    """
    assert found.tasks.driver is not None
    logs = _logs(plan, found.tasks, store, progress.console, address)
    _mend(plan, found.status, store)
    _remember(plan, store, found, say)
    for unit_id in store.stopped(plan.sweep).intersection(unit.id for unit in found.tasks.units):
        store.go_on(unit_id, plan.sweep)  # it was stopped early, and is not any more
    used_up = functools.partial(spending.reason, progress)
    progress.listeners += [logs] if logs else []
    with (
        interrupts(stop), drivers.present(store, found.tasks.driver, plan.sweep, stop, [used_up], progress.told),
        display.shown(progress.state, progress.console, events), logs or contextlib.nullcontext(),
    ):  # fmt: skip
        yield


def _say_who_else(store: Store, say: Say) -> None:
    """Say which drivers are at work on the store already, and of which only a file was left, which is removed."""
    for dead in drivers.tidy(store):
        say(f"a driver ended without a word: {dead.text()}")
    for other in drivers.at_work(store):
        say(f"also at work on this store: {other.text()}; both go on, but may do the same unit twice")


def _mend(plan: Plan, status: Status, store: Store) -> None:
    """Remove the rows of what is damaged, so that its units are done again; not where another driver mended it."""
    kinds = {unit.id: unit.kind for unit in plan.units if unit.id in status.damaged}
    kinds = {unit_id: kind for unit_id, kind in kinds.items() if store.is_done(unit_id, RECORDS[kind])}
    needed = {one for unit in status.to_do for one in checkpoints(unit).items() if one[0] in kinds}
    for unit_id in footers.damaged(store, kinds).keys() | lost.lost(store, needed).keys():
        store.discard(unit_id, RECORDS[kinds[unit_id]])


def absolute(store: Store) -> str:
    """Return an address of the store that other processes understand, whatever folder they run in."""
    return str(store.files.root) if store.files.local else store.uri


def _remember(plan: Plan, store: Store, found: _Found, say: Say) -> None:
    """Write the plan where tables and `resume` find it, in place of the sweep's plan before; not where it is there.

    Only then say what was found: where it cannot be written, that is the one sentence.
    """
    if found.rows is not None:
        store.put_plan(plan.sweep, from_rows("plans", found.rows))
    for why in found.status.damaged.values():
        say(f"{why}: its unit is done again")
    if found.dropped:
        say(_DROPPED.format(plan.sweep, f"{found.dropped:,} unit{'s' * (found.dropped > 1)}"))


def _news(plan: Plan, store: Store) -> tuple[list[dict[str, Any]] | None, int]:
    """Return the rows of a plan, None where the store holds just these; and how many units its own has beside them."""
    rows = list(plan_rows(plan))
    with contextlib.suppress(StoreError):  # there is none, or a damaged one
        there = store.read_file("plans", plan.sweep)
        empty = dict.fromkeys(there.column_names)
        if there.num_rows == len(rows) and there.to_pylist() == [empty | row for row in rows]:
            return None, 0
        return rows, len({*there["unit_id"].to_pylist()} - {row["unit_id"] for row in rows})
    return rows, 0


def plan_rows(plan: Plan) -> Iterator[dict[str, Any]]:
    """Yield the rows that a store keeps of a plan: of its networks, then of each unit of its cells."""
    shared = {"sweep": plan.sweep, "spec": specs.to_json(plan.spec)}
    needs = {unit.id: list(unit.needs) for unit in plan.units}
    for trial in plan.trials:
        said = {"variant": trial.variant, "axes": canonical(trial.row)}
        yield {**shared, **said, "unit_id": trial.network, "kind": trial.kind, "needs": []}
    for position, (kind, one, called) in enumerate(_cells(plan)):
        said = {"variant": one.variant, "axes": canonical(one.row), "position": position}
        for unit_id in one.units:
            yield {**shared, **said, **called, "evaluation": one.evaluation, "unit_id": unit_id, "kind": kind,
                   "needs": needs[unit_id]}  # fmt: skip


def _cells(plan: Plan) -> Iterator[tuple[Kind, Cell | Measurement | Smoothing, dict[str, Any]]]:
    """Yield what is asked of networks, in order, each with its kind and what it is called."""
    for cell in plan.cells:
        yield "evaluate", cell, {"attack": cell.attack, "knowledge": cell.knowledge, "source": cell.source}
    for probe in plan.probes:
        yield "probe", probe, {"attack": probe.probe, "source": probe.source}
    for smoothing in plan.certifications:
        yield "certify", smoothing, {}
