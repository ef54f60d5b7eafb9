"""What failed in a store, where it came from, and what comes next: for `rna-ray failures`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rna_ray.errors import DamageError, StoreError
from rna_ray.running.state import Asked, asked
from rna_ray.store import Store
from rna_ray.store.parquet import failed_of
from rna_ray.store.records import RECORDS

Document = dict[str, Any]


def listed(store: Store, unit: str | None = None) -> list[Document]:
    """Return the units that failed and are not done since, the last one last, each with its attempts.

    With the beginning of a `unit`'s id those of such an id, done or not; StoreError where there is none.
    """
    planned = _planned(store)
    done = set().union(*(store.done(view) for view in set(RECORDS.values())))
    found = [
        _document(unit_id, rows, planned.get(unit_id, []), unit_id in done)
        for unit_id, rows in store.failures().items()
        if (unit_id not in done if unit is None else unit_id.startswith(unit))
    ]
    if unit is not None and not found:
        raise StoreError(f"{store.uri} knows no unit {unit!r} that failed: rna-ray failures lists those that did")
    return sorted(found, key=lambda one: one["attempts"][-1]["failed_at"])


def _planned(store: Store) -> dict[str, list[tuple[str, Asked]]]:
    """Return for each unit the sweeps that ask for it, as far as their plans can be read, and how each calls it."""
    found: dict[str, list[tuple[str, Asked]]] = {}
    for sweep in store.sweeps():
        try:
            units = asked(store.read_file("plans", sweep).to_pylist())
        except DamageError:  # named by who looks at all files
            continue
        for unit_id, one in units.items():
            found.setdefault(unit_id, []).append((sweep, one))
    return found


def _document(
    unit_id: str, rows: Sequence[Mapping[str, Any]], planned: Sequence[tuple[str, Asked]], done: bool
) -> Document:
    shown = ("attempt", "error", "message", "host", "traceback")
    return {
        "unit": unit_id,
        "kind": rows[-1]["kind"],
        "name": planned[0][1].name if planned else "",
        "sweeps": [sweep for sweep, _ in planned],
        "done": done,
        "attempts": [
            {name: row[name] for name in shown} | {"failed_at": row["failed_at"].isoformat()} for row in rows
        ],
    }


def text(documents: Sequence[Document], uri: str, *, whole: bool) -> str:
    """Return failures in words, `whole` with the tracebacks of their last attempts, and what comes next."""
    if not documents:
        return f"nothing failed in {uri} that was not done since"
    lines = []
    for one in documents:
        last = one["attempts"][-1]
        tries = f"{len(one['attempts'])} attempts" if len(one["attempts"]) > 1 else "1 attempt"
        since = ", done since" if one["done"] else ""
        lines.append(f"{one['unit'][:12]}  {one['kind']}  {one['name']}  ({tries}{since})")
        lines.append(f"  {failed_of(last)}")
        lines.append(f"  on {last['host']}, at {last['failed_at'][:19]}Z")
        if whole:
            lines += ["", *(f"  {line}" for line in last["traceback"].rstrip().splitlines()), ""]
    return "\n".join(lines + _next(documents, uri, whole))


def _next(documents: Sequence[Document], uri: str, whole: bool) -> list[str]:
    at = f" --store {shlex.quote(uri)}"
    said = [] if whole else [f"where it came from: rna-ray failures {documents[-1]['unit'][:12]}{at}"]
    for sweep in sorted({sweep for one in documents if not one["done"] for sweep in one["sweeps"]}):
        said.append(f"tried again, up to three times in all: rna-ray resume {sweep}{at}   (--retry all: beyond that)")
    return said
