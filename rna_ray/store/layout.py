"""Where things lie in a store: the only file that spells a path.

    <store>/store.json                         written first: which schema
    <store>/<view>/<unit id>.parquet           a unit's rows
    <store>/<view>/<unit id>.<digest>.parquet  its detail rows, of an attempt that found others there, or on an object
                                               store; which of several count is said by the unit's record
    <store>/failures/<unit id>.<attempt>.parquet
    <store>/plans/<sweep>.parquet
    <store>/stops/<unit id>.<sweep>.parquet    a training that the sweep goes on with no further
    <store>/checkpoints/<unit id>/<name>       weights
    <store>/.sight-<token>                     looked for by the nodes of a cluster while a run lasts
    <store>/invalid/<when>/…                   rows that were marked invalid then, as a store of their own
    <store>/packs/<view>.<digest>.parquet      copies of many files of rows in one, each with a .json that says of which
    <store>/drivers/<driver id>.json           who is at work
    <store>/tensorboard/<sweep>/…              copies of metrics for TensorBoard, which nothing here reads; local stores

A name that starts with a dot is a file still being written, or left by a writer that died: never read.
"""

from __future__ import annotations

import functools
import re
import uuid
from pathlib import PurePosixPath

from rna_ray.errors import StoreError
from rna_ray.store.records import SCHEMAS

MARKER = PurePosixPath("store.json")
DRIVERS = PurePosixPath("drivers")
CHECKPOINTS = PurePosixPath("checkpoints")
INVALID = PurePosixPath("invalid")
BOARD = PurePosixPath("tensorboard")
PACKS = PurePosixPath("packs")
FOLDERS = frozenset({*SCHEMAS, DRIVERS.name, CHECKPOINTS.name, INVALID.name, BOARD.name, PACKS.name})
_SUFFIX = ".parquet"
_WEIGHTS = re.compile(r"(last|best|resume)-([0-9a-f]{16})\.safetensors")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,149}")
_PACK = re.compile(r"([a-z]+)\.([0-9a-f]{16})\.json")
_ODD = re.compile(r"[^A-Za-z0-9.+-]+")


def checked(name: str, what: str = "name") -> str:
    """Return the name if it may become part of a path, else raise StoreError."""
    if not allowed(name):
        raise StoreError(
            f"{what} {name!r} cannot be stored: allowed are up to 150 of A-Z a-z 0-9 . _ -, the first of them no dot"
        )
    return name


def allowed(name: str) -> bool:
    """Return whether a name may become part of a path."""
    return bool(_NAME.fullmatch(name))


def spelled(text: str) -> str:
    """Return what people call something as a file is called: what a shell or a disk may take amiss is a dash there."""
    return _ODD.sub("-", text)


@functools.cache
def folder(view: str) -> PurePosixPath:
    """Return where the files of a view lie; KeyError for a view that does not exist."""
    if view not in SCHEMAS:
        raise KeyError(view)
    return PurePosixPath(view)


def rows_file(view: str, unit_id: str) -> PurePosixPath:
    """Return where a unit's rows of a view lie."""
    return folder(view) / file_name(checked(unit_id, "unit id"))


def file_name(stem: str) -> str:
    """Return the name of a file of rows, of a stem that is allowed."""
    return stem + _SUFFIX


def failure_file(unit_id: str, attempt: int) -> PurePosixPath:
    """Return where the failure of one attempt at a unit lies."""
    return rows_file("failures", f"{checked(unit_id, 'unit id')}.{attempt}")


def plan_file(sweep: str) -> PurePosixPath:
    """Return where a sweep's plan lies."""
    return folder("plans") / f"{checked(sweep, 'sweep name')}{_SUFFIX}"


def stop_file(unit_id: str, sweep: str) -> PurePosixPath:
    """Return where it is said that a sweep trains a unit no further."""
    return rows_file("stops", f"{checked(unit_id, 'unit id')}.{checked(sweep, 'sweep name')}")


def checkpoint_file(unit_id: str, name: str) -> PurePosixPath:
    """Return where a unit's file of weights lies, such as `last.safetensors`."""
    return CHECKPOINTS / checked(unit_id, "unit id") / checked(name, "checkpoint name")


def resume_marker(unit_id: str) -> PurePosixPath:
    """Return where it is said which state a unit's training resumes from."""
    return checkpoint_file(unit_id, "resume.json")


def weights_file(unit_id: str, name: str, sha256: str) -> PurePosixPath:
    """Return where a unit's weights with this SHA-256 lie: `last` or `best`, or the state to `resume` from."""
    return checkpoint_file(unit_id, f"{name}-{sha256[:16]}.safetensors")


def sight_file(token: str) -> PurePosixPath:
    """Return where the file lies that the nodes of a cluster look for."""
    return PurePosixPath(f".sight-{checked(token)}")


def pack_file(view: str, digest: str, suffix: str) -> PurePosixPath:
    """Return where a pack of a view's rows lies (`.parquet`), or what is said of it (`.json`)."""
    return PACKS / f"{folder(view).name}.{checked(digest, 'digest')}{suffix}"


def pack_name(file_name: str) -> tuple[str, str] | None:
    """Return the view and the digest in the name of a file that says what a pack is of, None for any other file."""
    found = _PACK.fullmatch(file_name)
    return (found[1], found[2]) if found and found[1] in SCHEMAS else None


def driver_file(driver_id: str) -> PurePosixPath:
    """Return where it is said that a driver is at work."""
    return DRIVERS / f"{checked(driver_id, 'driver id')}.json"


def inside(path: PurePosixPath) -> PurePosixPath:
    """Return the path if every part of it is a plain name, so that it cannot leave the store."""
    for part in path.parts:
        checked(part, "path")
    return path


def stem(file_name: str) -> str | None:
    """Return what a file of rows is named after, such as its unit id or sweep, None for any other file."""
    found = file_name.removesuffix(_SUFFIX)
    return found if found != file_name and allowed(found) else None


def attempt_stem(unit_id: str, sha256: str) -> str:
    """Return the name of a unit's detail rows that tells them from those of another attempt."""
    return f"{unit_id}.{sha256[:16]}"


def weights_name(file_name: str) -> tuple[str, str] | None:
    """Return the name and the first 16 hex digits of the SHA-256 in the name of a file of weights."""
    found = _WEIGHTS.fullmatch(file_name)
    return (found[1], found[2]) if found else None


def unit_of(stem: str) -> str:
    """Return the unit id in the name of a file of rows: what stands first, also of details, failures and stops."""
    return stem.partition(".")[0]


def invalid_folder(name: str) -> PurePosixPath:
    """Return where a store of rows that were marked invalid lies."""
    return INVALID / checked(name, "name of invalid rows")


def temporary(file_name: str) -> str:
    """Return a fresh name, beside the file and never read, under which it is written first."""
    return f".{file_name[:200]}.{uuid.uuid4().hex}.tmp"
