"""The table of any sweep as a dot plot: for each variant its accuracy under each attack, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from rna_ray.analysis import cells
from rna_ray.analysis.cells import Cell
from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.setting import OVER, Setting, answered_together, interval_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = pa.schema(
    {
        "variant": pa.string(),
        "column": pa.string(),
        "attack": pa.string(),
        "knowledge": pa.string(),
        "nth": pa.int64(),
        "ball": pa.string(),
        "accuracy": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "over": pa.string(),
        "n": pa.int64(),
        "draws": pa.int64(),
        "seeds": pa.int64(),
        "seed_sd": pa.float64(),
        "shared": pa.bool_(),
        "batch_statistics": pa.int64(),
        "regrouped": pa.bool_(),
    }
)
_INK = 0.11  # inches of height for each point of a variant


def tabulate(connection: duckdb.DuckDBPyConnection, sweep: str) -> pa.Table:
    """Return a row for each cell of the sweep's table that has examples: accuracy in [0, 1] over fresh draws."""
    found = [cell for cell in cells.ablation(connection, sweep) if cell.accuracy is not None]
    cells.refuse_mixed(found)
    several = {cell.column[:2] for cell in found if cell.nth > 1}
    kept = [name for name in SCHEMA.names if name not in ("column", "low", "high", "over", "shared")]
    over, ends = interval_of(found)
    rows = [
        {name: getattr(cell, name) for name in kept} | ends(cell)
        | {"column": _column(cell, cell.column[:2] in several), "over": over,
           "shared": cell.shared and bool(cell.shared_paths)}
        for cell in found
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def _column(cell: Cell, several: bool) -> str:
    """Return the cell's heading, which says apart the columns of one attack and knowledge."""
    heading = cell.attack if cell.knowledge == "none" else f"{cell.attack}@{cell.knowledge}"
    return f"{heading} #{cell.nth}" + (f", {cell.ball}" if cell.ball else "") if several else heading


def draw(rows: Sequence[Mapping[str, Any]], setting: Setting) -> Figure:
    """Draw variants down and accuracy across; the colour says the attack, the marker what the attacker knew."""
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    columns = list(dict.fromkeys(row["column"] for row in rows))
    looks = _looks(rows)
    more = [f"attacks within {', '.join(balls)}"] if (balls := _distinct(rows, "ball")) else []
    over = rows[0]["over"]
    if (spreads := _distinct(rows, "seed_sd")) and over == "images":
        more.append(f"standard deviation over seeds, in no interval: at most {100 * max(spreads):.1f}")
    if shared := _distinct([row for row in rows if row["shared"]], "column"):
        counted = ": the intervals count its chance" if over == "images" else ""
        more.append(f"images of a batch share a draw in {', '.join(shared)}{counted}")
    more += answered_together(rows, "variant")
    if grouped := _distinct([row for row in rows if row["regrouped"] and not row["shared"]], "column"):
        more.append(
            f"images of a batch were attacked on the same draws in {', '.join(grouped)}: their chance is in no interval"
        )
    height = max(2.6, 1.3 + _INK * (len(columns) + 2) * len(variants), 1.0 + 0.17 * len(columns))
    footer = setting.footer(rows, OVER[over], *more)
    picture = style.picture(8.5, height, "Accuracy of each variant under each attack", footer)
    axes = picture.subplots()
    step = 0.8 / max(1, len(columns))
    for row in rows:
        y = variants.index(row["variant"]) + (columns.index(row["column"]) - (len(columns) - 1) / 2) * step
        x, low, high = (100 * row[key] for key in ("accuracy", "low", "high"))
        axes.errorbar(x, y, xerr=[[x - low], [high - x]], linestyle="", elinewidth=0.9, **looks[row["column"]])
    axes.set_yticks(range(len(variants)), variants)
    axes.set_ylim(len(variants) - 0.5, -0.5)
    right = 10 * ceil(10 * max(row["high"] for row in rows))
    axes.set_xlim(-0.01 * right, right)  # a marker at zero is whole
    axes.set_xlabel("accuracy over fresh draws (%)")
    axes.set_ylabel("variant")
    axes.grid(True, axis="x")
    for at in range(1, len(variants)):
        axes.axhline(at - 0.5, color="#b0b0b0", linewidth=0.6)
    handles = [style.proxy(column, linestyle="", **looks[column]) for column in columns]
    style.legend(picture, handles, title="attack@knowledge,\nfrom top to bottom")
    return picture


def _distinct(rows: Sequence[Mapping[str, Any]], column: str) -> list[Any]:
    return list(dict.fromkeys(row[column] for row in rows if row[column] is not None))


def _looks(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return each column's colour (by attack), marker (by knowledge) and filling (where these two repeat)."""
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    known = list(dict.fromkeys(row["knowledge"] for row in rows))
    found = {}
    for row in rows:
        attack, knowledge = attacks.index(row["attack"]), known.index(row["knowledge"])
        hollow = row["nth"] % 2 == 0 or attack >= len(style.COLOURS)
        look = {"color": style.COLOURS[attack % len(style.COLOURS)], "marker": style.MARKERS[knowledge % 10]}
        found[row["column"]] = look | ({"markerfacecolor": "white"} if hollow else {})
    return found
