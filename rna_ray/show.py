"""What commands print of plans, stores and runs: a document for `--json`, and the same in words."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rna_ray import __version__
from rna_ray.errors import UserError
from rna_ray.running import drivers
from rna_ray.store import footers
from rna_ray.store.packs import LOOSE
from rna_ray.store.records import RECORDS
from rna_ray.sweep.cost import ASSUMED, clock
from rna_ray.sweep.units import NAMES

if TYPE_CHECKING:
    from rna_ray.running.run import Summary
    from rna_ray.store import Store
    from rna_ray.store.merge import Merged
    from rna_ray.store.packs import Packed
    from rna_ray.store.prune import Pruning
    from rna_ray.store.verify import Finding, Verified
    from rna_ray.sweep.plan import Plan, Trial
    from rna_ray.sweep.spec import SweepSpec
    from rna_ray.sweep.status import Status
    from rna_ray.sweep.throughput import Measured

Document = dict[str, Any]
CLASSES_NAMED = 10
"""How many classes of a folder of images a plan names."""


def plan(planned: Plan, status: Status, measured: Sequence[Measured] = ()) -> Document:
    """Return what would run: units by kind and place, the trials, and the estimated cost of what is to do.

    `measured` is what the store's finished units took.
    """
    from rna_ray.sweep import throughput  # here: what only shows a store need not load how one plans

    left_to_do = status.to_do
    to_do, early = {unit.id for unit in left_to_do}, {unit.id for unit in status.early}
    gpus = {kind: planned.where.share(kind).gpu > 0 for kind in NAMES}
    prices = throughput.prices(planned, left_to_do, measured)
    trials: dict[str, list[Trial]] = {}
    for trial in planned.trials:
        trials.setdefault(trial.network, []).append(trial)
    units = {unit.id: trials[unit.id] for unit in planned.units if unit.id in trials}  # in the order of the work
    counts = {
        kind: collections.Counter(need for unit in planned.units if unit.kind == kind for need in unit.needs)
        for kind in ("evaluate", "probe", "certify")
    }
    imports = [unit for unit in planned.units if unit.kind == "import"]
    return {
        "sweep": planned.sweep,
        "units": status.counts(),
        "folders": _folders(planned),
        "trials": [
            {
                "variant": trial.variant,
                "also": [other.variant for other in others],
                "axes": dict(trial.row),
                "unit": unit_id,
                "done": unit_id not in to_do | early,
                "stopped_early": unit_id in early,
                "priority": planned.priorities[unit_id],
                "evaluations": counts["evaluate"][unit_id],
                "probes": counts["probe"][unit_id],
                "certifications": counts["certify"][unit_id],
            }
            for unit_id, (trial, *others) in units.items()
        ],
        "evaluations": _evaluations(planned, to_do),
        "probes": _probes(planned, to_do),
        "certifications": _certifications(planned, to_do),
        "estimate": {
            kind: {
                "device": "GPU" if gpus[kind] else "CPU core",
                "device_seconds": price.device_seconds,
                "macs_per_second": price.macs_per_second,
                "basis": price.basis,
            }
            for kind, price in prices.items()
        },
        "to_draw": _to_draw(planned),
        "gpu_hours": sum(price.device_seconds for kind, price in prices.items() if gpus[kind]) / 3600,
        "damaged": list(status.damaged.values()),
        "assumed": ASSUMED if any("import" in unit.settings["network"] for unit in imports) else None,
    }


def _folders(planned: Plan) -> list[Document]:
    """Return what was found in folders of images, the same once."""
    data = [unit.settings["data"] for unit in planned.units if "found" in unit.settings["data"]]
    return list({one["digest"]: {"digest": one["digest"], **one["found"]} for one in data}.values())


def _to_draw(planned: Plan) -> int:
    """Return how many points a search in rounds draws at most, once those of the plan are done."""
    search = planned.spec.search
    if search is None or search.sampler == "random":
        return 0
    tried = collections.Counter(trial.race for trial in planned.trials)
    return sum(search.trials - count for count in tried.values())


def _evaluations(planned: Plan, to_do: set[str]) -> list[Document]:
    """Return the units of each column of the table; a unit that several columns share counts in each."""
    columns: dict[tuple[str, str], dict[str, None]] = {}
    for cell in planned.cells:
        columns.setdefault((cell.attack, cell.knowledge), {}).update(dict.fromkeys(cell.units))
    return [
        {"attack": attack, "knowledge": knowledge, **_column(planned, units, to_do)}
        for (attack, knowledge), units in columns.items()
    ]


def _probes(planned: Plan, to_do: set[str]) -> list[Document]:
    """Return the units of each probe; a unit that several probes share counts in each."""
    found: dict[str, dict[str, None]] = {}
    for one in planned.probes:
        found.setdefault(one.probe, {}).update(dict.fromkeys(one.units))
    return [{"probe": probe, **_column(planned, units, to_do)} for probe, units in found.items()]


def _certifications(planned: Plan, to_do: set[str]) -> list[Document]:
    """Return the units of each noise and number of draws; a unit that several share counts in each."""
    found: dict[tuple[float, int], dict[str, None]] = {}
    for one in planned.certifications:
        found.setdefault((one.noise_255, one.draws), {}).update(dict.fromkeys(one.units))
    return [
        {"noise_255": noise, "draws": draws, **_column(planned, units, to_do)}
        for (noise, draws), units in found.items()
    ]


def _column(planned: Plan, units: Collection[str], to_do: set[str]) -> Document:
    urgent = sorted({planned.priorities[unit] for unit in units}, reverse=True)
    return {"units": list(units), "to_do": len(to_do.intersection(units)), "priorities": urgent}


def plan_text(document: Document) -> str:
    """Return a plan in words."""
    lines = [f"sweep {document['sweep']}"]
    for folder in document["folders"]:
        some, more = folder["classes"][:CLASSES_NAMED], ", …" if len(folder["classes"]) > CLASSES_NAMED else ""
        lines.append(
            f"  images: {folder['train']:,} to train, {folder['test']:,} to test, of {folder['side']}×{folder['side']} "
            f"pixels, in {len(folder['classes'])} classes: {', '.join(some)}{more}"
        )
    for trial in document["trials"]:
        mark = "early" if trial["stopped_early"] else "done " if trial["done"] else "to do"
        seed = f", seed={trial['axes']['seed']}" if "seed" in trial["axes"] else ""
        urgent = _urgent([trial["priority"]])
        probes = f", {trial['probes']} probe units" if trial["probes"] else ""
        certifications = f", {trial['certifications']} certification units" if trial["certifications"] else ""
        units = f"{trial['evaluations']} evaluation unit{'s' * (trial['evaluations'] != 1)}{probes}{certifications}"
        variants = " = ".join(dict.fromkeys([trial["variant"], *trial["also"]]))
        lines.append(f"  {mark}  {trial['unit'][:12]}  {variants}{seed}  ({units}){urgent}")
    for column in document["evaluations"]:
        label = column["attack"] if column["knowledge"] == "none" else f"{column['attack']}@{column['knowledge']}"
        lines.append(f"  {label}: {_column_text(column)}")
    for probe in document["probes"]:
        lines.append(f"  {probe['probe']}: {_column_text(probe)}")
    for one in document["certifications"]:
        label = f"certification, noise {one['noise_255']:g}/255, {one['draws']} draws"
        lines.append(f"  {label}: {_column_text(one)}")
    lines += [f"damaged, to do again: {why}" for why in document.get("damaged", ())]
    lines.append(_counts_text(document["units"]))
    if document["to_draw"]:
        lines.append(f"points that a run draws once these are done: up to {document['to_draw']}")
    lines += _estimate_text(document)
    return "\n".join(lines)


def _column_text(column: Document) -> str:
    units = len(column["units"])
    return f"{units} unit{'s' * (units != 1)}, {column['to_do']} to do{_urgent(column['priorities'])}"


def _urgent(priorities: Sequence[int]) -> str:
    """Return priorities in words where any is stated."""
    if not any(priorities):
        return ""
    return f", priority {' and '.join(map(str, priorities))}"


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
    rows = store.read_file("plans", sweep).select(["unit_id", "kind", "needs"]).to_pylist()
    kinds = {row["unit_id"]: row["kind"] for row in rows}
    done = {unit_id for unit_id in set().union(*(store.done(RECORDS[kind]) for kind in NAMES)) if unit_id in kinds}
    damaged = footers.damaged(store, {unit_id: kinds[unit_id] for unit_id in done})
    done -= damaged.keys()
    failed = {unit_id for unit_id in store.attempts() if unit_id in kinds and unit_id not in done}
    stopped = store.stopped(sweep) - done
    early = {row["unit_id"] for row in rows if stopped.intersection([row["unit_id"], *(row["needs"] or ())])} - done
    failed -= early
    counts = {
        kind: {
            "done": sum(one == kind and unit_id in done for unit_id, one in kinds.items()),
            "early": sum(one == kind and unit_id in early for unit_id, one in kinds.items()),
            "failed": sum(one == kind and unit_id in failed for unit_id, one in kinds.items()),
            "total": sum(one == kind for one in kinds.values()),
        }
        for kind in NAMES
    }
    at_work = [driver for driver in drivers.at_work(store) if driver.sweep == sweep]
    return {
        "sweep": sweep, "units": counts, "damaged": list(damaged.values()),
        "drivers": [dataclasses.asdict(driver) for driver in at_work],
    }  # fmt: skip


def account(names: Sequence[str], store: Store) -> list[Document]:
    """Return how far each of these sweeps is, what it is about, and the hours that its units took, by kind.

    GPU hours are null where this release cannot read what the sweep gives its units.
    """
    from rna_ray.running import budget  # here: what only shows a store need not load how one plans

    plans = {name: store.read_file("plans", name).select(["unit_id", "kind", "spec"]).to_pylist() for name in names}
    specs = {name: _spec(rows[0]["spec"]) for name, rows in plans.items()}
    kinds = {name: {row["unit_id"]: row["kind"] for row in rows} for name, rows in plans.items()}
    gpus = {unit: _gpus(specs[name], kind) for name in names for unit, kind in kinds[name].items()}
    spent = budget.spent({unit: kind for units in kinds.values() for unit, kind in units.items()}, gpus, store)

    def taken(name: str, kinds_of: Mapping[str, str]) -> Document:
        held = {unit: spent[unit] for unit in kinds_of if unit in spent}
        by_kind = dict.fromkeys(NAMES, 0.0)
        for unit, one in held.items():
            by_kind[kinds_of[unit]] += one.seconds / 3600
        gpu_hours = sum(one.gpu_hours for one in held.values()) if specs[name] else None
        return {"hours": by_kind, "gpu_hours": gpu_hours}

    about = {name: spec.about if spec else "" for name, spec in specs.items()}
    return [status(name, store) | {"about": about[name]} | taken(name, kinds[name]) for name in names]


def made() -> str:
    """Return when and by what a page is made, in words."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now.day} {now:%B %Y, %H:%M} UTC by rna-ray {__version__}"


