"""Where the time goes: in one training step, by torch's profiler, and in one sweep, by the clock of its units' rows.

    python benchmarks/profiles.py [--small]        or make profile

The step and the sweep are those of `training.py` and `sweeps.py`, the step in the precision that is fastest here, with
a path for each example, eager and, where that is done, compiled.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import training
from pairs import CORES, Command, say
from start import RNA_RAY
from subjects import done, precisions

from rna_ray.store import open_store
from sweeps import fresh, sweep

KINDS = {
    "norms, activations and sums in one pass, by the compiler": ("cpp_fused", "triton"),
    "convolutions": ("conv",),
    "norms": ("norm",),
    "activations": ("relu", "threshold"),
    "casts, copies and reordering": ("copy", "contiguous", "clone", "to_", "reorder"),
    "sums and products": ("add", "mul", "sum", "mean", "sub", "div", "lerp"),
}
"""What operations are, by what their names hold; the first that fits counts."""


def step(small: bool, compile: bool) -> Iterator[tuple[str, float]]:
    """Yield what a training step spends its seconds on."""
    from torch._inductor import config
    from torch.profiler import ProfilerActivity, profile

    job = training.job(2, **training.SIZES[small], precision=precisions()[-1], compile=compile)
    profiler = profile(activities=[ProfilerActivity.CPU])
    epochs: list[Mapping[str, Any]] = []

    def report(row: Mapping[str, Any]) -> None:
        epochs.append(row)
        if len(epochs) == 1:  # the first one warms up
            profiler.start()
        elif len(epochs) == 2:
            profiler.stop()

    with config.patch({"cpp.enable_kernel_profile": True}):
        done(job, report=report)
    seconds = dict.fromkeys([*KINDS, "other operations"], 0.0)
    for one in profiler.key_averages():
        kinds = (kind for kind, names in KINDS.items() if any(name in one.key for name in names))
        seconds[next(kinds, "other operations")] += one.self_cpu_time_total / 1e6
    yield from seconds.items()
    whole = job.unit.settings["training"]["batch"] / epochs[1]["images_per_second"]
    yield "between operations: Python, and what is not profiled", max(0.0, whole - sum(seconds.values()))


def units(small: bool) -> Iterator[tuple[str, float]]:
    """Yield what a sweep spends the core-seconds on that its wall time has."""
    place = fresh()
    (place / "sweep.yaml").write_text(json.dumps(sweep(small)), encoding="utf-8")
    began = datetime.now(UTC)
    started = time.perf_counter()
    Command(RNA_RAY, "run", place / "sweep.yaml", "--address", "local", "--store", place / "store")()
    wall = time.perf_counter() - started
    store = open_store(place / "store")
    spans: list[tuple[float, float]] = []
    for view, what in (("trials", "trainings"), ("evaluations", "evaluations")):
        rows = store.read(view).select(["started_at", "seconds"]).to_pylist()
        spans += [(begin := (row["started_at"] - began).total_seconds(), begin + row["seconds"]) for row in rows]
        yield what, sum(row["seconds"] for row in rows)
    first, last = min(begin for begin, _ in spans), max(end for _, end in spans)
    idle = CORES * (last - first) - sum(end - begin for begin, end in spans)
    final = sum(last - max(end for _, end in lane) for lane in lanes(spans))
    yield "before the first unit: Python, Ray, workers that import torch", CORES * first
    yield "between units: an evaluator's start, reading, committing, handing out", idle - final
    yield "cores without a unit at the end, while the last ones are done", final
    yield "after the last unit: the plan is looked over again, Ray ends", CORES * (wall - last)


def lanes(spans: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Return spans laid out on the cores, each on the one that has been free for the shortest time."""
    found: list[list[tuple[float, float]]] = [[] for _ in range(CORES)]
    for span in sorted(spans):
        free = [lane for lane in found if not lane or lane[-1][1] <= span[0]] or found
        max(free, key=lambda lane: lane[-1][1] if lane else 0.0).append(span)
    return found


def main() -> None:
    """Print both as tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="in seconds of work: whether it works, no measurement")
    small = parser.parse_args().small
    looks = [(f"a training step, {precisions()[-1]}, eager", "seconds", lambda: step(small, False))]
    if precisions()[-1] == "bf16" and not small:  # to compile is no work of seconds
        looks.append(("a training step, bf16, compiled", "seconds", lambda: step(small, True)))
    looks.append(("a sweep", "core-seconds", lambda: units(small)))
    for name, unit, look in looks:
        say(f"{name}, in {unit}")
        found = list(look())
        total = sum(seconds for _, seconds in found)
        print(f"| {name} | {unit} | % |\n| --- | --- | --- |")
        for what, seconds in sorted(found, key=lambda one: -one[1]):
            print(f"| {what} | {seconds:.2f} | {100 * seconds / total:.1f} |")
        print()


if __name__ == "__main__":
    main()
