"""Processes that die, are interrupted or meet damaged files: what is finished is kept, the rest is done, once."""

from __future__ import annotations

import os
import platform
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from integration_base import EVALUATOR, MAIN, SECONDS, TRIAL, UNITS, Run, Start, epochs_behind, undisturbed, until

from rna_ray.running import drivers
from rna_ray.store import Store, differences, open_store
from rna_ray.training.checkpoint import Checkpoints

MIDDLE = range(2, 6)  # epochs of 8 after which a training is disturbed
LONG = ("--set", "training.epochs=60")
"""Of some seconds, so that none ends before it hears that it is to stop."""


def in_the_middle(store: Path) -> str | None:
    """Return a unit in the middle of its training, if there is one."""
    return next((unit for unit, epochs in epochs_behind(store).items() if len(epochs) in MIDDLE), None)


def rows_of(store: Path) -> dict[str, list[float]]:
    """Return the seconds of the epochs of each trained unit."""
    found: dict[str, list[float]] = {}
    for row in open_store(store).read("epochs").sort_by([("epoch", "ascending")]).to_pylist():
        found.setdefault(row["unit_id"], []).append(row["seconds"])
    return found


def test_a_trial_that_is_killed_goes_on_from_its_checkpoint(
    start: Start, sweep: Path, store: Path, reference: Store
) -> None:
    driver = start("run", sweep, "--store", store, "--json")
    unit = driver.until(lambda: in_the_middle(store))
    working = driver.workers(TRIAL)  # two at once, as there is nothing to evaluate yet
    for pid in working:
        os.kill(pid, signal.SIGSTOP)  # so that what is read here is what it leaves behind
    before = epochs_behind(store)[unit]
    for pid in working:
        os.kill(pid, signal.SIGKILL)
    ended = driver.ended()
    assert ended.code == 0 and not ended.document["failures"], ended.err
    assert 2 <= len(before) < 8 and rows_of(store)[unit][: len(before)] == before  # not one of them was done again
    assert differences(reference, open_store(store)) == []


def test_an_evaluator_that_is_killed_leaves_its_unit_to_another(
    start: Start, sweep: Path, store: Path, reference: Store
) -> None:
    driver = start("run", sweep, "--store", store, "--json", "--set", "resources.evaluate.actors=1")
    (killed,) = driver.until(lambda: driver.workers(EVALUATOR))
    os.kill(killed, signal.SIGKILL)
    (other,) = driver.until(lambda: driver.workers(EVALUATOR) if killed not in driver.workers("ray::") else [])
    assert other != killed
    ended = driver.ended()
    assert ended.code == 0 and not ended.document["failures"], ended.err
    rows = open_store(store)
    assert rows.read("evaluations").num_rows == UNITS["evaluations"] and not rows.failures()
    assert differences(reference, rows) == []


