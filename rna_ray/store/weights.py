"""Whether a file of weights is there and whole: a look at its header before anything starts, or at every byte."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow import fs

from rna_ray.errors import CheckpointError, StoreError, UnreachableError
from rna_ray.store import layout
from rna_ray.store.parquet import Store
from rna_ray.store.remote import NoAnswerError

_CHUNK_BYTES = 1 << 20
_CODE = ("rna_ray", "commit")
_LENGTH_BYTES = 8
_HEADER_LIMIT = 100_000_000  # bytes, as in the safetensors format
_UNSOUND = (StoreError, OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException)
"""What reading a state that is not there, or not whole, may raise."""


def shapes(store: Store, name: PurePosixPath) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in a safetensors file.

    Raises CheckpointError where it is missing, or not as long as its header says.
    """
    return _shapes(store.files.filesystem, store.files.full(name))


def given_shapes(path: str) -> dict[str, tuple[int, ...]]:
    """Return the same of a file of this machine that is in no store."""
    return _shapes(fs.LocalFileSystem(), path)


def _shapes(filesystem: fs.FileSystem, path: str) -> dict[str, tuple[int, ...]]:
    try:
        with filesystem.open_input_file(path) as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            header = json.loads(file.read(length)) if length < _HEADER_LIMIT else {}
            header.pop("__metadata__", None)
            found = {key: tuple(entry["shape"]) for key, entry in header.items()}
            ends = [entry["data_offsets"][1] for entry in header.values()]
            expected = _LENGTH_BYTES + length + max(ends, default=0)
            size = file.size()
    except NoAnswerError as error:  # which says nothing of the weights
        raise UnreachableError(f"cannot read {path}: {error}") from error
    except FileNotFoundError:
        raise CheckpointError(f"the weights {path} are missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise CheckpointError(f"the weights {path} are damaged: their header is none") from error
    if size != expected:
        raise CheckpointError(f"the weights {path} have {size:,} bytes, their header says {expected:,}")
    return found


def look_whole(store: Store, network_id: str, checkpoint: str) -> bool:
    """Return whether a finished network's weights are there, as long as they say, and as many as its record counts.

    Then nothing heavier need look at them before a run; who loads them verifies their checksum. StoreError where the
    store does not answer.
    """
    try:
        columns = ["settings", "parameters", f"{checkpoint}_sha256"]
        trial = store.read_file("trials", network_id).select(columns).to_pylist()[0]
        imported = "import" in json.loads(trial["settings"])["network"]
        found = shapes(store, layout.weights_file(network_id, checkpoint, trial[f"{checkpoint}_sha256"]))
    except UnreachableError:
        raise
    except (CheckpointError, StoreError, ValueError, TypeError, LookupError):  # a record that is none, or of no weights
        return False
    trainable = [shape for name, shape in found.items() if not name.rpartition(".")[2].startswith("running_")]
    return imported or trial["parameters"] == sum(map(math.prod, trainable))


def sha256(store: Store, name: PurePosixPath) -> str | None:
    """Return the hex SHA-256 of a file, None where there is none; StoreError where the store does not answer."""
    found = hashlib.sha256()
    try:
        with store.files.filesystem.open_input_stream(store.files.full(name)) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                found.update(chunk)
    except FileNotFoundError:
        return None
    except NoAnswerError as error:
        raise UnreachableError(f"cannot read {store.files.full(name)}: {error}") from error
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"cannot read {store.files.full(name)}: {error}") from error
    return found.hexdigest()


def made_by(store: Store, unit_id: str) -> list[dict[str, str | None]]:
    """Return the versions and commits that trained the state that a unit would resume from, as its marker says them.

    Neither is known where an older release wrote it; the list is empty where there is no such state.
    """
    path = layout.resume_marker(unit_id)
    if not store.files.exists(path):
        return []
    try:
        return [{key: one[key] for key in _CODE} for one in json.loads(store.files.read(path))["made_by"]]
    except (ValueError, KeyError, TypeError):
        return [dict.fromkeys(_CODE)]


def trained_seconds(store: Store, unit_id: str) -> float:
    """Return the seconds of training behind the state that a unit would resume from; 0 where there is none sound.

    Raises UnreachableError where the store does not answer.
    """
    try:
        about = _resumed(store, unit_id)
        return sum(row["seconds"] for row in about["rows"]) + about.get("position", {}).get("seconds", 0.0)
    except UnreachableError:
        raise
    except _UNSOUND:
        return 0.0  # whoever resumes from it finds out, and begins anew


def trained_epochs(store: Store, unit_id: str) -> list[dict[str, Any]]:
    """Return the rows of the epochs behind the state that a unit would resume from; none where none is sound.

    Raises UnreachableError where the store does not answer.
    """
    try:
        return list(_resumed(store, unit_id)["rows"])
    except UnreachableError:
        raise
    except _UNSOUND:
        return []


def epochs(store: Store, units: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the epochs that trainings have behind them, in order, whether or not they are done."""
    found: dict[str, list[dict[str, Any]]] = {unit_id: [] for unit_id in units}
    for row in store.read("epochs", found, whole=True).sort_by("epoch").to_pylist():
        found[row["unit_id"]].append(row)
    return {unit_id: rows or trained_epochs(store, unit_id) for unit_id, rows in found.items()}


def _resumed(store: Store, unit_id: str) -> dict[str, Any]:
    """Return what the state that a unit would resume from says of itself, from its header alone."""
    marker = json.loads(store.files.read(layout.resume_marker(unit_id)))
    path = store.files.full(layout.weights_file(unit_id, "resume", marker["sha256"]))
    try:
        with store.files.filesystem.open_input_file(path) as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            header = json.loads(file.read(min(length, _HEADER_LIMIT)))
    except NoAnswerError as error:
        raise UnreachableError(f"cannot read {path}: {error}") from error
    return json.loads(header["__metadata__"]["about"])
