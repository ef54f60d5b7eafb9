"""Rows as text: aligned, markdown, LaTeX, csv and json. Every form ends with a newline."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any


class Bold(str):
    """A cell that markdown and LaTeX set in bold."""

    __slots__ = ()


Row = Mapping[str, Any]
Grid = Sequence[Sequence[str]]

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "ε": r"$\varepsilon$",
        "σ": r"$\sigma$",
        "×": r"$\times$",
        "\N{SCRIPT SMALL L}": r"$\ell$",
        "∞": r"$\infty$",
        "₂": r"$_2$",
        "†": r"\dag{}",
        "‡": r"\ddag{}",
        "✓": r"$\surd$",
        "✗": r"$\times$",
        "\N{EN DASH}": "--",
        "\N{MINUS SIGN}": "$-$",
    }
    | {character: f"\\{character}" for character in "&%$#_{}"}
)


def text(header: Sequence[str], rows: Grid) -> str:
    """Return aligned columns under a rule."""
    widths = _widths(header, rows)
    lines = [_line(header, widths), "  ".join("─" * width for width in widths), *(_line(row, widths) for row in rows)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))


def _widths(header: Sequence[str], rows: Grid) -> list[int]:
    return [max(map(len, column)) for column in zip(header, *rows, strict=True)]


def markdown(header: Sequence[str], rows: Grid, caption: str = "") -> str:
    """Return a GitHub-flavoured table, aligned so that it also reads well in a terminal."""
    lines = [[_markdown(cell) for cell in line] for line in (header, *rows)]
    widths = [max(3, width) for width in _widths(lines[0], lines[1:])]
    rule = ["-" * width for width in widths]
    table = "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in (lines[0], rule, *lines[1:]))
    return f"{table}\n" + (f"\n{caption}\n" if caption else "")


def _markdown(cell: str) -> str:
    text = cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
    return f"**{text}**" if isinstance(cell, Bold) else text


def latex(header: Sequence[str], rows: Grid, caption: str = "") -> str:
    """Return a booktabs table, every cell escaped."""
    lines = [f"{' & '.join(_latex(cell) for cell in line)} \\\\" for line in (header, *rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption.translate(_LATEX)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex(cell: str) -> str:
    text = cell.translate(_LATEX)
    return rf"\textbf{{{text}}}" if isinstance(cell, Bold) else text


def csv_text(header: Sequence[str], rows: Iterable[Row]) -> str:
    """Return RFC 4180 rows at full precision; lists as JSON, null as nothing."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_field(value) for value in row.values()] for row in rows)
    return stream.getvalue()


def _field(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return json.dumps(_plain(value), ensure_ascii=False)
    return _plain(value, nan=value)


def json_text(rows: Iterable[Row]) -> str:
    """Return a list of objects, strictly JSON: numbers that it lacks are null."""
    return json.dumps(plain_values(rows), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def plain_values(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the rows with values that JSON has: instants as ISO 8601, decimals as numbers, bytes as hex."""
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any, nan: Any = None) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else nan
        case Decimal():  # what DuckDB's sums of integers come as
            return int(value) if value == value.to_integral_value() else float(value)
        case date() | datetime() | time():
            return value.isoformat()
        case bytes():
            return value.hex()
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)


def shown(value: Any) -> str:
    """Return a value for people: floats to six digits, null as nothing."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).lower() if isinstance(value, bool) else str(value).replace("\n", "\\n")
