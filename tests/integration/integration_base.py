"""The command line as a process of its own, watched from outside: its store, its workers, its end."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from rna_ray.store import Store, open_store
from rna_ray.training.checkpoint import Checkpoints

SECONDS = 150.0  # for anything that is waited for; a machine may be busy
MAIN = [sys.executable, "-c", "from rna_ray.cli import main; main()"]
TRIAL, EVALUATOR = "ray::ImplicitFunc", "ray::Evaluator.perform"
UNITS = {"trials": 2, "evaluations": 10}  # of the sweep that most tests run
Found = TypeVar("Found")


@dataclasses.dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """What `--json` printed; nothing else may be on stdout."""
        return json.loads(self.out)


class Driver:
    """A running `rna-ray`, in a session of its own so that all it started can be found and ended."""

    def __init__(self, *words: object) -> None:
        self.process = subprocess.Popen(
            [*MAIN, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def ended(self) -> Ended:
        out, err = self.process.communicate(timeout=SECONDS)
        return Ended(self.process.returncode, out, err)

    def workers(self, title: str) -> list[int]:
        """Return the ids of this driver's processes that Ray gave such a title."""
        return [pid for pid, name in processes_of(self.process.pid) if name.startswith(title)]

    def until(self, look: Callable[[], Found]) -> Found:
        """Return what `look` finds, once it finds anything; the driver must not end before."""
        return until(look, self.process)

    def clean(self) -> str:
        """Kill what is left of the session; return what the driver said on stderr and nobody has read."""
        for pid in [self.process.pid, *(pid for pid, _ in processes_of(self.process.pid))]:
            if pid != self.process.pid or self.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return self.process.communicate()[1]


Start = Callable[..., Driver]
Run = Callable[..., Ended]
Clusters = Callable[[int], str]


def until(look: Callable[[], Found], process: subprocess.Popen[str] | None = None) -> Found:
    """Return what `look` finds, once it finds anything."""
    deadline = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, "waited in vain"
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the driver ended before: {process.communicate()}")
        time.sleep(0.01)
    return found


def undisturbed(*asked: object) -> Store:
    """Return the store, the last of what is asked, of a sweep that one process did."""
    *sweep, store = asked
    driver = Driver("run", *sweep, "--store", store, "--address", "inline")
    try:
        assert driver.ended().code == 0
    finally:
        driver.clean()
    return open_store(store)


def processes_of(session: int) -> Iterator[tuple[int, str]]:
    """Yield the id and the command line of each process of a session; Ray writes there what a worker does."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if os.getsid(int(entry.name)) == session:
                    yield int(entry.name), (entry / "cmdline").read_text(errors="replace")


def epochs_behind(store: Path) -> dict[str, list[float]]:
    """Return the seconds of the epochs that each unit in training has behind it, by what it would resume from."""
    opened = open_store(store)
    found = {folder.name: Checkpoints(opened, folder.name).resume() for folder in store.glob("checkpoints/*")}
    return {unit: [row["seconds"] for row in state[1]["rows"]] for unit, state in found.items() if state is not None}
