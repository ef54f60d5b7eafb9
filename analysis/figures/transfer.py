"""Adversarial transferability between norms: a matrix of accuracies for each way of training (RNA, Figure 1 c, d)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.printed import printed
from rna_ray.analysis.figures.setting import TRAINING, WILSON, Setting, ask, data, short
from rna_ray.analysis.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA = pa.schema(
    {
        "training": pa.string(),
        "source": pa.string(),
        "target": pa.string(),
        "source_norm": pa.string(),
        "target_norm": pa.string(),
        "accuracy": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "natural_accuracy": pa.float64(),
        "n": pa.int64(),
        "seeds": pa.int64(),
        "printed": pa.float64(),
    }
)


def tabulate(connection: duckdb.DuckDBPyConnection, sweep: str) -> pa.Table:
    """Return a row for each ordered pair of networks trained alike; accuracies in [0, 1].

    `natural_accuracy` is the target's on the images as they are, `printed` the paper's accuracy.
    """
    paper = {
        (line["training"], line["source_norm"], line["target_norm"]): round(float(line["accuracy"]) / 100, 6)
        for line in printed("rna-figure1", data(connection, sweep))
    }
    rows = ask(connection, "transfer", sweep)
    for row in rows:
        row["low"], row["high"] = mean_interval(row["accuracy"], row["n"])
        row["printed"] = paper.get((row["training"], row["source_norm"], row["target_norm"]))
    return pa.Table.from_pylist(rows, SCHEMA)


def draw(rows: Sequence[Mapping[str, Any]], setting: Setting) -> Figure:
    """Draw a heat map for each way of training: who was attacked down, who answers across."""
    panels: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        panels.setdefault(row["training"], []).append(row)
    most = max(len({row["target"] for row in held}) for held in panels.values())
    side = max(3.2, 0.95 * most)
    title = "Accuracy on adversarial examples made on one network and answered by another"
    said = ["diagonal: attacked itself"]
    if setting.sharing:
        said.append(f"images of a batch share a path in {', '.join(setting.sharing)}: its chance is in no interval")
    if any(row["printed"] is not None for row in rows):
        said.append("[ ]: printed in the paper, whose networks are larger and trained for longer")
    footer = setting.footer(rows, WILSON, setting.attacks.get("transfer", ""), *said)
    picture = style.picture(1.6 + (side + 0.6) * len(panels), side + 1.5, title, footer)
    axes = style.grid(picture, 1, len(panels), len(panels))
    top = 10 * ceil(10 * max(row["accuracy"] for row in rows)) or 10
    for panel, (trained, held) in zip(axes, panels.items(), strict=True):
        image = _heat_map(panel, held, top)
        panel.set_title(TRAINING[trained])
    bar = picture.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("accuracy (%)")
    return picture


def _heat_map(axes: Axes, rows: Sequence[Mapping[str, Any]], top: float) -> Any:
    names = short(
        (row[which], row[f"{which}_norm"], row["training"]) for row in rows for which in ("source", "target")
    )
    order = {label: at for at, label in enumerate(dict.fromkeys(row["target"] for row in rows))}
    for row in rows:
        order.setdefault(row["source"], len(order))
    values = [[float("nan")] * len(order) for _ in order]
    for row in rows:
        values[order[row["source"]]][order[row["target"]]] = 100 * row["accuracy"]
    image = axes.imshow(values, cmap=style.SEQUENTIAL, vmin=0, vmax=top, aspect="equal")
    for row in rows:
        colour = "black" if 100 * row["accuracy"] > 0.55 * top else "white"
        axes.text(order[row["target"]], order[row["source"]], _cell(row), color=colour, ha="center", va="center",
                  fontsize=7.5, linespacing=1.25)  # fmt: skip
    natural = {row["target"]: f"\nnatural {100 * row['natural_accuracy']:.1f}" for row in rows}
    axes.set_xticks(range(len(order)), [names[label] + natural.get(label, "") for label in order])
    axes.set_yticks(range(len(order)), [names[label] for label in order])
    if max(map(len, names.values())) > 8:
        axes.tick_params(axis="x", rotation=30)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("target: the network that answers")
    axes.set_ylabel("source: the network that was attacked")
    return image


def _cell(row: Mapping[str, Any]) -> str:
    half = max(row["accuracy"] - row["low"], row["high"] - row["accuracy"])
    text = f"{100 * row['accuracy']:.1f}\n±{100 * half:.1f}"
    return text if row["printed"] is None else f"{text}\n[{100 * row['printed']:.2f}]"
