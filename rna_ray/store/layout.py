"""Where things lie in a store: the only file that spells a path.

    <store>/store.json                         written first: which schema
    <store>/<view>/<unit id>.parquet           a unit's rows
    <store>/failures/<unit id>.<attempt>.parquet
    <store>/plans/<sweep>.parquet
    <store>/checkpoints/<unit id>/<name>       weights

A name that starts with a dot is a file still being written, or left by a writer that died: never read.
"""

from __future__ import annotations

import re
import uuid
from pathlib import PurePosixPath

from rna_ray.errors import StoreError
from rna_ray.store.records import SCHEMAS

MARKER = PurePosixPath("store.json")
_SUFFIX = ".parquet"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,149}")


def checked(name: str, what: str = "name") -> str:
    """Return the name if it may become part of a path, else raise StoreError."""
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"{what} {name!r} cannot be stored: allowed are up to 150 of A-Z a-z 0-9 . _ -, the first of them no dot"
        )
    return name


def folder(view: str) -> PurePosixPath:
    """Return where the files of a view lie; KeyError for a view that does not exist."""
    if view not in SCHEMAS:
        raise KeyError(view)
    return PurePosixPath(view)


def rows_file(view: str, unit_id: str) -> PurePosixPath:
    """Return where a unit's rows of a view lie."""
    return folder(view) / f"{checked(unit_id, 'unit id')}{_SUFFIX}"


def failure_file(unit_id: str, attempt: int) -> PurePosixPath:
    """Return where the failure of one attempt at a unit lies."""
    return rows_file("failures", f"{checked(unit_id, 'unit id')}.{attempt}")


def plan_file(sweep: str) -> PurePosixPath:
    """Return where a sweep's plan lies."""
    return folder("plans") / f"{checked(sweep, 'sweep name')}{_SUFFIX}"


def checkpoint_file(unit_id: str, name: str) -> PurePosixPath:
    """Return where a unit's file of weights lies, such as `last.safetensors`."""
    return PurePosixPath("checkpoints") / checked(unit_id, "unit id") / checked(name, "checkpoint name")


def weights_file(unit_id: str, name: str, sha256: str) -> PurePosixPath:
    """Return where a unit's weights with this SHA-256 lie: `last` or `best`, or the state to `resume` from."""
    return checkpoint_file(unit_id, f"{name}-{sha256[:16]}.safetensors")


def inside(path: PurePosixPath) -> PurePosixPath:
    """Return the path if every part of it is a plain name, so that it cannot leave the store."""
    for part in path.parts:
        checked(part, "path")
    return path


def stem(file_name: str) -> str | None:
    """Return the unit id (or sweep) that a file of rows is named after, None for any other file."""
    return file_name.removesuffix(_SUFFIX) if file_name.endswith(_SUFFIX) and file_name[0] != "." else None


def temporary(file_name: str) -> str:
    """Return a fresh name, beside the file and never read, under which it is written first."""
    return f".{file_name[:200]}.{uuid.uuid4().hex}.tmp"
