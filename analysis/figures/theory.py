"""RNA's Eq. 5 and Eq. 6 layer by layer, and the bound of Theorem 3.1: the formula against what is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import floor, log10
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from rna_ray.analysis import query
from rna_ray.analysis.cells import sql
from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.setting import Setting, ask, refuse_entries
from rna_ray.analysis.statistics import mean_interval, student

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Looks = Mapping[str, Mapping[str, Any]]
SCHEMA = pa.schema(
    {
        "panel": pa.string(),
        "source": pa.string(),
        "variant": pa.string(),
        "member": pa.string(),
        "other": pa.string(),
        "layer": pa.string(),
        "depth": pa.int64(),
        "eps": pa.float64(),
        "measured": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "formula": pa.float64(),
        "formula_low": pa.float64(),
        "formula_high": pa.float64(),
        "held": pa.float64(),
        "held_low": pa.float64(),
        "held_high": pa.float64(),
        "vacuous": pa.bool_(),
        "denominator": pa.float64(),
        "bound_at_zero": pa.float64(),
        "seed": pa.int64(),
        "n": pa.int64(),
        "seeds": pa.int64(),
    }
)
_MEASURED, _BOUND, _NOTHING = style.COLOURS[0], style.COLOURS[1], "#e4e4e4"


def tabulate(connection: duckdb.DuckDBPyConnection, sweep: str) -> pa.Table:
    """Return a row for each network, norm and layer (panels eq5, eq6), and each pair and seed (panel bound).

    `formula` is Eq. 5's gradient norm, Eq. 6's curvature, or Theorem 3.1's bound, null where it is `vacuous`: its
    denominator is not positive, or the bound is 1 or more. `held`: the share of images that do not exceed the formula.
    """
    refuse_entries(connection, "smoothness", sweep)
    rows = ask(connection, "smoothness", sweep)
    for row in rows:
        for name in ("measured", "measured_error", "formula", "formula_error"):
            row[name] = _settled(row[name])
        row["low"], row["high"] = student(row["measured"], row.pop("measured_error"), row["n"])
        row["formula_low"], row["formula_high"] = student(row["formula"], row.pop("formula_error"), row["n"])
        row["held_low"], row["held_high"] = mean_interval(row["held"], row["n"])
    return pa.Table.from_pylist([*rows, *_bounds(connection, sweep)], SCHEMA)


def _settled(value: float | None) -> float | None:
    """Return a sum without its last digits: threads add up in any order, and the same rows must give the same bytes."""
    return None if value is None else float(f"{value:.12g}")


def _bounds(connection: duckdb.DuckDBPyConnection, sweep: str) -> list[dict[str, Any]]:
    kept = {"variant_a": "source", "variant_b": "variant", "member_a": "member", "member_b": "other",
            "transfer_rate": "measured", "bound": "formula"}  # fmt: skip
    same = ("low", "high", "eps", "vacuous", "denominator", "bound_at_zero", "seed", "n")
    found = query.answer(connection, f"SELECT * FROM (\n{sql('bound')}\n) WHERE sweep = $sweep", {"sweep": sweep})
    return [
        {name: row[given] for given, name in kept.items()}
        | {name: row[name] for name in same}
        | {"panel": "bound", "seeds": 1}
        for row in found.to_pylist()
    ]


def draw(rows: Sequence[Row], setting: Setting) -> Figure:
    """Draw a row of panels over the layers for each network, and below them all pairs with their bound."""
    layered = [row for row in rows if row["panel"] != "bound"]
    pairs = [row for row in rows if row["panel"] == "bound"]
    panels = _panels(layered)
    intervals = "95 % intervals over the images, Student's for means, Wilson's for shares and rates"
    heights = [2.3 * len(panels) + 1.2] * bool(panels) + [1.0 + 0.26 * len(pairs)] * bool(pairs)
    picture = style.picture(
        13,
        0.9 + sum(heights),
        "RNA's theory against measurement: gradient norm, effective smoothness, and the bound on transfer",
        setting.footer(rows, intervals, *_notes(panels, pairs, setting)),
    )
    members = list(dict.fromkeys(row["member"] for row in layered))
    looks = {
        name: {"color": style.COLOURS[at % 8], "marker": style.MARKERS[at % 10], "linestyle": style.LINES[at % 5]}
        for at, name in enumerate(members)
    }
    parts = list(picture.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat)
    if panels:
        _networks(parts[0], panels, looks)
    if pairs:
        _bound(parts[-1].subplots(), pairs)
    for part, handles in zip(parts, [_of_layers(looks)] * bool(panels) + [_of_bounds()] * bool(pairs), strict=True):
        part.legend(handles=handles, loc="outside right upper")
    return picture


def _notes(panels: Mapping[str, Sequence[Row]], pairs: Sequence[Row], setting: Setting) -> Iterator[str]:
    """Yield what else the footer must say."""
    if panels:
        yield "Eq. 5 is exact for all norms, Eq. 6 an equality for BN and BGN"
    if pairs:
        yield setting.attacks.get("bound", "")


def _panels(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each line of panels: networks of one norm together, where their norms tell them apart."""
    members: dict[str, set[str]] = {}
    for row in rows:
        members.setdefault(row["variant"], set()).add(row["member"])
    single = [variant for variant, held in members.items() if len(held) == 1]
    together = len({member for variant in single for member in members[variant]}) == len(single) > 1
    found: dict[str, list[Row]] = {}
    for row in rows:
        title = "one norm each" if together and row["variant"] in single else row["variant"]
        found.setdefault(title, []).append(row)
    return found


