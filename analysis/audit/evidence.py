"""A sweep's claims, and their comparisons with any rows of the same networks, from the store's rows alone."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np

from rna_ray.analysis.audit.claims import Claim, Comparison, Facts, Pair, Rows, Setting
from rna_ray.analysis.cells import sql
from rna_ray.analysis.query import answer
from rna_ray.analysis.statistics import Variance, batch_variance
from rna_ray.evaluation.radii import answered, lower_bound

_TAKEN = ("name", "threat", "eps_space", "eps_255", "step_255", "steps", "restarts", "random_start", "loss")
_ONE_PATH = ("fixed", "aggmo-fixed", "none")
"""What any knowledge is settled to where there is one path and no noise."""
# Rows from before noise_255 was recorded hold null there; their evaluations meant something else: never compared.
_WHERE = ("checkpoint", "data", "eval_mode", "noise_255", "precision")
# What was observed of a network, and whether one evaluation that saw it is enough or all must have.
_OBSERVED = {"global_generator": any, "repeats": all, "softmax_output": any, "optimizes": any, "other_weights": any}

_STEPS = 1000
"""Promises are rounded down to thousandths, so that few differences are told apart."""

# All evaluations of the networks that the sweep evaluates, whichever sweep asked for them.
_EVALUATIONS = """
SELECT evaluations.*, log2_paths, trained_batch, trained_batch_asked,
    weights_sha256 <> CASE checkpoint WHEN 'best' THEN networks.best_sha256 ELSE networks.last_sha256 END
        OR coalesce(source_sha256 NOT IN (sources.best_sha256, sources.last_sha256), false) AS other_weights
FROM evaluations LEFT JOIN (
    SELECT unit_id AS network_id, log2_paths, batch AS trained_batch, batch_asked AS trained_batch_asked,
        best_sha256, last_sha256
    FROM trials
) AS networks USING (network_id)
LEFT JOIN (SELECT unit_id AS source_id, best_sha256, last_sha256 FROM trials) AS sources USING (source_id)
WHERE network_id IN (SELECT network_id FROM plans JOIN evaluations USING (unit_id) WHERE sweep = $sweep)
ORDER BY evaluations.unit_id
"""

_ASKED = """
SELECT variant, attack, knowledge, list(DISTINCT unit_id) AS units
FROM plans WHERE sweep = $sweep AND kind = 'evaluate'
GROUP BY ALL ORDER BY min(position)
"""

_FACTS = """
WITH sets AS (SELECT unnest($sets) AS set, unnest($units) AS unit_id)
SELECT set, count(zero_gradients) AS looked_at, count(*) FILTER (zero_gradients > 0) AS zero,
    median(l2) FILTER (2 * natural_correct >= draws) AS median_l2,
    median(linf) FILTER (2 * natural_correct >= draws) AS median_linf
FROM examples JOIN sets USING (unit_id)
GROUP BY set
"""


def claims(connection: duckdb.DuckDBPyConnection, sweep: str) -> list[Claim]:
    """Return the sweep's cells that have rows, in the order of its plan, each with all rows of its networks."""
    evaluated = {row["unit_id"]: row for row in answer(connection, _EVALUATIONS, {"sweep": sweep}).to_pylist()}
    settings = {unit: _setting(row) for unit, row in evaluated.items()}
    by_network: dict[str, list[str]] = defaultdict(list)
    for unit, row in evaluated.items():
        by_network[row["network_id"]].append(unit)
    gathered: dict[frozenset[str], list[Rows]] = {}
    found = []
    for cell in answer(connection, _ASKED, {"sweep": sweep}).to_pylist():
        asked = [unit for unit in sorted(cell["units"]) if unit in evaluated]
        for mine in _by_setting(asked, settings).values():  # one, unless labels are shared
            networks = frozenset(evaluated[unit]["network_id"] for unit in mine)
            if networks not in gathered:
                units = [unit for network in sorted(networks) for unit in by_network[network]]
                alike = _by_setting(units, settings).values()
                gathered[networks] = [_rows(same, evaluated, settings) for same in alike]
            labels = {"variant": cell["variant"], "attack": cell["attack"], "knowledge": cell["knowledge"]}
            rows = _rows(mine, evaluated, settings)
            others = [other for other in gathered[networks] if other.setting != rows.setting]
            found.append(Claim(**labels, rows=rows, others=others))
    return found


def _by_setting(units: Iterable[str], settings: Mapping[str, Setting]) -> dict[Setting, list[str]]:
    groups: dict[Setting, list[str]] = defaultdict(list)
    for unit in units:
        groups[settings[unit]].append(unit)
    return groups


