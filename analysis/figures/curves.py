"""Loss and accuracy over the epochs of training, on training and on held-out images (RobustNorm, Figures 3 and 8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from pyarrow import compute

from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.setting import Setting, ask
from rna_ray.analysis.statistics import student

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
SCHEMA = pa.schema(
    {
        "variant": pa.string(),
        "quantity": pa.string(),
        "images": pa.string(),
        "attack": pa.string(),
        "epoch": pa.int64(),
        "value": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "n": pa.int64(),
        "seeds": pa.int64(),
        "diverged": pa.int64(),
    }
)
QUANTITIES = {"loss": "loss", "accuracy": "accuracy (%)"}
_TITLES = {
    ("training", "natural"): "training images, natural",
    ("training", "adversarial"): "training images, attacked",
    ("held-out", "natural"): "held-out images, natural",
    ("held-out", "adversarial"): "held-out images, attacked",
}
_MARKED = 8
"""About how many points of a line carry its marker."""


def tabulate(connection: duckdb.DuckDBPyConnection, sweep: str) -> pa.Table:
    """Return a row for each variant, quantity (loss, accuracy), kind of images and epoch: the mean over the seeds.

    The interval is Student's over the seeds; all that the quantity can be, where there is but one. `attack` is natural,
    or adversarial: under the training attack. `diverged` counts the variant's seeds whose training did.
    """
    rows = ask(connection, "curves", sweep)
    for row in rows:
        low, high = student(row["value"], row.pop("standard_error"), row["seeds"])
        row["low"], row["high"] = max(0.0, low), min(1.0 if row["quantity"] == "accuracy" else inf, high)
    return pa.Table.from_pylist(rows, SCHEMA)


def held_out(connection: duckdb.DuckDBPyConnection, sweep: str) -> pa.Table:
    """Return the rows of the held-out images alone."""
    table = tabulate(connection, sweep)
    return table.filter(compute.equal(table["images"], "held-out"))


def draw(rows: Sequence[Row], setting: Setting) -> Figure:
    """Draw losses above and accuracies below, a column for each kind of images and a line for each variant."""
    columns = [kind for kind in _TITLES if any((row["images"], row["attack"]) == kind for row in rows)]
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    looks = {
        name: {"color": style.COLOURS[at % 8], "marker": style.MARKERS[at % 10], "linestyle": style.LINES[at % 5]}
        for at, name in enumerate(variants)
    }
    counted = [row for row in rows if row["images"] == "held-out"] or rows
    images = f"{counted[0]['images']} images"
    footer = setting.footer(counted, _interval(rows), *_notes(rows), images=images, averaged="")
    picture = style.picture(2.6 + 2.7 * len(columns), 5.4, "Loss and accuracy over the epochs of training", footer)
    axes = style.grid(picture, 2, len(columns), 2 * len(columns), sharex=True, sharey="row")
    for at, panel in enumerate(axes):
        quantity, kind = list(QUANTITIES)[at // len(columns)], columns[at % len(columns)]
        held = [row for row in rows if row["quantity"] == quantity and (row["images"], row["attack"]) == kind]
        _panel(panel, held, looks)
        if at < len(columns):
            panel.set_title(_TITLES[kind], loc="left")
        else:
            panel.set_xlabel("epoch")
        if at % len(columns) == 0:
            top = max((row["value"] for row in rows if row["quantity"] == quantity), default=1.0)
            scale = 100 if quantity == "accuracy" else 1
            panel.set_ylim(0, min(1.08 * top * scale, 100.0 if quantity == "accuracy" else inf))  # bands may leave
            panel.set_ylabel(QUANTITIES[quantity])
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    handles = [style.proxy(_called(name, rows), **look) for name, look in looks.items()]
    style.legend(picture, handles)
    return picture


def _panel(axes: Axes, rows: Sequence[Row], looks: Mapping[str, Any]) -> None:
    axes.grid(True, axis="y")
    if not rows:
        axes.text(0.5, 0.5, "not measured by the release\nthat trained these networks", transform=axes.transAxes,
                  ha="center", va="center", color="#606060", fontsize=7.5)  # fmt: skip
    for at, (name, look) in enumerate(looks.items()):
        held = [row for row in rows if row["variant"] == name]
        scale = 100 if held and held[0]["quantity"] == "accuracy" else 1
        several = [row for row in held if row["seeds"] > 1]
        axes.fill_between(
            [row["epoch"] for row in several], *([scale * row[end] for row in several] for end in ("low", "high")),
            color=look["color"], alpha=0.18, linewidth=0,
        )  # fmt: skip
        xs, ys = [row["epoch"] for row in held], [scale * row["value"] for row in held]
        step = max(1, len(held) // _MARKED)
        # From another point on for each: lines that meet do not hide each other's markers.
        axes.plot(xs, ys, markevery=(at % step, step), markersize=4, **look)


def _called(variant: str, rows: Sequence[Row]) -> str:
    """Return the variant's name in the legend, with its number of seeds where these are not as many for all."""
    seeds = {name: max(row["seeds"] for row in rows if row["variant"] == name) for name in {r["variant"] for r in rows}}
    counted = f"{seeds[variant]} seed{'' if seeds[variant] == 1 else 's'}"
    said = variant if len(set(seeds.values())) == 1 else f"{variant}, {counted}"
    return f"{said} †" if any(row["diverged"] for row in rows if row["variant"] == variant) else said


def _interval(rows: Sequence[Row]) -> str:
    several = {row["seeds"] > 1 for row in rows}
    if several == {False}:
        return "no interval of a single seed"
    filled = "lines: means over the seeds, filled: their 95 % Student intervals"
    return filled if several == {True} else f"{filled}, none of a single seed"


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what else the footer must say."""
    if any(row["images"] == "training" for row in rows):
        yield "training images: those of the updates, in the passes that train; their loss is what training minimises"
    yield "held-out loss: cross-entropy in nats, after the epoch"
    if any(row["diverged"] for row in rows):
        yield "†: where a seed diverged, the line goes on over the others"
