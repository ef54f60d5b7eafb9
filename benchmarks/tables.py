"""A sweep's table and its paired comparisons over 100,000,000 example rows, against DuckDB on one sorted Parquet file.

    python benchmarks/tables.py [--repeat N] [--small]

The store is made up, a file a unit in the store's layout, sealed as the store seals: 10,000 examples of 20 cells of 500
networks, 50 variants by 10 seeds, or a million rows in files of 100, as a sweep on a CPU leaves them; packed is after
`rna-ray compact`. The peer's file holds the same rows in the order of a pack, by cell and image, in which its queries
are faster than by cell and seed, and names variant, attack, knowledge and seed in each; its queries give the same
numbers, which is an assertion here. Ours opens the store's views and computes the table's cells and their spread over
seeds, then the differences of all variants to the first, without the bootstrap. It takes some 10 GB of $TMPDIR.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import made_up
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pairs import Apart, Comparison, Measured, Side, Turn, at_most, in_turn, main, say, within
from subjects import Sweep, folder, planned

from rna_ray.running.run import plan_rows
from rna_ray.store import Store, layout, open_store, packs
from rna_ray.store.records import from_rows
from rna_ray.store.seal import sealed
from rna_ray.sweep.evaluations import Cell
from rna_ray.sweep.units import Unit

MINUTES = 18
EXAMPLES = 10_000
DRAWS = 10
CLASSES = 10
MEGABYTES = 4096
STEPS = (10, 20, 50, 100)
KNOWLEDGE = ("transfer", "fixed", "resample", "eot-10", "eot-20")


class Size(NamedTuple):
    """How many rows: EXAMPLES for each variant, seed and cell."""

    variants: int
    seeds: int
    steps: int
    shard: int
    """The rows of a file."""

    @property
    def rows(self) -> int:
        """All of them."""
        return EXAMPLES * self.variants * self.seeds * self.steps * len(KNOWLEDGE)


SIZES = {
    False: (Size(5, 2, 2, 100), Size(50, 10, 4, EXAMPLES)),
    True: (Size(2, 1, 1, 100), Size(5, 2, 2, EXAMPLES)),
}  # fmt: skip

BY_EXAMPLE = """
CREATE OR REPLACE TEMP TABLE by_example AS
WITH scores AS (
    SELECT variant, attack, knowledge, example,
        adversarial_correct / draws AS score, natural_correct / draws AS clean,
        score * (1 - score) / (draws - 1) AS path_variance
    FROM read_parquet('{path}')
)
SELECT variant, attack, knowledge, example, avg(score) AS score, avg(clean) AS clean,
    sum(path_variance) / count(*) ** 2 AS path_variance
FROM scores GROUP BY ALL
"""
CELLS = """
SELECT variant, attack, knowledge, count(*) AS n, round(avg(score), 9) AS accuracy, avg(clean) AS clean,
    var_samp(score) / count(*) AS squared_error, sum(path_variance) / count(*) ** 2 AS paths_error
