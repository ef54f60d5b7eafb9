"""Certified accuracy against the radius, and beside it what attacks left of networks that are not certified (STN)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

from rna_ray.analysis.captions import L2
from rna_ray.analysis.cells import PIXEL, Cell, ablation
from rna_ray.analysis.certified import Certified, certified
from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.printed import printed
from rna_ray.analysis.figures.setting import WILSON, Setting, called, without_ball
from rna_ray.errors import QueryError
from rna_ray.evaluation.radii import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Look = dict[str, Any]
SCHEMA = pa.schema(
    {
        "kind": pa.string(),
        "data": pa.string(),
        "variant": pa.string(),
        "line": pa.string(),
        "method": pa.string(),
        "sigma": pa.float64(),
        "draws": pa.int64(),
        "radius": pa.float64(),
        "accuracy": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "largest": pa.float64(),
        "n": pa.int64(),
        "seeds": pa.int64(),
    }
)
_POINTS = 161
_MARKED = 14
"""About how many points of a curve carry no marker for each that does."""
_LIMIT = "^"
_MARKERS = tuple(marker for marker in style.MARKERS if marker != _LIMIT)
_EMPIRICAL = (("#606060", "x"), ("#000000", "+"), ("#9a9a9a", "1"))
_BLIND = ("noise", "gaussian", "natural")


def tabulate(methods: Sequence[str], connection: duckdb.DuckDBPyConnection, sweep: str) -> pa.Table:
    """Return a row for each point: accuracy in [0, 1] at a radius in [0, 1] pixels, with its interval over the images.

    kind: certified (right, and certified at the radius or beyond: a curve for each certification and method, with the
    largest radius that its draws can certify); empirical (right under an ℓ2 attack within the radius, of variants that
    the sweep does not certify); printed. A line is a variant without what its label says of the noise.
    """
    found = [each for each in certified(connection, sweep) if each.n]
    if not found:
        return SCHEMA.empty_table()
    attacked = list(_empirical(connection, sweep, {each.variant for each in found}))
    known = {each.data for each in found if each.data}
    given = list(_printed(known)) if "renyi" in methods else []
    most = max([each.largest(method) or 0.0 for each in found for method in methods]
               + [row["radius"] for row in (*attacked, *given)])  # fmt: skip
    curves = [row for each in found for method in methods for row in _curve(each, method, 1.04 * most)]
    return pa.Table.from_pylist([*curves, *attacked, *given], SCHEMA)


def _curve(each: Certified, method: str, end: float) -> Iterator[dict[str, Any]]:
    """Yield the curve's points, both sides of its last step among them: there it falls to nothing."""
    held = each.radii[method][each.right]
    last = float(held.max(initial=0.0))
    radii = sorted({*np.linspace(0, end, _POINTS).tolist(), last, float(np.nextafter(last, np.inf))})
    shared = {"kind": "certified", "method": method, "line": line(each.variant, each.sigma, each.noise_255)}
    shared |= {name: getattr(each, name) for name in ("data", "variant", "sigma", "draws", "n", "seeds")}
    shared |= {"largest": each.largest(method)}
    for radius, share in zip(radii, each.curve(method, radii), strict=True):
        yield shared | {"radius": radius, "accuracy": share.value, "low": share.low, "high": share.high}


def _empirical(connection: duckdb.DuckDBPyConnection, sweep: str, certifying: set[str]) -> Iterator[dict[str, Any]]:
    """Yield a point for each ℓ2 ball in which a variant was attacked, and one at radius 0 for its natural accuracy."""
    try:
        cells = [cell for cell in ablation(connection, sweep) if cell.accuracy is not None]
    except QueryError:  # a sweep that only certifies
        return
    cells = [cell for cell in cells if cell.variant not in certifying]
    natural = {cell.variant: cell for cell in cells if cell.attack == "natural"}
    lines: dict[str, list[Cell]] = {}
    for cell in cells:
        name = without_ball(cell.attack)
        bounded = cell.threat == "l2" and cell.eps_255 is not None and cell.eps_space == PIXEL
        if bounded and name.partition("-")[0] not in _BLIND:
            known = "" if cell.knowledge in ("none", "fixed") else f"@{cell.knowledge}"
            lines.setdefault(f"{cell.variant}, {name}{known}", []).append(cell)
    for name, held in lines.items():
        first = [natural[held[0].variant]] if held[0].variant in natural else []
        for cell in sorted((*first, *held), key=lambda cell: cell.eps_255 or 0.0):
            kept = {column: getattr(cell, column) for column in ("data", "variant", "accuracy", "low", "high", "n",
                                                                 "seeds")}  # fmt: skip
            yield kept | {"kind": "empirical", "line": name, "radius": (cell.eps_255 or 0.0) / 255}


