"""How every figure looks: colours that the colour-blind tell apart, and never colour alone.

matplotlib is imported here, when something is drawn, and nowhere else.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
"""Source: M. Okabe and K. Ito, Color Universal Design, 2008; yellow last, because it is faint on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
SEQUENTIAL = "cividis"
"""From dark blue to yellow; rises evenly in lightness, with and without red and green."""

_SMALL, _LARGE = 7.5, 11
_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # it comes with matplotlib: the same letters on every machine
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "errorbar.capsize": 2.5,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "rna-ray",  # ids follow from the content, not from a random number
}


def applied() -> AbstractContextManager[None]:
    """Return a context in which all that is drawn and saved has this style, whatever the user's own settings are."""
    import matplotlib

    return matplotlib.rc_context({**matplotlib.rcParamsDefault, **_RC, "backend": "agg"})


def picture(width: float, height: float, title: str, footer: str) -> Figure:
    """Return an empty picture (in inches) with its title above and, in small letters, what must be known below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    made.get_layout_engine().set(w_pad=0.06, h_pad=0.07)
    _title(made, title, width)
    made.supxlabel(wrapped(footer, width, _SMALL), fontsize=_SMALL, color="#404040", x=0.01, ha="left")
    return made


def wrapped(text: str, width: float, size: float) -> str:
    """Return the text broken into lines that fit a width in inches at a font size in points."""
    return textwrap.fill(text, max(20, int(width * 72 / (0.56 * size))))


def legend(picture: Figure, handles: Sequence[Any], **look: Any) -> None:
    """Put a legend at the right of a picture, at its top, and break its title so that it ends before the legend."""
    made = picture.legend(handles=handles, loc="outside right upper", **look)
    left = picture.get_figwidth() - made.get_window_extent().width / picture.dpi
    _title(picture, " ".join(picture.get_suptitle().split()), left)


def _title(picture: Figure, title: str, width: float) -> None:
    picture.suptitle(wrapped(title, width, _LARGE), fontsize=_LARGE, x=0.01, ha="left")


def proxy(label: str, **look: Any) -> Line2D:
    """Return a line for a legend that stands for more than one line drawn."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look)


def letter(axes: Axes, at: int, title: str, **look: Any) -> None:
    """Give a panel its letter and title."""
    axes.set_title(f"({chr(ord('a') + at)}) {title}", loc="left", **look)


def grid(picture: Figure, rows: int, columns: int, used: int, **shared: Any) -> Sequence[Axes]:
    """Return the first `used` panels of a grid, row by row, and take the rest away."""
    panels = list(picture.subplots(rows, columns, squeeze=False, **shared).flat)
    for panel in panels[used:]:
        panel.remove()
    return panels[:used]
