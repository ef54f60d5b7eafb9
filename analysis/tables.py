"""Tables for papers and terminals: a query shipped here, or the ablation table of any sweep that the store knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from typing import Any

import duckdb

from rna_ray.analysis import render
from rna_ray.analysis.query import answer
from rna_ray.analysis.statistics import mean_interval
from rna_ray.errors import QueryError, unknown

_QUERIES = files("rna_ray.analysis") / "queries"
_ABLATION = "ablation"
MISSING, DIVERGED = "\N{EN DASH}", "†"
_L2 = "\N{SCRIPT SMALL L}₂"
_THREATS = {"linf": "\N{SCRIPT SMALL L}∞", "l2": _L2}

Column = tuple[str, str, int]  # attack and knowledge as asked, and which of the cells under these labels


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row of queries/ablation.sql with its interval; accuracies in [0, 1], None where there are no rows yet."""

    variant: str
    attack: str
    knowledge: str
    nth: int
    position: int
    state: str
    missing: int
    seeds: int
    diverged: int
    n: int
    draws: int | None
    natural_accuracy: float | None
    accuracy: float | None
    low: float | None
    high: float | None
    seed_sd: float | None
    median_l2: float | None
    eps_255: float | None
    eps_space: str | None
    threat: str | None
    data: str | None
    checkpoint: str | None
    shared_paths: bool | None
    regrouped: bool | None

    @property
    def column(self) -> Column:
        """Where it stands in the table."""
        return self.attack, self.knowledge, self.nth

    @property
    def ball(self) -> str | None:
        """The ball of the attack, for people; None where it has none or is not known yet."""
        if self.eps_255 is None or self.threat not in _THREATS:
            return None
        space = "" if self.eps_space == "pixel" else f" ({self.eps_space})"
        return f"{_THREATS[self.threat]} ε = {self.eps_255:g}/255{space}"

    def text(self, n: int | None) -> str:
        """Return it as in 57.3 ±2.7, with its n where that is not the column's."""
        if self.accuracy is None or self.low is None or self.high is None:
            return MISSING
        half = max(self.accuracy - self.low, self.high - self.accuracy)
        distortion = "" if self.median_l2 is None else f" [{_L2} {self.median_l2:.2f}]"
        return f"{100 * self.accuracy:.1f} ±{100 * half:.1f}{distortion}" + (f" (n={self.n})" if self.n != n else "")


def names() -> list[str]:
    """Return the tables that have a query of their own; the name of a sweep in the store is a table too."""
    stems = (entry.name.removesuffix(".sql") for entry in _QUERIES.iterdir() if entry.name.endswith(".sql"))
    return sorted(stem for stem in stems if stem != _ABLATION)


