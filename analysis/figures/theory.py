"""RNA's Eq. 5 and Eq. 6 layer by layer, and the bound of Theorem 3.1: what the formula gives against what is measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.setting import STUDENT, Setting, ask
from rna_ray.analysis.statistics import student

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
SCHEMA = pa.schema(
    {
        "panel": pa.string(),
        "variant": pa.string(),
        "member": pa.string(),
        "layer": pa.string(),
        "depth": pa.int64(),
        "measured": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "formula": pa.float64(),
        "formula_low": pa.float64(),
        "formula_high": pa.float64(),
        "holds": pa.float64(),
        "n": pa.int64(),
        "seeds": pa.int64(),
    }
)


def tabulate(connection: duckdb.DuckDBPyConnection, sweep: str) -> pa.Table:
    """Return a row for each network, norm and layer of panels eq5 and eq6."""
    rows = ask(connection, "smoothness", sweep)
    layers = {name: at for at, name in enumerate(sorted({row["layer"] for row in rows}, key=_in_order), 1)}
    for row in rows:
        row["depth"] = layers[row["layer"]]
        row["low"], row["high"] = student(row["measured"], row.pop("measured_error"), row["n"])
        row["formula_low"], row["formula_high"] = student(row["formula"], row.pop("formula_error"), row["n"])
    return pa.Table.from_pylist(rows, SCHEMA)


def _in_order(layer: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts layers as they run: stage 10 after stage 9, the stem before all stages."""
    return [(part != "", int(part or 0) if part.isdigit() else -1, part) for part in re.split(r"[._](?=\d)|(?<=\d)\.", layer)]


def draw(rows: Sequence[Row], setting: Setting) -> Figure:
    """Draw each network's layers across, and the two equations beside each other."""
    raise NotImplementedError
