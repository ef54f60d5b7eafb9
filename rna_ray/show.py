"""What commands print of plans, stores and runs: a document for `--json`, and the same in words."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rna_ray.store.records import RECORDS
from rna_ray.sweep.cost import ASSUMED, clock
from rna_ray.sweep.units import NAMES

if TYPE_CHECKING:
    from rna_ray.running.run import Summary
    from rna_ray.store import Store
    from rna_ray.sweep.plan import Plan
    from rna_ray.sweep.status import Status
    from rna_ray.sweep.throughput import Measured

Document = dict[str, Any]


def plan(planned: Plan, status: Status, measured: Sequence[Measured] = ()) -> Document:
    """Return what would run: units by kind and place, the trials, and the estimated cost of what is to do.

    `measured` is what the store's finished units took.
    """
    from rna_ray.sweep import throughput  # here: what only shows a store need not load how one plans

    to_do = {unit.id for unit in status.to_do}
    gpus = {kind: planned.where.share(kind).gpu > 0 for kind in NAMES}
    macs = {kind: sum(planned.costs[unit.id] for unit in status.to_do if unit.kind == kind) for kind in NAMES}
    rates = {kind: throughput.rate(kind, gpu=gpus[kind], measured=measured) for kind in NAMES}
    left = {kind: macs[kind] / rates[kind].macs_per_second for kind in NAMES}
    units = {trial.network: trial for trial in planned.trials}
    counts = {
        kind: collections.Counter(need for unit in planned.units if unit.kind == kind for need in unit.needs)
        for kind in ("evaluate", "probe", "certify")
    }
    imports = [unit for unit in planned.units if unit.kind == "import"]
    return {
        "sweep": planned.sweep,
        "units": status.counts(),
        "trials": [
            {
                "variant": trial.variant,
                "axes": dict(trial.row),
                "unit": unit_id,
                "done": unit_id not in to_do,
                "evaluations": counts["evaluate"][unit_id],
                "probes": counts["probe"][unit_id],
                "certifications": counts["certify"][unit_id],
            }
            for unit_id, trial in units.items()
        ],
        "evaluations": _evaluations(planned, to_do),
        "probes": _probes(planned, to_do),
        "certifications": _certifications(planned, to_do),
        "estimate": {
            kind: {
                "device": "GPU" if gpus[kind] else "CPU core",
                "device_seconds": left[kind],
                "macs_per_second": rates[kind].macs_per_second,
                "basis": rates[kind].basis,
            }
            for kind in NAMES
        },
        "gpu_hours": sum(left[kind] for kind in NAMES if gpus[kind]) / 3600,
        "assumed": ASSUMED if any("import" in unit.settings["network"] for unit in imports) else None,
    }


def _evaluations(planned: Plan, to_do: set[str]) -> list[Document]:
    """Return the units of each column of the table; a unit that several columns share counts in each."""
    columns: dict[tuple[str, str], dict[str, None]] = {}
    for cell in planned.cells:
        columns.setdefault((cell.attack, cell.knowledge), {}).update(dict.fromkeys(cell.units))
    return [
        {"attack": attack, "knowledge": knowledge, "units": list(units), "to_do": len(to_do & set(units))}
        for (attack, knowledge), units in columns.items()
    ]


def _probes(planned: Plan, to_do: set[str]) -> list[Document]:
    """Return the units of each probe; a unit that several probes share counts in each."""
    found: dict[str, dict[str, None]] = {}
    for one in planned.probes:
        found.setdefault(one.probe, {}).update(dict.fromkeys(one.units))
    return [
        {"probe": probe, "units": list(units), "to_do": len(to_do & set(units))} for probe, units in found.items()
    ]


def _certifications(planned: Plan, to_do: set[str]) -> list[Document]:
    """Return the units of each noise and number of draws; a unit that several share counts in each."""
    found: dict[tuple[float, int], dict[str, None]] = {}
    for one in planned.certifications:
        found.setdefault((one.noise_255, one.draws), {}).update(dict.fromkeys(one.units))
    return [
        {"noise_255": noise, "draws": draws, "units": list(units), "to_do": len(to_do & set(units))}
        for (noise, draws), units in found.items()
    ]


def plan_text(document: Document) -> str:
    """Return a plan in words."""
    lines = [f"sweep {document['sweep']}"]
    for trial in document["trials"]:
        mark = "done " if trial["done"] else "to do"
        seed = f", seed={trial['axes']['seed']}" if "seed" in trial["axes"] else ""
        probes = f", {trial['probes']} probe units" if trial["probes"] else ""
        certifications = f", {trial['certifications']} certification units" if trial["certifications"] else ""
        units = f"{trial['evaluations']} evaluation units{probes}{certifications}"
        lines.append(f"  {mark}  {trial['unit'][:12]}  {trial['variant']}{seed}  ({units})")
    for column in document["evaluations"]:
        label = column["attack"] if column["knowledge"] == "none" else f"{column['attack']}@{column['knowledge']}"
        lines.append(f"  {label}: {len(column['units'])} units, {column['to_do']} to do")
    for probe in document["probes"]:
        lines.append(f"  {probe['probe']}: {len(probe['units'])} units, {probe['to_do']} to do")
    for one in document["certifications"]:
        label = f"certification, noise {one['noise_255']:g}/255, {one['draws']} draws"
        lines.append(f"  {label}: {len(one['units'])} units, {one['to_do']} to do")
    lines.append(_counts_text(document["units"]))
    lines += _estimate_text(document)
    return "\n".join(lines)


def _estimate_text(document: Document) -> list[str]:
    left = {kind: one for kind, one in document["estimate"].items() if one["device_seconds"]}
    if not left:
        return ["nothing to do"]
    costs = [f"{clock(one['device_seconds'])} of one {one['device']} for {NAMES[kind]}" for kind, one in left.items()]
    whole = f"; {_hours(document['gpu_hours'])} in all" if document["gpu_hours"] else ""
    lines = [f"estimated cost, roughly: {', '.join(costs)}{whole}"]
    bases: dict[str, list[str]] = {}
    for kind, one in left.items():
        bases.setdefault(one["basis"], []).append(NAMES[kind])
    lines += [f"  {_listed(kinds)}: {basis}" for basis, kinds in bases.items()]
    if document["assumed"]:
        lines.append(f"what imported networks cost is not known before they run: each is counted as a {ASSUMED}")
    return lines


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _hours(hours: float) -> str:
    return f"{hours:,.0f} GPU hours" if hours >= 10 else f"{hours:.2g} GPU hours"


def status(sweep: str, store: Store) -> Document:
    """Return how far a sweep of the store is, from its plan's rows alone: no file of its data is looked at."""
    rows = store.read_file("plans", sweep).select(["unit_id", "kind"]).to_pylist()
    kinds = {row["unit_id"]: row["kind"] for row in rows}
    done = set().union(*(store.done(RECORDS[kind]) for kind in NAMES))
    failed = {unit_id for unit_id in store.failures() if unit_id in kinds and unit_id not in done}
    counts = {
        kind: {
            "done": sum(one == kind and unit_id in done for unit_id, one in kinds.items()),
            "failed": sum(one == kind and unit_id in failed for unit_id, one in kinds.items()),
            "total": sum(one == kind for one in kinds.values()),
        }
        for kind in NAMES
    }
    return {"sweep": sweep, "units": counts}


