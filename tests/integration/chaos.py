"""A sweep under random kills, resumed until it is done, then compared row by row with an undisturbed one.

    make chaos                                        21 runs of 5 kills each, about an hour on two cores
    make chaos ARGS="--runs 2 --kills 3 --seed 7"

A seed chooses when to strike and whom: a trial's process, an evaluator, the driver (SIGKILL, or Ctrl-C), a node of a
cluster of three, or what answers for an object store, which stays away for longer than a run is patient, or shorter.
Killing is from outside, with signals: the product has no switch for it. Runs take the places in turn.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path, PurePosixPath

from chaos_places import PLACES, Place, at
from integration_base import Driver, until

from rna_ray.store import Store, differences, open_store
from rna_ray.store.records import RECORDS

SWEEP = """\
name: chaos
data: {name: digits, train_examples: 512, held_out: 32}
network: {name: resnet8, width: 8}
training:
  objective: blackbox
  epochs: 12
  batch: 32
  schedule: {name: cosine}
  attack: {eps_255: 25.5, step_255: 12.8, steps: 2}
variants:
  BN+IN: {network.norm: BN+IN}
  BN: {network.norm: BN}
  IN: {network.norm: IN}
evaluation:
  - {attack: natural, examples: 80, batch: 20, shard: 20}
  - {attack: pgd, steps: 20, knowledge: [transfer, eot-10], examples: 80, batch: 20, shard: 20}
probes:
  - {probe: transfer, eps_255: 25.5, step_255: 6.4, steps: 5, examples: 40, batch: 20, shard: 20}
certification:
  - {noise_255: 25.5, draws: 200, selection: 50, examples: 40, shard: 20, batch: 200}
