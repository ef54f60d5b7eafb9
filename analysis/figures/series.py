"""Accuracy against a radius, the images answered together, or a norm's power (RobustNorm, Figures 4 to 6, 10, 11)."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from rna_ray.analysis import query
from rna_ray.analysis.cells import BALLS, Cell, ablation, length, sql
from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.setting import (
    OVER,
    TRAINING,
    Setting,
    answered_together,
    interval_of,
    refuse_repeats,
    short,
)
from rna_ray.errors import FigureError, QueryError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
SCHEMA = pa.schema(
    {
        "training": pa.string(),
        "line": pa.string(),
        "variant": pa.string(),
        "attack": pa.string(),
        "x": pa.float64(),
        "accuracy": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "over": pa.string(),
        "n": pa.int64(),
        "seeds": pa.int64(),
        "eps_255": pa.float64(),
        "eps_space": pa.string(),
        "batch": pa.int64(),
        "batch_statistics": pa.int64(),
    }
)
_POWER = re.compile(r"RN(?:\((?P<options>.*)\))?")
_PUBLISHED_POWER = 0.2
"""The power of an RN that states none (RobustNorm, Section 4)."""


@dataclass(frozen=True, kw_only=True)
class Against:
    """A quantity that accuracy is drawn against."""

    title: str
    axis: str
    normalized: str | None = None
    """What the axis says where radii are measured in normalised space, for axes of radii."""
    log: bool = True
    x: Callable[[Cell, Row], float | None]
    """Its value for a cell, from queries/figures/series.sql; None for cells that have none."""
    line: Callable[[Row], str]
    """What the points of a line have in common beside their training and attack."""


def _radius(cell: Cell, facts: Row) -> float | None:
    if not cell.eps_255:  # none, or 0, which has no place on a logarithmic axis
        return None
    return cell.eps_255 / (255 if cell.eps_space == "normalized" else 1)


def _power(cell: Cell, facts: Row) -> float | None:
    if not (match := _POWER.fullmatch(facts["norm"])):
        return None
    stated = [option for option in (match["options"] or "").split(",") if option.startswith("p=")]
    return float(stated[0].removeprefix("p=")) if stated else _PUBLISHED_POWER


def _without_power(facts: Row) -> str:
    return re.sub(r"\(\)$", "", re.sub(r"p=[\d.]+,?|,p=[\d.]+", "", facts["norm"]))


RADIUS = Against(
    title="Accuracy under larger radii", axis="radius ε (1/255)", normalized="radius ε (in normalised pixels)",
    x=_radius, line=lambda facts: facts["name"],
)  # fmt: skip
BATCH = Against(
    title="Accuracy by how many images are answered together", axis="images in a batch",
    x=lambda cell, facts: facts["batch"], line=lambda facts: facts["name"],
)  # fmt: skip
POWER = Against(
    title="Accuracy by the power of RobustNorm", axis="power p", log=False, x=_power, line=_without_power
)  # fmt: skip


def tabulate(against: Against, connection: duckdb.DuckDBPyConnection, sweep: str) -> pa.Table:
    """Return a row for each point: accuracy in [0, 1], its interval over seeds where all have several, else images.

    A panel is one attack on networks of one training; a line is a norm, or a variant where norms tell none apart.
    """
    try:
        cells = [cell for cell in ablation(connection, sweep) if cell.accuracy is not None]
    except QueryError:  # a sweep of nothing but probes
        return SCHEMA.empty_table()
    connection.execute(sql("figures/networks"))
    facts = {row["number"]: row for row in query.answer(connection, sql("figures/series")).to_pylist()}
    cells = [cell for cell in cells if cell.number in facts]  # a network whose row is gone has no norm to tell
    names = short((cell.variant, facts[cell.number]["norm"], facts[cell.number]["training"]) for cell in cells)
    about = {cell.number: facts[cell.number] | {"name": names[cell.variant]} for cell in cells}
    cells = [cell for cell in cells if against.x(cell, about[cell.number]) is not None]
    over, ends = interval_of(cells)
    rows = [_point(against, cell, about[cell.number]) | ends(cell) | {"over": over} for cell in cells]
    rows = list(_told_apart(against, rows))
    for attack in dict.fromkeys(row["attack"] for row in rows):
        if len(spaces := {row["eps_space"] for row in rows if row["attack"] == attack}) > 1:
            both = " and ".join(sorted(spaces))
            raise FigureError(f"{attack} in {both} space would share a panel; give them sweeps of their own")
    if against.normalized and len(spaces := {row["eps_space"] for row in rows}) > 1:
        both = " and ".join(sorted(spaces))
        raise FigureError(f"radii in {both} space have no axis in common; give them sweeps of their own")
    refuse_repeats((f"{row['attack']} of {row['line']} ({row['training']})", row["x"]) for row in rows)
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["x"]), SCHEMA)


def _told_apart(against: Against, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Yield the points, in panels that say radius and batch where one line would have two points at one place."""
    places = Counter((row["training"], row["attack"], row["line"], row["x"]) for row in rows)
    repeated = {attack for (_, attack, _, _), times in places.items() if times > 1}
    for row in rows:
        alike = [other for other in rows if other["attack"] == row["attack"]] if row["attack"] in repeated else []
        said = [row["attack"]]
        if against is not RADIUS and len({other["eps_255"] for other in alike}) > 1:
            said.append(f"ε = {length(row['eps_255'], row['eps_space'])}")
        if against is not BATCH and len({other["batch"] for other in alike}) > 1:
            said.append(f"batches of {row['batch']}")
        yield {**row, "attack": ", ".join(said)}


