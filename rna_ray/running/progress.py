"""What is going on, and how long it will take: bars on a terminal, a line now and then elsewhere. Writes to stderr."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from rna_ray.running.tasks import Done
from rna_ray.sweep.cost import clock, seconds
from rna_ray.sweep.status import Status
from rna_ray.sweep.units import NAMES

LINE_SECONDS = 30.0


class Progress:
    """The ledger of a run: which units ended, how far the trials are, and from that the time left.

    Thread-safe: trials report from Tune's loop, evaluations from the pool's thread.
    """

    def __init__(self, status: Status, *, slots: int, console: Console) -> None:
        self.console, self.slots = console, max(slots, 1)
        self.totals = collections.Counter(unit.kind for unit in status.to_do)
        self.done: collections.Counter[str] = collections.Counter()
        self.failures: list[Done] = []
        self._kinds = {unit.id: unit.kind for unit in status.to_do}
        self._costs = {unit.id: float(status.costs[unit.id]) for unit in status.to_do}
        self._epochs = {
            unit.id: unit.settings["training"]["epochs"] for unit in status.to_do if unit.kind == "train"
        }
        self._finished: dict[str, float] = {}  # seconds by id
        self._partial: dict[str, tuple[float, float]] = {}  # of running trials: fraction done, seconds so far
        self._lock, self._started = threading.Lock(), time.monotonic()

    # -- events ------------------------------------------------------------------------------------------------------

    def epoch(self, unit_id: str, row: Mapping[str, Any]) -> None:
        """Take note of an epoch that a trial finished."""
        with self._lock:
            spent = self._partial.get(unit_id, (0.0, 0.0))[1] + row["seconds"]
            self._partial[unit_id] = row["epoch"] / self._epochs[unit_id], spent

    def finished(self, done: Done) -> None:
        """Take note of a unit that ended."""
        with self._lock:
            self._partial.pop(done.unit_id, None)
            self._finished[done.unit_id] = done.seconds
            self.done[done.kind] += 1
            if done.state == "failed":
                self.failures.append(done)

    @property
    def seconds_computed(self) -> float:
        """The sum of the seconds that the finished units took."""
        return sum(self._finished.values())

    # -- the estimate ------------------------------------------------------------------------------------------------

    def left(self) -> float:
        """Return the estimated seconds left: the work left, at the speed so far of its kind, over the slots."""
        with self._lock:
            rates = self._rates()
            work = sum(
                self._costs[unit_id] * rates[kind] * (1.0 - self._partial.get(unit_id, (0.0, 0.0))[0])
                for unit_id, kind in self._kinds.items()
                if unit_id not in self._finished
            )
        return work / self.slots

    def _rates(self) -> dict[str, float]:
        """Return the seconds a multiply-add took so far, of each kind; the usual ones for kinds not yet seen."""
        cost: collections.Counter[str] = collections.Counter()
        spent: collections.Counter[str] = collections.Counter()
        for unit_id, took in self._finished.items():
            cost[self._kinds[unit_id]] += self._costs[unit_id]
            spent[self._kinds[unit_id]] += took
        for unit_id, (fraction, took) in self._partial.items():
            cost["train"] += self._costs[unit_id] * fraction
            spent["train"] += took
        return {kind: spent[kind] / cost[kind] if cost[kind] else seconds(1.0) for kind in self.totals}

    def line(self) -> str:
        """Return where things stand, in one line."""
        parts = [f"{NAMES[kind]} {self.done[kind]}/{total}" for kind, total in self.totals.items()]
        if self.failures:
            parts.append(f"{len(self.failures)} failed")
        with self._lock:
            running = ", ".join(f"{fraction:.0%}" for fraction, _ in self._partial.values())
        if running:
            parts.append(f"in training: {running}")
        passed = time.monotonic() - self._started
        return f"{' · '.join(parts)} · {clock(passed)} passed, about {clock(self.left())} left"

    # -- the display -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the progress inside the block: live on a terminal, else a line every half minute."""
        stop = threading.Event()
        if not self.console.is_terminal:
            with _ticking(stop, LINE_SECONDS, self._print):
                yield
            return
        with self._bars() as bars, _ticking(stop, 0.2, lambda: self._move(bars)):
            yield

    def _print(self) -> None:
        self.console.print(self.line(), highlight=False, soft_wrap=True)

    def _bars(self) -> Bars:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Left(self))
        bars = Bars(*columns, console=self.console, refresh_per_second=4)
        for kind, total in self.totals.items():
            bars.add_task(NAMES[kind], total=total)
        return bars

    def _move(self, bars: Bars) -> None:
        with self._lock:
            part = sum(fraction for fraction, _ in self._partial.values())
        for task, kind in zip(bars.tasks, self.totals, strict=True):
            bars.update(task.id, completed=self.done[kind] + (part if kind == "train" else 0.0))


class _Left(ProgressColumn):
    """The time left of the whole run, beside its first bar."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def render(self, task: Task) -> Text:
        if task.id:
            return Text(f"{len(self._progress.failures)} failed" if self._progress.failures else "", style="red")
        return Text(f"about {clock(self._progress.left())} left", style="cyan")


@contextlib.contextmanager
def _ticking(stop: threading.Event, every: float, act: Callable[[], None]) -> Iterator[None]:
    """Act every so many seconds inside the block, from a thread, and once more as it is left."""

    def tick() -> None:
        while not stop.wait(every):
            act()

    thread = threading.Thread(target=tick, name="rna-ray-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        act()
