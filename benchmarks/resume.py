"""Planning many units, and resuming a sweep of many finished ones beside a bare start of Ray.

    python benchmarks/resume.py [--repeat N] [--small]

A resumed run is timed from the start of its process until its one missing unit begins, by the clock of the worker that
does it (`started_at` of its row). A bare start does the same without rna-ray's driver: it starts Ray and an actor that
has imported what an evaluator imports. Planning is timed in a process of its own, without its imports.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import made_up
from pairs import Comparison, Measured, Side, in_turn, main, measured, say
from subjects import folder

from rna_ray.store import Store, open_store
from rna_ray.sweep import plan, spec
from rna_ray.sweep.units import Unit

MINUTES = 6
SIZES = {False: (10_000, 100_000), True: (250, 500)}
TRIES = 5

BARE = """
import logging, time
import ray
ray.init(address="local", log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
print("ray", time.time(), flush=True)
@ray.remote
class Bare:
    def perform(self):
        import rna_ray.running.work
        return time.time()
print("unit", ray.get(Bare.remote().perform.remote()), flush=True)
"""

PLAN = """
import os, sys, time
from rna_ray.sweep import plan, spec
started = time.perf_counter()
found = plan.plan(spec.load(sys.argv[1]), digest=lambda data: "content")
assert all(unit.id for unit in found.units)
took = time.perf_counter() - started
from pairs import largest
print(took, largest(os.getpid()))
"""


def compare(repeat: int, small: bool) -> Iterator[Comparison]:
    """Yield the rows."""
    finished, many = SIZES[small]
    path = made_up.sweep_file(folder(), many)
    (found,) = in_turn(lambda: planning(path), repeat=repeat, name="planning")
    yield Comparison(
        row=f"plan of about {many:,} units", unit="seconds",
        ours=Side("rna-ray plan, less its imports", found, 1),
    )
    planned = plan.plan(spec.load(made_up.sweep_file(folder(), finished)))
    store = open_store(folder() / "finished")
    with mock.patch("os.fsync"):  # what is thrown away need not outlive a power cut
        missing = made_up.fill(store, planned)
    ours, peer = in_turn(
        lambda: measured(resumed(store, missing)), lambda: measured(bare()[1]), repeat=repeat, name="resuming"
    )
    yield Comparison(
        row=f"resuming a sweep of {len(planned.units):,} units, one of them missing: until it begins",
        ours=Side("rna-ray resume", ours), peer=Side("Ray and an actor", peer), unit="seconds",
    )


def resumed(store: Store, missing: Unit) -> float:
    """Return the seconds until the missing unit begins, and take its rows away again."""
    started, _ = ended("from rna_ray.cli import main; main()", "resume", "--store", store.uri)
    (began,) = store.read_file("evaluations", missing.id)["started_at"].to_pylist()
    store.discard(missing.id, "evaluations")
    return began.timestamp() - started


def bare() -> tuple[float, float]:
    """Return the seconds until Ray is there, and until an actor of it could begin a unit."""
    started, out = ended(BARE)
    at = dict(line.split() for line in out.splitlines())
    return float(at["ray"]) - started, float(at["unit"]) - started


def ended(code: str, *words: str) -> tuple[float, str]:
    """Return when a process started, and what it printed; where Ray did not start in its 30 s, it is started again."""
    for _ in range(TRIES):
        started = time.time()
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        if done.returncode == 0:
            return started, done.stdout
        if "timed out during startup" not in done.stderr:
            break
        say("Ray did not start: once more")
    raise SystemExit(done.stderr)


def planning(path: Path) -> Measured:
    """Return the seconds of planning a sweep, less the imports, and the memory."""
    done = subprocess.run(
        [sys.executable, "-c", PLAN, path], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    seconds, megabytes = map(float, done.stdout.split())
    return measured(seconds, megabytes)


if __name__ == "__main__":
    main(compare, __doc__)