"""
PAUSE = (0.5, 15.0)  # seconds between a driver that works and the next strike: the last ones meet evaluators
RUNS, KILLS = 21, 5
LAUNCHES = 10  # a sweep that is not done after so many launches without a kill never will be


@dataclasses.dataclass(frozen=True)
class Strike:
    """One kill: whom, how many units were being done there, and the most seconds of training that it cost."""

    whom: str
    units: int
    lost: float


@dataclasses.dataclass(frozen=True)
class Report:
    """What one disturbed sweep came to."""

    seed: int
    place: str
    strikes: tuple[Strike, ...]
    launches: int
    units: int
    differences: tuple[str, ...]
    seconds: float

    @property
    def redone(self) -> int:
        """How many units were being done when they were struck: begun again, or resumed from a checkpoint."""
        return sum(strike.units for strike in self.strikes)

    @property
    def lost(self) -> float:
        """The most seconds of training that one strike cost."""
        return max((strike.lost for strike in self.strikes), default=0.0)

    def line(self) -> str:
        whom = collections.Counter(strike.whom for strike in self.strikes)
        names = ", ".join(f"{count} {name}" for name, count in sorted(whom.items()))
        return (
            f"seed {self.seed}, {self.place}: {len(self.strikes)} kills ({names}), {self.launches} launches; "
            f"{self.redone} of {self.units} units begun again or resumed, at most {self.lost:.1f} s of training lost "
            f"by a kill; {len(self.differences)} differences; {self.seconds:.0f} s"
        )


def disturbed(sweep: Path, place: Place, reference: Store, *, seed: int, kills: int) -> Report:
    """Run a sweep, strike so many times while it works, resume it until it is done, and compare it with another."""
    chance, strikes, begun = random.Random(seed), [], time.monotonic()
    launch, launches = Launch(sweep, place), 1
    try:
        while launches - len(strikes) < LAUNCHES:
            if len(strikes) < kills and launch.at_work(chance.uniform(*PAUSE)):
                strikes.append(launch.strike(chance))
                if strikes[-1].whom not in ("driver", "Ctrl-C"):
                    continue
            if launch.driver.ended().code == 0:
                break
            launch.driver.clean()
            place.mended()
            launch, launches = Launch(sweep, place), launches + 1
    finally:
        launch.driver.clean()
    rows = open_store(place.seen)
    return Report(
        seed=seed, place=place.name, strikes=tuple(strikes), launches=launches,
        units=sum(len(rows.done(view)) for view in set(RECORDS.values())),
        differences=tuple(differences(reference, rows)), seconds=time.monotonic() - begun,
    )


class Launch:
    """One invocation of the command line, and what it is seen to do."""

    def __init__(self, sweep: Path, place: Place) -> None:
        self.place = place
        self.driver = Driver("run", sweep, "--store", place.store, "--retry", "all", *place.arguments)
        self._first: float | None = None
        """When a unit was first seen to be done, if any was."""

    def at_work(self, pause: float) -> bool:
        """Return whether the driver still works so many seconds after units were seen to be done."""
        try:
            until(lambda: self.driver.process.poll() is not None or any(self.place.busy(self.driver).values()))
        except AssertionError as error:
            raise AssertionError(f"no unit is being done; the driver said: {self.driver.clean()}") from error
        self._first = self._first or time.time()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.driver.process.wait(pause)
        return self.driver.process.poll() is None

    def strike(self, chance: random.Random) -> Strike:
        """Kill one of those who work, or what they work with."""
        busy = self.place.busy(self.driver)
        whom = chance.choice([one for one in self.place.whom if busy.get(one, True)])
        units, lost = sum(map(len, busy.values())), self._since_the_last_checkpoint(len(busy["trial"]))
        if whom in busy:
            os.kill(chance.choice(sorted(busy[whom])), signal.SIGKILL)
            return Strike(whom, 1, lost if whom == "trial" else 0.0)
        if whom in ("driver", "Ctrl-C"):
            self.driver.process.send_signal(signal.SIGKILL if whom == "driver" else signal.SIGINT)
            return Strike(whom, units, lost if whom == "driver" else 0.0)
        self.place.strike(chance)
        return Strike(whom, min(units, 1) if whom == "node" else 0, lost if whom == "node" else 0.0)

    def _since_the_last_checkpoint(self, trials: int) -> float:
        """Return the most seconds that one of so many trainings has gone on since it last wrote to the store.

        Those that wrote last are taken to be those that go on. None has gone on for longer than this launch does units.
        """
        store, written = open_store(self.place.seen), dict[str, float]()
        done, launch = store.done("trials"), time.time() - (self._first or time.time())
        for file in store.files.below(PurePosixPath("checkpoints")):
            unit = PurePosixPath(file.path).parent.name
            if file.is_file and not file.base_name.startswith(".") and unit not in done:
                written[unit] = min(written.get(unit, launch), time.time() - file.mtime_ns / 1e9)
        ages = [*sorted(written.values()), *[launch] * trials][:trials]  # who has written nothing yet may lose all
        return max(ages, default=0.0)


def undisturbed(sweep: Path, store: Path) -> Store:
    """Do a sweep in one process that nobody strikes."""
    driver = Driver("run", sweep, "--store", store, "--address", "inline")
    try:
        ended = driver.ended()
        assert ended.code == 0, ended.err
    finally:
        driver.clean()
    return open_store(store)


def main() -> int:
    """Strike as often as asked for and say what came of it; exit status 1 where a row is lost, doubled or different."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=RUNS, help="how many sweeps, each at the next place")
    parser.add_argument("--kills", type=int, default=KILLS, help="kills a sweep")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the next ones follow")
    given = parser.parse_args()
    reports = []
    with tempfile.TemporaryDirectory(prefix="rna-ray-chaos-") as folder:
        sweep = Path(folder, "chaos.yaml")
        sweep.write_text(SWEEP, encoding="utf-8")
        reference = undisturbed(sweep, Path(folder, "undisturbed"))
        for seed in range(given.seed, given.seed + given.runs):
            with at(PLACES[seed % len(PLACES)], Path(folder, f"store-{seed}")) as place:
                reports.append(disturbed(sweep, place, reference, seed=seed, kills=given.kills))
            print(reports[-1].line(), *reports[-1].differences, sep="\n  ", flush=True)
    strikes = [strike for report in reports for strike in report.strikes]
    different = sum(len(report.differences) for report in reports)
    print(
        f"{len(strikes)} kills over {len(reports)} runs: {sum(report.redone for report in reports)} units begun again "
        f"or resumed, at most {max((one.lost for one in strikes), default=0.0):.1f} s and in all "
        f"{sum(one.lost for one in strikes):.1f} s of training lost; {different} differences"
    )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
