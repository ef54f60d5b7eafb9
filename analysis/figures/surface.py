"""The loss over a plane of inputs, along the attack and along a random direction, for each norm (RNA, Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.setting import STUDENT, TRAINING, Setting, ask, refuse_entries, short
from rna_ray.analysis.statistics import student

if TYPE_CHECKING:
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
SCHEMA = pa.schema(
    {
        "training": pa.string(),
        "variant": pa.string(),
        "norm": pa.string(),
        "x": pa.float64(),
        "y": pa.float64(),
        "loss": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "n": pa.int64(),
        "seeds": pa.int64(),
    }
)
_LEVELS = 9


def tabulate(connection: duckdb.DuckDBPyConnection, sweep: str) -> pa.Table:
    """Return a row for each network and point of the plane: the mean loss; x and y in 1/255."""
    refuse_entries(connection, "surface", sweep)
    rows = ask(connection, "surface", sweep)
    for row in rows:
        row["low"], row["high"] = student(row["loss"], row.pop("standard_error"), row["n"])
    return pa.Table.from_pylist(rows, SCHEMA)


def draw(rows: Rows, setting: Setting) -> Figure:
    """Draw each network's surface in 3D and as a map; networks trained alike share a row and its scale."""
    trained: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        trained.setdefault(row["training"], {}).setdefault(row["variant"], []).append(row)
    columns = max(len(variants) for variants in trained.values())
    widest = max((row["high"] - row["low"]) / 2 for row in rows)
    footer = setting.footer(
        rows, f"{STUDENT}, at most ±{widest:.2g}", "the dot is the image itself; panels of one row have one scale"
    )
    title = "Loss around an image, along the attack and along a random direction orthogonal to it, mean over images"
    picture = style.picture(1.4 + 2.5 * columns, 0.9 + 4.7 * len(trained), title, footer)
    parts = np.atleast_1d(picture.subfigures(len(trained), 1))
    for part, (how, variants) in zip(parts, trained.items(), strict=True):
        _row(part, TRAINING[how], variants, columns)
    return picture


def _row(part: Any, how: str, variants: Mapping[str, Rows], columns: int) -> None:
    from matplotlib.colors import Normalize

    names = short((label, held[0]["norm"], how) for label, held in variants.items())
    losses = [row["loss"] for held in variants.values() for row in held]
    scale = Normalize(min(losses), max(losses))
    part.suptitle(how[0].upper() + how[1:], fontsize=10, x=0.02, ha="left")
    maps = []
    for at, (label, held) in enumerate(variants.items()):
        _in_space(part.add_subplot(2, columns, at + 1, projection="3d"), held, scale, names[label])
        maps.append(part.add_subplot(2, columns, columns + at + 1))
        image = _map(maps[-1], held, scale)
        maps[-1].set_xlabel("along the attack (1/255)")
        if at == 0:
            maps[-1].set_ylabel("orthogonal to it (1/255)")
    bar = part.colorbar(image, ax=maps, shrink=0.9, pad=0.01)
    bar.set_label("loss (cross-entropy, nats)")


def _in_space(axes: Any, rows: Rows, scale: Normalize, title: str) -> None:
    xs, ys, losses = _plane(rows)
    across, up = np.meshgrid(xs, ys)
    axes.plot_surface(
        across, up, losses, cmap=style.SEQUENTIAL, norm=scale, rcount=len(ys), ccount=len(xs), linewidth=0.2,
        edgecolor=(0, 0, 0, 0.25), antialiased=True,
    )  # fmt: skip
    axes.set_zlim(scale.vmin, scale.vmax)
    axes.view_init(elev=28, azim=-125)
    axes.set_title(title, pad=0)
    axes.tick_params(labelsize=6, pad=-2)
    axes.set_xlabel("attack (1/255)", fontsize=7, labelpad=-8)
    axes.set_ylabel("orthogonal (1/255)", fontsize=7, labelpad=-8)
    axes.set_zlabel("loss (nats)", fontsize=7, labelpad=-3)
    axes.set_box_aspect((1, 1, 0.8), zoom=1.1)


def _map(axes: Any, rows: Rows, scale: Normalize) -> Any:
    xs, ys, losses = _plane(rows)
    image = axes.pcolormesh(xs, ys, losses, cmap=style.SEQUENTIAL, norm=scale, shading="nearest")
    if losses.min() < losses.max():
        levels = np.linspace(scale.vmin, scale.vmax, _LEVELS + 2)[1:-1]
        inside = [level for level in levels if losses.min() < level < losses.max()]
        if inside:
            axes.contour(xs, ys, losses, levels=inside, colors="white", linewidths=0.7)
    axes.plot([0], [0], "o", color="white", markeredgecolor="black", markersize=4)
    axes.set_aspect("equal")
    return image


def _plane(rows: Rows) -> tuple[list[float], list[float], np.ndarray]:
    """Return the coordinates across and up, and the losses at (up, across)."""
    xs, ys = sorted({row["x"] for row in rows}), sorted({row["y"] for row in rows})
    losses = np.full((len(ys), len(xs)), np.nan)
    for row in rows:
        losses[ys.index(row["y"]), xs.index(row["x"])] = row["loss"]
    return xs, ys, losses