def _printed(data: Iterable[str]) -> Iterator[dict[str, Any]]:
    for one in printed("stn-figure1", set(data)):
        stated = {"kind": "printed", "data": one["data"], "line": one["source"], "method": "renyi"}
        numbers = {"sigma": float(one["sigma"]), "radius": float(one["radius"])}
        yield stated | numbers | {"accuracy": float(one["accuracy"]) / 100}


def line(variant: str, sigma: float | None, noise_255: float | None) -> str:
    """Return a variant's label without what it says of its noise: STN for `STN, noise_255=178.5` and for `STN σ=0.7`.

    The label itself where nothing else would be left.
    """
    kept = variant
    for value in (sigma, noise_255):
        if value is not None:
            kept = re.sub(rf"(?:[\w.]+ ?= ?|σ ?=? ?)?(?<![\d.]){re.escape(f'{value:g}')}(?:/255)?(?![\d.])", "", kept)
    kept = re.sub(r"\s*,(?:\s*,)+", ",", kept).strip(" ,")
    return re.sub(r"\s{2,}", " ", kept) or variant


# -- the picture -------------------------------------------------------------------------------------------------------


def draw(rows: Sequence[Row], setting: Setting) -> Figure:
    """Draw a column for each method, a row for each data set and number of draws; colour is σ, of one σ the line."""
    curves = [row for row in rows if row["kind"] == "certified"]
    methods = list(dict.fromkeys(row["method"] for row in curves))
    places = sorted({(row["data"], row["draws"]) for row in curves}, key=lambda place: (str(place[0]), place[1]))
    sigmas = sorted({row["sigma"] for row in curves})
    lines = list(dict.fromkeys(row["line"] for row in curves))
    looks = {sigma: {"color": style.COLOURS[at % 8], "marker": _MARKERS[at % 9]} for at, sigma in enumerate(sigmas)}
    dashes = {name: {"linestyle": style.LINES[at % 5]} for at, name in enumerate(lines)}
    if len(sigmas) == 1:  # then colour and marker are free to tell the lines apart
        dashes = {name: dash | {"color": style.COLOURS[at % 8], "marker": _MARKERS[at % 9]}
                  for at, (name, dash) in enumerate(dashes.items())}  # fmt: skip
        looks = {sigmas[0]: {"color": _limit()["color"], "marker": ""}}
    width, height = 2.6 + 3.3 * len(methods), 1.6 + 2.7 * len(places)
    footer = setting.footer(
        [row for row in rows if row["kind"] != "printed"], f"bands and bars: {WILSON}", *_notes(rows),
        averaged=", averaged within each image",
    )  # fmt: skip
    picture = style.picture(width, height, f"Certified accuracy against the {L2} radius", footer)
    panels = style.grid(picture, len(places), len(methods), len(places) * len(methods), sharex=True, sharey=True)
    empirical = list(dict.fromkeys(row["line"] for row in rows if row["kind"] == "empirical"))
    for at, axes in enumerate(panels):
        (data, draws), method = places[at // len(methods)], methods[at % len(methods)]
        here = [row for row in rows if row["data"] == data]
        held = [row for row in here if (row["method"], row["draws"]) == (method, draws)]
        _curves(axes, held, looks, dashes)
        _attacked(axes, [row for row in here if row["kind"] == "empirical"], empirical)
        _given(axes, [row for row in here if (row["kind"], row["method"]) == ("printed", method)], looks)
        where = f"{called(data)}, " if len({place[0] for place in places}) > 1 else ""
        style.letter(axes, at, f"{METHODS[method].about}, {where}{draws:,} draws")
        axes.set_xlabel(f"{L2} radius ([0, 1] pixels)")
        axes.set_ylabel("accuracy (%)")
        axes.label_outer()
        right = max(row["radius"] for row in rows)
        axes.set_xlim(-0.015 * right, right)  # a marker at zero is whole
        axes.set_ylim(0, 103)
        axes.grid(True)
    style.legend(picture, list(_legend(rows, looks, dashes, empirical)))
    return picture


def _curves(axes: Axes, rows: Sequence[Row], looks: Mapping[float, Look], dashes: Mapping[str, Look]) -> None:
    for at, (sigma, look) in enumerate(looks.items()):
        for name, dash in dashes.items():
            held = [row for row in rows if (row["sigma"], row["line"]) == (sigma, name)]
            for variant in dict.fromkeys(row["variant"] for row in held):
                first = 4 * (at + list(dashes).index(name))  # so that curves that meet do not hide each other's markers
                _curve_of(axes, [row for row in held if row["variant"] == variant], look | dash, first)
        if limits := {row["largest"] for row in rows if row["sigma"] == sigma}:
            axes.plot(max(limits), 0, **{**_limit(), "color": look["color"]}, clip_on=False, zorder=5)


def _curve_of(axes: Axes, rows: Sequence[Row], look: Look, first: int) -> None:
    nothing = next((at for at, row in enumerate(rows) if not row["accuracy"]), len(rows))
    rows = rows[: nothing + 1]  # where it has fallen to nothing it ends
    low, high, ys = ([100 * row[name] for row in rows] for name in ("low", "high", "accuracy"))
    xs = [row["radius"] for row in rows]
    axes.fill_between(xs, low, high, color=look["color"], alpha=0.15, linewidth=0)
    axes.plot(xs, ys, markevery=(first % _MARKED, _MARKED), markersize=4.5, **look)


def _limit() -> Look:
    return {"marker": _LIMIT, "markersize": 8, "markeredgecolor": "black", "color": "#606060", "linestyle": ""}


def _attacked(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    for at, name in enumerate(names):
        held = [row for row in rows if row["line"] == name]
        xs, ys = [row["radius"] for row in held], [100 * row["accuracy"] for row in held]
        below = [100 * (row["accuracy"] - row["low"]) for row in held]
        above = [100 * (row["high"] - row["accuracy"]) for row in held]
        axes.errorbar(xs, ys, (below, above), elinewidth=0.8, linewidth=0.8, **_look(at))


def _look(at: int) -> Look:
    colour, marker = _EMPIRICAL[at % 3]
    return {"color": colour, "marker": marker, "markersize": 6, "linestyle": (0, (1, 2))}


def _given(axes: Axes, rows: Sequence[Row], looks: Mapping[float, Look]) -> None:
    for row in rows:
        axes.plot(row["radius"], 100 * row["accuracy"], **_star(row["sigma"], looks))


def _star(sigma: float, looks: Mapping[float, Look]) -> Look:
    colour = next((look["color"] for known, look in looks.items() if abs(known - sigma) < 1e-9), "white")
    return {"marker": "*", "markersize": 12, "linestyle": "", "color": colour, "markeredgecolor": "black", "zorder": 6}


def _legend(
    rows: Sequence[Row], looks: Mapping[float, Look], dashes: Mapping[str, Look], empirical: Sequence[str]
) -> Iterator[Any]:
    if len(looks) > 1:
        for sigma, look in looks.items():
            yield style.proxy(f"σ = {sigma:.3g}", **look)
    if len(dashes) > 1 or len(looks) == 1:
        for name, dash in dashes.items():
            yield style.proxy(name, **({"color": "black"} | dash))
    for at, name in enumerate(empirical):
        yield style.proxy(f"{name}\n(attacked, not certified)", **_look(at))
    for row in (row for row in rows if row["kind"] == "printed"):
        text = f"printed: {100 * row['accuracy']:g} % at {row['radius']:g}, σ = {row['sigma']:g}"
        yield style.proxy(text, **_star(row["sigma"], looks))
    yield style.proxy("largest radius that\nso many draws can certify", **_limit())


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what else the footer must say."""
    if len(sigmas := {row["sigma"] for row in rows if row["kind"] == "certified"}) == 1:
        yield f"σ = {sigmas.pop():.3g}"
    yield (
        "certified: the class that separate draws chose is right, and certified at the radius or beyond, at 95 % for "
        "each image; what STN prints is 0.95 times that"
    )
    if any(row["kind"] == "printed" for row in rows):
        sources = dict.fromkeys(row["line"] for row in rows if row["kind"] == "printed")
        yield f"star: {', '.join(sources)}"
