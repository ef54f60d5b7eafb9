"""How long planning takes, and resuming a sweep of many finished units beside a bare start of Ray.

    make bench-resume                                      10,000 finished units, a plan of 100,000
    python benchmarks/resume.py --units 10000 --repeat 5

A resumed run is timed from the start of its process until its one missing unit begins, by the clock of the worker that
does it (`started_at` of its row). A bare start does the same without rna-ray's driver: it starts Ray and an actor that
has imported what an evaluator imports. Both are run in turn. Planning is timed in a process of its own.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa

from rna_ray.running.run import plan_rows
from rna_ray.store import Store, open_store
from rna_ray.store.records import SCHEMAS, from_rows
from rna_ray.sweep import plan, spec
from rna_ray.sweep.units import Unit, canonical

SWEEP = """\
name: many
data: {name: digits, held_out: 128}
network: {name: resnet8, width: 4, norm: BN+IN}
training: {objective: blackbox, epochs: 3, attack: {eps_255: 25.5, step_255: 6.4, steps: 5}}
grid: {seed: SEEDS}
evaluation:       # 252 units a network
  - {attack: natural, examples: 360, batch: 10, shard: 10}
  - {attack: pgd, steps: [10, 20], examples: 360, batch: 10, shard: 10, knowledge: [transfer, fixed, eot-10]}
"""
UNITS_A_NETWORK = 253
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
import resource, sys, time
started = time.perf_counter()
from rna_ray.sweep import plan, spec
imported = time.perf_counter()
found = plan.plan(spec.load(sys.argv[1]), digest=lambda data: "content")
assert all(unit.id for unit in found.units)
print(len(found.units), imported - started, time.perf_counter() - imported, time.process_time(), resource.getrusage(
    resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def sweep_file(folder: Path, units: int) -> Path:
    """Write a sweep of about so many units."""
    path = folder / f"many-{units}.yaml"
    seeds = list(range(max(1, round(units / UNITS_A_NETWORK))))
    path.write_text(SWEEP.replace("SEEDS", str(seeds)), encoding="utf-8")
    return path


def fill(store: Store, planned: plan.Plan) -> Unit:
    """Let every unit be finished, with made-up rows, but for the last; return that one. Its network's weights exist."""
    missing = planned.units[-1]
    made_up_networks(store, planned, missing.needs)
    done = store.done("evaluations")
    for unit in (one for one in planned.units[:-1] if one.kind == "evaluate" and one.id not in done):
        shared = {"unit_id": unit.id, "network_id": unit.settings["network"]}
        record = made_up("evaluations", 1, settings=canonical(unit.settings), **shared)
        views = {"evaluations": record, "examples": made_up("examples", 10, **shared)}
        store.commit(unit.id, views, record="evaluations")
    store.put_plan(planned.sweep, from_rows("plans", list(plan_rows(planned))))
    return missing


def made_up_networks(store: Store, planned: plan.Plan, whole: Collection[str]) -> None:
    """Let every network of a plan be trained, with made-up rows; the weights of those that are `whole` exist."""
    from rna_ray.running import inputs  # here: who makes up no weights should not wait for torch
    from rna_ray.training.checkpoint import Checkpoints

    done = store.done("trials")
    for unit in (one for one in planned.units if one.kind == "train" and one.id not in done):
        said: dict[str, Any] = {"settings": canonical(unit.settings)}
        if unit.id in whole:
            state = inputs.built(unit.settings, unit.id).state_dict()
            digest = Checkpoints(store, unit.id).write("best", state, {})
            trainable = sum(value.numel() for name, value in state.items() if "running_" not in name)
            said |= {"last_sha256": digest, "best_sha256": digest, "parameters": trainable}
        trial, epochs = made_up("trials", 1, unit_id=unit.id, **said), made_up("epochs", 3, unit_id=unit.id)
        store.commit(unit.id, {"trials": trial, "epochs": epochs}, record="trials")


def made_up(view: str, count: int, **said: Any) -> pa.Table:
    """Return rows of a view, filled in where nothing is said."""
    rows = _filled(view, count)
    for name, value in said.items():
        at = rows.schema.get_field_index(name)
        field = rows.schema.field(at)
        rows = rows.set_column(at, field, pa.array([value] * count, field.type))
    return rows


@functools.cache
def _filled(view: str, count: int) -> pa.Table:
    filled = {pa.string(): "x", pa.bool_(): False, pa.timestamp("us", tz="UTC"): datetime(2024, 5, 6, tzinfo=UTC)}

    def value(column: pa.Field) -> Any:
        if column.nullable:
            return None
        return [0] if pa.types.is_list(column.type) else filled.get(column.type, 1)

    return from_rows(view, [{column.name: value(column) for column in SCHEMAS[view]}] * count)


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
        print("Ray did not start: once more", file=sys.stderr)
    raise SystemExit(done.stderr)


def planning(path: Path) -> Iterator[float]:
    """Yield the units of a plan, the seconds of imports and of planning, the CPU seconds of both, and the megabytes."""
    done = subprocess.run([sys.executable, "-c", PLAN, path], capture_output=True, text=True, check=True)
    yield from map(float, done.stdout.split())


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=10_000, help="finished units of the resumed sweep")
    parser.add_argument("--plan-units", type=int, default=100_000, help="units of the plan")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--store", help="where the filled store is kept for the next time; else nowhere")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rna-ray-bench-") as folder:
        plans = [list(planning(sweep_file(Path(folder), asked.plan_units))) for _ in range(asked.repeat)]
        kept = Path(asked.store or folder, "store").absolute()
        planned = plan.plan(spec.load(sweep_file(Path(folder), asked.units)))
        store = open_store(kept)
        print(f"filling {kept}", file=sys.stderr)
        with mock.patch("os.fsync"):  # what is thrown away need not outlive a power cut
            missing = fill(store, planned)
        starts, resumes = [], []
        for _ in range(asked.repeat):
            starts.append(bare())
            resumes.append(resumed(store, missing))
            print(f"bare {starts[-1][1]:.2f} s, resumed {resumes[-1]:.2f} s", file=sys.stderr)
    document = {
        "cores": os.cpu_count(), "repeat": asked.repeat,
        "plan": {"units": int(plans[0][0]), "seconds": said(one[2] for one in plans),
                 "import_seconds": said(one[1] for one in plans),
                 "cpu_seconds": said(one[3] for one in plans), "megabytes": plans[0][4]},
        "resume": {
            "finished_units": len(planned.units) - 1, "seconds": said(resumes),
            "bare_ray_init_seconds": said(one[0] for one in starts),
            "bare_first_actor_seconds": said(one[1] for one in starts),
            "more_than_bare_seconds": said(mine - one[1] for mine, one in zip(resumes, starts, strict=True)),
        },
    }  # fmt: skip
    print(json.dumps(document, indent=2))


def said(found: Any) -> dict[str, float]:
    """Return the median, the least and the most of some numbers."""
    numbers = sorted(found)
    named = {"median": statistics.median(numbers), "least": numbers[0], "most": numbers[-1]}
    return {name: round(number, 2) for name, number in named.items()}


if __name__ == "__main__":
    main()
