"""What each bound certifies, for all probabilities of class and runner-up (STN, Figure 4): formulas alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

from rna_ray.analysis.captions import L2
from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.setting import Setting
from rna_ray.evaluation.radii import METHODS, cohen_two_sided_radius, pixeldp_radius, renyi_radius

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
SCHEMA = pa.schema({"p1": pa.float64(), "p2": pa.float64(), "renyi": pa.float64(), "pixeldp": pa.float64(),
                    "cohen-two-sided": pa.float64()})  # fmt: skip
_STEPS = 100
_LEAST = 20
"""p1 + p2 is at least so many steps: as in the paper, 0.2."""
_LEVELS = {"renyi": (0.25, 0.5, 1, 1.5, 2), "pixeldp": (0.1, 0.2, 0.3, 0.4)}
_MOST = 2.5
"""Where the colours end, in units of σ."""


def tabulate(connection: duckdb.DuckDBPyConnection | None, sweep: str) -> pa.Table:
    """Return each bound's radius per σ for p1 > p2 >= 0 with 0.2 <= p1 + p2 <= 1, in steps of 0.01; p1 below 1.

    No row of a store is asked for.
    """
    grid = [
        (first / _STEPS, second / _STEPS)
        for first in range(1, _STEPS)
        for second in range(first)
        if _LEAST <= first + second <= _STEPS
    ]
    p1, p2 = np.array(grid).T
    found = {"renyi": renyi_radius, "pixeldp": pixeldp_radius, "cohen-two-sided": cohen_two_sided_radius}
    columns = {name: pa.array(radius(p1, p2, 1.0)) for name, radius in found.items()}
    return pa.table({"p1": p1, "p2": p2, **columns}, schema=SCHEMA)


def draw(rows: Sequence[Row], setting: Setting) -> Figure:
    """Draw each bound over (p1, p2), how many times STN's is PixelDP's, and all three where p2 = 1 - p1."""
    ratios = [row["renyi"] / row["pixeldp"] for row in rows]
    tight = [row["renyi"] / row["cohen-two-sided"] for row in rows if row["cohen-two-sided"] < np.inf]
    footer = (
        f"n = {len(rows):,} points with p1 + p2 ≥ 0.2; no data, no intervals: p1 and p2 are known here. ε and δ of "
        f"PixelDP are the best at each point. There STN's bound is {min(ratios):.2f} to {max(ratios):.2f} times "
        f"PixelDP's, and {min(tight):.2f} to {max(tight):.2f} times Cohen's two-sided one, which no bound can exceed "
        "(without limit where p2 = 0)."
    )
    picture = style.picture(9.6, 8.4, "Certified radii against the probabilities of class and runner-up", footer)
    panels = style.grid(picture, 2, 2, 4)
    for at, method in enumerate(("renyi", "pixeldp")):
        values = _field(rows, [row[method] for row in rows])
        drawn = _map(panels[at], *values, _LEVELS[method], 0, _MOST)
        style.letter(panels[at], at, METHODS[method].about)
    picture.colorbar(drawn, ax=list(panels[:2]), label=f"certified {L2} radius / σ", extend="max", shrink=0.9)
    drawn = _map(panels[2], *_field(rows, ratios), (2, 2.5, 3, 3.5), min(ratios), max(ratios))
    style.letter(panels[2], 2, "STN ÷ PixelDP")
    picture.colorbar(drawn, ax=panels[2], label="STN's radius / PixelDP's", shrink=0.9)
    _lines(panels[3], [row for row in rows if abs(row["p1"] + row["p2"] - 1) < 1e-9])
    return picture


def _field(rows: Sequence[Row], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return p1, p2 and the values as a grid, nan where there is no point."""
    across, down = np.arange(_STEPS + 1) / _STEPS, np.arange(_STEPS // 2 + 1) / _STEPS
    field = np.full((len(down), len(across)), np.nan)
    for row, value in zip(rows, values, strict=True):
        field[round(row["p2"] * _STEPS), round(row["p1"] * _STEPS)] = value
    return across, down, field


def _map(
    axes: Axes, across: np.ndarray, down: np.ndarray, field: np.ndarray, levels: Sequence[float],
    low: float, high: float,
) -> Any:
    drawn = axes.pcolormesh(across, down, field, cmap=style.SEQUENTIAL, vmin=low, vmax=high, rasterized=True)
    lines = axes.contour(across, down, field, levels=levels, colors="white", linewidths=0.9)
    axes.clabel(lines, fmt="%g", fontsize=7.5)
    axes.set_xlabel("p1, of the class")
    axes.set_ylabel("p2, of the runner-up")
    axes.set_xlim(0.1, 1)
    axes.set_ylim(-0.01, 0.5)
    return drawn


def _lines(axes: Axes, rows: Sequence[Row]) -> None:
    for at, method in enumerate(("cohen-two-sided", "renyi", "pixeldp")):
        xs, ys = [row["p1"] for row in rows], [row[method] for row in rows]
        axes.plot(xs, ys, color=style.COLOURS[at], linestyle=style.LINES[at], label=METHODS[method].about)
    style.letter(axes, 3, "two classes: p2 = 1 \N{MINUS SIGN} p1")
    axes.set_xlabel("p1, of the class")
    axes.set_ylabel(f"certified {L2} radius / σ")
    axes.set_xlim(0.5, 1)
    axes.set_ylim(bottom=0)
    axes.grid(True)
    axes.legend(loc="upper left")
