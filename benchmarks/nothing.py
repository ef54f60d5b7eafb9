"""Units that do nothing: 10,000 through the pool, and 1,000 as Tune trials, against bare Ray tasks that write as much.

    python benchmarks/nothing.py [--repeat N] [--small]

Ours is a run of a sweep as `rna-ray run --address local` does it, whose workers make up a record in place of each
unit's work; all else is what it always is. It is timed by the files of the records, from the first to the last, so
that the start of Ray and of the workers does not count. A bare task writes the same bytes to a file, and does not wait
for the disk. The memory is that of the driver, when the first, the middle and the last record was written.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import made_up
from pairs import Apart, Comparison, Goal, Measured, Side, Turn, at_most, in_turn, main, resident, within
from subjects import folder

from rna_ray.store import Store, open_store
from rna_ray.store.seal import sealed
from rna_ray.sweep import plan, spec

MINUTES = 15
SIZES = {False: (10_000, 1_000), True: (250, 20)}
FLAT = Goal("at most 5 % above half", lambda one: one.peer is not None and one.ours.median <= 1.05 * one.peer.median)
TRIALS = """\
name: trials
data: {name: digits, held_out: 128}
network: {name: resnet8, width: 4, norm: BN+IN}
training: {objective: blackbox, epochs: 1}
grid: {seed: SEEDS}
"""


def compare(repeat: int, small: bool) -> Iterator[Comparison]:
    """Yield the rows."""
    units, trials = SIZES[small]
    path, trained = made_up.sweep_file(folder(), units), folder() / "trained"
    planned = plan.plan(spec.load(path))
    with mock.patch("os.fsync"):  # what is thrown away need not outlive a power cut
        made_up.networks(open_store(trained), planned, [unit.id for unit in planned.units])
    with (
        Apart("rna-ray, its pool", pooled, path, trained) as ours,
        Apart("bare Ray tasks", bare, folder(), units) as tasks,
    ):
        found, theirs = in_turn(lambda: (ours(), ours.said), tasks, repeat=repeat, name="units that do nothing")
    mine, said = [one for one, _ in found], [one for _, one in found]
    row = f"{said[0]['units']:,} units that do nothing"
    yield Comparison(row=row, ours=ours.side(mine), peer=tasks.side(theirs), unit="seconds", goal=within(1.5))
    memory = {
        when: [Measured(one[when], one[when], measured.load) for one, measured in zip(said, mine, strict=True)]
        for when in ("first", "half", "last")
    }
    first = Side("", memory["first"]).median
    yield Comparison(
        row=f"{row}: memory of the driver", unit="MB", goal=FLAT, peer=Side("at half", memory["half"]),
        ours=Side(f"at the end; {first:.0f} at the first", memory["last"]),
    )
    with Apart("rna-ray, its trials", tried, folder(), trials) as ours:
        (found,) = in_turn(ours, repeat=repeat, name="trials that do nothing")
    yield Comparison(
        row=f"{trials:,} Tune trials that do nothing", ours=ours.side(found), unit="ms a trial", goal=at_most(25)
    )


# -- ours --------------------------------------------------------------------------------------------------------------


def pooled(turn: Turn, path: Path, trained: Path) -> None:
    """Measure the seconds of the evaluations of a sweep whose networks are `trained` in the store that lies there.

    Says how many they were, and the driver's megabytes on the way.
    """
    planned = plan.plan(spec.load(path))
    while True:
        store = fresh_store(path.parent)
        shutil.copytree(trained, store.uri, dirs_exist_ok=True)
        with memory() as looks:
            run(planned, store)
        times = written(store, "evaluations")
        seconds = (times[-1] - times[0]) * len(times) / (len(times) - 1)
        at = {"first": times[0], "half": times[len(times) // 2], "last": times[-1]}
        nearest = {when: min(looks, key=lambda look, time=time: abs(look[0] - time))[1] for when, time in at.items()}
        turn(seconds, said={"units": len(times), **nearest})


def tried(turn: Turn, place: Path, trials: int) -> None:
    """Measure the milliseconds that a trial takes, one with the others."""
    path = place / "trials.yaml"
    path.write_text(TRIALS.replace("SEEDS", str(list(range(trials)))), encoding="utf-8")
    planned = plan.plan(spec.load(path))
    while True:
        store = fresh_store(place)
        run(planned, store)
        times = written(store, "trials")
        turn(1000 * (times[-1] - times[0]) / (len(times) - 1))


def fresh_store(place: Path) -> Store:
    """Return an empty store.

    None is removed before all is measured, nor are the peer's files: where many were just deleted, ext4 takes several
    times as long to make a new one.
    """
    return open_store(tempfile.mkdtemp(dir=place))


def run(planned: plan.Plan, store: Store) -> None:
    """Run a sweep on a Ray of its own, its workers doing nothing."""
    import ray
    from rich.console import Console

    from rna_ray.running.run import run

    workers = {
        "worker_process_setup_hook": f"{Path(__file__).stem}.do_nothing",
        "env_vars": {"PYTHONPATH": str(Path(__file__).parent)},
    }
    with mock.patch("ray.init", functools.partial(ray.init, runtime_env=workers)):
        ended = run(planned, store, address="local", retry="none", console=Console(file=io.StringIO()))
    assert not ended.failures, ended.failures[0]


def do_nothing() -> None:
    """Let this worker make up a record for each unit, and do nothing else for it."""
    from rna_ray.running import work

    work._DO = dict.fromkeys(work._DO, _nothing)


def _nothing(job: Any, *given: object) -> dict[str, Any]:
    record = "trials" if job.unit.kind == "train" else "evaluations"
    return {record: row(record, job.unit.id)}


def row(record: str, unit_id: str) -> Any:
    """Return a row of a unit that did nothing."""
    return made_up.rows(record, 1, unit_id=unit_id, started_at=datetime.now(UTC))


def written(store: Store, view: str) -> list[float]:
    """Return when the files of a view were written, in order."""
    with os.scandir(Path(store.uri, view)) as files:
        return sorted(file.stat().st_mtime for file in files)


@contextlib.contextmanager
def memory() -> Iterator[list[tuple[float, float]]]:
    """Give a list of when one looked and the megabytes that this process then held, from inside the block."""
    looks, ended = [(time.time(), resident(os.getpid()))], threading.Event()

    def look() -> None:
        while not ended.wait(0.2):
            looks.append((time.time(), resident(os.getpid())))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield looks
    finally:
        ended.set()
        thread.join()


# -- the peer ----------------------------------------------------------------------------------------------------------


def bare(turn: Turn, place: Path, units: int) -> None:
    """Measure the seconds of as many tasks, each of which writes a file of the same bytes."""
    import ray

    data = sealed(row("evaluations", "x" * 32))[0]

    @ray.remote
    def write(path: str) -> None:
        with open(path, "wb") as file:
            file.write(data)

    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        while True:
            where = tempfile.mkdtemp(dir=place)
            paths = [f"{where}/{at}.parquet" for at in range(units)]
            started = time.perf_counter()
            ray.get([write.remote(path) for path in paths])
            turn(time.perf_counter() - started)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(compare, __doc__)
