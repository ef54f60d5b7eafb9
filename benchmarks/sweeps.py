"""A sweep of 24 small trials and their evaluations, against a shell loop and a plain Ray Tune script.

    python benchmarks/sweeps.py [--repeat N] [--small]

All three do the same units by the same code, so only what is around them differs: `rna-ray run --address local`; a
shell loop that starts a process for each training and each attack, one loop a core (`xargs -P`); and a Ray Tune script
that attacks inside the trial. Overhead is the wall time times the cores over the useful compute: the seconds of the
rows, of the one of the three that took the fewest, so that no one gains by slow units. Of both that start a Ray, the
wall time is beyond a bare start of Ray, as `resume.py` times it.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import resume
from pairs import CORES, Command, Comparison, Measured, Side, at_most, in_turn, main, times
from start import RNA_RAY
from subjects import Sweep, folder, jobs, planned

from rna_ray.running.tasks import Job
from rna_ray.store import open_store

MINUTES = 110
PLAIN = Path(__file__).with_name("plain.py")


class Ran(NamedTuple):
    """One run of the sweep."""

    wall: Measured
    compute: Measured
    """The sum of the seconds of its rows."""
    peaks: Mapping[str, Measured]
    """The most megabytes that a trial held, and an evaluator, by view; in a process that does both, both."""


def sweep(small: bool) -> Sweep:
    """Return a sweep of three norms by eight seeds, or where it is small one seed, each unit on one core."""
    width, epochs, examples, steps = (4, 1, 10, 2) if small else (16, 24, 360, 20)
    images = {"train_examples": 64, "held_out": 16} if small else {"held_out": 128}
    return {
        "name": "sweep", "data": {"name": "digits", **images}, "network": {"name": "resnet8", "width": width},
        "training": {
            "objective": "blackbox", "epochs": epochs, "batch": 64, "lr": 0.2, "schedule": {"name": "one-cycle"},
            "attack": {"eps_255": 25.5, "step_255": 6.4, "steps": 5},
        },
        "grid": {"network.norm": ["BN", "IN", "BN+IN"], "seed": list(range(1 if small else 8))},
        "evaluation": [
            {"attack": "natural", "examples": examples},
            {"attack": "pgd", "steps": steps, "examples": examples, "knowledge": ["fixed", "eot-10"]},
        ],
    }  # fmt: skip


def compare(repeat: int, small: bool) -> Iterator[Comparison]:
    """Yield the rows."""
    if not small:  # warm what the disk remembers
        [one(sweep(True)) for one in (rna_ray, shell, ray_tune)]
    given = sweep(small)
    found = in_turn(
        *(lambda one=one: one(given) for one in (rna_ray, shell, ray_tune)), repeat=repeat, name="sweep", warm=False
    )
    start = statistics.median(resume.bare()[0] for _ in range(3))
    useful = min(statistics.median(one.compute.value for one in runs) for runs in found)
    row, names = f"sweep of {len(planned(given).trials)} trials", ("rna-ray run", "shell loop", "plain Ray Tune")

    def sides(of: Callable[[Ran], Measured]) -> list[Side]:
        return [Side(name, [of(one) for one in runs], 1) for name, runs in zip(names, found, strict=True)]

    walls, computes = sides(lambda one: one.wall), sides(lambda one: one.compute)
    for peer, began in ((1, 0.0), (2, start)):
        yield Comparison(
            row=f"{row}, {useful:.0f} core-seconds of useful compute: overhead", unit="wall × cores / compute",
            goal=at_most(1.1), ours=overhead(walls[0], start, useful), peer=overhead(walls[peer], began, useful),
        )
        yield Comparison(row=f"{row}: wall time", unit="seconds", goal=times(1), ours=walls[0], peer=walls[peer])
        yield Comparison(row=f"{row}: seconds of its rows", unit="seconds", ours=computes[0], peer=computes[peer])
    for view, what in (("trials", "a trial"), ("evaluations", "an evaluator")):
        mine, _, tuned = sides(lambda one, view=view: one.peaks[view])
        yield Comparison(row=f"{row}: peak memory of {what}", unit="MB", ours=mine, peer=tuned)


def overhead(wall: Side, start: float, useful: float) -> Side:
    """Return the wall time times the cores over the useful compute, without the seconds in which Ray starts."""
    return dataclasses.replace(
        wall, found=[one._replace(value=(one.value - start) * CORES / useful) for one in wall.found]
    )


def rna_ray(given: Sweep) -> Ran:
    """Run the sweep with rna-ray."""
    place = fresh()
    (place / "sweep.yaml").write_text(json.dumps(given), encoding="utf-8")
    return ran(place, Command(RNA_RAY, "run", place / "sweep.yaml", "--address", "local", "--store", place / "store"))


def shell(given: Sweep) -> Ran:
    """Run it as shell loops, one a core: each takes the next network, and starts a process for each of its steps."""
    place, count = fresh(), iter(range(10**6))
    lines = [" ".join(str(next(count)) for _ in network) for network in write_steps(given, place)]
    (place / "networks").write_text("\n".join(lines), encoding="utf-8")
    one = f'for step in $0; do "{sys.executable}" "{PLAIN}" step "{place}/steps.pickle" $step || exit 255; done'
    loop = f"xargs -P {CORES} -I STEPS sh -c '{one}' STEPS < '{place}/networks'"
    return ran(place, Command("sh", "-c", loop, OMP_NUM_THREADS="1"))


def ray_tune(given: Sweep) -> Ran:
    """Run it as a plain Ray Tune script."""
    place = fresh()
    write_steps(given, place)
    return ran(place, Command(sys.executable, PLAIN, "tune", place / "steps.pickle"))


def write_steps(given: Sweep, place: Path) -> Sequence[Any]:
    """Write for each network its steps: its training, then the units of each of its cells."""
    plan, store = planned(given), open_store(place / "store")
    by_id: dict[str, Job] = {job.unit.id: dataclasses.replace(job, threads=1) for job in jobs(given, store)}
    seen: set[str] = set()  # cells of a network of one path share their units
    networks = []
    for trial in plan.trials:
        cells = [cell.units for cell in plan.cells if cell.network == trial.network and not seen.issuperset(cell.units)]
        steps = [(trial.network,), *dict.fromkeys(cells)]
        seen.update(chain(*steps))
        networks.append([[by_id[unit] for unit in step] for step in steps])
    (place / "steps.pickle").write_bytes(pickle.dumps(networks))
    return networks


def fresh() -> Path:
    """Return an empty folder."""
    return Path(tempfile.mkdtemp(dir=folder()))


def ran(place: Path, command: Command) -> Ran:
    """Run a command, look at the rows that it left, and remove them."""
    wall, store = command(), open_store(place / "store")
    rows = {view: store.read(view).select(["seconds", "peak_memory"]).to_pylist() for view in ("trials", "evaluations")}
    shutil.rmtree(place)
    seconds = sum(row["seconds"] for row in chain(*rows.values()))
    peaks = {
        view: wall._replace(value=max(row["peak_memory"] for row in found) / 2**20) for view, found in rows.items()
    }
    return Ran(wall, wall._replace(value=seconds), peaks)


if __name__ == "__main__":
    main(compare, __doc__)
