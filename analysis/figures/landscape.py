"""The loss over a plane of weights, around those that training found, for each network (RobustNorm, Figure 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.setting import STUDENT, TRAINING, Setting, ask
from rna_ray.analysis.statistics import student

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
SCHEMA = pa.schema(
    {
        "label": pa.string(),
        "training": pa.string(),
        "variant": pa.string(),
        "norm": pa.string(),
        "x": pa.float64(),
        "y": pa.float64(),
        "loss": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "accuracy": pa.float64(),
        "n": pa.int64(),
        "seeds": pa.int64(),
    }
)
_LEVELS = 9
_COLUMNS = 4
_NOTHING = "#bbbbbb"


def tabulate(connection: duckdb.DuckDBPyConnection, sweep: str) -> pa.Table:
    """Return a row for each network, entry and point: the mean loss, its interval, and the accuracy in [0, 1].

    x and y count lengths of each filter. The loss is null where an image's is no finite number.
    """
    rows = ask(connection, "landscape", sweep)
    for row in rows:
        loss, error = row["loss"], row.pop("standard_error")
        row["low"], row["high"] = (None, None) if loss is None else student(loss, error, row["n"])
    return pa.Table.from_pylist(rows, SCHEMA)


def draw(rows: Sequence[Row], setting: Setting) -> Figure:
    """Draw a map for each network and entry, networks trained alike side by side; all have one scale and contours."""
    from matplotlib.colors import LogNorm

    groups: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault((row["label"], row["training"]), {}).setdefault(row["variant"], []).append(row)
    columns = min(_COLUMNS, max(map(len, groups.values())))
    deep = sum(-(-len(variants) // columns) for variants in groups.values())
    picture = style.picture(
        1.5 + 2.7 * columns, 1.4 + 3.1 * deep,
        "Loss landscape over two random directions of the weights, mean over images",
        setting.footer(rows, _spread(rows), *_notes(rows, setting)),
    )  # fmt: skip
    losses = [row["loss"] for row in rows if row["loss"]] or [1.0]
    scale = LogNorm(min(losses), max(max(losses), 1.001 * min(losses)))
    places, drawn = iter(style.grid(picture, deep, columns, deep * columns)), []
    for (label, trained), variants in groups.items():
        for at, (variant, held) in enumerate(variants.items()):
            panel = next(places)
            image = _map(panel, held, scale)
            said = f"{variant}\n{TRAINING[trained]}, {_images(label)}{_centre(held)}"
            style.letter(panel, len(drawn), said, fontsize=8)
            panel.set_xlabel("first direction")
            if at % columns == 0:
                panel.set_ylabel("second direction")
            drawn.append(panel)
        for _ in range(-len(variants) % columns):
            next(places).remove()
    bar = picture.colorbar(image, ax=drawn, shrink=0.9, pad=0.02, aspect=18 * deep)
    bar.set_label("loss (cross-entropy, nats; log scale)")
    bar.set_ticks(_levels(scale), labels=[f"{level:.2g}" for level in _levels(scale)])
    bar.minorticks_off()
    return picture


def _images(label: str) -> str:
    """Return an entry's images in words: landscape-attacked → attacked images."""
    what, _, more = label.removeprefix("landscape-").partition(" ")
    return f"{what} images" + (f"\n{more}" if more else "")


def _centre(rows: Sequence[Row]) -> str:
    """Return what the trained weights themselves do, where the plane has a point there."""
    found = [row for row in rows if row["x"] == row["y"] == 0]
    if not found or found[0]["loss"] is None:
        return ""
    return f"\nat the dot: loss {found[0]['loss']:.3g}, {100 * found[0]['accuracy']:.1f} % right"


def _spread(rows: Sequence[Row]) -> str:
    wide = [(row["high"] - row["low"]) / 2 / row["loss"] for row in rows if row["loss"]]
    wide = [each for each in wide if isfinite(each)]
    return f"{STUDENT}, at most ±{100 * max(wide):.2g} % of the loss" if wide else STUDENT


def _notes(rows: Sequence[Row], setting: Setting) -> list[str]:
    """Return what else the footer must say."""
    said = ["filter-normalised directions (Li et al. 2018), 1 being the length of each filter", "dot: trained weights"]
    said += ["biases, norms' parameters and tracked statistics stay as they are"]
    if "landscape" in setting.attacks:
        said.append(f"attacked images: {setting.attacks['landscape']} at the trained weights, then kept")
    if any(row["loss"] is None for row in rows):
        said.append("grey: the loss is no finite number")
    return said


def _levels(scale: LogNorm) -> np.ndarray:
    return np.geomspace(scale.vmin, scale.vmax, _LEVELS + 2)[1:-1]


def _map(axes: Axes, rows: Sequence[Row], scale: LogNorm) -> Any:
    """Draw a plane as a map with contours, and return what its colours stand for."""
    xs, ys = sorted({row["x"] for row in rows}), sorted({row["y"] for row in rows})
    losses = np.full((len(ys), len(xs)), np.nan)
    for row in rows:
        if row["loss"] is not None:
            losses[ys.index(row["y"]), xs.index(row["x"])] = row["loss"]
    losses = np.ma.masked_invalid(losses)
    axes.set_facecolor(_NOTHING)
    image = axes.pcolormesh(xs, ys, losses, cmap=style.SEQUENTIAL, norm=scale, shading="nearest")
    if inside := [level for level in _levels(scale) if losses.min() < level < losses.max()]:
        lines = axes.contour(xs, ys, losses, levels=inside, colors="white", linewidths=0.7)
        axes.clabel(lines, fmt=lambda level: f"{level:.2g}", fontsize=6)
    axes.plot([0], [0], "o", color="white", markeredgecolor="black", markersize=4)
    return image
