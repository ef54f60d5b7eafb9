"""Adversarial transferability between norms: a matrix of accuracies for each way of training (RNA, Figure 1 c, d)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.printed import SCALE, printed
from rna_ray.analysis.figures.setting import TRAINING, WILSON, Setting, ask, data, refuse_entries, short
from rna_ray.analysis.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA = pa.schema(
    {
        "source_training": pa.string(),
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
    """Return a row for each ordered pair of networks that was measured; accuracies in [0, 1].

    `source_training` is how the attacked network was trained, `training` how the target was; `natural_accuracy` is the
    target's on the images as they are, `printed` the paper's accuracy, where both were trained alike.
    """
    paper = {
        (line["training"], line["source_norm"], line["target_norm"]): round(float(line["accuracy"]) / 100, 6)
        for line in printed("rna-figure1", data(connection, sweep))
    }
    refuse_entries(connection, "transfer", sweep)
    rows = ask(connection, "transfer", sweep)
    for row in rows:
        row["low"], row["high"] = mean_interval(row["accuracy"], row["n"])
        alike = row["source_training"] == row["training"]
        row["printed"] = paper.get((row["training"], row["source_norm"], row["target_norm"])) if alike else None
    return pa.Table.from_pylist(rows, SCHEMA)


def draw(rows: Sequence[Mapping[str, Any]], setting: Setting) -> Figure:
    """Draw a heat map for each way of training, or pair of ways: who was attacked down, who answers across."""
    panels: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        panels.setdefault((row["source_training"], row["training"]), []).append(row)
    most = max(len({row[which] for row in held}) for held in panels.values() for which in ("source", "target"))
    side = max(3.2, 0.95 * most)
    title = "Accuracy on adversarial examples made on one network and answered by another"
    said = ["diagonal: attacked itself"]
    if setting.sharing:
        said.append(f"images of a batch share a path in {', '.join(setting.sharing)}: its chance is in no interval")
    if any(row["printed"] is not None for row in rows):
        said.append(f"[ ]: {SCALE}")
    footer = setting.footer(rows, WILSON, setting.attacks.get("transfer", ""), *said)
    picture = style.picture(1.6 + (side + 0.6) * len(panels), side + 1.5, title, footer)
    axes = style.grid(picture, 1, len(panels), len(panels))
    top = 10 * ceil(10 * max(row["accuracy"] for row in rows)) or 10
    for panel, ((attacked, answers), held) in zip(axes, panels.items(), strict=True):
        image = _heat_map(panel, held, top)
        ways = [TRAINING[answers]] if attacked == answers else [f"from {TRAINING[attacked]}", f"to {TRAINING[answers]}"]
        panel.set_title("\n".join(ways))
    bar = picture.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("accuracy (%)")
    return picture


def _heat_map(axes: Axes, rows: Sequence[Mapping[str, Any]], top: float) -> Any:
    names = short(
        (row[which], row[f"{which}_norm"], row[training])
        for row in rows for which, training in (("source", "source_training"), ("target", "training"))
    )  # fmt: skip
    across = {label: at for at, label in enumerate(dict.fromkeys(row["target"] for row in rows))}
    attacked = sorted(dict.fromkeys(row["source"] for row in rows), key=lambda label: across.get(label, len(across)))
    down = {label: at for at, label in enumerate(attacked)}
    values = [[float("nan")] * len(across) for _ in down]
    for row in rows:
        values[down[row["source"]]][across[row["target"]]] = 100 * row["accuracy"]
    image = axes.imshow(values, cmap=style.SEQUENTIAL, vmin=0, vmax=top, aspect="equal")
    for row in rows:
        colour = "black" if 100 * row["accuracy"] > 0.55 * top else "white"
        axes.text(across[row["target"]], down[row["source"]], _cell(row), color=colour, ha="center", va="center",
                  fontsize=7.5, linespacing=1.25)  # fmt: skip
    natural = {row["target"]: f"\nnatural {100 * row['natural_accuracy']:.1f}" for row in rows}
    axes.set_xticks(range(len(across)), [names[label] + natural[label] for label in across])
    axes.set_yticks(range(len(down)), [names[label] for label in down])
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
