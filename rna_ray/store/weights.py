"""A look at weights before anything starts: whether a file of them is there and whole, without reading the tensors."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pyarrow as pa

from rna_ray.errors import CheckpointError
from rna_ray.store.parquet import Store

_LENGTH_BYTES = 8
_HEADER_LIMIT = 100_000_000  # bytes, as in the safetensors format


def shapes(store: Store, name: PurePosixPath, redo: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in a safetensors file.

    Raises CheckpointError where it is missing, or not as long as its header says; `redo` is what to do then.
    """
    path = store.files.full(name)
    try:
        with store.files.filesystem.open_input_file(path) as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            header = json.loads(file.read(length)) if length < _HEADER_LIMIT else {}
            header.pop("__metadata__", None)
            found = {key: tuple(entry["shape"]) for key, entry in header.items()}
            ends = [entry["data_offsets"][1] for entry in header.values()]
            expected = _LENGTH_BYTES + length + max(ends, default=0)
            size = file.size()
    except FileNotFoundError:
        raise CheckpointError(f"the weights {path} are missing: {redo}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise CheckpointError(f"the weights {path} are damaged: {redo}") from error
    if size != expected:
        raise CheckpointError(f"the weights {path} have {size:,} bytes, their header says {expected:,}: {redo}")
    return found
