"""A unit heeds its driver, and its limit."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_drivers import left_behind
from test_work import evaluation, train

from rna_ray.errors import LimitError, StoreError
from rna_ray.running import drivers, watch, work
from rna_ray.running.tasks import Done, Job
from rna_ray.running.watch import check_in, watching
from rna_ray.store import Store, compare
from rna_ray.store.records import from_rows
from rna_ray.training.checkpoint import Checkpoints

SECONDS = 60.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", {True: 0.01, False: 0.01})
    monkeypatch.setattr(watch, "VISIBLE_SECONDS", 0.2)
    watch._seen.clear()


def job(store: Store, unit: Any = None, **said: Any) -> Job:
    given = {"unit": unit or train(), "store": store.uri, "root": None, "download": False, "threads": 1}
    return Job(**{**given, "device": "cpu", "attempt": 1, "driver": "ab12", **said})


def asked(job: Job, store: Store, change: Callable[[], object]) -> str:
    """Return the reason for which a unit is to stop after a change."""
    with watching(job, store) as found:
        time.sleep(0.1)
        assert not found.asked()
        change()
        deadline = time.monotonic() + SECONDS
        while not found.asked():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)
        return found.reason


@pytest.mark.slow
def test_a_unit_is_to_stop_with_its_driver(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "BEAT_SECONDS", 0.05)
    one = left_behind(store)
    path = Path(store.uri, "drivers", "ab12.json")
    assert asked(job(store), store, lambda: left_behind(store, state="stopping")) == "the run is stopping"
    left_behind(store)
    assert asked(job(store), store, path.unlink).endswith(": the driver has left")
    left_behind(store)
    monkeypatch.setattr(drivers, "STALE_SECONDS", 0.3)
    started = time.monotonic()
    assert asked(job(store), store, lambda: None).endswith("the driver was not seen in the store for a minute")
    assert time.monotonic() - started >= 0.3
    monkeypatch.setattr(drivers, "STALE_SECONDS", 3.0)
    with watching(job(store), store) as found:
        for beat in range(8):  # one that is seen anew is at work, whatever the clocks say
            left_behind(store, seen_at=f"2020-01-01T00:00:0{beat}+00:00")
            time.sleep(0.5)
        assert not found.asked()
    assert one.id == "ab12"


def test_a_file_that_is_missing_for_a_moment_stops_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "BEAT_SECONDS", 2.0)
    left_behind(store)
    with watching(job(store), store) as found:
        Path(store.uri, "drivers", "ab12.json").unlink()
        time.sleep(0.2)
        left_behind(store)
        time.sleep(1.0)
        assert not found.asked()


def test_a_unit_that_does_not_see_its_driver_writes_nothing(store: Store) -> None:
    with pytest.raises(StoreError, match=r"does not see in .* the driver that gave it a unit: what lies there is not"):
        check_in(job(store), store)
    done = work.perform(job(store))
    assert (done.state, Path(store.uri).exists()) == ("stopped", False)
    assert "does not see in" in done.error and done.error.endswith("such as a shared folder or s3://…")


def test_a_unit_waits_for_a_file_that_is_seen_late(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "VISIBLE_SECONDS", SECONDS)
    later = threading.Timer(0.3, left_behind, [store])
    later.start()
    assert check_in(job(store), store) is None
    later.join()


def test_a_unit_of_a_run_that_is_stopping_is_not_started(store: Store) -> None:
    left_behind(store, state="stopping")
    done = work.perform(job(store))
    assert (done.state, done.error) == ("stopped", "the run is stopping")
    assert not Path(store.uri, "checkpoints").exists() and not store.failures()


def test_a_driver_that_was_just_seen_is_not_looked_for_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", {True: SECONDS, False: SECONDS})
    left_behind(store)
    assert check_in(job(store), store) is None
    Path(store.uri, "drivers", "ab12.json").unlink()
    assert check_in(job(store), store) is None
    assert work.perform(job(store, train(objective="natural", epochs=1))).state == "done"


def test_a_training_is_stopped_by_its_driver_and_goes_on_in_the_next_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit, find, seen = train(epochs=40), drivers.find, threading.Event()
    left_behind(store)

    def looked(*given: Any) -> Any:
        found = find(*given)
        if found is not None and found.state == "stopping":
            seen.set()
        return found

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            left_behind(store, state="stopping")
            assert seen.wait(SECONDS)
            time.sleep(0.2)  # for what was seen to be taken note of

    monkeypatch.setattr(drivers, "find", looked)

    done = work.perform(job(store, unit), stop)
    assert (done.state, done.error) == ("stopped", "the run is stopping")
    state = Checkpoints(store, unit.id).resume() or pytest.fail("it keeps its state")
    assert state[1]["epoch"] == 2 and state[1]["position"]["step"] == 1
    assert not store.failures() and not store.done("trials")


def slow(seconds: float) -> Callable[..., None]:
    """Return what takes its time in small steps, as Python code does."""

    def wait(job: Job, store: Store, *rest: object) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.01)

    return wait


def test_a_unit_that_takes_too_long_fails_with_the_place_where_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(work._DO, "evaluate", slow(SECONDS))  # type: ignore[index]
    started = time.monotonic()
    done = work.perform(job(store, evaluation(train()), driver=None, limit=0.2))
    assert time.monotonic() - started < SECONDS / 2
    assert (done.state, done.error) == (
        "failed", "LimitError: the unit took longer than its limit of 0.2 s (resources.evaluate.limit)"
    )
    (failure,) = store.read("failures").to_pylist()
    assert failure["error"] == "LimitError" and "in wait\n    time.sleep(0.01)" in failure["traceback"]


def test_a_unit_within_its_limit_is_not_disturbed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(work._DO, "train", slow(0.02))  # type: ignore[index]
    for _ in range(30):  # time and unit end together: the interruption must not come after
        try:
            with watching(job(store), store, limit=0.02):
                time.sleep(0.02)
        except LimitError:
            pass
    for _ in range(1000):
        pass


HANGS = """
import sys, time
sys.path.insert(0, {tests!r})
from test_watch import job
from test_work import train
from rna_ray.running import watch, work
from rna_ray.store import open_store
watch.GRACE_SECONDS = 0.5

