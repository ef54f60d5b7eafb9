"""The figures that ship, and the one that every sweep has: what is asked of the store, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from rna_ray.analysis import tables
from rna_ray.analysis.figures import (
    ablation,
    bounds,
    certified,
    curves,
    files,
    landscape,
    robust,
    series,
    similarity,
    statistics,
    strength,
    style,
    surface,
    theory,
    transfer,
)
from rna_ray.analysis.figures.setting import Setting, setting
from rna_ray.errors import FigureError, QueryError, unknown
from rna_ray.evaluation.radii import METHODS

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure: one tidy table asked of a sweep's rows, and the picture of nothing but this table."""

    about: str
    tabulate: Callable[[duckdb.DuckDBPyConnection, str], pa.Table]
    draw: Callable[[list[Row], Setting], Picture]
    sweep: str | None = None
    """Whose rows it draws where no other sweep is named; None is the sweep of the figure's own name."""
    rows: bool = True
    """Whether it draws a store's rows; else it is of formulas alone, and no sweep need be there."""
    against: str | None = None
    """The column that a line runs along; of a sweep that was not made for it, a line of two points shows nothing."""


def _dots(about: str) -> Figure:
    return Figure(about=about, tabulate=ablation.tabulate, draw=ablation.draw)


def _series(about: str, against: series.Against) -> Figure:
    return Figure(
        about=about, tabulate=partial(series.tabulate, against), draw=partial(series.draw, against), against="x"
    )  # fmt: skip


def _robust(about: str) -> Figure:
    return Figure(about=about, tabulate=robust.tabulate, draw=robust.draw, against="x")


BOUNDS = ("renyi", "pixeldp")
"""Whose radii the paper's figures draw: its own, and PixelDP's."""


def _certified(about: str, methods: Sequence[str]) -> Figure:
    return Figure(about=about, tabulate=partial(certified.tabulate, methods), draw=certified.draw)


FIGURES = {
    "rna-figure1": Figure(
        about="RNA Figure 1 (c, d): who is fooled by adversarial examples made on whom.",
        tabulate=transfer.tabulate,
        draw=transfer.draw,
    ),
    "rna-figure2": Figure(
        about="RNA Figure 2: the loss over a plane of inputs.", tabulate=surface.tabulate, draw=surface.draw
    ),
    "rna-figure3": Figure(
        about="RNA Figure 3: how alike the input gradients of two networks, or of two norms of one, are.",
        tabulate=similarity.tabulate,
        draw=similarity.draw,
    ),
    "rna-figure5": Figure(
        about="RNA Figure 5: more steps, larger radii, and paths that differ in more layers.",
        tabulate=strength.tabulate,
        draw=strength.draw,
    ),
    "rna-theory": Figure(
        about="RNA Eq. 5, Eq. 6 and Theorem 3.1: formula against measurement.",
        tabulate=theory.tabulate,
        draw=theory.draw,
    ),
    "robustnorm-figure1": Figure(
        about="RobustNorm Figure 1: a batch's mean and variance against the tracked ones, channel by channel.",
        tabulate=statistics.tabulate,
        draw=statistics.draw,
    ),
    "robustnorm-figure2": _dots("RobustNorm Figure 2: seven attacks on three norms, CIFAR-100."),
    "robustnorm-figure3": Figure(
        about="RobustNorm Figure 3: loss and accuracy of held-out images over the epochs of training.",
        tabulate=curves.held_out,
        draw=curves.draw,
    ),
    "robustnorm-figure4": _series("RobustNorm Figure 4: larger radii, for each attack, CIFAR-10.", series.RADIUS),
    "robustnorm-figure5": _series("RobustNorm Figure 5: how many images are answered together.", series.BATCH),
    "robustnorm-figure6": _series("RobustNorm Figure 6: larger radii, for each attack, CIFAR-100.", series.RADIUS),
    "robustnorm-figure7": _dots("RobustNorm Figure 7: natural accuracy where statistics are tracked."),
    "robustnorm-figure8": Figure(
        about="RobustNorm Figure 8: the same of training images too.",
        tabulate=curves.tabulate,
        draw=curves.draw,
        sweep="robustnorm-figure3",
    ),
    "robustnorm-figure9": Figure(
        about="RobustNorm Figure 9: the loss over two filter-normalised directions of the weights.",
        tabulate=landscape.tabulate,
        draw=landscape.draw,
    ),
    "robustnorm-figure11": _series("RobustNorm Figures 10 and 11: the power of the range.", series.POWER),
    "stn-figure1": _certified("STN Figure 1 (left): certified accuracy against the radius, MNIST.", BOUNDS),
    "stn-figure1-cifar10": _certified("STN Figure 1 (right): the same on CIFAR-10.", BOUNDS),
    "stn-figure2": _robust("STN Figure 2: robust accuracy against perturbation size, white-box and black-box, MNIST."),
    "stn-figure2-cifar10": _robust("STN Figure 2: the same on CIFAR-10."),
    "stn-figure3": _robust("STN Figure 3: robust accuracy against perturbation size, for each σ, MNIST."),
    "stn-figure3-cifar10": _robust("STN Figure 3: the same on CIFAR-10."),
    "stn-figure4": Figure(
        about="STN Figure 4: the radii that STN, PixelDP and Cohen et al. certify, for all p1 and p2.",
        tabulate=bounds.tabulate,
        draw=bounds.draw,
        rows=False,
    ),
    "stn-figure5": _certified("STN Figure 5: certified accuracy against the radius, ImageNet.", BOUNDS),
    "stn-figure6": _robust("STN Figure 6: robust accuracy against perturbation size, for each attack, MNIST."),
    "stn-figure7": _robust("STN Figure 7: robust accuracy against perturbation size, for each attack, CIFAR-10."),
}
"""Each is drawn from the rows of the sweep of the same name, or of the one it says, unless another is named."""

