"""A store of Parquet files: a unit's rows appear at once and last, and what is done is what is there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from rna_ray.errors import StoreError
from rna_ray.store import layout
from rna_ray.store.files import Files, open_files
from rna_ray.store.records import DETAILS, SCHEMA_VERSION, SCHEMAS, conform, from_rows


class Store:
    """The rows and weights under one folder or URI. Any number of writers and readers may use it at once."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._begun = False

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

    def counted(self, view: str, done: set[str] | None = None) -> list[str]:
        """Return the sorted stems of the view's files whose rows count: those of finished units, in a detail view."""
        if view not in DETAILS:
            return sorted(self._stems(view) if done is None else done)
        # The records are listed first: a unit that finishes in between is then left out whole, never in part.
        finished = self.done(DETAILS[view]) if done is None else done
        return sorted(finished & self._stems(view))

    def _stems(self, view: str) -> set[str]:
        return {stem for name in self.files.names(layout.folder(view)) if (stem := layout.stem(name)) is not None}

    # -- rows --------------------------------------------------------------------------------------------------------

    def commit(self, unit_id: str, views: Mapping[str, pa.Table], *, record: str) -> None:
        """Write a unit's rows, the record last: until it is there, none of them count. A finished unit is left alone.

        Raises ValueError where the tables are not rows of that unit and those views.
        """
        tables = self._checked(unit_id, views, record)
        if self.is_done(unit_id, record):
            return
        self._begin()
        for view, table in tables.items():
            self._write(layout.rows_file(view, unit_id), table)

    def _checked(self, unit_id: str, views: Mapping[str, pa.Table], record: str) -> dict[str, pa.Table]:
        """Return the tables in their views' schemas, the record last."""
        if record not in views or any(DETAILS.get(view) != record for view in views if view != record):
            raise ValueError(f"{sorted(views)} are not the views of a unit whose record is {record!r}")
        tables = {view: conform(view, views[view]) for view in sorted(views, key=lambda view: view == record)}
        for view, table in tables.items():
            if table.column("unit_id").unique().to_pylist() not in ([unit_id], []):
                raise ValueError(f"rows of view {view} belong to another unit than {unit_id}")
        return tables

    def read(self, view: str, units: Iterable[str] | None = None) -> pa.Table:
        """Return the rows of a view that count, of all units or of some; StoreError naming a file that is damaged."""
        stems = self.counted(view) if units is None else sorted(set(self.counted(view)) & set(units))
        return pa.concat_tables([SCHEMAS[view].empty_table(), *(self.read_file(view, stem) for stem in stems)])

    def read_file(self, view: str, stem: str) -> pa.Table:
        """Return the rows of one file of a view, whether or not they count; a column that it lacks reads as null."""
        path, schema = layout.rows_file(view, stem), SCHEMAS[view]
        try:
            with self.files.filesystem.open_input_file(self.files.full(path)) as source:
                table = pq.ParquetFile(source, page_checksum_verification=True).read()
            known = pa.concat_tables([schema.empty_table(), table], promote_options="default").select(schema.names)
            return known.cast(schema)
        except FileNotFoundError as error:
            raise StoreError(f"the store has no file {self.files.full(path)}") from error
        except (OSError, ValueError, pa.ArrowException) as error:
            raise StoreError(f"the store's file {self.files.full(path)} is damaged: {error}") from error

    def _write(self, path: PurePosixPath, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        self.files.write(path, sink.getvalue())

    # -- failures and plans ------------------------------------------------------------------------------------------

    def fail(
        self, unit_id: str, *, kind: str, attempt: int, error: str, message: str, traceback: str, host: str
    ) -> None:
        """Record that an attempt at a unit failed, now."""
        row = {"unit_id": unit_id, "kind": kind, "attempt": attempt, "host": host, "failed_at": datetime.now(UTC)}
        table = from_rows("failures", [row | {"error": error, "message": message, "traceback": traceback}])
        self._begin()
        self._write(layout.failure_file(unit_id, attempt), table)

    def failures(self) -> dict[str, list[dict[str, Any]]]:
        """Return the failures of each unit by attempt, also of units that finished later."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.read("failures").sort_by([("unit_id", "ascending"), ("attempt", "ascending")]).to_pylist():
            found.setdefault(row["unit_id"], []).append(row)
        return found

    def put_plan(self, sweep: str, table: pa.Table) -> None:
        """Write a sweep's plan in place of the one before."""
        path, rows = layout.plan_file(sweep), conform("plans", table)
        self._begin()
        self._write(path, rows)

    def sweeps(self) -> list[str]:
        """Return the names of the sweeps that were planned into this store."""
        return sorted(self._stems("plans"))

    # -- weights -----------------------------------------------------------------------------------------------------

    def put_file(self, name: PurePosixPath, local: Path) -> None:
        """Copy a local file into the store, at once, in place of the one before."""
        path = layout.inside(name)
        self._begin()
        self.files.copy_in(local, path)

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
            check(self.files)
            if not self.exists:
                self.files.write(layout.MARKER, json.dumps({"schema": SCHEMA_VERSION}).encode())
            self._begun = True


def open_store(uri: str | os.PathLike[str]) -> Store:
    """Return the store at a path or URI; a missing one is empty, and is created by the first write, not before.

    Raises StoreError for a place that holds something else, and for a store of a newer schema.
    """
    files = open_files(uri)
    check(files)
    return Store(files)


def check(files: Files) -> None:
    """Raise StoreError unless there is a store that this release can read, or room for a new one."""
    if files.kind(PurePosixPath(".")) == fs.FileType.File:
        raise StoreError(f"{files.uri} is a file, not a store: give a folder")
    if files.kind(layout.MARKER) == fs.FileType.File:
        _check_schema(files)
    elif names := files.names(PurePosixPath(".")):
        raise StoreError(f"{files.uri} is no store, it holds {names[0]!r}: give a store, or an empty or new folder")


def _check_schema(files: Files) -> None:
    try:
        schema = json.loads(files.read(layout.MARKER))["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the store's marker {files.full(layout.MARKER)} is damaged") from error
    if not isinstance(schema, int) or schema > SCHEMA_VERSION:
        raise StoreError(
            f"the store {files.uri} has schema {schema}, this release reads up to {SCHEMA_VERSION}: upgrade rna-ray"
        )