def _networks(part: Any, lines: Mapping[str, Sequence[Row]], looks: Looks) -> None:
    panels = part.subplots(len(lines), 3, squeeze=False, sharex=True)
    for (title, held), (norms, curvatures, shares) in zip(lines.items(), panels, strict=True):
        curved = [row for row in held if row["panel"] == "eq6"]
        _layers(norms, [row for row in held if row["panel"] == "eq5"], looks)
        norms.set_title(f"{title}: Eq. 5, at a layer's input")
        norms.set_ylabel("gradient norm (nats a unit)")
        _layers(curvatures, curved, looks)
        curvatures.set_title(f"{title}: Eq. 6, at a layer's input")
        curvatures.set_ylabel("curvature along gradient (nats a unit²)")
        _shares(shares, curved, looks)
        shares.set_title(f"{title}: where Eq. 6 holds")
        shares.set_ylabel("images (%)")
    names = {row["depth"]: row["layer"] for held in lines.values() for row in held}
    for axes in panels[-1]:
        axes.set_xticks(sorted(names), [names[depth] for depth in sorted(names)], rotation=90, fontsize=6)
        axes.set_xlabel("norm layer, in the order of running")


def _of_layers(looks: Looks) -> list[Any]:
    """Return what the legend of the layers shows."""
    handles = [style.proxy(f"{name}, measured", **{**look, "linestyle": ""}) for name, look in looks.items()]
    return handles + [style.proxy(f"{name}, formula", **{**look, "marker": ""}) for name, look in looks.items()]


def _layers(axes: Axes, rows: Sequence[Row], looks: Looks) -> None:
    """Draw what was measured as markers with intervals, and the formula as a line, over the layers in their order."""
    for at, (member, look) in enumerate(looks.items()):
        held = [row for row in rows if row["member"] == member]
        depths = [row["depth"] + _aside(at, looks) for row in held]
        sides = [[row["measured"] - row["low"] for row in held], [row["high"] - row["measured"] for row in held]]
        axes.errorbar(depths, [row["measured"] for row in held], sides, elinewidth=0.8, **{**look, "linestyle": ""})
        axes.plot(depths, [row["formula"] for row in held], color=look["color"], linestyle=look["linestyle"])
    axes.grid(True, axis="y")
    _scale(axes, [value for row in rows for value in (row["measured"], row["formula"])])