def _spec(text: str) -> SweepSpec | None:
    from rna_ray.sweep import spec

    try:
        return spec.from_json(text)
    except (ValueError, UserError):  # another release wrote it
        return None


def _gpus(spec: SweepSpec | None, kind: str) -> float:
    if spec is None:
        return 0.0
    return (spec.resources.train if kind == "train" else spec.resources.evaluate).gpu


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
                word = "stopped early" if kind == "train" else "left out"
                early = f", {of['early']} {word}" if of["early"] else ""
                parts.append(f"{NAMES[kind]} {of['done']}/{of['total']} done{early}{failed}")
        lines.append(f"{document['sweep']}: {'; '.join(parts)}")
        lines += [f"  damaged, to do again: {why}" for why in document.get("damaged", ())]
        lines += [f"  {one['state']}: {drivers.Driver(**one).text()}" for one in document.get("drivers", ())]
    return "\n".join(lines)


def verified(found: Verified, sweeps: Mapping[str, Sequence[str]], removed: bool) -> Document:
    """Return what `rna-ray verify` found; `sweeps` says which sweeps of the store planned a unit."""

    def told(ones: Sequence[Finding]) -> list[Document]:
        return [
            {"file": one.file, "why": one.why, "unit": one.unit, "sweeps": sorted(sweeps.get(one.unit or "", ()))}
            for one in ones
        ]

    kinds = {"damaged": found.damaged, "absent": found.absent, "leftovers": found.leftovers}
    return {
        "files": found.files, "bytes": found.bytes, **{kind: told(ones) for kind, ones in kinds.items()},
        "removed": removed,
    }  # fmt: skip