def sweeps(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the names of the sweeps that the store knows."""
    return answer(connection, "SELECT DISTINCT sweep FROM plans ORDER BY sweep")["sweep"].to_pylist()


def table(connection: duckdb.DuckDBPyConnection, name: str, format: str = "md") -> str:
    """Return a table as md, latex, csv or json; QueryError for a name that is neither a query nor a sweep.

    A sweep gives its variants by its attacks; csv and json give the same cells one a row, with all their numbers.
    """
    if format not in FORMATS:
        raise QueryError(unknown("format", format, FORMATS))
    if name in names():
        return _query_table(connection, name, format)
    known = sweeps(connection)
    if name not in known:
        raise QueryError(unknown("table", name, [*names(), *known]) if names() or known else _NONE.format(name))
    cells = ablation(connection, name)
    if format in ("csv", "json"):
        rows = [asdict(cell) for cell in cells]
        return FORMATS[format]([field.name for field in fields(Cell)], rows, "")
    return FORMATS[format](*_pivot(name, cells))


_NONE = "there is no table {!r}: the store holds no sweep yet"


def ablation(connection: duckdb.DuckDBPyConnection, sweep: str) -> list[Cell]:
    """Return the cells that a sweep asks for, in the order of its plan."""
    rows = answer(connection, _sql(_ABLATION), {"sweep": sweep}).to_pylist()
    if not rows:
        raise QueryError(f"sweep {sweep!r} asks for no evaluation, so it has no table")
    return [Cell(**row, **_interval(row)) for row in rows]


def _interval(row: Mapping[str, Any]) -> dict[str, float | None]:
    low, high = (None, None) if row["accuracy"] is None else mean_interval(row["accuracy"], row["n"])
    return {"low": low, "high": high}


def _sql(name: str) -> str:
    return (_QUERIES / f"{name}.sql").read_text(encoding="utf-8")


def _query_table(connection: duckdb.DuckDBPyConnection, name: str, format: str) -> str:
    found = answer(connection, _sql(name))
    rows = found.to_pylist()
    if format in ("csv", "json"):
        return FORMATS[format](found.column_names, rows, "")
    grid = [[render.shown(value) for value in row.values()] for row in render.plain_values(rows)]
    return FORMATS[format](found.column_names, grid, name)


def _pivot(sweep: str, cells: Sequence[Cell]) -> tuple[list[str], list[list[str]], str]:
    """Return header, rows and caption of the table: variants and columns in the order of the plan."""
    columns = {column: [cell for cell in cells if cell.column == column] for column in _ordered(cells)}
    n = _usual(cell.n for cell in cells if cell.n)
    ns = {column: _usual((cell.n for cell in held if cell.n), among=n) for column, held in columns.items()}
    ball = _usual(cell.ball for cell in cells if cell.ball)
    header = ["variant", "draws", *(_label(column, columns, ns[column], n, ball) for column in columns)]
    variants: dict[str, dict[Column, Cell]] = {}
    for cell in cells:
        variants.setdefault(cell.variant, {})[cell.column] = cell
    rows = [_row(variant, held, ns) for variant, held in variants.items()]
    return header, rows, _caption(sweep, cells, columns, n, ball)


def _ordered(cells: Sequence[Cell]) -> list[Column]:
    """Return the columns by their place among the cells of a variant, which is the order they were asked for in."""
    place: dict[Column, int] = {}
    within: Counter[str] = Counter()
    for cell in cells:
        place[cell.column] = min(place.get(cell.column, within[cell.variant]), within[cell.variant])
        within[cell.variant] += 1
    return sorted(place, key=lambda column: place[column])


def _usual(values: Iterable[Any], among: Any = None) -> Any:
    """Return the most frequent value (`among` where it ties, else the first), None where there is none."""
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], value == among), default=None)


def _label(
    column: Column, columns: Mapping[Column, Sequence[Cell]], column_n: int | None, n: int | None, ball: str | None
) -> str:
    """Return attack@knowledge, and what sets the column apart from the caption or from a column of the same name."""
    attack, knowledge, nth = column
    own = _usual(cell.ball for cell in columns[column] if cell.ball)
    notes = [own] if own and own != ball else []
    if not notes and (attack, knowledge, 2) in columns:
        notes.append(own or f"#{nth}")
    if column_n not in (None, n):
        notes.append(f"n={column_n}")
    label = attack if knowledge in (None, "none", "") else f"{attack}@{knowledge}"
    return label + (f" ({', '.join(notes)})" if notes else "")


def _row(variant: str, held: Mapping[Column, Cell], ns: Mapping[Column, int | None]) -> list[str]:
    draws = sorted({cell.draws for cell in held.values() if cell.draws is not None})
    mark = f" {DIVERGED}" if any(cell.diverged for cell in held.values()) else ""
    texts = [held[column].text(n) if column in held else MISSING for column, n in ns.items()]
    return [variant + mark, ", ".join(map(str, draws)) or MISSING, *texts]


def _caption(
    sweep: str, cells: Sequence[Cell], columns: Mapping[Column, Sequence[Cell]], n: int | None, ball: str | None
) -> str:
    named: dict[str, list[Cell]] = {}
    for (attack, knowledge, _), held in columns.items():
        named.setdefault(f"{attack}@{knowledge}", []).extend(held)
    sentences = [
        f"{sweep}: accuracy in % over fresh draws, ± the larger side of its 95 % Wilson interval over the examples.",
        f"n = {n} examples where nothing else is said." if n else "No example has been evaluated yet.",
    ]
    if ball:
        sentences.append(f"Attacks within {ball} where nothing else is said.")
    if any(cell.median_l2 is not None for cell in cells):
        sentences.append(f"[{_L2}]: median distance of an unbounded attack.")
    if (seeds := max(cell.seeds for cell in cells)) > 1:
        spread = max((cell.seed_sd for cell in cells if cell.seed_sd is not None), default=0.0)
        sentences.append(f"Means over up to {seeds} seeds, whose standard deviation is at most {100 * spread:.1f}.")
    if shared := [name for name, held in named.items() if any(cell.shared_paths for cell in held)]:
        sentences.append(f"Images of a batch share a path in {', '.join(shared)}: its chance is not in the intervals.")
    if regrouped := [name for name, held in named.items() if any(cell.regrouped for cell in held)]:
        sentences.append(
            f"{', '.join(regrouped)}: on random networks, an image that withstood one draw is scored untouched, which "
            "flatters them."
        )
    sentences += [note for column, held in columns.items() for note in _mixtures(column, held)]
    if any(cell.diverged for cell in cells):
        sentences.append(f"{DIVERGED}: training diverged.")
    if missing := sum(cell.missing for cell in cells):
        sentences.append(f"Units still missing: {missing} ({MISSING} where a cell has none).")
    return " ".join(sentences)


def _mixtures(column: Column, held: Sequence[Cell]) -> list[str]:
    """Return a sentence for each setting that differs within a column; QueryError for those that bar comparison."""
    name = "@".join(column[:2])
    for setting in ("eps_space", "threat"):
        if len(mixed := _values(held, setting)) > 1:
            raise QueryError(f"column {name} would mix {setting} {' and '.join(mixed)}: give them sweeps of their own")
    settings = {"eps_255": "ε (in 1/255)", "data": "data", "checkpoint": "checkpoints"}
    mixed = {word: _values(held, setting) for setting, word in settings.items()}
    return [f"Column {name} mixes {word}: {', '.join(values)}." for word, values in mixed.items() if len(values) > 1]


def _values(held: Sequence[Cell], setting: str) -> list[str]:
    return sorted({str(value) for cell in held if (value := getattr(cell, setting)) is not None})


FORMATS: Mapping[str, Callable[[Sequence[str], Any, str], str]] = {
    "md": render.markdown,
    "latex": render.latex,
    "csv": lambda header, rows, _: render.csv_text(header, rows),
    "json": lambda _, rows, __: render.json_text(rows),
}
