"""Every checksum of a store: the rows, the weights, and whether records and their details belong together."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from rna_ray.errors import StoreError, first_line
from rna_ray.store import layout, packs, seal, weights
from rna_ray.store.files import THREADS
from rna_ray.store.footers import ends
from rna_ray.store.packs import LEFT_SECONDS
from rna_ray.store.parquet import Store, rows_in
from rna_ray.store.records import DETAILS, RECORDS, SCHEMAS

_RESUME = layout.resume_marker("x").name
_RECORD_VIEWS = tuple(dict.fromkeys(RECORDS.values()))
Report = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A file of the store that something is wrong with."""

    file: str
    """Its path within the store."""
    why: str
    unit: str | None = None
    """The unit whose rows or weights it holds."""
    view: str | None = None
    """The record view of that unit, where removing the file takes the unit's rows along."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found in a store, or in the part of it that holds some units."""

    files: int
    bytes: int
    damaged: tuple[Finding, ...]
    """Read by someone, they would be refused, or would give what was never written."""
    absent: tuple[Finding, ...]
    """Weights that a record names and that are not there, pruned or lost: a run that needs them trains again."""
    leftovers: tuple[Finding, ...]
    """Files that nothing refers to: of writers that died, or came too late."""


def verify(
    store: Store, units: Collection[str] | None = None, report: Report = lambda done, total: None, *, now: float = 0.0
) -> Verified:
    """Return what is wrong with a store, or with the files of some units: every byte of them is read.

    `report` gets the number of files looked at and of all. Raises StoreError where the store does not answer.
    """
    found = [info for info in store.files.below(PurePosixPath(".")) if info.type != fs.FileType.NotFound]
    wanted = {PurePosixPath(info.path).relative_to(store.files.root): info for info in found}
    copies = packs.known(store)
    packed = {path: pack for pack in copies for path in (pack.rows, pack.facts)}
    wanted = {path: info for path, info in wanted.items() if _looked_at(path, info, units, packed)}
    looked: dict[PurePosixPath, _Looked] = {}
    with ThreadPoolExecutor(4 if store.files.local else THREADS) as pool:
        found_in = pool.map(lambda path: _look(store, path, wanted[path], packed), wanted)
        for path, one in zip(wanted, found_in, strict=True):
            looked[path] = one
            report(len(looked), len(wanted))
    named = {path: sha256 for _, trial in _records(looked) for path, sha256 in _weights_of(trial).items()}
    # Weights that a record does not name cost no rows: of another attempt, or a state to resume from.
    damaged = [
        dataclasses.replace(one.finding, view="trials") if path in named else one.finding
        for path, one in looked.items() if one.finding is not None
    ]  # fmt: skip
    damaged += [*_torn(store, looked), *_swapped(looked, named)]
    left = _left(looked, now or time.time(), wanted, packed)
    return Verified(
        files=len(wanted), bytes=sum(info.size or 0 for info in wanted.values()),
        damaged=tuple(sorted(damaged, key=lambda one: one.file)),
        absent=tuple(_absent(looked)), leftovers=tuple(sorted(left, key=lambda one: one.file)),
    )  # fmt: skip


def remove(store: Store, found: Verified) -> None:
    """Remove what is damaged, so that the next run does those units again, and what is left over."""
    for one in found.damaged:
        if one.unit is not None and one.view is not None:
            store.discard(one.unit, one.view)
    for one in (*found.damaged, *found.leftovers):
        path = PurePosixPath(one.file)
        store.files.remove(path)
        if path.parts[0] == layout.PACKS.name:  # rows and facts of a pack are nothing without each other
            store.files.remove(path.with_suffix(".json"))


# -- one file ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Looked:
    """What one file is, and what was found in it."""

    view: str | None = None
    """Of a file of rows: its view. Weights have none."""
    stem: str = ""
    unit: str | None = None
    finding: Finding | None = None
    sha256: str | None = None
    """What a file of rows says of itself."""
    details: Mapping[str, Mapping[str, str]] | None = None
    """What a record says of its details."""
    row: Mapping[str, Any] | None = None
    """A trial's only row."""


def _looked_at(
    path: PurePosixPath, info: fs.FileInfo, units: Collection[str] | None, packed: Mapping[PurePosixPath, packs.Pack]
) -> bool:
    """Return whether it is a file of the store, or lies in the place of one, of the units that are asked for."""
    if path.parts[0] == layout.INVALID.name:
        return False  # a store of its own
    if path.name[:1] == ".":
        return units is None and info.type == fs.FileType.File
    if path.parts[0] == layout.PACKS.name:
        if units is not None:
            return path in packed and any(layout.unit_of(stem) in units for stem in packed[path].copied)
        return info.type == fs.FileType.File
    if len(path.parts) == 2 and path.parts[0] in SCHEMAS:
        if units is None:
            return True
        return path.parts[0] != "plans" and layout.unit_of(path.name) in units
    weights = len(path.parts) == 3 and path.parts[0] == layout.CHECKPOINTS.name
    return weights and (units is None or path.parts[1] in units)