def status_text(documents: list[Document], uri: str) -> str:
    """Return the sweeps of a store in words."""
    if not documents:
        return f"{uri} knows no sweep yet"
    lines = []
    for document in documents:
        parts = []
        for kind, of in document["units"].items():
            if of["total"]:
                failed = f", {of['failed']} failed" if of["failed"] else ""
                parts.append(f"{NAMES[kind]} {of['done']}/{of['total']} done{failed}")
        lines.append(f"{document['sweep']}: {'; '.join(parts)}")
    return "\n".join(lines)


def summary(planned: Plan, ended: Summary, store: Store) -> Document:
    """Return how a run ended."""
    return {
        "sweep": planned.sweep,
        "store": store.uri,
        "ran": ended.ran,
        "units": ended.status.counts(),
        "failures": [{"unit": done.unit_id, "kind": done.kind, "error": done.error} for done in ended.failures],
        "seconds": ended.seconds,
        "seconds_computed": ended.seconds_computed,
    }


def summary_text(document: Document) -> str:
    """Return how a run ended in words."""
    lines = [f"failed  {one['kind']} {one['unit'][:12]}  {one['error']}" for one in document["failures"]]
    if not document["ran"]:
        lines.append(f"{document['sweep']}: nothing to do, nothing was trained or attacked again")
    else:
        lines.append(
            f"{document['sweep']}: {document['ran']} units in {clock(document['seconds'])}, "
            f"{clock(document['seconds_computed'])} of computing"
        )
    lines.append(_counts_text(document["units"]))
    return "\n".join(lines)


def _counts_text(counts: Document) -> str:
    words = {"ready": "to do", "waiting": "to do after their networks"}
    return "; ".join(
        f"{NAMES[kind]}: " + ", ".join(f"{n} {words.get(place, place)}" for place, n in places.items() if n)
        for kind, places in counts.items()
        if any(places.values())
    )
