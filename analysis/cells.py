"""The cells of a sweep's table: an accuracy for each variant, attack, knowledge and answer, and what it leaves open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from importlib.resources import files
from math import sqrt
from typing import Any

import duckdb

from rna_ray.analysis.query import answer, reason, sentence
from rna_ray.analysis.statistics import Variance, batch_variance, components, mean_interval, student
from rna_ray.errors import QueryError

QUERIES = files("rna_ray.analysis") / "queries"
ANSWERS = ("expected", "vote", "worst")
"""How the defender answers with m draws: right on average, by majority, on all of them."""

OF_DRAWS = ("vote", "worst")
"""The answers that depend on m: cells of different m are not to be compared."""

PIXEL = "pixel"
"""The space in which an attack is measured where nothing else is said: as in [0, 1] pixels."""

Column = tuple[str, str, int]  # attack and knowledge as asked, and which of the cells under these labels
BALLS = {"linf": "\N{SCRIPT SMALL L}∞", "l2": "\N{SCRIPT SMALL L}₂"}
"""How the threats that have a ball are written."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row of queries/ablation.sql with its 95 % interval; accuracies in [0, 1], None where there are no rows yet.

    batch_statistics is the number of images in a batch whose statistics its answers took, None where they took none;
    se_paths and se_examples are the standard errors that the paths and the examples leave, None where one draw cannot
    tell them apart. seed_sd is the standard deviation over seeds, and not in the interval; seed_low and seed_high are
    the ends of Student's interval over seeds, in which images play no part.
    """

    variant: str
    attack: str
    knowledge: str
    nth: int
    answer: str
    position: int
    state: str
    missing: int
    seeds: int
    diverged: int
    stopped_early: int
    """The seeds whose networks the sweep trains no further, and that are in no number here."""
    n: int
    draws: int | None
    natural_accuracy: float | None
    accuracy: float | None
    low: float | None
    high: float | None
    se_paths: float | None
    se_examples: float | None
    seed_sd: float | None
    seed_low: float | None
    seed_high: float | None
    median_l2: float | None
    median_linf: float | None
    eps_255: float | None
    step_255: float | None
    eps_space: str | None
    """Where its lengths are measured: pixel, or normalized, by the network's deviation. None before there are rows."""
    threat: str | None
    data: str | None
    checkpoint: str | None
    shared_paths: bool | None
    regrouped: bool | None
    attack_mode: str | None
    """The network's mode while the attack was crafted, where it was not that in which it answered."""
    batch_statistics: int | None

    # From here on for computing, not for printing: left out of csv and json.
    number: int = field(repr=False)
    """Of the cell, in the tables of queries/scores.sql."""
    shared: bool = field(repr=False)
    """Whether images of a batch were answered on one path, or attacked or answered with statistics of that batch."""
    random: bool = field(repr=False)
    """Whether the network may answer an image in more than one way."""
    paths: Variance | None = field(repr=False)
    """What such shared paths add to the variance of the accuracy, where draws can tell."""
    alone: bool = field(repr=False)
    """Whether all images shared one path once, so that together they count as one example."""
    learned: float | None = field(repr=False)
    """The natural accuracy over fresh draws, whatever the answer."""
    classes: int | None = field(repr=False)
    """Of the data; None where the rows are older than this column."""
    units: tuple[str, ...] = field(repr=False)
    """The units whose rows it holds."""

    @property
    def left_out(self) -> bool:
        """Whether nothing is to come here, as all its networks were stopped early."""
        return self.state == "stopped early"

    @property
    def column(self) -> Column:
        """Where it stands in the table."""
        return self.attack, self.knowledge, self.nth

    @property
    def guesses(self) -> bool:
        """Whether this is a natural accuracy not above chance: its interval reaches down to one in `classes`."""
        if self.attack != "natural" or not self.classes or self.learned is None or self.low is None:
            return False
        # Of a single batch on a single path nothing would be above chance: there, its images alone are asked.
        known = self.answer == "expected" and not self.alone
        low = self.low if known else mean_interval(self.learned, self.n)[0]
        return low <= 1 / self.classes

    @property
    def ball(self) -> str | None:
        """The ball of the attack, for people; None where it has none or is not known yet."""
        if self.eps_255 is None or self.threat not in BALLS:
            return None
        return f"{BALLS[self.threat]} ε = {length(self.eps_255, self.eps_space)}"


def length(of_255: float, space: str | None) -> str:
    """Return a length for people, as in 8/255, with the space in which it is measured where that is not pixels."""
    return f"{of_255:g}/255" + ("" if space in (None, PIXEL) else f" ({space})")


PRINTED = tuple(entry.name for entry in fields(Cell) if entry.repr)
"""The fields of a cell that csv and json give."""


def sql(name: str) -> str:
    """Return the text of a query that ships."""
    return (QUERIES / f"{name}.sql").read_text(encoding="utf-8")


