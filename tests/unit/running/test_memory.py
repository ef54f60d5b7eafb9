"""Memory that runs out under a real limit: the failure says what fits, and the unit is done with that where it may."""

from __future__ import annotations

import dataclasses
import gc
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_work import evaluation, train

from rna_ray.running import memory, work
from rna_ray.running.tasks import Job
from rna_ray.running.work import perform
from rna_ray.store import Store

SCRIPT = """
import json, resource, sys
sys.path.insert(0, {tests!r})
import torch
from test_work import evaluation, train
from rna_ray.running import work
from rna_ray.running.tasks import Job
from rna_ray.sweep import units

def do(unit, smaller=False):
    given = dict(unit=unit, store={store!r}, root=None, download=False, threads=1, device="cpu")
    done = work.perform(Job(**given, smaller_batches=smaller, attempt=2 if smaller else 1))
    return done.state, done.error

def wide(batch):
    unit = train("BN+IN", epochs=1, objective="natural", batch=batch)
    settings = dict(unit.settings, network=dict(unit.settings["network"], width=32))
    settings["data"] = dict(settings["data"], train_examples=1024)
    return units.train(settings)

small, large = wide(32), wide(1024)
print(json.dumps(do(small)))
do(evaluation(small, (0, 4)))  # whatever is loaded at first is there before the limit is
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + {room} * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
print(json.dumps(do(large)))
print(json.dumps(do(large, smaller=True)))
print(json.dumps(large.id))
"""


@pytest.mark.slow  # a process of its own, which trains a network of some size
def test_a_training_without_memory_says_which_batch_fits_and_is_done_with_it_where_it_may(store: Store) -> None:
    code = SCRIPT.format(tests=str(Path(__file__).parent), store=store.uri, room=90)
    # What is freed goes back at once, and no thread reserves addresses of its own: the limit counts them all.
    given_back = {
        "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, env={**os.environ, **given_back}
    )
    assert ended.returncode == 0, ended.stderr
    first, (state, error), again, unit = map(json.loads, ended.stdout.splitlines())
    assert first == ["done", ""] and state == "failed"
    assert "GiB free within the process's limit of " in error
    fits = said(error, "train", "training.batch", 1024)
    assert again == ["done", ""]
    (failure,) = store.failures()[unit]
    assert failure["error"] == "OutOfMemory" and "/fit.py" in failure["traceback"]  # where it ran out
    rows = {row["unit_id"]: row for row in store.read("trials").to_pylist()}
    done = rows.pop(unit)
    assert [(row["batch"], row["batch_asked"]) for row in rows.values()] == [(None, None)]
    assert json.loads(done["settings"])["training"]["batch"] == 1024  # what the unit's id counts
    (epoch,) = (row for row in store.read("epochs").to_pylist() if row["unit_id"] == unit)
    assert epoch["train_examples"] == 1024
    assert (done["batch_asked"], 1024 % done["batch"], done["batch"] <= fits) == (1024, 0, True)


def said(error: str, kind: str, key: str, batch: int) -> int:
    """Return the batch that fits, of the sentence that a unit failed with."""
    assert error.startswith(f"OutOfMemory: out of memory with a batch of {batch}: "), error
    assert "tried to allocate" in error or "could not create a primitive" in error
    fits = int(error.split(f"write {key}: ")[1].split(",")[0])
    assert batch % fits == 0 and fits < batch
    assert error.endswith(
        f"; a batch of {fits} fits: write {key}: {fits}, or resources.{kind}.smaller_batches: true"
    )  # fmt: skip
    return fits


def test_an_evaluation_without_memory_says_which_batch_fits_and_is_done_with_it_where_it_may(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, most = work.evaluate, 40

    def evaluate(settings: dict[str, Any], *given: Any, **more: Any) -> Any:
        if settings["batch"] > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4194304 bytes.")
        return plain(settings, *given, **more)

    monkeypatch.setattr(work, "evaluate", evaluate)
    network = train("BN+IN", epochs=1, objective="natural")
    unit = evaluation(network, (0, 100), batch=100, draws=1)
    job = Job(unit=unit, store=store.uri, root=None, download=False, threads=1, device="cpu", attempt=1)
    assert perform(dataclasses.replace(job, unit=network)).state == "done"
    assert said(perform(job).error, "evaluate", "batch", 100) == 25
    assert perform(dataclasses.replace(job, attempt=2, smaller_batches=True)).state == "done"
    (failure,) = store.failures()[unit.id]
    assert failure["error"] == "OutOfMemory" and "in evaluate" in failure["traceback"]  # where it ran out
    (done,) = store.read("evaluations").to_pylist()
    assert json.loads(done["settings"])["batch"] == 100 and (done["batch"], done["batch_asked"]) == (25, 100)
    assert sorted(store.read("examples")["example"].to_pylist()) == list(range(100))


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                      "tried to allocate 4096 bytes. Error code 12 (Cannot allocate memory)"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("the size of tensor a must match"), False),
        (ValueError("out of memory"), False),
    ],
)  # fmt: skip
def test_what_says_that_memory_ran_out(error: Exception, out: bool) -> None:
    assert memory.exhausted(error) is out


def test_what_was_asked_is_what_counts_of_a_long_text() -> None:
    gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 3 GiB")
    assert memory.asked(gpu) == "Tried to allocate 2.00 GiB"
    assert memory.asked(RuntimeError("x. you tried to allocate 4096 bytes. Error")) == "tried to allocate 4096 bytes"
    assert memory.asked(MemoryError()) == "MemoryError"


@pytest.fixture
def small_heap() -> Iterator[None]:
    """What is alive before the test is none of the garbage collector's business: it would look at all of torch."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(("most", "found"), [(128, 128), (60, 32), (1, 1), (0, None)])
@pytest.mark.usefixtures("small_heap")
def test_the_largest_half_that_fits_is_found(most: int, found: int | None) -> None:
    tried: list[int] = []

    def attempt(batch: int) -> None:
        tried.append(batch)
        if batch > most:
            raise MemoryError

    assert memory.fitting(256, attempt) == found
    assert tried[0] == 128 and tried == sorted(tried, reverse=True)


def test_an_attempt_that_fails_otherwise_finds_nothing() -> None:
    def attempt(batch: int) -> None:
        raise ValueError(batch)

    assert memory.fitting(256, attempt) is None


def test_frames_let_go_of_what_they_hold() -> None:
    alive: list[Any] = []

    class Large:
        def __del__(self) -> None:
            alive.clear()

    def held() -> None:
        here = Large()
        alive.append(id(here))
        raise MemoryError

    try:
        held()
    except MemoryError as error:
        assert alive
        memory.release(error)
        assert not alive and error.__traceback__ is not None


def test_the_peak_of_memory_counts_from_where_it_is_forgotten() -> None:
    device = torch.device("cpu")
    memory.forget_peak()
    before = memory.peak(device)
    assert before is not None  # Linux tells
    with mmap.mmap(-1, 2**28) as held:  # not from the memory that the process keeps
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        high = memory.peak(device)
    assert high is not None and high - before > 200 * 2**20
    kept = memory.peak(device)
    assert kept is not None and abs(kept - high) < 2**22  # the kernel counts by batches of pages
    memory.forget_peak()
    after = memory.peak(device)
    assert after is not None and high - after > 200 * 2**20
