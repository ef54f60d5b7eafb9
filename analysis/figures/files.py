"""A figure's three files: made whole in memory, then put into place together; the same figure gives the same bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from rna_ray.analysis import files
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
    paths = {folder / file: data for file, data in contents.items()}
    if os.path.isfile(folder):
        raise FigureError(f"cannot write figure {name} to {folder}, which is a file: give a folder")
    try:
        files.put(paths)
    except OSError as error:
        raise FigureError(f"cannot write figure {name} to {folder}: {error.strerror or error}") from error
    return list(paths)


def pictures(draw: Callable[[], Figure]) -> dict[str, bytes]:
    """Return what `draw` draws as png and svg."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with style.applied():
        picture, png, svg = draw(), io.BytesIO(), io.BytesIO()
        # Not by savefig, which draws each twice, the first time for its layout alone.
        picture.canvas.print_png(png)
        picture.set_layout_engine("none")  # the svg has the png's
        FigureCanvasSVG(picture).print_svg(svg, metadata=_WITHOUT_CLOCK)
    return {"png": png.getvalue(), "svg": svg.getvalue()}


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()