def refuse_mixed(cells: Iterable[Cell]) -> None:
    """Raise QueryError where one column would hold attacks measured in two spaces, or in two norms."""
    columns: dict[Column, list[Cell]] = {}
    for cell in cells:
        columns.setdefault(cell.column, []).append(cell)
    for column, held in columns.items():
        for setting in ("eps_space", "threat"):
            if len(mixed := values(held, setting)) > 1:
                name, both = "@".join(column[:2]), " and ".join(mixed)
                raise QueryError(f"column {name} would mix {setting} {both}: give them sweeps of their own")


def values(held: Iterable[Cell], setting: str) -> list[str]:
    """Return the values that a field has in these cells, as text; None is none."""
    return sorted({str(value) for cell in held if (value := getattr(cell, setting)) is not None})


def ablation(connection: duckdb.DuckDBPyConnection, sweep: str, answers: Sequence[str] = ("expected",)) -> list[Cell]:
    """Return the cells that a sweep asks for, under each of the answers, in the order of its plan.

    The connection keeps the means of this sweep under these answers, until it is asked for another's.
    """
    return list(_ablation(connection, sweep, tuple(answers)))


_UNEVEN = """
SELECT coalesce(bool_or(fewest < most), false)
FROM (SELECT min(seeds) AS fewest, max(seeds) AS most FROM by_example GROUP BY cell, answer)
"""


@lru_cache(maxsize=1)  # of one: no more than the connection keeps
def _ablation(connection: duckdb.DuckDBPyConnection, sweep: str, answers: tuple[str, ...]) -> tuple[Cell, ...]:
    try:
        connection.execute("SET VARIABLE sweep = $sweep", {"sweep": sweep})
        connection.execute("SET VARIABLE answers = $answers", {"answers": list(answers)})
        connection.execute(sql("scores"))
        for one in dict.fromkeys(("expected", *answers)):  # the first says what was learned, whatever the answer
            connection.execute("SET VARIABLE answer = $answer", {"answer": one})
            connection.execute(sql("means"))
            if connection.execute(_UNEVEN).fetchall() != [(False,)]:
                connection.execute(sql("uneven"))
        needed = (("shared", "shared AND 'expected' IN getvariable('answers')"), ("distances", "unbounded"))
        for query, of in needed:
            if connection.execute(f"SELECT bool_or({of}) FROM units").fetchall() == [(True,)]:
                connection.execute(sql(query))
    except duckdb.Error as error:
        raise QueryError(reason(error) or f"the scores of sweep {sweep!r} cannot be read: {sentence(error)}") from error
    rows = answer(connection, sql("ablation")).to_pylist()
    if not rows:
        raise QueryError(f"sweep {sweep!r} asks for no evaluation, so it has no table; `rna-ray figure` draws probes")
    return tuple(_cell(**row) for row in rows)


def _cell(
    *,
    squared_error: float | None,
    paths_error: float | None,
    shared_error: float | None,
    shared_df: float | None,
    batches: list[dict[str, Any]] | None,
    units: list[str] | None,
    **row: Any,
) -> Cell:
    shared, n = row["shared"], row["n"]
    # Where answers or attack take a batch's statistics, its draws do not tell how batches differ: the batches do.
    by_draws = shared and not (row["batch_statistics"] or row["attack_mode"])
    paths = Variance(shared_error, shared_df) if by_draws and shared_error is not None and shared_df else None
    between = batch_variance(sums(batches)) if shared and not paths else None
    alone = shared and not paths and not between
    low, high, se_paths, se_examples = None, None, None, None
    if row["accuracy"] is not None:
        low, high = mean_interval(row["accuracy"], 1 if alone else n, paths=paths, batches=between)
        # Examples that move together scatter less than their share of the mean's variance: put that back.
        total = squared_error + paths.value / n if paths and squared_error is not None else squared_error
        se_paths, se_examples = components(total, paths_error)
        if shared:
            se_paths = sqrt(paths.value) if paths else None
            se_examples = se_examples if paths else None
    seed_low, seed_high = None, None
    if row["accuracy"] is not None and row["seed_sd"] is not None:
        seeds = row["seeds"]
        seed_low, seed_high = student(row["accuracy"], row["seed_sd"] / sqrt(seeds), seeds)
        seed_low, seed_high = max(0.0, seed_low), min(1.0, seed_high)
    ends = {"seed_low": seed_low, "seed_high": seed_high}
    intervals = {**ends, "low": low, "high": high, "se_paths": se_paths, "se_examples": se_examples}
    rounded = {
        name: None if value is None else round(value, 12) for name, value in intervals.items()
    }  # see ablation.sql
    return Cell(**row, **rounded, paths=paths, alone=alone, units=tuple(units or ()))


def sums(batches: list[dict[str, Any]] | None) -> list[tuple[float, int]]:
    """Return (sum of scores, examples) of each batch, sorted: a query gives them in any order."""
    return sorted((batch["total"], batch["size"]) for batch in batches or ())