ABLATION = _dots("The table of any sweep, as dots with their intervals.")
CERTIFIED = _certified("The certified accuracies of a sweep that only certifies, by every method.", tuple(METHODS))


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure with the rows of the sweep that it is drawn of."""

    name: str
    sweep: str
    figure: Figure
    table: pa.Table
    setting: Setting

    @property
    def own(self) -> bool:
        """Whether it is drawn of this sweep where no other is named."""
        return self.sweep == (self.figure.sweep or self.name)

    def draw(self) -> Picture:
        """Return the picture; a dollar in a name is a dollar, and begins no formula."""
        rows = [{name: _literal(value) for name, value in row.items()} for row in self.table.to_pylist()]
        sharing = tuple(_literal(variant) for variant in self.setting.sharing)
        return self.figure.draw(rows, replace(self.setting, sharing=sharing, about=_literal(self.setting.about)))


def drawings(connection: duckdb.DuckDBPyConnection, sweep: str) -> Iterator[Drawing]:
    """Yield every figure that the rows of a sweep give, its own first; of those that look alike the first one."""
    own = {name: figure for name, figure in FIGURES.items() if sweep == (figure.sweep or name)}
    own = own or {sweep: _of_sweep(connection, sweep)}
    described, seen = setting(connection, sweep), []
    for name, figure in {**own, **FIGURES}.items():
        if not figure.rows or (look := _look(figure)) in seen:
            continue
        try:
            table = figure.tabulate(connection, sweep)
        except (FigureError, QueryError):  # it asked for other rows, or for such as do not go into one figure
            continue
        if table.num_rows and (name in own or figure.against is None or len(table[figure.against].unique()) > 2):
            seen.append(look)
            yield Drawing(name=name, sweep=sweep, figure=figure, table=table, setting=described)


def _literal(value: Any) -> Any:
    return value.replace("$", r"\$") if isinstance(value, str) else value


def _look(figure: Figure) -> tuple[object, ...]:
    draw = figure.draw
    return (draw.func, *draw.args) if isinstance(draw, partial) else (draw,)


def names() -> list[str]:
    """Return the figures that ship; the name of a sweep in the store is a figure too."""
    return sorted(FIGURES)


def draws_rows(name: str) -> bool:
    """Return whether a figure needs a store: all do but those of formulas alone."""
    return name not in FIGURES or FIGURES[name].rows


def figure(connection: duckdb.DuckDBPyConnection, name: str, folder: Path, sweep: str | None = None) -> list[Path]:
    """Draw a figure into NAME.png, NAME.svg and NAME.parquet of a folder, all or none, and return their paths.

    `sweep` is whose rows are drawn, by default those of the figure's own sweep. The same rows give the same bytes.
    FigureError for a name that is neither a figure nor a sweep, for one without rows, and where nothing can be written.
    """
    drawing = _drawing(connection, name, sweep)
    return files.write(folder, name, drawing.table, drawing.draw, drawing.setting.about)


def picture(connection: duckdb.DuckDBPyConnection, name: str, sweep: str | None = None) -> Picture:
    """Return the same figure as Matplotlib's, to look at or to change; its panels are its `axes`."""
    drawing = _drawing(connection, name, sweep)
    with style.applied():
        return drawing.draw()


def _drawing(connection: duckdb.DuckDBPyConnection, name: str, sweep: str | None) -> Drawing:
    known = tables.sweeps(connection)
    if name not in FIGURES and name not in known:
        raise FigureError(unknown("figure", name, {*names(), *known}))
    chosen = FIGURES.get(name) or _of_sweep(connection, name)
    if sweep is not None and sweep not in known:
        raise FigureError(unknown("sweep of this store:", sweep, known))
    if not chosen.rows:
        nothing = Setting(about=chosen.about, missing=0, sharing=(), attacks={})
        return Drawing(name=name, sweep=name, figure=chosen, table=chosen.tabulate(connection, name), setting=nothing)
    own = chosen.sweep or name
    of = own if sweep is None else sweep
    table = chosen.tabulate(connection, of) if of in known else None
    if table is None or not table.num_rows:
        if of == own:
            raise FigureError(f"there are no rows for figure {name} yet: first do its sweep, rna-ray run {_file(of)}")
        wanted = f"it draws what {_file(own)} asks for, once that is done"
        raise FigureError(f"there are no rows for figure {name} in sweep {of!r} yet: {wanted}")
    return Drawing(name=name, sweep=of, figure=chosen, table=table, setting=setting(connection, of))


def _of_sweep(connection: duckdb.DuckDBPyConnection, sweep: str) -> Figure:
    return CERTIFIED if tables.asked(connection, sweep) == {"certify"} else ABLATION


def _file(sweep: str) -> str:
    return f"sweeps/{sweep}.yaml" if sweep in FIGURES else f"{sweep}.yaml"