def _point(against: Against, cell: Cell, facts: Row) -> dict[str, Any]:
    name = cell.attack.partition(" ")[0] + (f" from {facts['source']}" if facts["source"] else "")
    name += f"@{cell.knowledge}" if cell.random and cell.knowledge != "none" else ""
    notes = [*([BALLS["l2"]] if cell.threat == "l2" else []), *([cell.attack_mode] if cell.attack_mode else [])]
    attack = f"{name} ({', '.join(notes)})" if notes else name
    kept = ("variant", "accuracy", "n", "seeds", "eps_255", "eps_space", "batch_statistics")
    where = {"attack": attack, "training": facts["training"], "line": against.line(facts), "batch": facts["batch"]}
    return {column: getattr(cell, column) for column in kept} | where | {"x": against.x(cell, facts)}


def draw(against: Against, rows: Sequence[Row], setting: Setting) -> Figure:
    """Draw a row of panels for each training and a column for each attack; a line keeps its colour and marker."""
    trainings = [training for training in TRAINING if any(row["training"] == training for row in rows)]
    attacks, lines = (list(dict.fromkeys(row[column] for row in rows)) for column in ("attack", "line"))
    spaces = {row["eps_space"] for row in rows if row["eps_255"]}
    looks = {name: {"color": style.COLOURS[at % 8], "marker": style.MARKERS[at % 10]} for at, name in enumerate(lines)}
    more = [] if against.normalized else _balls(rows)
    footer = setting.footer(rows, OVER[rows[0]["over"]], *more, *answered_together(rows, "line"))
    width, height = 2.0 + 2.9 * len(attacks), 1.5 + 2.6 * len(trainings)
    picture = style.picture(width, height, against.title, footer)
    panels = style.grid(picture, len(trainings), len(attacks), len(trainings) * len(attacks), sharex=True, sharey=True)
    for at, (training, attack) in enumerate(itertools.product(trainings, attacks)):
        axes = panels[at]
        for name in lines:
            held = [row for row in rows if (row["training"], row["attack"], row["line"]) == (training, attack, name)]
            _line(axes, held, looks[name])
        style.letter(axes, at, f"{attack}, {TRAINING[training]}")
        axes.set_xlabel(against.normalized if "normalized" in spaces and against.normalized else against.axis)
        axes.set_ylabel("accuracy (%)")
        axes.label_outer()
        if against.log:
            _log(axes, sorted({row["x"] for row in rows}))
        axes.set_ylim(-2, 102)
        axes.grid(True, axis="y")
    style.legend(picture, [style.proxy(name, **look) for name, look in looks.items()])
    return picture


def _line(axes: Axes, rows: Sequence[Row], look: Mapping[str, Any]) -> None:
    xs, ys = [row["x"] for row in rows], [100 * row["accuracy"] for row in rows]
    below = [100 * (row["accuracy"] - row["low"]) for row in rows]
    above = [100 * (row["high"] - row["accuracy"]) for row in rows]
    if rows:
        axes.errorbar(xs, ys, (below, above), elinewidth=0.8, **look)


def _log(axes: Axes, xs: Sequence[float]) -> None:
    """Give the axis a logarithmic scale with a tick at each value that was measured."""
    axes.set_xscale("log")
    axes.set_xticks(xs, [f"{x:g}" for x in xs], rotation=45, ha="right", rotation_mode="anchor")
    axes.minorticks_off()


def _balls(rows: Sequence[Row]) -> list[str]:
    """Return what to say of the attacks' radii, where they are no axis."""
    balls = {
        f"ε = {row['eps_255'] / 255:.3g} of normalised pixels" if row["eps_space"] == "normalized"
        else f"ε = {row['eps_255']:g}/255"
        for row in rows if row["eps_255"]
    }  # fmt: skip
    return [f"attacks within {' or '.join(sorted(balls))}"] if balls else []
