"""Robust accuracy against the size of the perturbation (STN, Figures 2, 3, 6 and 7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from rna_ray.analysis import query
from rna_ray.analysis.cells import BALLS, PIXEL, Cell, ablation, sql
from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.setting import WILSON, Setting, called, refuse_repeats, without_ball
from rna_ray.analysis.statistics import mean_interval
from rna_ray.errors import QueryError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
SCHEMA = pa.schema(
    {
        "data": pa.string(),
        "threat": pa.string(),
        "eps_space": pa.string(),
        "variant": pa.string(),
        "attack": pa.string(),
        "knowledge": pa.string(),
        "source": pa.string(),
        "smallest": pa.bool_(),
        "x": pa.float64(),
        "accuracy": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "n": pa.int64(),
        "seeds": pa.int64(),
    }
)
LINE = ("data", "threat", "eps_space", "variant", "attack", "knowledge")
"""What the points of a line have in common; the first three are its panel's."""
_LINE_CALLED = "{attack}@{knowledge} of {variant} ({threat}, {eps_space}, {data})"
POINTS = 20
"""The sizes at which attacks without a radius are drawn, where no attack of a radius is beside them."""
_ASIDE = 0.006
"""How far the lines of a panel stand apart, of the panel's width, so that intervals do not hide one another."""
_WITHOUT_SIZE = ("natural", "gaussian")


def tabulate(connection: duckdb.DuckDBPyConnection, sweep: str) -> pa.Table:
    """Return a row for each point: accuracy in [0, 1] where perturbations are at most of size x, in [0, 1] pixels.

    A panel is a data set and a norm; a line a variant under an attack. An attack that looks for the smallest
    perturbation (`smallest`) counts at x the images that it needs no more for, in the panel of ℓ2, which all of them
    look for, and in that of ℓ∞ beside attacks within a radius. At 0 an image is as it is, in the line's own rows.
    """
    try:
        cells = [cell for cell in ablation(connection, sweep) if cell.accuracy is not None]
    except QueryError:  # a sweep of nothing but probes
        return SCHEMA.empty_table()
    facts = {row["number"]: row for row in query.answer(connection, sql("figures/robust")).to_pylist()}
    cells = [cell for cell in cells if facts[cell.number]["name"] not in _WITHOUT_SIZE]
    cells = [cell for cell in cells if cell.random or facts[cell.number]["source"] or cell is _first(cells, cell)]
    bounded = [cell for cell in cells if cell.eps_255 is not None]
    rows = [_point(cell, facts[cell.number]) for cell in bounded]
    rows += _smallest(connection, [cell for cell in cells if cell.eps_255 is None], facts, rows)
    refuse_repeats((_LINE_CALLED.format_map(row), row["x"]) for row in rows)
    rows += _as_they_are(bounded, rows, facts)
    asked: dict[object, int] = {}
    for row in sorted(rows, key=lambda row: row["position"]):  # panels, then lines, in the order of the plan
        asked.setdefault(row["data"], len(asked))
        asked.setdefault(_key(row), len(asked))
    rows.sort(key=lambda row: (asked[row["data"]], row["threat"], asked[_key(row)], row["x"]))
    return pa.Table.from_pylist(rows, SCHEMA)


def _first(cells: Sequence[Cell], of: Cell) -> Cell:
    """Return the first of the cells that differ in knowledge alone: on a network of one path it is all the same."""
    return next(cell for cell in cells if (cell.variant, cell.attack, cell.nth) == (of.variant, of.attack, of.nth))


def _line(cell: Cell, facts: Row) -> dict[str, Any]:
    attack = without_ball(cell.attack)
    kept = ("data", "variant", "knowledge", "seeds", "position")
    return {name: getattr(cell, name) for name in kept} | {"attack": attack, "source": facts["source"]}


def _point(cell: Cell, facts: Row) -> dict[str, Any]:
    kept = ("threat", "eps_space", "accuracy", "low", "high", "n")
    where = {"x": cell.eps_255 / 255 if cell.eps_255 else 0.0, "smallest": False}
    return _line(cell, facts) | {name: getattr(cell, name) for name in kept} | where


def _as_they_are(bounded: Sequence[Cell], rows: Sequence[Row], facts: Mapping[int, Row]) -> Iterator[dict[str, Any]]:
    """Yield the point at 0 of each line within radii that has none: the clean images of its smallest radius."""
    held = {_key(row) for row in rows if row["x"] == 0}
    for cell in sorted(bounded, key=lambda cell: cell.eps_255 or 0):
        row = _point(cell, facts[cell.number]) | {"x": 0.0, "accuracy": cell.natural_accuracy}
        if _key(row) not in held:
            held.add(_key(row))
            yield row | _ends(row, cell)


