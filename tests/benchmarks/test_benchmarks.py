"""The benchmarks run: they print their table and keep every measurement. No time is asserted."""

from __future__ import annotations

import importlib
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch

from rna_ray.networks.precision import multiplies_bf16
from rna_ray.sweep import cost

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def bench(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARKS / "bench.py", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def table(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    """Return the rows of the table that was printed."""
    assert done.returncode == 0, done.stderr
    header, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()]
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_sides_take_turns_and_the_ratio_says_how_many_times_as_good_ours_is() -> None:
    pairs = SimpleNamespace(**runpy.run_path(str(BENCHMARKS / "pairs.py")))
    asked: list[str] = []
    values = {"ours": iter([9, 1, 3, 2]), "peer": iter([9, 6, 4, 5])}

    def measure(name: str) -> object:
        asked.append(name)
        return pairs.measured(next(values[name]))

    found = pairs.in_turn(lambda: measure("ours"), lambda: measure("peer"), repeat=3, name="row")
    assert asked == ["ours", "peer", "ours", "peer", "peer", "ours", "ours", "peer"]  # the first two warm up
    ours, peer = (pairs.Side(name, of) for name, of in zip(values, found, strict=True))
    assert (ours.median, peer.median) == (2, 5)
    given = {"row": "row", "ours": ours, "peer": peer}
    assert pairs.Comparison(**given, unit="seconds").ratio == 2.5
    assert pairs.Comparison(**given, unit="draws a second").ratio == 0.4
    goals = (pairs.times(2.5), pairs.times(2.6), pairs.within(1), pairs.at_most(1.9), pairs.at_most_more(-3))
    reached = [pairs.Comparison(**given, unit="seconds", goal=goal).reached for goal in goals]
    assert reached == [True, False, True, False, True]


ROWS = {
    "training": {"training step"},
    "evaluation": {
        "PGD-5 under eot-10, 8", "PGD-5 under fixed, 16", "PGD-5 under fixed, 8", "natural answers, 16",
        "natural answers, 8",
    },
    "autoattack": {"AutoAttack standard"},
    "nothing": {
        "252 units that do nothing", "252 units that do nothing: memory of the driver", "20 Tune trials that do nothing"
    },
    "resume": {"plan of about 500 units", "resuming a sweep of 253 units"},
    "tables": {"1", "100"},
    "sweeps": {
        "sweep of 3 trials", "sweep of 3 trials: wall time", "sweep of 3 trials: seconds of its rows",
        "sweep of 3 trials: peak memory of a trial", "sweep of 3 trials: peak memory of an evaluator",
    },
}  # fmt: skip
"""What the rows of a benchmark are called, up to a comma, or their images: of all but `compiling`, which takes minutes,
`gpu`, and what is tested by itself."""


def test_every_benchmark_is_tested_but_those_that_take_minutes_or_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    assert ROWS.keys() | {"start", "certification", "compiling", "gpu"} == {*importlib.import_module("bench").NAMES}


def test_long_units_are_compiled_where_short_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    evaluation = importlib.import_module("evaluation")
    batch, many = evaluation.BATCH[False], evaluation.LONG[False]
    _, units = evaluation.asked("fp32", batch, many, **evaluation.SIZES[False])
    long = {of for of, job in units.items() if job.macs >= 2 * cost.COMPILED_MACS}
    assert long == {("eot-10", batch), *many.items()} and len(units) == 5


@pytest.mark.timeout(1200)  # some processes that import torch, on whatever machine
def test_a_table_is_printed_and_every_measurement_is_kept(tmp_path: Path) -> None:
    rows = table(bench("start", "certification", "--small", "--repeat", "2", folder=tmp_path))
    expected = ["start: rna-ray plan", "start: rna-ray status", "certification"]
    assert [row["row"].partition(",")[0] for row in rows] == expected + ["certification"] * 2 * multiplies_bf16()
    assert all(float(row["ours, median"]) > 0 < float(row["ratio"]) and row["reached"] in ("yes", "no") for row in rows)
    kept = pq.read_table(tmp_path / "benchmarks.parquet").to_pylist()
    assert len(kept) == len(rows) * 2 * 2  # sides, repeats
    assert {(row["side"], row["nth"]) for row in kept} == {(side, nth) for side in ("ours", "peer") for nth in (0, 1)}
    assert {row["row"] for row in kept} == {row["row"] for row in rows}
    assert all(row["value"] > 0 and row["small"] and torch.__version__.startswith(row["torch"]) for row in kept)


@pytest.mark.timeout(1800)  # some processes that import torch, and graphs to be made, on whatever machine
@pytest.mark.parametrize("name", ROWS)
def test_every_other_benchmark_prints_its_rows_and_keeps_its_measurements(name: str, tmp_path: Path) -> None:
    rows = table(bench(name, "--small", "--repeat", "1", folder=tmp_path))
    named = " images" if name == "evaluation" else ","
    assert {row["row"].partition(named)[0] for row in rows} == ROWS[name]
    assert all(float(row["ours, median"]) > 0 for row in rows)
    assert all(row["reached"] in ("yes", "no") for row in rows if row["goal"])
    kept = pq.read_table(tmp_path / "benchmarks.parquet").to_pylist()
    assert {(row["row"], row["side"]) for row in kept} == {
        (row["row"], side) for row in rows for side in ("ours", "peer") if side == "ours" or row["peer"]
    }
    assert all(row["small"] and torch.__version__.startswith(row["torch"]) for row in kept)


@pytest.mark.timeout(1200)
def test_profiles_say_where_the_time_of_a_step_and_of_a_sweep_goes(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "profiles.py", "--small"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line]
    assert sum(float(share) for *_, share in rows if share[0].isdigit()) == pytest.approx(200, abs=1)  # two tables
    seconds = {name: float(found) for name, found, share in rows if share[0].isdigit()}
    for name in ("convolutions", "norms", "casts, copies and reordering", "trainings", "evaluations"):
        assert seconds[name] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_benchmark_says_so(tmp_path: Path) -> None:
    done = bench("gpu", folder=tmp_path)
    assert done.returncode == 1 and not done.stdout
    said = "gpu failed: make bench-gpu needs a GPU that torch can use, and there is none here"
    assert (done.stderr.splitlines()[-3], done.stderr.splitlines()[-1]) == (said, "failed: gpu")
    assert not (tmp_path / "benchmarks.parquet").exists()
