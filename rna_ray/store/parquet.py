"""A store of Parquet files: a unit's rows appear at once and last, and what is done is what is there."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from rna_ray.errors import DamageError, StoreError, first_line
from rna_ray.store import layout, seal
from rna_ray.store.files import Files, open_files
from rna_ray.store.records import DETAILS, SCHEMA_VERSION, SCHEMAS, Views, conform, from_rows


class Store:
    """The rows and weights under one folder or URI. Any number of writers and readers may use it at once."""

    def __init__(self, files: Files, *, begun: bool = False) -> None:
        self.files = files
        self._begun = begun

    @property
    def uri(self) -> str:
        return self.files.uri

    @property
    def exists(self) -> bool:
        """Whether anything was ever written to it."""
        return self.files.exists(layout.MARKER)

    # -- what is done ------------------------------------------------------------------------------------------------

    def done(self, record: str) -> set[str]:
        """Return the ids of the units whose file in this record view exists."""
        return self._stems(record)

    def is_done(self, unit_id: str, record: str) -> bool:
        """Return whether a unit's file in this record view exists."""
        return self.files.exists(layout.rows_file(record, unit_id))

    def counted(self, view: str, done: set[str] | None = None) -> dict[str, str]:
        """Return the stems of the view's files whose rows count, sorted: in a detail view, by their finished unit."""
        if view not in DETAILS:
            return {stem: stem for stem in sorted(self._stems(view) if done is None else done)}
        # The records are listed first: a unit that finishes in between is then left out whole, never in part.
        finished = self.done(DETAILS[view]) if done is None else done
        found: dict[str, list[str]] = {}
        for stem in sorted(self._stems(view)):
            if (unit_id := layout.unit_of(stem)) in finished:
                found.setdefault(unit_id, []).append(stem)
        return {unit: stems[0] if len(stems) == 1 else self._of_record(view, stems) for unit, stems in found.items()}

    def _of_record(self, view: str, stems: list[str]) -> str:
        """Return which of several attempts' details are those of the unit's record."""
        unit_id = layout.unit_of(stems[0])
        with contextlib.suppress(StoreError):  # a damaged record is named by who reads it
            said = (self.details(unit_id, DETAILS[view]) or {}).get(view, {}).get("file")
            if said in stems:
                return said
        return stems[0]

    def details(self, unit_id: str, record: str) -> dict[str, dict[str, str]] | None:
        """Return what a unit's record says of its detail files: view → its `file` (a stem) and its `sha256`.

        None where an older release wrote it; StoreError where it is missing or damaged.
        """
        with self._reading(layout.rows_file(record, unit_id)) as data:
            return seal.details(pq.read_metadata(pa.BufferReader(data)))

    def _stems(self, view: str) -> set[str]:
        return {stem for name in self.files.names(layout.folder(view)) if (stem := layout.stem(name)) is not None}

    # -- rows --------------------------------------------------------------------------------------------------------

    def commit(self, unit_id: str, views: Views, *, record: str) -> None:
        """Write a unit's rows, the record last: until it is there, none of them count. A finished unit is left alone.

        Raises ValueError where the tables are not rows of that unit and those views.
        """
        self.commit_all([(unit_id, views, record)])

    def commit_all(self, units: Iterable[tuple[str, Views, str]]) -> None:
        """Write the rows of several units, each as `commit` does: the details of all, then the records of all."""
        checked = [(unit_id, self._checked(unit_id, views, record), record) for unit_id, views, record in units]
        done = self.files.each(lambda one: self.is_done(one[0], one[2]), checked)
        asked = [one for one, there in zip(checked, done, strict=True) if not there]
        if not asked:
            return
        self._begin()
        details = self._put_details(
            [(unit_id, view, tables[view]) for unit_id, tables, record in asked for view in tables if view != record]
        )
        files = [
            (layout.rows_file(record, unit_id), seal.sealed(tables[record], details.get(unit_id, {}))[0])
            for unit_id, tables, record in asked
        ]
        for (unit_id, _, record), first in zip(asked, self.files.create_all(files), strict=True):
            mine = details.get(unit_id, {})
            if not first or any(said["file"] != unit_id for said in mine.values()):
                self._drop_others(unit_id, record, mine)

    def _put_details(self, rows: Sequence[tuple[str, str, pa.Table]]) -> dict[str, dict[str, dict[str, str]]]:
        """Write detail rows where those of no other attempt lie; return how each unit's record is to name them."""
        found: dict[str, dict[str, dict[str, str]]] = {}
        files = [(unit_id, view, *seal.sealed(table)) for unit_id, view, table in rows]
        # What another attempt wrote is never replaced: its record may name it. An object store cannot promise that.
        free = [False] * len(files)
        if files and self.files.local:
            free = self.files.create_all([(layout.rows_file(view, unit_id), data) for unit_id, view, data, _ in files])
        beside = []
        for (unit_id, view, data, sha256), mine in zip(files, free, strict=True):
            stem = unit_id if mine else layout.attempt_stem(unit_id, sha256)
            found.setdefault(unit_id, {})[view] = {"file": stem, "sha256": sha256}
            if not mine:
                beside.append((layout.rows_file(view, stem), data))
        self.files.each(lambda one: self.files.write(*one), beside)
        return found

    def _drop_others(self, unit_id: str, record: str, mine: Mapping[str, Mapping[str, str]]) -> None:
        """Remove the details of an attempt that came too late, or died, where its record can no longer come."""
        if not self.files.local:
            return  # there it still can: they stay, and the record tells which count
        said = self.details(unit_id, record) or {}
        for view, one in mine.items():
            counts = said.get(view, {"file": unit_id})["file"]
            for stem in {unit_id, one["file"]} - {counts}:
                self.files.remove(layout.rows_file(view, stem))

    def discard(self, unit_id: str, record: str) -> None:
        """Remove a unit's rows, the record first: then none of them count, and the unit is to be done again."""
        self.files.remove(layout.rows_file(record, unit_id))
        for view in (view for view, of in DETAILS.items() if of == record):
            for stem in self._stems(view):
                if layout.unit_of(stem) == unit_id:
                    self.files.remove(layout.rows_file(view, stem))

    def _checked(self, unit_id: str, views: Views, record: str) -> dict[str, pa.Table]:
        """Return the tables in their views' schemas, the record last."""
        if record not in views or any(DETAILS.get(view) != record for view in views if view != record):
            raise ValueError(f"{sorted(views)} are not the views of a unit whose record is {record!r}")
        tables = {view: conform(view, views[view]) for view in sorted(views, key=lambda view: view == record)}
        for view, table in tables.items():
            if table.column("unit_id").unique().to_pylist() not in ([unit_id], []):
                raise ValueError(f"rows of view {view} belong to another unit than {unit_id}")
        return tables

    def read(self, view: str, units: Iterable[str] | None = None, *, whole: bool = False) -> pa.Table:
        """Return the rows of a view that count, of all units or of some.

        Raises DamageError naming a file that is damaged, or leaves such files out where only what is `whole` is asked.
        """
        of = set() if units is None else set(units)
        stems = [stem for unit_id, stem in self.counted(view).items() if units is None or unit_id in of]

        def rows(stem: str) -> pa.Table:
            with contextlib.suppress(*[DamageError] * whole):
                return self.read_file(view, stem)
            return SCHEMAS[view].empty_table()

        found = (batch for table in self.files.each(rows, stems) for batch in table.to_batches())
        return pa.Table.from_batches(found, SCHEMAS[view])  # to concatenate tables would bring pandas along

    def read_file(self, view: str, stem: str) -> pa.Table:
        """Return the rows of one file of a view, whether or not they count; a column that it lacks reads as null."""
        with self._reading(layout.rows_file(view, stem)) as data:
            table, schema = rows_in(data), SCHEMAS[view]
            if table.column_names != schema.names:  # else not: concatenating brings pandas along, which takes a second
                table = pa.concat_tables([schema.empty_table(), table], promote_options="default").select(schema.names)
            return table.cast(schema)

    @contextlib.contextmanager
    def _reading(self, path: PurePosixPath) -> Iterator[bytes]:
        """Give a file's bytes; whatever is wrong with them is a StoreError that names the file."""
        try:
            data = self.files.read(path)
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise StoreError(f"the store has no file {self.files.full(path)}") from error
            if self.files.local and self.files.kind(path) == fs.FileType.Directory:
                raise DamageError(f"the store's file {self.files.full(path)} is damaged: it is a folder") from error
            raise
        try:
            yield data
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise DamageError(f"the store's file {self.files.full(path)} is damaged: {first_line(error)}") from error

    def _write(self, path: PurePosixPath, table: pa.Table) -> None:
        self.files.write(path, seal.sealed(table)[0])

    # -- failures and plans ------------------------------------------------------------------------------------------

    def fail(
        self, unit_id: str, *, kind: str, attempt: int, error: str, message: str, traceback: str, host: str
    ) -> None:
        """Record that an attempt at a unit failed, now."""
        row = {"unit_id": unit_id, "kind": kind, "attempt": attempt, "host": host, "failed_at": datetime.now(UTC)}
        self.put_failure(row | {"error": error, "message": message, "traceback": traceback})

    def put_failure(self, row: Mapping[str, Any]) -> None:
        """Write the row of a failed attempt."""
        table = from_rows("failures", [row])
        self._begin()
        self._write(layout.failure_file(row["unit_id"], row["attempt"]), table)

    def failed(self, unit_id: str, attempt: int) -> str | None:
        """Return what an attempt at a unit failed of, in one sentence; None where no such failure is recorded."""
        if not self.files.exists(layout.failure_file(unit_id, attempt)):
            return None
        (row,) = self.read_file("failures", f"{unit_id}.{attempt}").to_pylist()
        return failed_of(row)

    def failures(self) -> dict[str, list[dict[str, Any]]]:
        """Return the failures of each unit by attempt, also of units that finished later."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.read("failures").sort_by([("unit_id", "ascending"), ("attempt", "ascending")]).to_pylist():
            found.setdefault(row["unit_id"], []).append(row)
        return found

    def attempts(self) -> dict[str, int]:
        """Return how often each unit failed, from the names of the files alone."""
        found: dict[str, int] = {}
        for stem in self._stems("failures"):
            unit_id, _, attempt = stem.partition(".")
            found[unit_id] = max(found.get(unit_id, 0), int(attempt) if attempt.isdecimal() else 1)
        return found

    def put_plan(self, sweep: str, table: pa.Table) -> None:
        """Write a sweep's plan in place of the one before."""
        path, rows = layout.plan_file(sweep), conform("plans", table)
        self._begin()
        self._write(path, rows)

    def sweeps(self) -> list[str]:
        """Return the names of the sweeps that were planned into this store."""
        return sorted(self._stems("plans"))

    # -- trainings that were stopped early -----------------------------------------------------------------------------

    def stop(self, unit_id: str, sweep: str, *, epoch: int, compared_by: str, value: float) -> None:
        """Record that a sweep trains a unit no further, now."""
        row = {"sweep": sweep, "unit_id": unit_id, "epoch": epoch, "compared_by": compared_by, "value": value}
        self.put_stop(from_rows("stops", [row | {"stopped_at": datetime.now(UTC)}]))

    def put_stop(self, table: pa.Table) -> None:
        """Write the row of a stop."""
        rows = conform("stops", table)
        (row,) = rows.to_pylist()
        self._begin()
        self._write(layout.stop_file(row["unit_id"], row["sweep"]), rows)

    def stopped(self, sweep: str) -> set[str]:
        """Return the ids of the units that a sweep stopped early, from the names of the files alone."""
        return {unit for unit, of in self.stops() if of == sweep}

    def stops(self) -> set[tuple[str, str]]:
        """Return the units that were stopped early, each with the sweep that did, from the names alone."""
        parts = (stem.partition(".") for stem in self._stems("stops"))
        return {(unit_id, sweep) for unit_id, _, sweep in parts}

    def go_on(self, unit_id: str, sweep: str) -> None:
        """Forget that a sweep stopped a unit early."""
        self.files.remove(layout.stop_file(unit_id, sweep))

    # -- weights -----------------------------------------------------------------------------------------------------

    def put_file(self, name: PurePosixPath, local: Path) -> None:
        """Copy a local file into the store, at once, in place of the one before."""
        path = layout.inside(name)
        self._begin()
        self.files.copy_in(local, path)

    def put(self, name: PurePosixPath, data: bytes) -> None:
        """Write a file of the store, at once, in place of the one before."""
        path = layout.inside(name)
        self._begin()
        self.files.write(path, data)

    def get_file(self, name: PurePosixPath, local: Path) -> None:
        """Copy a file of the store to a local path, at once; StoreError where it is not there."""
        self.files.copy_out(layout.inside(name), local)

    def local_path(self, name: PurePosixPath) -> Path | None:
        """Return where a file of a store on a local disk lies, so that it can be mapped; None for other stores."""
        return Path(self.files.full(layout.inside(name))) if self.files.local else None

    # -- the marker --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Write the marker before anything else: a folder without one is not a store."""
        if not self._begun:
            if not check(self.files):
                self.files.write(layout.MARKER, json.dumps({"schema": SCHEMA_VERSION}).encode())
            self._begun = True


