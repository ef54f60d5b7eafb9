"""Accuracy as the attack gets stronger, and as attacked and answering paths part (RNA, Figure 5)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from rna_ray.analysis import papers, query
from rna_ray.analysis.cells import BALLS, PIXEL, Cell, ablation, length, sql
from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.printed import SCALE, printed
from rna_ray.analysis.figures.setting import WILSON, Setting, ask, data, refuse_entries, refuse_repeats, span
from rna_ray.analysis.statistics import Variance, mean_interval
from rna_ray.errors import QueryError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
SCHEMA = pa.schema(
    {
        "panel": pa.string(),
        "variant": pa.string(),
        "knowledge": pa.string(),
        "x": pa.float64(),
        "accuracy": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "worst": pa.float64(),
        "best": pa.float64(),
        "pairs": pa.int64(),
        "n": pa.int64(),
        "seeds": pa.int64(),
        "eps_255": pa.float64(),
        "eps_space": pa.string(),
        "threat": pa.string(),
        "steps": pa.int64(),
        "origin": pa.string(),
    }
)
MEASURED = "measured"
PANELS = {"steps": "steps of PGD", "eps": "radius ε (1/255)", "difference": "path difference (layers)"}
_TITLES = {
    "steps": "more steps", "eps": "larger radii", "difference": "one path attacked, another answers",
}  # fmt: skip
_ASIDE = 0.006
"""How far the series of a panel stand apart, of the panel's width."""


def tabulate(connection: duckdb.DuckDBPyConnection, sweep: str) -> pa.Table:
    """Return a row for each point: panel steps, eps or difference; worst and best are over the pairs of paths.

    `origin` is `measured`, or where the paper prints the number. Accuracies are in [0, 1].
    """
    rows = [*_stronger(connection, sweep), *_differences(connection, sweep)]
    ends: dict[str, list[float]] = {}
    for row in rows:
        ends.setdefault(row["panel"], []).append(row["x"])
    paper = _printed(rows, data(connection, sweep))
    rows += [row for row in paper if min(ends[row["panel"]]) <= row["x"] <= max(ends[row["panel"]])]
    return pa.Table.from_pylist(rows, SCHEMA)


def _stronger(connection: duckdb.DuckDBPyConnection, sweep: str) -> Iterator[dict[str, Any]]:
    """Yield the points of PGD at one radius over its steps, then at one number of steps over its radii.

    A panel holds one norm, in one space.
    """
    try:
        cells = ablation(connection, sweep)
    except QueryError:  # a sweep of nothing but probes
        return
    found = query.answer(connection, sql("figures/strength")).to_pylist()
    steps = {row["number"]: row["steps"] for row in found if row["name"] == "pgd"}
    points = [(cell, steps[cell.number]) for cell in cells if cell.number in steps and cell.accuracy is not None]
    points = [(cell, at) for cell, at in points if cell.random or cell.knowledge == _first(points, cell.variant)]
    over_steps, over_eps = defaultdict(set), defaultdict(set)
    for cell, at in points:
        over_steps[cell.eps_255, cell.eps_space, cell.threat].add(at)
        over_eps[at, cell.eps_space, cell.threat].add(cell.eps_255)
    for panel, groups in (("steps", over_steps), ("eps", over_eps)):
        if not groups:
            continue
        fixed = max(groups, key=lambda held: (len(groups[held]), -held[0]))
        if len(groups[fixed]) < 2:
            continue
        held = [
            (cell, at) for cell, at in points
            if fixed == (cell.eps_255 if panel == "steps" else at, cell.eps_space, cell.threat)
        ]  # fmt: skip
        held.sort(key=lambda point: (point[0].eps_255, point[1]))
        rows = [_point(panel, cell, at) for cell, at in held]
        refuse_repeats((f"pgd@{row['knowledge']} of {row['variant']}", row["x"]) for row in rows)
        yield from rows


def _first(points: Sequence[tuple[Cell, int]], variant: str) -> str | None:
    """Return the first knowledge of a variant's PGD: on a network of one path all are the same."""
    return next((cell.knowledge for cell, _ in points if cell.variant == variant), None)


def _point(panel: str, cell: Cell, steps: int) -> dict[str, Any]:
    kept = ("variant", "knowledge", "accuracy", "low", "high", "n", "seeds", "eps_255", "eps_space", "threat")
    row = {name: getattr(cell, name) for name in kept}
    return row | {"panel": panel, "x": steps if panel == "steps" else cell.eps_255, "steps": steps, "origin": MEASURED}


def _differences(connection: duckdb.DuckDBPyConnection, sweep: str) -> Iterator[dict[str, Any]]:
    """Yield the points of each space over the path difference; intervals count the chance of images and pairs."""
    refuse_entries(connection, "path-transfer", sweep)
    for row in ask(connection, "difference", sweep):
        variance = row.pop("pair_variance")
        paths = None if variance is None else Variance(variance, row["pairs"] - 1)
        low, high = mean_interval(row["accuracy"], row["n"], paths=paths)
        row |= {"panel": "difference", "x": row.pop("path_difference"), "low": low, "high": high, "origin": MEASURED}
        yield row | {"knowledge": "transfer"}


