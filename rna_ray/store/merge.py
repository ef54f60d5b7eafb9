"""Take another store's units into one: what is there stays, what is the same is left out, what contradicts is refused.

Each unit arrives as a worker would commit it: weights, details, its record last. So a merge that dies, or is repeated,
goes on where it was, and no reader ever sees half a unit.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from rna_ray.errors import StoreError
from rna_ray.store import layout
from rna_ray.store.compare import IGNORED, differences
from rna_ray.store.parquet import Store
from rna_ray.store.prune import details, rows_of
from rna_ray.store.records import PROVENANCE, RECORDS, SCHEMAS

_RECORDS = ("trials", *(record for record in dict.fromkeys(RECORDS.values()) if record != "trials"))
"""The record views, networks before what was measured on them."""
_FREE = (*IGNORED, *(column.name for column in PROVENANCE), "weights_sha256")
"""Columns that may differ between two stores in which the same came out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Merged:
    """What came into a store, and what was not needed."""

    units: Mapping[str, int]
    """How many units came in, by their record view."""
    there: int
    """How many the store had already."""
    weights: int
    failures: int
    plans: tuple[str, ...]
    """The sweeps whose plans came in."""
    other_plans: tuple[str, ...]
    """The sweeps that both stores planned otherwise: the plan that was there stays."""


def contradictions(source: Store, into: Store) -> list[str]:
    """Return what the stores disagree about, one line for each unit and column; where there is none they may merge.

    They disagree about a unit that both hold with other results, and about the weights of a network that one of them
    trained and the other measured. Versions, machines and times may differ.
    """
    return [*differences(source, into, _FREE, shared=True), *_other_weights(source, into)]


def merge(source: Store, into: Store) -> Merged:
    """Take in the units, weights, failures, stops and plans of `source`, after `contradictions` found none.

    Raises StoreError where it is one store, or a file of `source` is damaged; what came before that one stays.
    """
    if _place(source) == _place(into):
        raise StoreError(f"{source.uri} and {into.uri} are one store: give two to merge")
    units: dict[str, int] = {}
    there = weights = 0
    ended = {record: source.done(record) for record in _RECORDS}
    stems = details(source)  # after their records: a unit that ends in between waits for the next merge

    def take(record: str, unit_id: str) -> int:
        rows = rows_of(source, unit_id, record, stems)
        files = _take_weights(source, into, rows[record].to_pylist()[0]) if record == "trials" else 0
        into.commit(unit_id, rows, record=record)
        return files

    waits = into if source.files.local else source  # many at once, where one of them is an object store
    for record in _RECORDS:
        wanted, has = ended[record], into.done(record)
        if missing := sorted(wanted - has):
            weights += sum(waits.files.each(functools.partial(take, record), missing))
            units[record] = len(missing)
        there += len(wanted & has)
    weights += sum(_take_state(source, into, unit_id) for unit_id in _unfinished(source, into))
    failures = _take_failures(source, into)
    for unit_id, sweep in source.stops() - into.stops():
        into.put_stop(source.read_file("stops", f"{unit_id}.{sweep}"))
    plans, other_plans = _take_plans(source, into)
    return Merged(
        units=units, there=there, weights=weights, failures=failures, plans=plans, other_plans=other_plans
    )


def _place(store: Store) -> str:
    return str(store.files.root) if store.files.local else store.uri.rstrip("/")


def _other_weights(source: Store, into: Store) -> list[str]:
    """Return the units of either store that were measured on other weights than the network's that will be there."""
    found, networks = [], {}
    for store in (source, into):  # what is there stays
        for row in store.read("trials").to_pylist():
            networks[row["unit_id"]] = row
    for store in (source, into):
        for view in (view for view in _RECORDS[1:] if "weights_sha256" in SCHEMAS[view].names):
            for row in store.read(view).to_pylist():
                made_with = row.get("weights_sha256")
                trained = networks.get(row["network_id"], {}).get(f"{row['checkpoint']}_sha256")
                if None not in (made_with, trained) and made_with != trained:
                    found.append(
                        f"{view} {row['unit_id']}: measured in {store.uri} on other weights of {row['network_id']} "
                        f"({made_with[:16]}… != {trained[:16]}…)"
                    )
    return found


def _take_weights(source: Store, into: Store, trial: Mapping[str, Any]) -> int:
    """Copy a network's weights, as far as they were kept; return how many files came."""
    taken = 0
    for name in ("last", "best"):
        if (digest := trial[f"{name}_sha256"]) is not None:
            taken += _take(source, into, layout.weights_file(trial["unit_id"], name, digest), digest)
    return taken


def _take(source: Store, into: Store, path: PurePosixPath, digest: str) -> int:
    """Copy a file of weights that carries its SHA-256 in its name; StoreError where its content has another."""
    if into.files.exists(path) or not source.files.exists(path):
        return 0
    data = source.files.read(path)
    if (found := hashlib.sha256(data).hexdigest()) != digest:
        raise StoreError(
            f"the weights {source.files.full(path)} are damaged: their SHA-256 is {found[:16]}…, {digest[:16]}… was "
            "written"
        )
    into.put(path, data)
    return 1


def _unfinished(source: Store, into: Store) -> list[str]:
    """Return the units that neither store finished and of which the source has weights."""
    done = source.done("trials") | into.done("trials")
    return [unit_id for unit_id in source.files.names(layout.CHECKPOINTS) if unit_id not in done]


def _take_state(source: Store, into: Store, unit_id: str) -> int:
    """Copy all that an unfinished training would resume from, the marker last, unless there is a state already."""
    marker, taken = layout.resume_marker(unit_id), 0
    if into.files.exists(marker) or not source.files.exists(marker):
        return 0
    for name in source.files.names(marker.parent):
        path = marker.parent / name
        if path != marker and not into.files.exists(path):
            into.put(path, source.files.read(path))
            taken += 1
    into.put(marker, source.files.read(marker))
    return taken


def _take_failures(source: Store, into: Store) -> int:
    """Record the failures that are not there yet, each as the next attempt at its unit where its number is taken."""
    there, taken = into.failures(), 0
    for unit_id, failures in source.failures().items():
        known = {(row["host"], row["failed_at"]) for row in there.get(unit_id, ())}
        numbers = {row["attempt"] for row in there.get(unit_id, ())}
        for row in failures:
            if (row["host"], row["failed_at"]) in known:
                continue
            attempt = row["attempt"] if row["attempt"] not in numbers else max(numbers) + 1
            numbers.add(attempt)
            into.put_failure({**row, "attempt": attempt})
            taken += 1
    return taken


def _take_plans(source: Store, into: Store) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy the plans of sweeps that are not known yet; return their names, and of those planned otherwise there."""
    known, taken, others = set(into.sweeps()), [], []
    for sweep in source.sweeps():
        rows = source.read_file("plans", sweep)
        if sweep not in known:
            into.put_plan(sweep, rows)
            taken.append(sweep)
        elif not into.read_file("plans", sweep).equals(rows):
            others.append(sweep)
    return tuple(taken), tuple(others)
