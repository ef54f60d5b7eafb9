"""How far off the time left was that a finished run showed: the run played again from the rows of its store.

    .venv/bin/python benchmarks/forecast.py STORE [SWEEP]

The sweep must have been done by one run, undisturbed. What `rna-ray run` knew after 20, 40 and 60 % of the work (of the
seconds that all units took) is put together from when its units began and ended, and the predicted total is compared
with the actual one. The store's own speeds are left out: nothing is known of the machine when the run begins.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence

from rna_ray.store import Store, open_store
from rna_ray.store.records import RECORDS
from rna_ray.sweep import spec, throughput
from rna_ray.sweep.forecast import Running, Slots, Usual, Work, forecast
from rna_ray.sweep.plan import Plan, plan
from rna_ray.sweep.units import Kind

SHARES = (0.2, 0.4, 0.6)
Span = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: when its units began and ended, in seconds since the first one began."""

    works: tuple[Work, ...]
    spans: Mapping[str, Span]
    epochs: Mapping[str, Sequence[float]]
    """The seconds of the epochs of each training."""
    usual: Mapping[Kind, Usual]
    slots: Slots

    @property
    def total(self) -> float:
        """When the last unit ended."""
        return max(end for _, end in self.spans.values())

    def at(self, share: float) -> float:
        """Return when this share of the work was done."""
        whole = sum(end - begin for begin, end in self.spans.values())
        low, high = 0.0, self.total
        while high - low > 1e-3:
            now = (low + high) / 2
            done = sum(min(max(now - begin, 0.0), end - begin) for begin, end in self.spans.values())
            low, high = (now, high) if done < share * whole else (low, now)
        return high

    def predicted(self, now: float) -> float:
        """Return the total that was predicted at this time."""
        finished = {one: end - begin for one, (begin, end) in self.spans.items() if end <= now}
        running = {one: self._running(one, now - begin) for one, (begin, end) in self.spans.items()
                   if begin <= now < end}  # fmt: skip
        return now + forecast(
            self.works, finished=finished, running=running, usual=self.usual, slots=self.slots
        ).seconds  # fmt: skip

    def _running(self, unit_id: str, passed: float) -> Running:
        ended, seconds = 0, 0.0
        epochs = self.epochs.get(unit_id, ())
        begin, end = self.spans[unit_id]
        start = (end - begin) - sum(epochs)  # reading images, building the network
        for one in epochs:
            if start + seconds + one > passed:
                break
            ended, seconds = ended + 1, seconds + one
        if not ended:
            return Running(seconds=passed)
        seen = epochs[1:ended] or epochs[:1]
        pace = sum(seen) / len(seen)
        fraction = min((ended + min((passed - start - seconds) / pace, 1.0)) / len(epochs), 1.0)
        return Running(seconds=passed, fraction=fraction, pace=pace * len(epochs))


def recorded(store: Store, planned: Plan) -> Run:
    """Return the run that did a plan."""
    records = {row["unit_id"]: row for view in dict.fromkeys(RECORDS.values()) for row in store.read(view).to_pylist()}
    began = min(records[unit.id]["started_at"] for unit in planned.units)
    begins = {unit.id: (records[unit.id]["started_at"] - began).total_seconds() for unit in planned.units}
    spans = {one: (begin, begin + records[one]["seconds"]) for one, begin in begins.items()}
    epochs: dict[str, list[float]] = {}
    for row in store.read("epochs").sort_by([("unit_id", "ascending"), ("epoch", "ascending")]).to_pylist():
        epochs.setdefault(row["unit_id"], []).append(row["seconds"])
    kinds = {unit.id: unit.kind for unit in planned.units}
    return Run(
        tuple(Work.of(unit, planned.costs[unit.id]) for unit in planned.units), spans, epochs,
        throughput.usual(planned, ()), _slots(spans, kinds),
    )  # fmt: skip


def _slots(spans: Mapping[str, Span], kinds: Mapping[str, str]) -> Slots:
    """Return how many units worked side by side: what the run knew of its machine."""
    trials = max(_most([span for one, span in spans.items() if kinds[one] == "train"]), 1)
    evaluators = max(_most([span for one, span in spans.items() if kinds[one] != "train"]), 1)
    places = max(_most(list(spans.values())), trials)
    return Slots(trials=trials, evaluators=tuple(min(places - left, evaluators) for left in range(trials + 1)))


def _most(spans: Sequence[Span]) -> int:
    """Return the most that ran at once."""
    steps = sorted((at, step) for begin, end in spans for at, step in ((begin, 1), (end, -1)))
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


def main() -> None:
    """Print the errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store")
    parser.add_argument("sweep", nargs="?")
    given = parser.parse_args()
    store = open_store(given.store)
    for sweep in [given.sweep] if given.sweep else store.sweeps():
        settings = store.read_file("plans", sweep)["spec"][0].as_py()
        run = recorded(store, plan(spec.from_json(settings)))
        training = sum(end - begin for one, (begin, end) in run.spans.items() if one in run.epochs)
        whole = sum(end - begin for begin, end in run.spans.values())
        said = {f"{share:.0%}": f"{run.predicted(run.at(share)) / run.total - 1:+.0%}" for share in SHARES}
        print(json.dumps({
            "sweep": sweep, "units": len(run.works), "seconds": round(run.total), "training": f"{training / whole:.0%}",
            "trials": run.slots.trials, "evaluators": run.slots.evaluators, "error of the predicted total": said,
        }))  # fmt: skip


if __name__ == "__main__":
    main()