def stuck(job, store, *rest):
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass

work._DO["train"] = stuck
done = work.perform(job(open_store({store!r}), train(), driver=None, limit=0.3))
print("came back", done)
"""


@pytest.mark.slow
def test_a_unit_that_cannot_be_interrupted_is_recorded_and_its_process_leaves(store: Store) -> None:
    code = HANGS.format(tests=str(Path(__file__).parent), store=store.uri)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (1, "")
    said = "the unit took longer than its limit of 0.3 s (resources.train.limit), and did not end within 0.5 s"
    assert ended.stderr == f"rna-ray: {said} of being interrupted; its process leaves\n"
    (failure,) = store.read("failures").to_pylist()
    assert failure["error"] == "LimitError" and failure["message"].startswith(said)
    assert "in stuck\n" in failure["traceback"]
    # Who starts it again in the same run finds that it failed; the next run tries it.
    again = work.perform(job(store, train(), driver=None))
    assert again.state == "failed" and again.error == f"LimitError: {said} of being interrupted"


def test_a_look_during_which_all_stood_still_counts_as_a_part_of_the_drivers_silence(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(store)
    looks, find = [], drivers.find

    def stood_still(*given: Any) -> Any:  # as after a Ctrl-Z that came while the file was being read
        looks.append(10 * drivers.STALE_SECONDS)
        return find(*given)

    clock = types.SimpleNamespace(monotonic=lambda: time.monotonic() + sum(looks), sleep=time.sleep)
    monkeypatch.setattr(watch, "time", clock)
    monkeypatch.setattr(drivers, "find", stood_still)
    with watching(job(store), store) as found:
        deadline = time.monotonic() + SECONDS
        while not found.asked() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert found.reason.endswith("the driver was not seen in the store for a minute")
    assert len(looks) == 4  # the first saw it, the others were a third each


STANDS_STILL = """
import sys, time
sys.path.insert(0, {tests!r})
from test_watch import job
from rna_ray.running import drivers, watch
from rna_ray.store import open_store
drivers.STALE_SECONDS, watch.LOOK_SECONDS = {stale}, {{True: 0.1}}
store = open_store({store!r})
with watch.watching(job(store), store) as watched:
    time.sleep(0.5)  # it has seen the driver
    print(flush=True)
    sys.stdin.readline()
    print(watched.reason)
"""


@pytest.mark.slow
def test_a_unit_that_is_put_to_sleep_with_its_driver_goes_on_when_they_wake(store: Store) -> None:
    stale = 4.0
    code = STANDS_STILL.format(tests=str(Path(__file__).parent), store=store.uri, stale=stale)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    left_behind(store)
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as one:
        try:
            one.stdout.readline()
            one.send_signal(signal.SIGSTOP)  # as Ctrl-Z does
            time.sleep(1.5 * stale)
            one.send_signal(signal.SIGCONT)
            time.sleep(0.5)
            left_behind(store)  # the driver wakes a little later
            assert one.communicate("\n", timeout=SECONDS)[0] == "\n"
        finally:
            one.kill()


def test_stopping_is_no_failed_attempt_and_no_difference(store: Store, tmp_path: Path) -> None:
    left_behind(store)
    assert isinstance(work.perform(job(store, train(objective="natural", epochs=1))), Done)
    assert not compare.differences(store, store)
    assert from_rows("failures", []).num_rows == 0