def _smallest(
    connection: duckdb.DuckDBPyConnection, cells: Sequence[Cell], facts: Mapping[int, Row], rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """Return the points of attacks without a radius, at the sizes of the attacks within a radius in their panel."""
    found = []
    for data in dict.fromkeys(cell.data for cell in cells):
        those = {cell.number: cell for cell in cells if cell.data == data}
        beside = [row for row in rows if row["data"] == data and row["eps_space"] == PIXEL]
        sizes = {threat: sorted({row["x"] for row in beside if row["threat"] == threat} | {0.0}) for threat in BALLS}
        farthest = max(cell.median_l2 or 0.0 for cell in those.values())
        if len(sizes["l2"]) == 1 and farthest:
            sizes["l2"] = [2 * farthest * at / POINTS for at in range(POINTS + 1)]
        wanted = [(threat, x) for threat, xs in sizes.items() if len(xs) > 1 for x in xs]
        threats, radii = ([each[at] for each in wanted] for at in (0, 1))
        asked = {"cells": list(those), "threats": threats, "radii": radii}
        for point in query.answer(connection, sql("figures/within"), asked).to_pylist():
            number = point.pop("number")
            line = _line(those[number], facts[number]) | {"eps_space": PIXEL, "smallest": True}
            found.append(line | point | _ends(point, those[number]))
    return found


def _ends(row: Row, cell: Cell) -> dict[str, float | None]:
    """Return the interval of an accuracy that is no cell's own; none where images of a batch hang together."""
    if cell.shared:
        return {"low": None, "high": None}
    low, high = mean_interval(row["accuracy"], row["n"])
    return {"low": round(low, 12), "high": round(high, 12)}


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in LINE)


def draw(rows: Sequence[Row], setting: Setting) -> Figure:
    """Draw a panel for each data set and norm; what is crafted on another network is dashed."""
    panels = list(dict.fromkeys(tuple(row[name] for name in LINE[:3]) for row in rows))
    looks = _looks(rows)
    footer = setting.footer(rows, WILSON, *_notes(rows))
    width = 3.4 + 3.1 * len(panels)
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    title = "Robust accuracy against perturbation size" + (f": {variants[0]}" if len(variants) == 1 else "")
    picture = style.picture(width, 4.2, title, footer)
    axes = style.grid(picture, 1, len(panels), len(panels), sharey=True)
    for at, (data, threat, space) in enumerate(panels):
        held = [row for row in rows if tuple(row[name] for name in LINE[:3]) == (data, threat, space)]
        wide = max(row["x"] for row in held)
        for number, line in enumerate(dict.fromkeys((row["variant"], _named(row)) for row in held)):
            points = [row for row in held if (row["variant"], _named(row)) == line]
            _draw_line(axes[at], points, looks[line], number * _ASIDE * wide)
        style.letter(axes[at], at, f"{called(data)}, {BALLS[threat]}")
        axes[at].set_xlabel(f"{BALLS[threat]} size ({'normalised' if space != PIXEL else '[0, 1]'} pixels)")
        axes[at].set_ylabel("accuracy (%)")
        axes[at].label_outer()
        axes[at].set_ylim(-2, 102)
        axes[at].set_xlim(left=0)
        axes[at].locator_params(axis="x", nbins=6)
        axes[at].grid(True, axis="y")
    style.legend(picture, _legend(looks))
    return picture


def _named(row: Row) -> str:
    """Return what the legend calls an attack, with what it knew."""
    return row["attack"] if row["knowledge"] == "none" else f"{row['attack']}@{row['knowledge']}"


def _looks(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return how each line looks: in its variant's colour, or its attack's where there is one variant."""
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    attacks = list(dict.fromkeys(_named(row) for row in rows))
    found = {}
    for row in rows:
        marked = attacks.index(_named(row))
        coloured = variants.index(row["variant"]) if len(variants) > 1 else marked
        found[row["variant"], _named(row)] = {
            "color": style.COLOURS[coloured % 8], "marker": style.MARKERS[marked % 10],
            "linestyle": "--" if row["source"] else "-",
        }  # fmt: skip
    return found


def _legend(looks: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[Any]:
    """Return a legend of colours and one of markers where there are several variants, else one of both."""
    variants = {variant: look["color"] for (variant, _), look in looks.items()}
    attacks = {attack: look for (_, attack), look in looks.items()}
    if len(variants) == 1:
        return [style.proxy(attack, **look) for attack, look in attacks.items()]
    handles = [style.proxy(variant, color=colour) for variant, colour in variants.items()]
    return handles + [style.proxy(attack, **{**look, "color": "#606060"}) for attack, look in attacks.items()]


def _draw_line(axes: Axes, rows: Sequence[Row], look: Mapping[str, Any], aside: float) -> None:
    xs, ys = [row["x"] + aside for row in rows], [100 * row["accuracy"] for row in rows]
    ends = [(row["accuracy"], row["accuracy"]) if row["low"] is None else (row["low"], row["high"]) for row in rows]
    below = [y - 100 * low for y, (low, _) in zip(ys, ends, strict=True)]
    above = [100 * high - y for y, (_, high) in zip(ys, ends, strict=True)]
    axes.errorbar(xs, ys, (below, above), elinewidth=0.8, clip_on=False, **look)


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what else the footer must say."""
    yield "size 0: the same images as they are"
    if smallest := list(dict.fromkeys(row["attack"] for row in rows if row["smallest"])):
        yield (
            f"{', '.join(smallest)}: searches for the smallest {BALLS['l2']} perturbation; an image counts as attacked "
            "where that is within the size"
        )
    if any(row["low"] is None for row in rows):
        yield "no bar: images of a batch hang together, and how much is not known there"
    if any(row["source"] for row in rows):
        yield "dashed: crafted on another network, and what was known is of that network's draws"