def _setting(row: Mapping[str, Any]) -> Setting:
    options = json.loads(row["attack_settings"])
    taken = {name: options.pop(name, None) for name in _TAKEN}
    word, k = _knowledge(row["knowledge"], row["knowledge_k"])
    return Setting(
        attack=row["attack"],
        options=json.dumps(options, sort_keys=True),
        loss=taken["loss"],
        source=row["source_id"],
        threat=row["threat"],
        eps_255=row["eps_255"],
        eps_space=row["eps_space"],
        step_255=taken["step_255"],
        steps=row["steps"],
        restarts=row["restarts"] or taken["restarts"] or 1,
        random_start=bool(taken["random_start"]),
        knowledge=word,
        k=k,
        random=_random(row, word),
        crafted=(row["attack_mode"], row["batch"]) if row["attack_mode"] else (),
        where=(*(row[column] for column in _WHERE), _split(row), _together(row)),
    )


def _random(row: Mapping[str, Any], word: str) -> bool:
    """Return whether the network answers in more than one way: as seen; as described in rows from before it was."""
    if row["random_output"] is not None:
        return bool(row["random_output"])
    return word not in _ONE_PATH or bool(row["log2_paths"]) or bool(row["noise_255"])


def _knowledge(word: str, k: int | None) -> tuple[str, int | None]:
    """Return the word without its number, and k: `resample` is an expectation over one draw."""
    if word == "resample":
        return "eot", 1
    kind, _, number = word.rpartition("-")
    return (kind, int(number)) if kind and number.isdigit() else (word, k)


def _split(row: Mapping[str, Any]) -> str:
    """Return which images these are, beyond the name of their data set."""
    return json.dumps(json.loads(row["settings"]).get("data"), sort_keys=True)


def _together(row: Mapping[str, Any]) -> int | None:
    """Return the size of a batch where it decides the answer: where that takes the batch's statistics."""
    return row["batch"] if row["batch_statistics"] or row["eval_mode"] != "eval" else None


def _rows(units: Sequence[str], evaluated: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Setting]) -> Rows:
    rows = [evaluated[unit] for unit in units]
    batches = [row["batch"] for row in rows if _hangs_together(row)]
    return Rows(
        setting=settings[units[0]],
        units=tuple(units),
        evaluations=tuple(sorted({row["evaluation"] for row in rows})),
        classes=next((row["classes"] for row in rows if row["classes"] is not None), None),
        observed={column: _folded(fold, [row[column] for row in rows]) for column, fold in _OBSERVED.items()},
        batch=max(batches, default=None),
        attacked_together=any(_attacked_together(row) for row in rows),
        trained_with=min(
            ((row["trained_batch"], row["trained_batch_asked"]) for row in rows if row["trained_batch_asked"]),
            default=None,
        ),
    )


def _hangs_together(row: Mapping[str, Any]) -> bool:
    """Return whether images of a batch are answered on one path or with its statistics; as in queries/scores.sql."""
    of_batch = row["path_sharing"] == "batch" or (row["path_sharing"] == "attack" and row["knowledge"] == "fixed")
    return of_batch or bool(_together(row) or row["attack_mode"])


def _attacked_together(row: Mapping[str, Any]) -> bool:
    return row["path_sharing"] == "attack" and row["knowledge"] != "enumerate"  # who takes all paths leaves no chance


def _folded(fold: Callable[[Iterable[bool]], bool], values: Iterable[bool | None]) -> bool | None:
    known = [value for value in values if value is not None]
    return fold(known) if known else None


