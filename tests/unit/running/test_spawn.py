"""A unit of several workers is one unit: done once, failed with the error of any of them, gone with its process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spawn_base
from test_work import train

from rna_ray.errors import UnitError
from rna_ray.running import spawn, work
from rna_ray.running.tasks import Done, Job
from rna_ray.store import open_store

pytestmark = pytest.mark.slow  # starts processes
SECONDS = 120


def job(store: Path, workers: int = 2) -> Job:
    return Job(
        unit=train(), store=str(store), root=None, download=False, threads=1, device="cpu", attempt=1, workers=workers
    )


def perform(store: Path, workers: int = 2) -> tuple[Done, list[dict[str, Any]]]:
    reported: list[dict[str, Any]] = []
    return work.perform(job(store, workers), reported.append), reported


def test_two_workers_do_the_unit_that_one_does(tmp_path: Path) -> None:
    (one, alone), (two, reported) = perform(tmp_path / "one", 1), perform(tmp_path / "two")
    assert (two.state, two.error, two.unit_id) == ("done", "", one.unit_id)
    assert [row["epoch"] for row in reported] == [1, 2]
    assert [row["loss"] for row in reported] == pytest.approx([row["loss"] for row in alone], abs=1e-5)
    (trial,) = open_store(tmp_path / "two").read("trials").to_pylist()
    assert (trial["state"], trial["epochs"], trial["kernel"]) == ("finished", 2, "mixture")
    assert open_store(tmp_path / "two").read("epochs").num_rows == 2
    kept = {path.name.split("-")[0] for path in (tmp_path / "two" / "checkpoints" / two.unit_id).iterdir()}
    assert kept == {"best", "last"} and not multiprocessing.active_children()


def test_an_error_of_any_worker_is_the_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "train_together", spawn_base.fail_in_the_second)
    done, _ = perform(tmp_path)
    assert (done.state, done.error) == ("failed", "ZeroDivisionError: the second worker has no images")
    (failure,) = open_store(tmp_path).read("failures").to_pylist()
    assert failure["error"] == "ZeroDivisionError"
    assert "in worker 1:" in failure["traceback"] and "fail_in_the_second" in failure["traceback"]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("die", "how"),
    [(spawn_base.die_in_the_second, "with exit status 7"), (spawn_base.kill_the_second, r"of signal 9 \(Killed\)")],
)
def test_a_worker_that_dies_is_named_and_the_others_end(tmp_path: Path, die: spawn.Do, how: str) -> None:
    with pytest.raises(UnitError, match=f"worker 1 of 2 died {how}"):
        spawn.together(die, job(tmp_path), print)
    assert not multiprocessing.active_children()


PARENT = """
if __name__ == "__main__":  # not in the workers, which begin by running this file
    import sys
    from rna_ray.running import spawn, tasks
    from rna_ray.sweep.units import train
    import spawn_base
    job = tasks.Job(
        unit=train({}), store="", root=None, download=False, threads=1, device="cpu", attempt=1, workers=2
    )
    spawn.together(spawn_base.wait_for_ever, job, lambda row: print(row["pid"], flush=True))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(how: signal.Signals, tmp_path: Path) -> None:
    """SIGKILL is for that process alone, as where memory runs out; Ctrl-C goes to all of them."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.callback(parent.communicate)
        stack.callback(parent.kill)
        assert parent.stdout is not None
        workers = [os.pidfd_open(int(parent.stdout.readline())) for _ in range(2)]
        (os.kill if how is signal.SIGKILL else os.killpg)(parent.pid, how)
        for worker in workers:
            stack.callback(os.close, worker)
            assert select.select([worker], [], [], SECONDS)[0], "a worker outlives its unit"
        assert parent.wait(SECONDS) == -how