FROM by_example GROUP BY ALL ORDER BY ALL
"""
SEEDS = """
SELECT variant, attack, knowledge, stddev_samp(accuracy) FROM (
    SELECT variant, attack, knowledge, seed, avg(adversarial_correct / draws) AS accuracy
    FROM read_parquet('{path}') GROUP BY ALL
) GROUP BY ALL
"""
DIFFERENCES = """
SELECT a.variant, a.attack, a.knowledge, round(a.score - b.score, 9) AS difference, count(*) AS n
FROM by_example AS a JOIN by_example AS b USING (attack, knowledge, example)
WHERE b.variant = $against AND a.variant <> $against
GROUP BY ALL
"""


def compare(repeat: int, small: bool) -> Iterator[Comparison]:
    """Yield the rows; AssertionError where the accuracies differ."""
    for at, (size, packed) in enumerate((size, packed) for size in SIZES[small] for packed in (False, True)):
        place = folder() / f"tables-{at // 2}"
        if not packed:
            plan, against = fill(place, size)
            if size.shard == EXAMPLES:
                continue
        else:
            say("  packing them")
            packs.compact(open_store(place / "store"))
        row = f"{size.rows:,} example rows in {size.rows // size.shard:,} files{', packed' if packed else ''}"
        with (
            Apart("rna-ray, the store", ours, place, plan, against) as mine,
            Apart("DuckDB, one sorted file", peer, place, against) as theirs,
        ):
            both = (lambda side=side: (side(), side.said, side()) for side in (mine, theirs))
            found = in_turn(*both, repeat=repeat, name=row)
        said = [turns[-1][1] for turns in found]
        assert said[0] == said[1], f"the accuracies differ: {set(said[0].items()) ^ set(said[1].items())}"
        goal = within(1.3) if size.shard == EXAMPLES else None
        for what, of in (("table", 0), ("paired comparison", 2)):
            sides = [side.side([turn[of] for turn in turns]) for side, turns in zip((mine, theirs), found, strict=True)]
            yield Comparison(row=f"{row}: {what}", ours=sides[0], peer=sides[1], unit="seconds", goal=goal)
        yield Comparison(
            row=f"{row}: memory", unit="MB", goal=at_most(MEGABYTES), ours=held(mine.what, sides[0]),
            peer=held(theirs.what, sides[1]),
        )


def held(what: str, side: Side) -> Side:
    """Return the memory of a side as what was measured."""
    return Side(what, [Measured(one.megabytes, one.megabytes, one.load) for one in side.found], side.threads)


# -- the two ways ------------------------------------------------------------------------------------------------------


def ours(turn: Turn, place: Path, sweep: str, against: str) -> None:
    """Measure the seconds of the table's cells, then of the comparisons."""
    from rna_ray.analysis import comparisons
    from rna_ray.analysis.cells import ablation
    from rna_ray.store import connect

    store = open_store(place / "store")
    while True:
        started = time.perf_counter()
        connection = connect(store)
        cells = ablation(connection, sweep)
        turn(
            time.perf_counter() - started,
            said={(cell.variant, cell.attack, cell.knowledge): round(cell.accuracy or 0, 9) for cell in cells},
        )
        started = time.perf_counter()
        with mock.patch.object(comparisons, "paired", return_value=None):  # the bootstrap
            comparisons.compare(connection, cells, against)
        turn(time.perf_counter() - started)


def peer(turn: Turn, place: Path, against: str) -> None:
    """Measure the seconds of the same two questions."""
    import duckdb

    while True:
        started = time.perf_counter()
        connection = duckdb.connect()
        connection.execute(BY_EXAMPLE.format(path=place / "sorted.parquet"))
        cells = connection.execute(CELLS).fetchall()
        connection.execute(SEEDS.format(path=place / "sorted.parquet")).fetchall()
        turn(time.perf_counter() - started, said={tuple(cell[:3]): cell[4] for cell in cells})
        started = time.perf_counter()
        connection.execute(DIFFERENCES, {"against": against}).fetchall()
        turn(time.perf_counter() - started)


# -- the rows ----------------------------------------------------------------------------------------------------------


def sweep(size: Size) -> Sweep:
    """Return the sweep whose rows they are."""
    return {
        "name": "made-up", "data": {"name": "cifar10", "root": "nowhere"},
        "network": {"name": "resnet18", "norm": "BN+IN"}, "training": {"objective": "blackbox"},
        "grid": {
            "training.lr": [round(0.01 * (at + 1), 2) for at in range(size.variants)], "seed": list(range(size.seeds))
        },
        "evaluation": [{
            "attack": "pgd", "steps": list(STEPS[: size.steps]), "knowledge": list(KNOWLEDGE), "draws": DRAWS,
            "examples": EXAMPLES, "shard": size.shard, "batch": 100,
        }],
    }  # fmt: skip