class Stored:
    """The comparisons that a sweep's claims may want, each set of rows read once."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, claims: Iterable[Claim], pairs: Iterable[Pair]) -> None:
        self._sets: dict[tuple[str, ...], int] = {}
        self._pairs: dict[tuple[int, int, bool], int] = {}
        self._batches: dict[int, int] = {}  # pair → the examples that share a path in it
        for pair in pairs:
            at = self._pairs.setdefault(self._key(pair), len(self._pairs))
            self._batches[at] = max(pair.x.batch or 0, pair.y.batch or 0)
        own = sorted({self._set(claim.rows) for claim in claims})
        self._comparisons = self._compared(connection)
        self._facts = self._found(connection, own)
        self._promises = self._certified(connection, own)

    def compare(self, pair: Pair) -> Comparison | None:
        """Return the comparison on the examples that both have on the same network; None where there are none.

        None too where images of a batch share a path and there is one batch: that path's chance is then unknown.
        """
        return self._comparisons.get(self._pairs[self._key(pair)])

    def facts(self, rows: Rows) -> Facts:
        """Return what a claim's rows say by themselves."""
        return self._facts.get(self._set(rows), Facts())

    def promised(self, rows: Rows) -> Comparison | None:
        """Return a claim's accuracy beside what certificates of the same images promise; None where there are none."""
        return self._promises.get(self._set(rows))

    def _set(self, rows: Rows) -> int:
        return self._sets.setdefault(rows.units, len(self._sets))

    def _key(self, pair: Pair) -> tuple[int, int, bool]:
        return self._set(pair.x), self._set(pair.y), pair.natural

    def _units(self, only: Iterable[int] | None = None) -> dict[str, list[Any]]:
        kept = set(self._sets.values() if only is None else only)
        flat = [(at, unit) for units, at in self._sets.items() if at in kept for unit in units]
        return {"sets": [at for at, _ in flat], "units": [unit for _, unit in flat]}

    def _compared(self, connection: duckdb.DuckDBPyConnection) -> dict[int, Comparison]:
        if not self._pairs:
            return {}
        xs, ys, naturals = zip(*self._pairs, strict=True)
        whole = 2**31 - 1  # every example is in the first batch of such a size
        wanted = {
            "pairs": list(self._pairs.values()),
            "xs": list(xs),
            "ys": list(ys),
            "naturals": list(naturals),
            "batches": [self._batches[at] or whole for at in self._pairs.values()],
        }
        rows: dict[int, list[Any]] = defaultdict(list)
        for row in answer(connection, sql("audit"), wanted | self._units()).to_pylist():
            rows[row["pair"]].append(row)
        found = {at: _comparison(held, shared=bool(self._batches[at])) for at, held in rows.items()}
        return {at: comparison for at, comparison in found.items() if comparison is not None}

    def _found(self, connection: duckdb.DuckDBPyConnection, own: Sequence[int]) -> dict[int, Facts]:
        if not own:
            return {}
        rows = answer(connection, _FACTS, self._units(own)).to_pylist()
        return {row.pop("set"): Facts(**row) for row in rows}

    def _certified(self, connection: duckdb.DuckDBPyConnection, own: Sequence[int]) -> dict[int, Comparison]:
        if not own or not (found := answer(connection, sql("promised"), self._units(own))).num_rows:
            return {}
        count, n, distance, sigma = (found[name].to_numpy() for name in ("count", "n", "distance", "sigma"))
        least = np.floor(_STEPS * answered(lower_bound(count, n), distance, sigma)) / _STEPS
        images: dict[int, dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
        sets, examples, left = (found[name].to_pylist() for name in ("set", "example", "attacked"))
        for at, example, both in zip(sets, examples, zip(left, least.tolist(), strict=True), strict=True):
            images[at][example].append(both)
        return {at: _averaged(held.values()) for at, held in images.items()}


def _averaged(images: Collection[Sequence[tuple[float, float]]]) -> Comparison:
    """Return the comparison of (x, y) pairs, several for an image where there are several networks."""
    means = [np.mean(image, axis=0).tolist() for image in images]
    x, y = (round(sum(side) / len(means), 12) for side in zip(*means, strict=True))
    return Comparison(len(means), x, y, dict(Counter(round(x - y, 9) for x, y in means)))


def _comparison(rows: Sequence[Mapping[str, Any]], *, shared: bool) -> Comparison | None:
    differences: dict[float, int] = defaultdict(int)
    for row in rows:
        differences[row["difference"]] += row["n"]
    between = _between((row["block"], row["difference"] * row["n"], row["n"]) for row in rows) if shared else None
    between_x = _between((row["block"], row["x"], row["n"]) for row in rows) if shared else None
    if shared and between is None:
        return None
    n = sum(differences.values())
    x, y = (round(sum(row[side] for row in rows) / n, 12) for side in ("x", "y"))  # whatever order they were summed in
    return Comparison(n, x, y, dict(differences), between, between_x)


def _between(sums: Iterable[tuple[int, float, int]]) -> Variance | None:
    """Return what batches show of a mean, from (batch, sum, examples) of their parts."""
    blocks: dict[int, list[float]] = defaultdict(lambda: [0.0, 0])
    for block, total, n in sums:
        blocks[block][0] += total
        blocks[block][1] += n
    return batch_variance([(total, int(n)) for total, n in blocks.values()])