def _printed(rows: Sequence[Row], data: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield what the paper prints for the panels that these rows make."""
    held = {row["panel"]: row for row in rows}
    for line in papers.read("rna-figure5"):
        if line.data not in data:
            continue
        steps = int(line.attack.removeprefix("pgd-"))
        ball = {name: getattr(line, name) for name in ("eps_255", "eps_space", "threat")}
        shared = {"variant": line.method, "accuracy": line.accuracy, "origin": line.source, **ball}
        if "steps" in held and all(held["steps"][name] == value for name, value in ball.items()):
            yield shared | {"panel": "steps", "x": steps, "steps": steps}
        alike = "eps" in held and all(held["eps"][name] == ball[name] for name in ("eps_space", "threat"))
        if alike and steps == held["eps"]["steps"]:
            yield shared | {"panel": "eps", "x": line.eps_255, "steps": steps}
    for line in printed("rna-figure5c", data) if "difference" in held else ():
        accuracy = round(float(line["accuracy"]) / 100, 12)
        where = {"panel": "difference", "x": float(line["path_difference"])}
        yield where | {"variant": line["method"], "accuracy": accuracy, "origin": line["source"]}


def draw(rows: Sequence[Row], setting: Setting) -> Figure:
    """Draw the panels that have points; a variant keeps its colour and marker in all of them."""
    ours = [row for row in rows if row["origin"] == MEASURED]
    panels = [panel for panel in PANELS if any(row["panel"] == panel for row in ours)]
    variants = list(dict.fromkeys(row["variant"] for row in ours))
    knowledge = list(dict.fromkeys(row["knowledge"] for row in ours))
    looks = {name: (style.COLOURS[at % 8], style.MARKERS[at % 10]) for at, name in enumerate(variants)}
    lines = {name: style.LINES[at % 5] for at, name in enumerate(knowledge)}
    footer = setting.footer(ours, WILSON, *_notes(rows, panels, setting))
    picture = style.picture(2.2 + 4 * len(panels), 4.6, "Accuracy under stronger and under less informed PGD", footer)
    axes = style.grid(picture, 1, len(panels), len(panels))
    for at, panel in enumerate(panels):
        held = [row for row in ours if row["panel"] == panel]
        _panel(axes[at], held, looks, lines)
        for row in rows:
            if row["panel"] == panel and row["origin"] != MEASURED:
                axes[at].plot(row["x"], 100 * row["accuracy"], **_star(row["variant"], looks))
        style.letter(axes[at], at, _titled(panel, held))
        axes[at].set_xlabel(PANELS[panel] + _measured(held[0] if panel == "eps" else {}))
        axes[at].set_ylabel("accuracy (%)")
        axes[at].set_ylim(bottom=-0.02 * axes[at].get_ylim()[1])  # a marker at zero is whole
        axes[at].xaxis.get_major_locator().set_params(integer=True)
        axes[at].grid(True, axis="y")
    handles = [style.proxy(name, color=colour, marker=marker) for name, (colour, marker) in looks.items()]
    if len(knowledge) > 1:
        handles += [style.proxy(f"@{name}", color="#606060", linestyle=line) for name, line in lines.items()]
    for method in dict.fromkeys(row["variant"] for row in rows if row["origin"] != MEASURED):
        handles.append(style.proxy(f"{method}, printed", **_star(method, looks)))
    style.legend(picture, handles)
    return picture


def _star(variant: str, looks: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a printed number looks: a hollow star in the colour of the variant of that name."""
    edge = looks[variant][0] if variant in looks else "black"
    return {"marker": "*", "color": "white", "markeredgecolor": edge, "markersize": 11, "linestyle": ""}


def _notes(rows: Sequence[Row], panels: Sequence[str], setting: Setting) -> Iterator[str]:
    """Yield what else the footer must say."""
    if setting.sharing and panels[0] != "difference":
        yield f"images of a batch share a path in {', '.join(setting.sharing)}: the intervals count its chance"
    if "difference" in panels:
        pairs = max(row["pairs"] for row in rows if row["pairs"])
        where, attack = f"({chr(ord('a') + len(panels) - 1)})", setting.attacks.get("path-transfer", "PGD")
        yield f"{where} {attack}, filled from the worst to the best of {pairs} pairs; intervals count their chance"
    if any(row["origin"] != MEASURED for row in rows):
        yield f"★: {SCALE}"


def _panel(axes: Axes, rows: Sequence[Row], looks: Mapping[str, Any], lines: Mapping[str, Any]) -> None:
    drawn: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        drawn.setdefault((row["variant"], row["knowledge"]), []).append(row)
    wide = max(row["x"] for row in rows) - min(row["x"] for row in rows)
    for at, ((variant, knowledge), held) in enumerate(drawn.items()):
        colour, marker = looks[variant]
        aside = (at - (len(drawn) - 1) / 2) * _ASIDE * wide  # so that intervals do not hide one another
        xs, ys = [row["x"] + aside for row in held], [100 * row["accuracy"] for row in held]
        below = [100 * (row["accuracy"] - row["low"]) for row in held]
        above = [100 * (row["high"] - row["accuracy"]) for row in held]
        axes.errorbar(xs, ys, (below, above), color=colour, marker=marker, linestyle=lines[knowledge], elinewidth=0.8)
        if held[0]["worst"] is not None:
            worst, best = ([100 * row[end] for row in held] for end in ("worst", "best"))
            axes.fill_between(xs, worst, best, color=colour, alpha=0.2, linewidth=0)


def _titled(panel: str, rows: Sequence[Row]) -> str:
    at = {"steps": "", "eps": f"PGD-{rows[0]['steps']}", "difference": ""}[panel]
    if panel == "steps":
        at = f"ε = {length(rows[0]['eps_255'], rows[0]['eps_space'])}"
    return ", ".join(part for part in (_TITLES[panel], at, f"n = {span(rows, 'n')}") if part)


def _measured(row: Row) -> str:
    """Return what an axis of radii adds where they are not of pixels, or not of ℓ∞."""
    space = row.get("eps_space")
    notes = [*([BALLS["l2"]] if row.get("threat") == "l2" else []), *([] if space in (None, PIXEL) else [space])]
    return f", {', '.join(notes)}" if notes else ""