def fill(place: Path, size: Size) -> tuple[str, str]:
    """Write the store and the sorted file; return the names of the sweep and of its first variant."""
    plan = planned(sweep(size), digest=lambda data: "content")  # there are no such images
    say(f"  writing {size.rows:,} rows")
    store, draw = open_store(place / "store"), np.random.default_rng(0)
    store.put_plan(plan.sweep, from_rows("plans", list(plan_rows(plan))))
    units = {unit.id: unit for unit in plan.units}
    for view in ("trials", "evaluations", "examples"):
        Path(store.uri, view).mkdir()
    for unit in (one for one in plan.units if one.kind == "train"):
        put(store, "trials", unit, made_up.rows("trials", 1, unit_id=unit.id, state="finished", log2_paths=20.0))
    cells = sorted(plan.cells, key=lambda cell: (*column(cell), cell.row["seed"]))
    writer = None
    for _, same in itertools.groupby(cells, key=column):  # a row group each, of all its seeds
        parts = []
        for cell in same:
            for unit in (units[one] for one in cell.units):
                rows = examples(unit, draw)
                put(store, "examples", unit, rows)
                put(store, "evaluations", unit, evaluation(unit))
                parts.append(labelled(rows, cell))
        writer = writer or pq.ParquetWriter(place / "sorted.parquet", parts[0].schema, compression="zstd")
        writer.write_table(pa.concat_tables(parts).sort_by("example"))
    assert writer is not None
    writer.close()
    return plan.sweep, plan.trials[0].variant


def put(store: Store, view: str, unit: Unit, rows: pa.Table) -> None:
    """Write a unit's rows of a view where the store has them, sealed; what is thrown away need not reach the disk."""
    Path(store.uri, layout.rows_file(view, unit.id)).write_bytes(sealed(rows)[0])


def column(cell: Cell) -> tuple[str, str, str]:
    """Return which cell of the table it fills, with those of other seeds."""
    return cell.variant, cell.attack, cell.knowledge


def labelled(rows: pa.Table, cell: Cell) -> pa.Table:
    """Return the rows of a cell with its labels, and its seed, in place of those that units have."""
    rows = rows.drop_columns(["attack", "knowledge"])
    for name, value in zip(("variant", "attack", "knowledge", "seed"), (*column(cell), cell.row["seed"]), strict=True):
        rows = rows.append_column(name, pa.array([value] * len(rows)))
    return rows


def evaluation(unit: Unit) -> pa.Table:
    """Return the record of a unit."""
    start, stop = unit.settings["examples"]
    return made_up.rows(
        "evaluations", 1, **shared(unit), start=start, stop=stop, batch=100, path_sharing="example", eval_mode="eval",
        random_output=True, batch_statistics=False, eps_255=8.0, eps_space="pixel", threat="linf", classes=CLASSES,
        draws=DRAWS,
    )  # fmt: skip


def examples(unit: Unit, draw: np.random.Generator) -> pa.Table:
    """Return the rows of the examples of a unit, each draw right by a chance of the example's own."""
    start, stop = unit.settings["examples"]
    index = np.arange(start, stop, dtype=np.int32)
    labels = (index * 7919 % CLASSES).astype(np.int16)
    draws = pa.repeat(pa.scalar(DRAWS, pa.int16()), len(index))
    columns = {"example": pa.array(index), "label": pa.array(labels), "draws": draws}
    for image, chance in (("natural", 0.85), ("adversarial", 0.5)):
        right = draw.random((len(index), DRAWS)) < draw.beta(4 * chance, 4 * (1 - chance), (len(index), 1))
        predicted = np.where(right, labels[:, None], (labels[:, None] + 1) % CLASSES).astype(np.int16)
        offsets = pa.array(np.arange(0, predicted.size + 1, DRAWS, dtype=np.int32))
        columns[f"{image}_predictions"] = pa.ListArray.from_arrays(offsets, pa.array(predicted.ravel()))
        columns[f"{image}_correct"] = pa.array(right.sum(1).astype(np.int16))
    for name in ("natural_margin", "margin", "linf", "l2"):
        columns[name] = pa.array(draw.random(len(index), np.float32))
    rows = made_up.rows("examples", len(index), **shared(unit))
    for name, values in columns.items():
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), values)
    return rows


def shared(unit: Unit) -> dict[str, Any]:
    """Return what a unit's record and its examples have in common."""
    settings = unit.settings
    return {
        "unit_id": unit.id, "evaluation": settings["evaluation"], "network_id": settings["network"],
        "attack": settings["attack"]["name"], "knowledge": settings["knowledge"],
    }  # fmt: skip


if __name__ == "__main__":
    main(compare, __doc__)