def failed_of(row: Mapping[str, Any]) -> str:
    """Return in one sentence what an attempt failed of, given its row in `failures`."""
    return f"{row['error']}: {(row['message'].splitlines() or [''])[0]}"


def rows_in(data: bytes) -> pa.Table:
    """Return the rows of a Parquet file; ValueError, OSError or Arrow's own where a checksum of it does not fit."""
    seal.digest(data)
    # By this thread alone: one of Arrow's that lets go of Python's bytes as the interpreter ends aborts the process.
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(use_threads=False)


def open_store(uri: str | os.PathLike[str]) -> Store:
    """Return the store at a path or URI; a missing one is empty, and is created by the first write, not before.

    Raises StoreError for a place that holds something else, and for a store of a newer schema.
    """
    files = open_files(uri)
    return Store(files, begun=check(files))


def check(files: Files) -> bool:
    """Return whether there is a store here; StoreError unless this release can read it, or there is room for a new one.

    The marker is asked for first: where there is a store, that is all there is to ask.
    """
    if (marker := _read_marker(files)) is None:
        if files.kind(PurePosixPath(".")) == fs.FileType.File:
            raise StoreError(f"{files.uri} is a file, not a store: give a folder")
        if not (names := files.names(PurePosixPath("."))):
            return False
        marker = _read_marker(files)  # once more: another driver may have begun the store between the two looks
    if marker is not None:
        _check_schema(files, marker)
        return True
    if layout.MARKER.name in names or set(names) <= layout.FOLDERS:
        raise StoreError(f"{files.uri} lacks its marker: {_marker(files)}")
    raise StoreError(f"{files.uri} is no store, it holds {names[0]!r}: give a store, or an empty or new folder")


def _read_marker(files: Files) -> bytes | None:
    try:
        return files.read(layout.MARKER)
    except StoreError as error:
        if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise
        return None


def _marker(files: Files) -> str:
    return f"if this is a store, write {json.dumps({'schema': SCHEMA_VERSION})} into {files.full(layout.MARKER)}"


def _check_schema(files: Files, marker: bytes) -> None:
    try:
        schema = json.loads(marker)["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the store's marker is damaged: {_marker(files)}") from error
    if not isinstance(schema, int) or schema > SCHEMA_VERSION:
        raise StoreError(
            f"the store {files.uri} has schema {schema}, this release reads up to {SCHEMA_VERSION}: upgrade rna-ray"
        )