def verified_text(document: Document, uri: str) -> str:
    """Return what `rna-ray verify` found in words: one line a damaged file, and what does its unit again."""
    lines = []
    for one in document["damaged"]:
        unit = f"; unit {one['unit'][:12]}" if one["unit"] else ""
        of = f" of {', '.join(one['sweeps'])}" if one["sweeps"] else ""
        lines.append(f"damaged  {one['file']} {one['why']}{unit}{of}")
    lines += [f"absent   {one['file']}: a run that needs these weights trains again" for one in document["absent"]]
    lines += [f"left     {one['file']} {one['why']}" for one in document["leftovers"]]
    counts = f"{document['files']:,} files, {document['bytes'] / 1e6:,.1f} MB"
    if not document["damaged"]:
        lines.append(f"{uri}: {counts}, every checksum fits")
    else:
        lines.append(f"{uri}: {counts}, {len(document['damaged'])} damaged")
        lines.append(_mended(document, uri))
    return "\n".join(lines)


def _mended(document: Document, uri: str) -> str:
    sweeps = sorted({sweep for one in document["damaged"] for sweep in one["sweeps"]})
    folders = {one["file"].partition("/")[0] for one in document["damaged"]}
    at, ways = f"--store {shlex.quote(uri)}", []
    if folders - {"plans"}:
        again = " and ".join(f"rna-ray resume {sweep} {at}" for sweep in sweeps) or "running their sweeps"
        again = f"rna-ray compact {at}" if folders - {"plans"} == {"packs"} else again
        ways.append(f"{again} {'do' if len(sweeps) > 1 else 'does'} them again")
    if "plans" in folders:
        ways.append("rna-ray run with a sweep's file writes its plan again")
    said = "removed" if document["removed"] else f"rna-ray verify --remove {at} takes them out"
    return "; ".join([said, *ways])


