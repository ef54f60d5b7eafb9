"""A test batch's mean and variance against the tracked ones, channel by channel (RobustNorm, Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.setting import Setting, ask, span
from rna_ray.analysis.statistics import student

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Looks = Mapping[str, Mapping[str, Any]]
SCHEMA = pa.schema(
    {
        "panel": pa.string(),
        "quantity": pa.string(),
        "label": pa.string(),
        "training": pa.string(),
        "variant": pa.string(),
        "norm": pa.string(),
        "seed": pa.int64(),
        "member": pa.string(),
        "layer": pa.string(),
        "channel": pa.int64(),
        "tracked": pa.float64(),
        "batch": pa.float64(),
        "difference": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "batches": pa.int64(),
        "n": pa.int64(),
        "seeds": pa.int64(),
    }
)
QUANTITIES = ("mean", "variance", "minimum", "range")


def tabulate(connection: duckdb.DuckDBPyConnection, sweep: str) -> pa.Table:
    """Return a row for each quantity and channel (panel channel), and for each quantity and network (panel network).

    `batch` is the mean over the batches, `difference` the mean absolute one, in units of what inference divides by: the
    tracked deviation, or the range (to its power, as a range always is here). `low` and `high` are of `batch`, or of a
    network's `difference`.
    """
    rows = ask(connection, "statistics", sweep)
    for row in rows:
        middle = row["batch"] if row["panel"] == "channel" else row["difference"]
        error = row.pop("standard_error")
        row["low"], row["high"] = (None, None) if middle is None else student(middle, error, row["batches"])
    return pa.Table.from_pylist(rows, SCHEMA)


def draw(rows: Sequence[Row], setting: Setting) -> Figure:
    """Draw a line of panels for each entry: a scatter of the channels for each quantity, and how far they are off."""
    channels = [row for row in rows if row["panel"] == "channel"]
    networks = [row for row in rows if row["panel"] == "network"]
    quantities = [name for name in QUANTITIES if any(row["quantity"] == name for row in rows)]
    labels, names = list(dict.fromkeys(row["label"] for row in rows)), list(dict.fromkeys(map(_called, rows)))
    looks = {
        name: {"color": style.COLOURS[at % 8], "marker": style.MARKERS[at % 10]} for at, name in enumerate(names)
    }
    picture = style.picture(
        2.2 + 3 * (len(quantities) + 1), 1.1 + 2.9 * len(labels),
        "A test batch's statistics in each channel of each norm layer, against the tracked ones",
        _footer(networks, setting),
    )  # fmt: skip
    columns = len(quantities) + 1
    axes = style.grid(picture, len(labels), columns, columns * len(labels))
    for line, label in enumerate(labels):
        panels = axes[line * columns : (line + 1) * columns]
        for quantity, panel in zip(quantities, panels, strict=False):
            held = [row for row in channels if row["quantity"] == quantity]
            _scatter(panel, [row for row in held if row["label"] == label], held, looks)
            style.letter(panel, line * columns + quantities.index(quantity), f"{quantity}, {_images(label)}")
        _off(panels[-1], [row for row in networks if row["label"] == label], networks, quantities, looks)
        style.letter(panels[-1], (line + 1) * columns - 1, f"difference, {_images(label)}")
    handles = [style.proxy(name, linestyle="", **look) for name, look in looks.items()]
    handles.append(style.proxy("batch = tracked", color="#808080", linewidth=0.8))
    style.legend(picture, handles)
    return picture


def _called(row: Row) -> str:
    """Return a network's name, with its member where it has several norms."""
    return row["variant"] if row["norm"] == row["member"] else f"{row['variant']}: {row['member']}"


def _images(label: str) -> str:
    what, _, more = label.removeprefix("statistics-").partition(" ")
    return f"{what} images" + (f", {more}" if more else "")


def _footer(networks: Sequence[Row], setting: Setting) -> str:
    notes = ["difference: mean absolute one over all channels, in units of what inference divides by"]
    if "statistics" in setting.attacks:
        notes.append(f"attacked images: {setting.attacks['statistics']}")
    intervals = f"95 % Student intervals over {span(networks, 'batches')} batches"
    return setting.footer(networks, intervals, *notes, averaged=", averaged within each batch")


def _scatter(axes: Axes, rows: Sequence[Row], scale: Sequence[Row], looks: Looks) -> None:
    """Draw channels as points of batch against tracked, with the line on which both are the same."""
    for name, look in looks.items():
        held = [row for row in rows if _called(row) == name]
        xs, ys = [row["tracked"] for row in held], [row["batch"] for row in held]
        axes.plot(xs, ys, linestyle="", markersize=2, alpha=0.5, markeredgewidth=0, rasterized=True, **look)
    values = [row[side] for row in scale for side in ("tracked", "batch")]
    if min(values, default=0) > 0:
        low, high = min(values) / 1.3, max(values) * 1.3
        axes.set_xscale("log")
        axes.set_yscale("log")
    else:
        beyond = 0.05 * (max(values, default=1) - min(values, default=0)) or 1
        low, high = min(values, default=0) - beyond, max(values, default=1) + beyond
    axes.plot([low, high], [low, high], color="#808080", linewidth=0.8, zorder=1)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xlabel("tracked")
    axes.set_ylabel("batch, mean over batches")
    axes.grid(True)


def _off(axes: Axes, rows: Sequence[Row], scale: Sequence[Row], quantities: Sequence[str], looks: Looks) -> None:
    """Draw each network's mean absolute difference for each quantity, the same scale in every line."""
    names = list(looks)
    for row in rows:
        if row["difference"] is None:
            continue
        x = quantities.index(row["quantity"]) + 0.7 * ((names.index(_called(row)) + 0.5) / len(names) - 0.5)
        sides = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
        axes.errorbar(
            x, row["difference"], sides if isfinite(row["low"]) else None, linestyle="", elinewidth=0.9,
            **looks[_called(row)],
        )  # fmt: skip
    axes.set_xticks(range(len(quantities)), ["deviation" if name == "variance" else name for name in quantities])
    axes.set_xlim(-0.5, len(quantities) - 0.5)
    ends = [value for row in scale for value in (row["difference"], row["high"]) if value is not None]
    axes.set_ylim(0, 1.1 * max((value for value in ends if isfinite(value)), default=1) or 1)
    units = [name for name, of in (("deviations", "variance"), ("ranges", "range")) if of in quantities]
    axes.set_ylabel(f"difference ({' or '.join(units)})")
    axes.grid(True, axis="y")
