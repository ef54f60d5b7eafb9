"""What compiling gives a training step, and what its graphs cost: where the rule of when a unit is compiled comes from.

    python benchmarks/compiling.py [--repeat N] [--small]

ResNet-18 BN+IN, black-box, PGD-10, batch 128, in bf16, of two widths, and of six norms at a layer: a step of it
compiled, against the same step uncompiled. Then a whole training of one step and its held-out images, in a new process
each, compiled where nothing is in torch's cache of graphs, and where a process before it left them there, against the
same uncompiled: once, as it takes minutes.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pairs import Apart, Comparison, Measured, Side, Turn, main, say, times, together
from subjects import NORM, called, done, folder, precisions
from training import SIZES, apart, job, step

from rna_ray.running.tasks import Job

MINUTES = 30
CACHE = "TORCHINDUCTOR_CACHE_DIR"


def compare(repeat: int, small: bool) -> Iterator[Comparison]:
    """Yield the rows; none where bf16 is not multiplied, and so not compiled."""
    if precisions()[-1] != "bf16":
        say("  this processor does not multiply bf16, so that none is compiled in it")
        return
    wide, narrow = SIZES[small]["width"], SIZES[small]["width"] // 4
    of_two, of_six = {"norm": NORM}, {"norm": "BGN+GN[1-4]"}
    batch = SIZES[small]["batch"]
    for width, network, what in ((wide, of_two, ""), (narrow, of_two, ""), (narrow, of_six, ", six norms")):
        given = {"width": width, "batch": batch, "network": network, "precision": "bf16"}
        sides = {how: apart(job(repeat, **given, compile=how)) for how in (True, False)}
        of = together(sides, repeat=repeat, name=f"compiled, width {width}{what}")
        yield step(f"bf16, width {width}{what}, compiled, against eager", of[True], of[False], times(1))
    for width, network, what in ((wide, of_two, ""), (narrow, of_six, ", six norms")):
        given = {"width": width, "batch": batch, "network": network, "precision": "bf16", "held_out": batch}
        yield from _graphs(f"a training of one step, width {width}{what}", given)


def _graphs(row: str, given: Mapping[str, Any]) -> Iterator[Comparison]:
    """Yield what graphs cost that are made, and that are there."""

    def training(compile: bool, cache: str) -> Measured:
        with Apart("a training", seconds, job(0, **given, compile=compile), cache) as one:
            return one()

    kept = tempfile.mkdtemp(dir=folder())
    eager = Side(called(job(0, **given, compile=False)), [training(False, kept)])
    for what in ("made", "from the cache"):
        ours = Side(called(job(0, **given, compile=True)), [training(True, kept)])
        yield Comparison(row=f"{row}, its graphs {what}", ours=ours, peer=eager, unit="seconds")


def seconds(turn: Turn, job: Job, cache: str) -> None:
    """Measure the seconds of a training, torch's graphs being kept in a folder."""
    os.environ[CACHE] = cache
    while True:
        started = time.perf_counter()
        done(job)
        turn(time.perf_counter() - started)


if __name__ == "__main__":
    main(compare, __doc__)
