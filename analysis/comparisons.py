"""Two cells of a column compared on the examples that both have, and which cell of a column is really the best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from rna_ray.analysis.cells import OF_DRAWS, Cell, sql, sums
from rna_ray.analysis.query import answer
from rna_ray.analysis.statistics import Paired, Variance, batch_variance, paired
from rna_ray.errors import QueryError

Pair = tuple[Cell, Cell]
_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How much higher a variant's accuracy is than another's in a column, over the n examples that both have.

    mean, low, high in [-1, 1]; all None where the two cells have no example in common, differ in data or ball (ε, its
    norm or its space), or share paths in so few batches and draws that their chance cannot be told.
    """

    variant: str
    against: str
    attack: str
    knowledge: str
    nth: int
    answer: str
    n: int
    mean: float | None
    low: float | None
    high: float | None
    p: float | None


def compare(connection: duckdb.DuckDBPyConnection, cells: Sequence[Cell], against: str) -> list[Comparison]:
    """Return the comparison of each other variant's cells with those of variant `against` in the same columns.

    The cells are those that `ablation` just gave for this connection.
    """
    reference = {(cell.column, cell.answer): cell for cell in cells if cell.variant == against}
    others = [cell for cell in cells if cell.variant != against and (cell.column, cell.answer) in reference]
    pairs = [(cell, reference[cell.column, cell.answer]) for cell in others]
    found = _differences(connection, pairs)
    return [_comparison(pair, _paired(pair, found, _LEVEL)) for pair in pairs]


def best(connection: duckdb.DuckDBPyConnection, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that are better than every other variant's in their column: a column has one, or none.

    Better is a paired interval above zero and a p value that agrees, at 95 % with Bonferroni's correction for the
    comparisons with the column's other cells. None under vote and worst where the draws differ within the column: those
    answers depend on their number. So in a column of equals, one is named best in at most 5 % of tables.
    """
    columns: dict[Any, list[Cell]] = {}
    for cell in cells:
        if cell.accuracy is not None:
            columns.setdefault((cell.column, cell.answer), []).append(cell)
    columns = {key: held for key, held in columns.items() if _comparable(held)}
    highest = {key: max(held, key=lambda cell: cell.accuracy or 0.0) for key, held in columns.items()}
    contests = [[(highest[key], other) for other in held if other is not highest[key]] for key, held in columns.items()]
    found = _differences(connection, [pair for pairs in contests for pair in pairs])
    return [pairs[0][0] for pairs in contests if pairs and _wins(pairs, found)]


def _comparable(held: Sequence[Cell]) -> bool:
    return held[0].answer not in OF_DRAWS or len({cell.draws for cell in held if cell.random}) <= 1


def _wins(pairs: Sequence[Pair], found: Mapping[Any, Mapping[str, Any]]) -> bool:
    error = (1 - _LEVEL) / len(pairs)
    results = (_paired(pair, found, 1 - error) for pair in pairs)  # lazily: one tie is enough
    return all(result is not None and result.low > 0 and result.p <= error for result in results)


def _comparison(pair: Pair, result: Paired | None) -> Comparison:
    cell, reference = pair
    shared = {"attack": cell.attack, "knowledge": cell.knowledge, "nth": cell.nth, "answer": cell.answer}
    names = {"variant": cell.variant, "against": reference.variant, **shared}
    if result is None:
        return Comparison(**names, n=0, mean=None, low=None, high=None, p=None)
    return Comparison(**names, n=result.n, mean=result.mean, low=result.low, high=result.high, p=result.p)


def _differences(connection: duckdb.DuckDBPyConnection, pairs: Iterable[Pair]) -> dict[Any, dict[str, Any]]:
    """Return rows of queries/differences.sql by (cell, reference, answer)."""
    numbers = dict.fromkeys((cell.number, reference.number) for cell, reference in pairs)  # once, not once an answer
    asked = [{"cell": cell, "reference": reference} for cell, reference in numbers]
    if not asked:
        return {}
    try:
        connection.execute("SET VARIABLE pairs = $pairs", {"pairs": asked})
    except duckdb.Error as error:
        raise QueryError(f"the pairs cannot be compared: {error}") from error
    rows = answer(connection, sql("differences")).to_pylist()
    return {(row["cell"], row["reference"], row["answer"]): row for row in rows}


def _paired(pair: Pair, found: Mapping[Any, Mapping[str, Any]], level: float) -> Paired | None:
    cell, reference = pair
    row = found.get((cell.number, reference.number, cell.answer))
    if row is None or _of(cell) != _of(reference):
        return None
    differences = {entry["difference"]: entry["n"] for entry in row["differences"]}
    if not (cell.shared or reference.shared):
        return paired(differences, level)
    if paths := _added(pair, sum(differences.values())):
        return paired(differences, level, paths=paths)
    if batches := batch_variance(sums(row["batches"])):
        return paired(differences, level, batches=batches)
    return None


def _of(cell: Cell) -> tuple[object, ...]:
    """Return what two cells must have in common to be compared."""
    return cell.data, cell.eps_255, cell.eps_space, cell.threat


def _added(pair: Pair, n: int) -> Variance | None:
    """Return what shared paths add to the difference, with Satterthwaite's degrees of freedom; None if not known.

    The two cells draw their paths apart, so that their variances add up. They are known for all of a cell's examples.
    """
    if any(cell.n != n or (cell.shared and not cell.paths) for cell in pair):
        return None
    parts = [cell.paths for cell in pair if cell.paths]
    value = sum(part.value for part in parts)
    return Variance(value, value**2 / sum(part.value**2 / part.df for part in parts) if value else float("inf"))
