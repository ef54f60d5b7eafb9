"""All benchmarks, or those that are named: one table in Markdown, and every measurement in benchmarks.parquet.

    make bench                                                     all, in full
    make bench ARGS="tables start --repeat 3"                      some of them
    python benchmarks/bench.py [NAME …] [--repeat N] [--small]

The table is printed on stdout once all is done. The measurements are added to benchmarks.parquet in this folder as each
benchmark ends, so that two runs can be compared, and a run that is broken off loses only what it was at. Exit status 1
says that a benchmark failed; a goal that is not reached is no failure.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pairs import CORES, REPEAT, Comparison, cpu, parser, say, table, words

import rna_ray
from rna_ray.running.provenance import code

NAMES = (
    "start", "training", "compiling", "evaluation", "certification", "autoattack", "nothing", "resume", "tables",
    "sweeps", "gpu",
)  # fmt: skip
FILE = Path("benchmarks.parquet")
QUIET = 0.1
"""The load average a core below which a machine counts as quiet."""
VERSIONS = ("torch", "ray", "duckdb", "pyarrow", "torchattacks", "pyautoattack")


def main() -> None:
    """Do the benchmarks, print the table."""
    options = parser(__doc__)
    options.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(NAMES)}; all but gpu")
    asked = options.parse_args()
    if unknown := sorted(set(asked.names) - set(NAMES)):
        options.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    load = os.getloadavg()[0]
    say(
        f"{CORES} cores, load average {load:.2f}: "
        + ("quiet" if load <= QUIET * CORES else "NOT QUIET, so no number below can be believed")
    )
    modules = {name: importlib.import_module(name) for name in asked.names or NAMES[:-1]}
    minutes = {name: getattr(module, "MINUTES", 5.0) for name, module in modules.items()}
    run, began, ended, found, failed = machine(asked.small), time.monotonic(), 0.0, [], []
    for name, module in modules.items():
        # Until one has ended, they take what they took on two quiet cores, by turns, of which the first one warms up.
        first = None if asked.small else 60.0 * (1 + asked.repeat) / (1 + REPEAT)
        pace = (time.monotonic() - began) / ended if ended else first
        left = f", about {words(pace * (sum(minutes.values()) - ended))} left" if pace else ""
        say(f"{name} ({len(found)} rows so far{left})")
        rows = []
        try:
            for one in module.compare(asked.repeat, asked.small):
                rows.append(one)
        except (Exception, SystemExit) as error:
            failed.append(name)
            say(f"{name} failed: {error if isinstance(error, SystemExit) else traceback.format_exc()}")
        ended += minutes[name]
        found += rows
        keep([row | run for one in rows for row in measurements(one)])
    if found:
        print(table(found))
    took, load = words(time.monotonic() - began), os.getloadavg()[0]
    say(f"{len(found)} rows in {took}, added to {FILE}; load average {load:.2f}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def machine(small: bool) -> dict[str, Any]:
    """Return what all measurements of a run share: when, which code, and what machine."""
    made = code()
    flags = cpu().get("flags", "").split()
    return {
        "run": datetime.now(UTC), "small": small, "commit": made.commit, "dirty": made.dirty, "host": platform.node(),
        "cpu": cpu().get("model name", platform.processor()), "cores": CORES, "rna_ray": rna_ray.__version__,
        "flags": " ".join(one for one in flags if one.startswith(("avx", "amx"))), "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in VERSIONS},
    }  # fmt: skip


def measurements(one: Comparison) -> Iterator[dict[str, Any]]:
    """Yield a row for each measurement of a comparison."""
    for name, side in (("ours", one.ours), ("peer", one.peer)):
        for at, found in enumerate(side.found if side else ()):
            yield {
                "row": one.row, "side": name, "what": side.what, "unit": one.unit, "nth": at, "value": found.value,
                "megabytes": found.megabytes or None, "load": found.load, "threads": side.threads,
                "goal": one.goal.words if one.goal else None, "ratio": one.ratio, "reached": one.reached,
            }  # fmt: skip


def keep(rows: Sequence[dict[str, Any]]) -> None:
    """Add rows to the file."""
    if not rows:
        return
    tables = [pq.read_table(FILE)] if FILE.exists() else []
    every = pa.concat_tables([*tables, pa.Table.from_pylist(list(rows))], promote_options="permissive")
    aside = FILE.with_suffix(".tmp")
    pq.write_table(every, aside, compression="zstd")
    aside.replace(FILE)


if __name__ == "__main__":
    main()