def _look(
    store: Store, path: PurePosixPath, info: fs.FileInfo, packed: Mapping[PurePosixPath, packs.Pack]
) -> _Looked:
    if path.name[:1] == ".":
        return _Looked()
    if path.parts[0] == layout.PACKS.name:
        return _pack(store, path, packed.get(path))
    return _rows(store, path, info) if path.parts[0] in SCHEMAS else _weights(store, path, info)


def _rows(store: Store, path: PurePosixPath, info: fs.FileInfo) -> _Looked:
    view, stem = path.parts[0], layout.stem(path.name)
    if stem is None:
        return _Looked(view=view, finding=Finding(file=str(path), why="is no file of rows: its name is none of a unit"))
    unit = None if view == "plans" else layout.unit_of(stem)
    record = DETAILS.get(view, view if view in _RECORD_VIEWS else None)
    looked = _Looked(view=view, stem=stem, unit=unit)
    wrong = Finding(file=str(path), why="", unit=unit, view=record)
    if info.type == fs.FileType.Directory:
        return dataclasses.replace(looked, finding=dataclasses.replace(wrong, why="is a folder"))
    try:
        data = store.files.read(path)
    except StoreError:
        if store.files.exists(path):
            raise
        return _Looked()  # someone removed it meanwhile
    try:
        if why := ends(len(data), data[-8:]):
            raise ValueError(why)
        sha256, table = seal.digest(data), rows_in(data)
        _check_rows(view, stem, table)
        found = seal.details(pq.read_metadata(pa.BufferReader(data))) if view in _RECORD_VIEWS else None
        row = table.to_pylist()[0] if view == "trials" else None
        whole = dataclasses.replace(looked, sha256=sha256, details=found, row=row)
        _check_names(whole)
        return whole
    except (StoreError, OSError, ValueError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
        why = first_line(error)
        why = why if why.startswith("is ") else f"is damaged: {why}"
        return dataclasses.replace(looked, finding=dataclasses.replace(wrong, why=why))


def _check_names(record: _Looked) -> None:
    """Raise unless all that a record refers to are files of the store: it may be anyone's."""
    _weights_of(record)
    for view, said in (record.details or {}).items():
        layout.rows_file(view, said["file"])


def _check_rows(view: str, stem: str, table: pa.Table) -> None:
    """Raise ValueError unless the table has the view's columns and belongs to the unit (or sweep) of its name."""
    schema = SCHEMAS[view]
    for column in schema:
        if not column.nullable and column.name not in table.column_names:
            raise ValueError(f"it has no column {column.name}")
    pa.concat_tables([schema.empty_table(), table], promote_options="default").select(schema.names).cast(schema)
    key, owner = ("sweep", stem) if view == "plans" else ("unit_id", layout.unit_of(stem))
    others = [one for one in table[key].unique().to_pylist() if one != owner]
    if others:
        raise ValueError(f"it holds rows of {others[0]}")
    if view in _RECORD_VIEWS and table.num_rows != 1:
        raise ValueError(f"a record is one row, here are {table.num_rows}")


def _pack(store: Store, path: PurePosixPath, pack: packs.Pack | None) -> _Looked:
    """Look at the rows or the facts of a pack; any other file is a leftover, if anything."""
    if pack is None:
        return _Looked()
    why = None
    if not pack.sha256:
        why = "is damaged: it does not say what its pack copies" if path == pack.facts else None
    elif path == pack.rows and weights.sha256(store, path) not in (pack.sha256, None):
        why = "is damaged: its SHA-256 is not the one that was written"
    return _Looked(finding=Finding(file=str(path), why=why) if why else None)


def _weights(store: Store, path: PurePosixPath, info: fs.FileInfo) -> _Looked:
    unit, name = path.parts[1], layout.weights_name(path.name)
    looked = _Looked(unit=unit, stem=path.name)
    if info.type == fs.FileType.Directory:
        why: str | None = "is a folder"
    elif name is not None:
        sha256 = weights.sha256(store, path) or ""
        looked, why = dataclasses.replace(looked, sha256=sha256), _other_weights(sha256, name[1])
    elif path.name == _RESUME:
        why = None if _resumes_from(store, path) else "is damaged: it names no state to resume from"
    else:
        return looked
    if why is None:
        return looked
    return dataclasses.replace(looked, finding=Finding(file=str(path), why=why, unit=unit))


def _other_weights(found: str, written: str) -> str | None:
    if found.startswith(written):
        return None
    return f"is damaged: its SHA-256 is {found[:16]}…, {written[:16]}… was written"


def _resumes_from(store: Store, path: PurePosixPath) -> bool:
    try:
        sha256 = json.loads(store.files.read(path))["sha256"]
        return store.files.exists(layout.weights_file(path.parts[1], "resume", sha256))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    except StoreError:  # what it names can be no name of a file
        if store.files.exists(path):
            return False
        raise


# -- files together ----------------------------------------------------------------------------------------------------

_All = Mapping[PurePosixPath, _Looked]


def _records(looked: _All) -> Iterator[tuple[PurePosixPath, _Looked]]:
    """Yield the records that are whole."""
    for path, one in looked.items():
        if one.view in _RECORD_VIEWS and one.finding is None and one.unit is not None:
            yield path, one


def _details(looked: _All) -> dict[tuple[str, str], dict[str, tuple[PurePosixPath, _Looked]]]:
    """Return the files of details: (view, unit) → stem → the file."""
    found: dict[tuple[str, str], dict[str, tuple[PurePosixPath, _Looked]]] = {}
    for path, one in looked.items():
        if one.view in DETAILS and one.unit is not None:
            found.setdefault((one.view, one.unit), {})[one.stem] = path, one
    return found


def _torn(store: Store, looked: _All) -> Iterator[Finding]:
    """Yield the details that a record lacks, or that are not those of its attempt.

    What seems to be missing is looked for once more: a unit may have ended while the files were listed.
    """
    details = _details(looked)
    for _, one in _records(looked):
        assert one.unit is not None and one.view is not None
        of_record = [view for view, record in DETAILS.items() if record == one.view]
        if one.details is None:  # of an older release: its kind tells what it must have
            have = any((view, one.unit) in details for view in of_record)
            imported = one.row is not None and one.row["state"] == "imported"
            if not have and not imported and not store.files.exists(layout.rows_file(of_record[0], one.unit)):
                yield _lost(one, of_record[0], one.unit, "is missing")
            continue
        for view, said in one.details.items():
            file = details.get((view, one.unit), {}).get(said["file"])
            if file is None:
                if not store.files.exists(layout.rows_file(view, said["file"])):
                    yield _lost(one, view, said["file"], "is missing")
            elif file[1].finding is None and file[1].sha256 != said["sha256"]:
                yield _lost(one, view, said["file"], "is not the file that its unit's record was written with")


def _lost(record: _Looked, view: str, stem: str, why: str) -> Finding:
    return Finding(file=str(layout.rows_file(view, stem)), why=why, unit=record.unit, view=record.view)


def _absent(looked: _All) -> Iterator[Finding]:
    for _, one in _records(looked):
        for path in _weights_of(one):
            if path not in looked:
                yield Finding(file=str(path), why="is missing", unit=one.unit)


def _weights_of(trial: _Looked) -> dict[PurePosixPath, str]:
    """Return the files of weights that a trial's record names, each with its SHA-256."""
    if trial.row is None or trial.unit is None:
        return {}
    said = {name: trial.row.get(f"{name}_sha256") for name in ("last", "best")}
    return {layout.weights_file(trial.unit, name, sha256): sha256 for name, sha256 in said.items() if sha256}


def _swapped(looked: _All, named: Mapping[PurePosixPath, str]) -> Iterator[Finding]:
    """Yield the weights whose name fits their first digits, but whose record says others further on."""
    for path, sha256 in named.items():
        one = looked.get(path)
        if one is not None and one.finding is None and one.sha256 and (why := _other_weights(one.sha256, sha256)):
            yield Finding(file=str(path), why=why, unit=one.unit, view="trials")


def _left(
    looked: _All, now: float, infos: Mapping[PurePosixPath, fs.FileInfo], packed: Collection[PurePosixPath]
) -> Iterator[Finding]:
    """Yield the files that nothing refers to, those of units that are not finished excepted: they may go on."""
    records = {(one.view, one.unit): one for _, one in _records(looked)}
    named = {path for _, one in _records(looked) for path in _weights_of(one)}
    for path, one in looked.items():
        if one.finding is not None or now - (infos[path].mtime_ns or 0) / 1e9 < LEFT_SECONDS:
            continue
        why = None
        if path.name[:1] == ".":
            why = "was being written by a process that died"
        elif path.parts[0] == layout.PACKS.name:
            why = None if path in packed else "is of a pack that counts no more"
        elif one.view in DETAILS:
            record = records.get((DETAILS[one.view], one.unit))
            if record is None:
                why = "belongs to a unit that was not finished"
            elif record.details is not None and record.details.get(one.view, {}).get("file") != one.stem:
                why = "was written by another attempt than the one that counts"
        elif one.view is None and ("trials", one.unit) in records and path not in named:
            why = "was written by another attempt than the one that counts, or to resume a training that is finished"
        if why is not None:
            yield Finding(file=str(path), why=why, unit=one.unit)