@pytest.fixture(scope="module")
def long_reference(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return undisturbed(sweep, *LONG, tmp_path_factory.mktemp("long") / "store")


@pytest.mark.parametrize("address", ["local", "inline"])
def test_ctrl_c_keeps_what_is_done_and_resume_does_the_rest(
    address: str, start: Start, run: Run, sweep: Path, store: Path, long_reference: Store
) -> None:
    driver = start("run", sweep, *LONG, "--store", store, "--address", address)
    unit = driver.until(lambda: in_the_middle(store))
    (seen,) = drivers.at_work(open_store(store))
    assert (seen.sweep, seen.pid, seen.state) == ("small", driver.process.pid, "running")
    os.killpg(driver.process.pid, signal.SIGINT)  # as a terminal does: to the driver and all its children
    ended = driver.ended()
    assert (ended.code, ended.out) == (130, "") and "Traceback" not in ended.err
    assert ended.err.splitlines()[-1].startswith("stopped; what is finished is kept")
    where = " --address inline" if address == "inline" else ""
    assert ended.err.endswith(f"rna-ray resume small --store {store}{where}\n")
    before, left = epochs_behind(store)[unit], Checkpoints(open_store(store), unit).resume()
    assert left is not None and left[1]["position"]["step"] > 0  # it left within an epoch, with all that it had done
    assert drivers.all_of(open_store(store)) == [] and not open_store(store).failures()
    resumed = run("resume", "small", "--store", store, "--json")
    assert resumed.code == 0, resumed.err
    assert rows_of(store)[unit][: len(before)] == before
    assert differences(long_reference, open_store(store)) == []


def test_sigterm_is_as_ctrl_c_and_ctrl_c_twice_leaves_at_once(
    start: Start, run: Run, sweep: Path, store: Path, reference: Store
) -> None:
    asked = ("--store", store, "--address", "inline")
    driver = start("run", sweep, *asked)
    driver.until(lambda: in_the_middle(store))
    driver.process.terminate()
    ended = driver.ended()
    assert ended.code == 130 and ended.err.splitlines()[-1].startswith("stopped; what is finished is kept")
    second = start("resume", "small", *asked)
    second.until(lambda: drivers.at_work(open_store(store)))
    for _ in range(2):
        second.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    ended = second.ended()
    assert ended.code == 130 and "Traceback" not in ended.err
    assert run("resume", "small", *asked).code == 0
    assert differences(reference, open_store(store)) == []


FULL = """
set -e
mkdir -p {store}
mount -t tmpfs -o size={small} tmpfs {store}
code=0; {main} run {sweep} --store {store} --address inline 2> {said} || code=$?
echo $code; ls {store}/failures 2> /dev/null | wc -l; ls {store}/drivers | wc -l
mount -o remount,size=64m {store}
{main} resume small --store {store} --address inline --json > {said}.json
cp -r {store} {copy}
"""


def test_a_full_disk_ends_the_run_and_is_no_fault_of_a_unit(
    sweep: Path, store: Path, reference: Store, tmp_path: Path
) -> None:
    said, copy = tmp_path / "said", tmp_path / "copy"
    script = FULL.format(
        store=store, sweep=sweep, said=said, copy=copy, small="300k", main=" ".join(map(shlex.quote, MAIN))
    )
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces are not permitted here")
    ended = subprocess.run(["unshare", "-m", "bash", "-c", script], capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 0, ended.stderr + said.read_text()
    assert ended.stdout.split() == ["1", "0", "0"]  # exit status; no failure recorded; no driver left behind
    (last,) = (line for line in said.read_text().splitlines() if line.startswith("rna-ray: "))
    assert last.startswith("rna-ray: cannot write ") and "No space left on device; what is finished is kept" in last
    goes_on = f"rna-ray resume small --store {store} --address inline"
    assert last.endswith(f"and this goes on: {goes_on}") and "Traceback" not in last
    assert differences(reference, open_store(copy)) == []


def test_two_drivers_see_each_other_and_do_no_harm(
    start: Start, run: Run, sweep: Path, store: Path, reference: Store
) -> None:
    asked = ("run", sweep, "--store", store, "--address", "inline")
    first = start(*asked)
    first.until(lambda: in_the_middle(store))
    first.process.send_signal(signal.SIGSTOP)  # so that it is not done before the second has begun
    second = start(*asked)
    second.until(lambda: len(drivers.at_work(open_store(store))) == 2)
    status = run("status", "--store", store)
    first.process.send_signal(signal.SIGCONT)
    for driver in (first, second):
        assert f"process {driver.process.pid}, since " in status.out
    ends = first.ended(), second.ended()
    assert [one.code for one in ends] == [0, 0]
    assert f"also at work on this store: small, on {platform.node()}, process {first.process.pid}, " in ends[1].err
    rows = open_store(store)
    assert {view: rows.read(view).num_rows for view in UNITS} == UNITS and differences(reference, rows) == []


def test_a_driver_that_is_killed_is_simply_run_again(
    start: Start, run: Run, sweep: Path, store: Path, reference: Store
) -> None:
    driver = start("run", sweep, "--store", store)
    driver.until(lambda: in_the_middle(store))
    driver.process.kill()  # its workers live on for some seconds, and write
    ended = run("run", sweep, "--store", store, "--json")
    assert ended.code == 0 and not ended.document["failures"], ended.err
    assert f"a driver ended without a word: small, on {platform.node()}, process {driver.process.pid}, " in ended.err
    until(lambda: not driver.workers("ray::ImplicitFunc"))
    rows = open_store(store)
    assert {view: rows.read(view).num_rows for view in UNITS} == UNITS
    assert differences(reference, rows) == []


def test_units_that_fail_are_recorded_and_the_rest_is_done(
    run: Run, sweep: Path, finished: Path, reference: Store
) -> None:
    trial = next(row["unit_id"] for row in reference.read("trials").to_pylist() if row["norm"] == "BN")
    others = [row["unit_id"] for row in reference.read("evaluations").to_pylist() if row["network_id"] != trial]
    for record in [*(finished / "evaluations").iterdir(), finished / "trials" / f"{trial}.parquet"]:
        record.unlink()
    in_the_way = [finished / "epochs" / f"{trial}.parquet", finished / "examples" / f"{others[0]}.parquet"]
    for path in in_the_way:  # where these units' rows should be
        path.unlink()
        path.mkdir()

    ended = run("run", sweep, "--store", finished, "--json")
    assert ended.code == 1
    failed = {one["unit"]: one for one in ended.document["failures"]}
    assert {unit: one["kind"] for unit, one in failed.items()} == {trial: "train", others[0]: "evaluate"}
    assert all("StoreError: cannot write" in one["error"] for one in failed.values())
    assert ended.document["units"] == {
        "train": {"done": 1, "ready": 0, "waiting": 0, "failed": 1, "blocked": 0, "early": 0},
        "import": {"done": 0, "ready": 0, "waiting": 0, "failed": 0, "blocked": 0, "early": 0},
        "evaluate": {"done": 5, "ready": 0, "waiting": 0, "failed": 1, "blocked": 4, "early": 0},
        "probe": {"done": 0, "ready": 0, "waiting": 0, "failed": 0, "blocked": 0, "early": 0},
        "certify": {"done": 0, "ready": 0, "waiting": 0, "failed": 0, "blocked": 0, "early": 0},
    }
    rows = open_store(finished)
    assert {unit: len(attempts) for unit, attempts in rows.failures().items()} == {trial: 1, others[0]: 1}

    left = run("run", sweep, "--store", finished, "--json", "--retry", "none")
    assert (left.code, left.document["ran"]) == (1, 0)

    for path in in_the_way:
        path.rmdir()
    mended = run("run", sweep, "--store", finished, "--json", "--retry", "all")
    assert (mended.code, mended.document["ran"]) == (0, 6), mended.err
    assert differences(reference, rows) == []
    attempts = {row["unit_id"]: row["attempt"] for view in UNITS for row in rows.read(view).to_pylist()}
    assert {unit for unit, attempt in attempts.items() if attempt == 2} == {trial, others[0]}
