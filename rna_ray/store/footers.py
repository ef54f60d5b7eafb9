"""A look at the ends of row files: cheap enough for every unit of a sweep, each time it is resumed.

It finds what is missing, empty, truncated, or no Parquet file. What was altered in the middle is found by who reads it,
and by `rna-ray verify`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePosixPath

from rna_ray.errors import StoreError
from rna_ray.store import layout
from rna_ray.store.files import Files
from rna_ray.store.parquet import Store
from rna_ray.store.records import NEEDS, RECORDS

_TAIL_BYTES = 8  # the footer's length, and the magic
_SMALLEST = 12  # both, and the magic at the start
_MAGIC = b"PAR1"

Kinds = Mapping[str, str]


def damaged(store: Store, finished: Kinds) -> dict[str, str]:
    """Return the finished units whose rows are not whole, each with a sentence that names a file and what is wrong.

    `finished` says the kind of each unit that has a record. Raises StoreError where the store does not answer.
    """
    units: dict[str, set[str]] = {kind: set() for kind in NEEDS}
    for unit_id, kind in finished.items():
        units[kind].add(unit_id)
    wrong: dict[str, str] = {}
    for kind, of_kind in units.items():
        if not of_kind:
            continue
        details = {view: store.counted(view, of_kind) for view in NEEDS[kind]}
        if NEEDS[kind]:
            for unit_id in of_kind.difference(*details.values()):
                wrong[unit_id] = f"{store.files.full(layout.rows_file(NEEDS[kind][0], unit_id))} is missing"
        for view, stems in {**details, RECORDS[kind]: {unit_id: unit_id for unit_id in of_kind}}.items():
            wrong.update(_look(store.files, view, stems))
    return wrong


def _look(files: Files, view: str, stems: Mapping[str, str]) -> dict[str, str]:
    """Return which of these units' files do not end as a Parquet file does, each with a sentence that names it."""
    folder = files.full(layout.folder(view))
    paths = [f"{folder}/{layout.file_name(stem)}" for stem in stems.values()]
    found = map(_wrong_here, paths) if files.local else files.each(lambda path: _wrong_there(files, path), paths)
    return {
        unit_id: f"{path} {why}" for unit_id, path, why in zip(stems, paths, found, strict=True) if why is not None
    }


def _wrong_here(path: str) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            return ends(size, os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES)))
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except IsADirectoryError:
        return "is a folder"
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def _wrong_there(files: Files, path: str) -> str | None:
    try:
        return ends(*files.tail(PurePosixPath(path).relative_to(files.root), _TAIL_BYTES))
    except FileNotFoundError:
        return "is missing"


def ends(size: int, tail: bytes) -> str | None:
    """Return what is wrong with a file of this size and these last 8 bytes, None where it may be whole."""
    if size == 0:
        return "is empty"
    if size < _SMALLEST or tail[4:] != _MAGIC:
        return "is truncated, or no Parquet file"
    if not 0 < int.from_bytes(tail[:4], "little") <= size - _SMALLEST:
        return "is truncated: its footer does not fit into it"
    return None
