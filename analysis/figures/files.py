"""A figure's three files: made whole in memory, then put into place together; the same figure gives the same bytes."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from rna_ray.analysis.figures import style
from rna_ray.errors import FigureError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WITHOUT_CLOCK = {"Date": None}  # matplotlib's SVG would say when it was drawn


def write(folder: Path, name: str, table: pa.Table, draw: Callable[[], Figure], about: str) -> list[Path]:
    """Write NAME.png, NAME.svg and NAME.parquet into a folder and return their paths; FigureError where it cannot be.

    The Parquet file holds the table, and what its rows were measured on under the metadata key `about`.
    """
    contents = {f"{name}.{suffix}": data for suffix, data in pictures(draw).items()}
    contents[f"{name}.parquet"] = _parquet(table.replace_schema_metadata({"about": about}))
    temporary = {folder / f".{file}.{uuid.uuid4().hex}.tmp": folder / file for file in contents}
    if folder.exists() and not folder.is_dir():
        raise FigureError(f"cannot write figure {name} to {folder}, which is a file: give a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in zip(temporary, contents.values(), strict=True):
            path.write_bytes(data)
        for path, target in temporary.items():
            os.replace(path, target)
    except OSError as error:
        raise FigureError(f"cannot write figure {name} to {folder}: {error.strerror or error}") from error
    finally:
        _remove(temporary)
    return list(temporary.values())


def pictures(draw: Callable[[], Figure]) -> dict[str, bytes]:
    """Return what `draw` draws as png and svg."""
    with style.applied():
        picture = draw()
        found = {}
        for suffix, metadata in {"png": {}, "svg": _WITHOUT_CLOCK}.items():
            stream = io.BytesIO()
            picture.savefig(stream, format=suffix, metadata=metadata)
            found[suffix] = stream.getvalue()
    return found


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _remove(paths: dict[Path, Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError:  # the folder is none, or may not be changed: that was said already
            return
