"""What is measured: made-up images of CIFAR-10's size, and units of a small sweep, done as any process does them."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pairs import CORES, Turn

from rna_ray.running.run import absolute
from rna_ray.running.tasks import Job, Tasks
from rna_ray.store import Store, open_store
from rna_ray.store.records import RECORDS
from rna_ray.sweep import cost, spec
from rna_ray.sweep import plan as planning
from rna_ray.sweep.networks import Digest
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.status import standing

Sweep = Mapping[str, Any]
NORM = "BN+IN"


@functools.cache
def precisions() -> tuple[str, ...]:
    """Return what is measured here: bf16 only on processors that multiply it."""
    from rna_ray.networks.precision import multiplies_bf16

    return ("fp32", "bf16") if multiplies_bf16() else ("fp32",)


@functools.cache
def folder() -> Path:
    """Return a folder of this process's own that is removed when it ends."""
    kept = tempfile.TemporaryDirectory(prefix="rna-ray-bench-")
    _KEPT.append(kept)
    return Path(kept.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def cifar() -> str:
    """Return a folder with images of noise in the layout of CIFAR-10: no speed hangs on what they show."""
    place, draw = folder() / "cifar" / "cifar-10-batches-bin", np.random.default_rng(0)
    place.mkdir(parents=True)
    for name in (*(f"data_batch_{at}" for at in range(1, 6)), "test_batch"):
        rows = draw.integers(0, 256, (10_000, 1 + 3 * 32 * 32), dtype=np.uint8)
        rows[:, 0] %= 10
        rows.tofile(place / f"{name}.bin")
    return str(place.parent)


def resnet18(*, width: int, **given: Any) -> Sweep:
    """Return a sweep of one ResNet-18 of BN and IN on those images; its units have all cores."""
    return {
        "name": "bench", "data": {"name": "cifar10", "root": cifar(), **given.pop("data", {})},
        "network": {"name": "resnet18", "width": width, "norm": NORM, **given.pop("network", {})},
        "resources": {"train": {"cpu": CORES}, "evaluate": {"cpu": CORES}},
        **given,
    }  # fmt: skip


def hardly_trained(*, width: int, **given: Any) -> Sweep:
    """Return the sweep of a network that is trained for a moment, as what is asked of it takes as long in any case."""
    training = {"objective": "natural", "epochs": 1, "batch": 16, "lr": 0.001, "schedule": {"name": "constant"}}
    return resnet18(width=width, data={"train_examples": 16, "held_out": 0}, training=training, **given)


def planned(sweep: Sweep, digest: Digest | None = None) -> Plan:
    """Return the plan of a sweep; `digest` stands for the content of images that are not there."""
    return planning.plan(spec.from_json(json.dumps(sweep)), digest=digest)


def jobs(sweep: Sweep, store: Store) -> list[Job]:
    """Return the jobs that do a sweep's units, in their order, each as a driver gives it to a process."""
    plan = planned(sweep)
    tasks = Tasks.of(standing(plan, store, "none"), store=absolute(store), where=plan.where, attempts={}, code=_code())
    return [tasks.job(unit) for unit in tasks.units]


def long(job: Job) -> Job:
    """Return a job as one of a unit so long that its network is compiled where the sweep asks for it."""
    return dataclasses.replace(job, macs=100 * cost.COMPILED_MACS)


def called(job: Job) -> str:
    """Return what a job's side is called: its precision, and whether its network is compiled."""
    from rna_ray.running import compiling  # here: who only plans should not wait for torch

    settings = job.unit.settings
    compiled = compiling.compiles(job, settings, {"norm": NORM})
    return f"rna-ray, {settings['precision']}, {'compiled' if compiled else 'eager'}"


def _code() -> Any:
    from rna_ray.running.provenance import code

    return code()


def done(job: Job, **given: Any) -> None:
    """Do a unit in this process; RuntimeError where it does not end well."""
    from rna_ray.running.work import perform  # here, as above

    ended = perform(job, **given)
    if ended.state != "done":
        raise RuntimeError(f"unit {ended.unit_id} {ended.state}: {ended.error}")


def again(job: Job) -> float:
    """Do a unit anew, as an evaluator does it, and return the seconds that took; what it needs must be done."""
    open_store(job.store).discard(job.unit.id, RECORDS[job.unit.kind])
    started = time.perf_counter()
    done(job)
    return time.perf_counter() - started


def repeated(turn: Turn, network: Job, job: Job, draws: int | None = None) -> None:
    """Measure the seconds of a unit of a network that is trained first; with `draws`, how many of them a second."""
    done(network)
    while True:
        seconds = again(job)
        turn(seconds if draws is None else draws / seconds)
