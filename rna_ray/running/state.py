"""How a sweep stands at one moment, and the same in words and as an event: what `run` and `watch` both show."""

from __future__ import annotations

import collections
import dataclasses
import json
import shlex
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from rna_ray.sweep.cost import clock
from rna_ray.sweep.units import NAMES, Kind

SHOWN = 6
"""The most units and failures that are listed one by one."""

SURE_SHARE = 0.2
"""The share of the work from which on the time left rests on what this run saw; before, it is a first guess."""

_BAR = 24

Phase = Literal["running", "stopping", "done", "failed", "left"]
"""Failed: all ended, and not all well. Left: units are to do, and nobody is at work on them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A unit that a sweep asks for, as the rows of its plan say."""

    kind: Kind
    name: str
    """What it does, for people: pgd@fixed of BN+IN, seed=0."""
    needs: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Count:
    """How many units of a kind stand where; none stands in two places."""

    done: int = 0
    running: int = 0
    ready: int = 0
    """To do, and all that they need is there."""
    waiting: int = 0
    """To do, once their networks are there."""
    failed: int = 0
    blocked: int = 0
    """Need one that failed."""
    early: int = 0
    """Trained no further, as other points of their search are ahead, or need such a network."""
    networks: int = 0
    """How many networks those that wait are waiting for."""

    @property
    def total(self) -> int:
        """All that the sweep asks for."""
        return self.done + self.running + self.ready + self.waiting + self.failed + self.blocked + self.early


@dataclasses.dataclass(frozen=True, kw_only=True)
class Active:
    """A unit that runs."""

    unit: str
    seconds: float
    """Since it was taken up."""
    epoch: int | None = None
    """The epochs that a training has done, from the first one on that this run saw."""
    epochs: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """A unit that failed."""

    unit: str
    kind: Kind
    name: str
    error: str
    """What it failed of, in one sentence."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """How a sweep stands at one moment."""

    sweep: str
    counts: Mapping[Kind, Count]
    active: tuple[Active, ...] = ()
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What those that run do, for people, by id."""
    failures: tuple[Failure, ...] = ()
    passed: float | None = None
    """The seconds since the run began; None where nobody is at work."""
    left: float | None = None
    """The seconds until it ends, as far as one can tell."""
    share: float = 0.0
    """Of the work of this run, what is done."""
    phase: Phase = "running"
    store: str = ""
    """The address of the store that the sweep lies in, for the commands that go on with it."""


def phase(counts: Mapping[Kind, Count], *, at_work: bool, stopping: bool = False) -> Phase:
    """Return in which phase a sweep is whose units stand so."""
    if all(count.done + count.early == count.total for count in counts.values()):
        return "done"
    if not any(count.running or count.ready or count.waiting for count in counts.values()):
        return "failed"
    if not at_work:
        return "left"
    return "stopping" if stopping else "running"


def asked(rows: Iterable[Mapping[str, Any]]) -> dict[str, Asked]:
    """Return the units of a plan's rows, by id, networks first; one of several cells is called after the first."""
    found: dict[str, Asked] = {}
    for row in rows:
        if row["unit_id"] not in found:
            found[row["unit_id"]] = Asked(kind=row["kind"], name=_name(row), needs=tuple(row["needs"] or ()))
    return found


def _name(row: Mapping[str, Any]) -> str:
    axes = json.loads(row["axes"])
    network = f"{row['variant']}, seed={axes['seed']}" if "seed" in axes else row["variant"]
    what = row.get("attack") or ("certification" if row["kind"] == "certify" else "")
    knowledge = row.get("knowledge") or "none"
    if not what:
        return network
    return f"{what if knowledge == 'none' else f'{what}@{knowledge}'} of {network}"


def counts(
    units: Mapping[str, Asked], *, done: Collection[str], failed: Collection[str], running: Collection[str],
    early: Collection[str] = (),
) -> dict[Kind, Count]:
    """Return how many units of each kind that there is stand where. Networks stand before what needs them."""
    places: dict[Kind, collections.Counter[str]] = {}
    networks: dict[Kind, set[str]] = collections.defaultdict(set)
    lost: set[str] = set()
    left_out = set(early)
    for unit_id, unit in units.items():
        missing = [need for need in unit.needs if need in units and need not in done]
        if unit_id in done:
            place = "done"
        elif unit_id in running:
            place = "running"
        elif unit_id in left_out:
            place = "early"
        elif unit_id in failed:
            place = "failed"
        elif any(need in lost for need in missing):
            place = "blocked"
        elif any(need in left_out for need in missing):
            place = "early"
        else:
            place = "waiting" if missing else "ready"
            networks[unit.kind].update(missing)
        if place in ("failed", "blocked"):
            lost.add(unit_id)
        places.setdefault(unit.kind, collections.Counter())[place] += 1
    return {
        kind: Count(**places[kind], networks=len(networks[kind])) for kind in NAMES if kind in places
    }  # fmt: skip


