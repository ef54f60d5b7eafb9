"""Histograms of the cosine similarity of input gradients, between networks and between norms (RNA, Figure 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.setting import STUDENT, TRAINING, Setting, ask, refuse_entries, short
from rna_ray.analysis.statistics import student

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
SCHEMA = pa.schema(
    {
        "pair": pa.string(),
        "between": pa.string(),
        "training": pa.string(),
        "first": pa.string(),
        "second": pa.string(),
        "bin_low": pa.float64(),
        "bin_high": pa.float64(),
        "images": pa.int64(),
        "share": pa.float64(),
        "mean": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "n": pa.int64(),
        "seeds": pa.int64(),
    }
)
BINS = 40
_BETWEEN = {"networks": "two networks", "members": "two norms of one network"}
_LOOKS = {
    ("networks", "natural"): (style.COLOURS[1], "///"),
    ("networks", "adversarial"): (style.COLOURS[0], ""),
    ("networks", "imported"): (style.COLOURS[4], "xxx"),
    ("members", "natural"): (style.COLOURS[6], "\\\\\\"),
    ("members", "adversarial"): (style.COLOURS[2], "..."),
    ("members", "imported"): (style.COLOURS[5], "+++"),
}
_COLUMNS = 4


def tabulate(connection: duckdb.DuckDBPyConnection, sweep: str) -> pa.Table:
    """Return a row for each bin of each pair's histogram, with the pair's mean; all pairs share their bins."""
    refuse_entries(connection, "similarity", sweep)
    found = ask(connection, "similarity", sweep)
    if not found:
        return SCHEMA.empty_table()
    edges = _edges([value for row in found for value in (row["cosines"][0], row["cosines"][-1])])
    names = short(
        (row[which], row[f"{which}_norm"], row["training"])
        for row in found
        for which in ("source", "variant")
        if row[which] is not None
    )
    return pa.Table.from_pylist([each for row in found for each in _bins(row, edges, names)], SCHEMA)


def _edges(ends: Sequence[float]) -> np.ndarray:
    """Return BINS + 1 edges that hold all values, from one tenth to another."""
    low, high = floor(10 * min(ends)) / 10, ceil(10 * max(ends)) / 10
    return np.round(np.linspace(low, high if high > low else low + 0.1, BINS + 1), 9)


def _bins(row: Row, edges: np.ndarray, names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    shared = {key: row[key] for key in ("training", "mean", "n", "seeds")}
    if row["source"] is None:
        shared |= {"between": "members", "first": row["member"], "second": row["other"]}
        shared["pair"] = f"{row['member']}, {row['other']} in {names[row['variant']]}"
    else:
        shared |= {"between": "networks", "first": row["source"], "second": row["variant"]}
        shared["pair"] = f"{names[row['source']]}, {names[row['variant']]}"
    shared["low"], shared["high"] = student(row["mean"], row["standard_error"], row["n"])
    counts, _ = np.histogram(np.clip(row["cosines"], edges[0], edges[-1]), edges)
    for low, high, images in zip(edges[:-1], edges[1:], counts, strict=True):
        yield shared | {
            "bin_low": float(low), "bin_high": float(high), "images": int(images), "share": int(images) / row["n"]
        }  # fmt: skip


def draw(rows: Sequence[Row], setting: Setting) -> Figure:
    """Draw a panel for each pair; networks of one pair of norms share it, however they were trained."""
    panels: dict[str, dict[tuple[str, str], list[Row]]] = {}
    for row in rows:
        panels.setdefault(row["pair"], {}).setdefault((row["between"], row["training"]), []).append(row)
    columns = min(_COLUMNS, len(panels))
    deep = ceil(len(panels) / columns)
    footer = setting.footer(rows, STUDENT, "line: mean, its band the interval", f"{BINS} bins, the same in all panels")
    title = "Cosine similarity of the loss's input gradients"
    picture = style.picture(max(5, 2.7 * columns) + 2.3, 1.5 + 1.9 * deep, title, footer)
    axes = style.grid(picture, deep, columns, len(panels), sharex=True, sharey=True)
    top = 102 * max(row["share"] for row in rows)
    axes[0].set_ylim(0, 1.3 * top)  # room for the means above the bars
    seen: dict[str, Any] = {}
    for at, (pair, histograms) in enumerate(panels.items()):
        axes[at].set_title(pair)
        for nth, ((between, trained), held) in enumerate(histograms.items()):
            handle = _histogram(axes[at], held, *_LOOKS[between, trained], nth, top)
            seen.setdefault(f"{_BETWEEN[between]},\n{TRAINING[trained]}", handle)
        if at >= len(panels) - columns:
            axes[at].set_xlabel("cosine similarity")
            axes[at].tick_params(labelbottom=True)
        if at % columns == 0:
            axes[at].set_ylabel("images (%)")
    style.legend(picture, list(seen.values()), labels=list(seen), handleheight=2, labelspacing=1)
    return picture


def _histogram(axes: Axes, rows: Sequence[Row], colour: str, hatch: str, nth: int, top: float) -> Any:
    """Draw one histogram and its mean up to `top`, the nth of a panel with its mean in the nth line; return it."""
    edges = [row["bin_low"] for row in rows] + [rows[-1]["bin_high"]]
    shares = [100 * row["share"] for row in rows]
    bars = axes.stairs(shares, edges, fill=True, facecolor=f"{colour}66", edgecolor=colour, hatch=hatch, linewidth=1)
    mean, low, high = (rows[0][key] for key in ("mean", "low", "high"))
    axes.fill_betweenx([0, top], low, high, color=colour, alpha=0.3, linewidth=0)
    axes.vlines(mean, 0, top, color=colour, linewidth=1.2)
    axes.text(0.98, 0.98 - 0.12 * nth, f"{mean:.3f} ±{high - mean:.3f}", transform=axes.transAxes, ha="right", va="top",
              color=colour, fontsize=7.5)  # fmt: skip
    return bars