def compacted(found: Sequence[Packed]) -> Document:
    """Return what `rna-ray compact` did."""
    return {"packs": [dataclasses.asdict(one) for one in found]}


def compacted_text(document: Document, uri: str) -> str:
    """Return what `rna-ray compact` did in words: one line a pack."""
    if not document["packs"]:
        return f"{uri}: nothing to pack, as no view has {LOOSE} files that are in no pack"
    return "\n".join(
        f"{one['view']}: the rows of {one['files']:,} files in one of {one['bytes'] / 1e6:,.2f} MB"
        for one in document["packs"]
    )


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
    if document["failures"]:
        at = shlex.quote(document["store"])
        lines.append(f"where it came from, and what comes next: rna-ray failures --store {at}")
    return "\n".join(lines)


def _counts_text(counts: Document) -> str:
    words = {"ready": "to do", "waiting": "to do after their networks", "early": "left out"}
    said = {kind: words | ({"early": "stopped early"} if kind == "train" else {}) for kind in counts}
    return "; ".join(
        f"{NAMES[kind]}: " + ", ".join(f"{n} {said[kind].get(place, place)}" for place, n in places.items() if n)
        for kind, places in counts.items()
        if any(places.values())
    )


def pruning_text(found: Pruning, uri: str) -> str:
    """Return what is to go from a store, in words."""
    lines = []
    if found.files:
        lines.append(f"files to remove: {len(found.files):,}, {size(found.freed)}")
    if found.invalid:
        views = collections.Counter(view for view, _ in found.invalid)
        which = _listed([f"{count:,} {view}" for view, count in views.items()])
        lines.append(f"rows to set aside as invalid, with what was measured on such networks: {which}")
    if found.needed:
        lines.append(f"networks whose weights stay, as units that are still to do read them: {found.needed:,}")
    if not found:
        lines.insert(0, "nothing to prune")
    else:
        lines.append(f"units of {uri} that lose something: {found.units:,}")
    return "\n".join(lines)


def size(count: int) -> str:
    """Return a number of bytes as people say it: 812 B, 45.2 MB, 1.3 GB."""
    amount = float(count)
    for name in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {name}"
        amount /= 1000
    return f"{amount:,.3g} TB"


def merged_text(merged: Merged, uri: str) -> str:
    """Return what came from another store, in words."""
    units = _listed([f"{count:,} {view}" for view, count in merged.units.items()]) if merged.units else "no units"
    lines = [
        f"from {uri}: {units}; files of weights: {merged.weights:,}; failures: {merged.failures:,}; "
        f"plans: {len(merged.plans)}; units that were there already: {merged.there:,}"
    ]
    lines += [f"the sweep {name} is planned otherwise there: the plan that was here stays" for name in
              merged.other_plans]  # fmt: skip
    return "\n".join(lines)