def _aside(at: int, looks: Looks) -> float:
    return 0.16 * (at - (len(looks) - 1) / 2)  # so that intervals do not hide one another


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Scale by powers of ten, and evenly around zero where there are values on both sides of it."""
    largest = max(map(abs, values), default=1)
    if min(values, default=1) > 0:
        axes.set_yscale("log")
        axes.set_ylim(bottom=min(values, default=1) / 3)  # an interval may go below zero, where this scale ends
    else:
        axes.set_yscale("symlog", linthresh=10 ** floor(log10(largest / 100 or 1)))
        axes.axhline(0, color="#808080", linewidth=0.6)


def _shares(axes: Axes, rows: Sequence[Row], looks: Looks) -> None:
    """Draw the share of images on which the formula is not exceeded, over the layers in their order."""
    for at, (member, look) in enumerate(looks.items()):
        held = [row for row in rows if row["member"] == member]
        depths = [row["depth"] + _aside(at, looks) for row in held]
        sides = [
            [100 * (row["held"] - row["held_low"]) for row in held],
            [100 * (row["held_high"] - row["held"]) for row in held],
        ]
        shares = [100 * row["held"] for row in held]
        axes.errorbar(depths, shares, sides, elinewidth=0.8, **{**look, "linestyle": ""})
    axes.set_ylim(-4, 104)
    axes.grid(True, axis="y")


def _bound(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw each pair's measured transfer rate, and its bound, or that it has none."""
    several = len({row["seed"] for row in rows}) > 1
    for y, row in enumerate(rows):
        if row["vacuous"]:
            axes.barh(y, 100, height=0.7, color=_NOTHING, hatch="////", edgecolor="white", linewidth=0)
            axes.text(99, y, f"vacuous: {_why(row)}", ha="right", va="center", fontsize=7.5,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        else:
            axes.plot(100 * row["formula"], y, "|", color=_BOUND, markersize=13, markeredgewidth=2.5)
        rate = 100 * row["measured"]
        sides = [[rate - 100 * row["low"]], [100 * row["high"] - rate]]
        axes.errorbar(rate, y, xerr=sides, color=_MEASURED, marker="o", linestyle="", elinewidth=1)
    axes.set_yticks(range(len(rows)), [_called(row, several) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("targeted attacks that succeed on both (% of images)")
    axes.set_ylabel("attacked → answers")
    axes.set_title("Theorem 3.1: the bound on transfer, and the transfer that was measured")


def _why(row: Row) -> str:
    """Return why a bound says nothing, and whether a smaller radius would change that."""
    reason = f"denominator {row['denominator']:.3g} ≤ 0" if row["denominator"] <= 0 else "bound ≥ 100 %"
    if row["bound_at_zero"] is None or row["bound_at_zero"] < 1:
        return reason
    return f"{reason}, and {100 * row['bound_at_zero']:.0f} % at ε = 0"


def _of_bounds() -> list[Any]:
    """Return what the legend of the bounds shows."""
    from matplotlib.patches import Patch

    return [
        style.proxy("transfer rate, measured", color=_MEASURED, marker="o", linestyle=""),
        style.proxy("Theorem 3.1's bound", color=_BOUND, marker="|", linestyle="", markersize=13, markeredgewidth=2.5),
        Patch(facecolor=_NOTHING, hatch="////", edgecolor="white", label="vacuous: says nothing"),
    ]


def _called(row: Row, several: bool) -> str:
    if row["member"] is None:
        pair = f"{row['source']} → {row['variant']}"
    else:
        pair = f"{row['variant']}: {row['member']} → {row['other']}"
    seed = f", seed {row['seed']}" if several else ""
    return f"{pair}, \N{SCRIPT SMALL L}₂ ε = {row['eps']:.3g}{seed}"