# -- in words ----------------------------------------------------------------------------------------------------------


def lines(state: State) -> list[str]:
    """Return how a sweep stands, for a terminal."""
    width = max((len(NAMES[kind]) for kind in state.counts), default=0)
    said = [f"{state.sweep}: {_time(state)}"]
    for kind, count in state.counts.items():
        bar = "━" * round(_BAR * _filled(state, kind) / max(count.total, 1))
        said.append(f"  {NAMES[kind]:{width}}  {bar:─<{_BAR}}  {count.done}/{count.total}{_rest(kind, count)}")
    said += _some([_running(state, one) for one in state.active], "more at work")
    said += _some([_failed(one) for one in reversed(state.failures)], "more failed")
    return said


def line(state: State) -> str:
    """Return how a sweep stands, in one line."""
    parts = [f"{NAMES[kind]} {count.done}/{count.total}{_rest(kind, count)}" for kind, count in state.counts.items()]
    trainings = [f"{one.epoch}/{one.epochs}" for one in state.active if one.epoch]
    if trainings:
        more = " …" if len(trainings) > SHOWN else ""
        parts.append(f"epochs {', '.join(trainings[:SHOWN])}{more}")
    return f"{state.sweep}: {' · '.join(parts)} · {_time(state)}"


def _filled(state: State, kind: Kind) -> float:
    """Return how many units of a kind are done, of trainings that run their epochs."""
    parts = sum(one.epoch / one.epochs for one in state.active if one.epoch and one.epochs) if kind == "train" else 0.0
    return state.counts[kind].done + parts


def _rest(kind: Kind, count: Count) -> str:
    """Return in words where those stand that are not done."""
    waits = f"wait for {count.networks} network{'s' if count.networks > 1 else ''}"
    places = {
        "at work": count.running, "to do": count.ready, waits: count.waiting, "failed": count.failed,
        "blocked": count.blocked, "stopped early" if kind == "train" else "left out": count.early,
    }  # fmt: skip
    said = ", ".join(f"{number} {place}" for place, number in places.items() if number)
    return f" ({said})" if said else ""


def _time(state: State) -> str:
    if state.phase == "done":
        return "all done" if not state.passed else f"all done in {clock(state.passed)}"
    if state.phase == "failed":
        return f"ended, not all well; this says what failed, and what comes next: rna-ray failures{_at(state)}"
    if state.phase == "left":
        return f"nobody is at work on it; this goes on: rna-ray resume {state.sweep}{_at(state)}"
    said = f"{clock(state.passed or 0.0)} passed"
    if state.phase == "stopping":
        return f"{said}, stopping"
    if state.left is None:
        return said
    return f"{said}, about {clock(state.left)} left{'' if state.share >= SURE_SHARE else ' (a first guess)'}"


def _at(state: State) -> str:
    return f" --store {shlex.quote(state.store)}" if state.store else ""


def _running(state: State, one: Active) -> str:
    epoch = f", epoch {one.epoch} of {one.epochs} done" if one.epoch else ""
    return f"  at work  {one.unit[:12]}  {state.names.get(one.unit, '')}{epoch}, for {clock(one.seconds)}"


def _failed(one: Failure) -> str:
    return f"  failed   {one.unit[:12]}  {one.name}: {one.error}"


def _some(said: list[str], more: str) -> list[str]:
    return said if len(said) <= SHOWN else [*said[:SHOWN], f"  and {len(said) - SHOWN} {more}"]


# -- as an event -------------------------------------------------------------------------------------------------------


def event(state: State) -> dict[str, Any]:
    """Return how a sweep stands as a document for scripts (docs/watching.md)."""
    return {
        "sweep": state.sweep,
        "phase": state.phase,
        "units": {kind: dataclasses.asdict(count) | {"total": count.total} for kind, count in state.counts.items()},
        "active": [
            dataclasses.asdict(one) | {"name": state.names.get(one.unit, ""), "seconds": round(one.seconds, 1)}
            for one in state.active
        ],
        "failures": [dataclasses.asdict(one) for one in state.failures],
        "share_done": round(state.share, 4),
        "seconds_passed": state.passed and round(state.passed, 1),
        "seconds_left": None if state.left is None else round(state.left, 1),
    }
