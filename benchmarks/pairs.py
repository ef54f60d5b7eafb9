"""Two ways of doing one thing, measured in turn on one machine: what every benchmark here gives, and how it is shown.

A side that computes is measured in a process of its own (`Apart`), so that its threads, caches and memory are its own;
one that is a command is run to its end (`Command`). Memory is the most that one process of a side held at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest import mock

K = TypeVar("K")
T = TypeVar("T")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
REPEAT = 5
LOOK_SECONDS = 0.02
"""How often a command is looked at for its memory …"""
SHORT = 10 * LOOK_SECONDS
"""… and how long it must last for these looks to say what it held at most."""
TREE = 25
"""At how many of these looks the processes below it are looked at too, which takes milliseconds."""


class Measured(NamedTuple):
    """One measurement."""

    value: float
    """In the unit of its row."""
    megabytes: float
    """The most that one process of the side held so far."""
    load: float
    """The load average of the last minute, when it ended."""


def measured(value: float, megabytes: float = 0.0) -> Measured:
    """Return what was just measured."""
    return Measured(value, megabytes, os.getloadavg()[0])


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two ways, and what was measured of it."""

    what: str
    found: Sequence[Measured]
    threads: int = CORES
    """The threads of each of its processes."""

    @property
    def median(self) -> float:
        """The median of its values."""
        return statistics.median(one.value for one in self.found)

    @property
    def megabytes(self) -> float:
        """The most memory that one process held; 0 where nobody looked."""
        return max(one.megabytes for one in self.found)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """A row: ours and the peer's values of one thing, in one unit; less is better, but for so many `a second`."""

    row: str
    ours: Side
    unit: str
    peer: Side | None = None
    """None where the goal is a number of its own."""
    goal: Goal | None = None
    """None for what is only shown beside."""

    @property
    def ratio(self) -> float | None:
        """How many times as good ours is as the peer, by the medians."""
        if self.peer is None:
            return None
        ours, peer = self.ours.median, self.peer.median
        return ours / peer if self.unit.endswith("a second") else peer / ours

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached."""
        return None if self.goal is None else self.goal.holds(self)


def by_precision(
    row: str, sides: Mapping[tuple[str, str], Side], goal: Goal, *, unit: str = "seconds", same: Goal | None = None
) -> Iterator[Comparison]:
    """Yield "ours" against the "peer" by precision: the fastest one against fp32, then each against itself.

    To be as fast is the goal in the same precision, but for bf16 where that says more.
    """
    rows = [("fp32", "fp32", goal)]
    if ("ours", "bf16") in sides:
        rows = [("bf16", "fp32", goal), ("fp32", "fp32", times(1)), ("bf16", "bf16", same or times(1))]
    for how, than, aim in rows:
        yield Comparison(
            row=f"{row}, {how} against {than}", ours=sides["ours", how], peer=sides["peer", than], unit=unit, goal=aim
        )


@dataclasses.dataclass(frozen=True)
class Goal:
    """What a row is to reach."""

    words: str
    holds: Callable[[Comparison], bool]


def times(least: float) -> Goal:
    """Return the goal of being so many times as good as the peer."""
    return Goal(f"{least:g} times the peer", lambda one: (one.ratio or 0.0) >= least)


def within(most: float) -> Goal:
    """Return the goal of taking at most so many times what the peer takes."""
    return Goal(f"within {most:g} times of the peer", lambda one: (one.ratio or 0.0) >= 1 / most)


def at_most(most: float) -> Goal:
    """Return the goal of a median of at most so much."""
    return Goal(f"at most {most:g}", lambda one: one.ours.median <= most)


def at_most_more(most: float) -> Goal:
    """Return the goal of a median of at most so much more than the peer's."""
    return Goal(
        f"at most {most:g} more", lambda one: one.peer is not None and one.ours.median - one.peer.median <= most
    )


def in_turn(*measures: Callable[[], T], repeat: int, name: str, warm: bool = True) -> list[list[T]]:
    """Return what each measure gave, `repeat` times after a warm-up: in turn, the order turned round every time."""
    if warm:
        started = time.monotonic()
        for measure in measures:
            measure()
        say(f"  {name}: warm, about {words((time.monotonic() - started) * repeat)} left")
    found: list[list[T]] = [[] for _ in measures]
    started = time.monotonic()
    for turn in range(repeat):
        for at in sorted(range(len(measures)), reverse=turn % 2 == 1):
            found[at].append(measures[at]())
        left = (time.monotonic() - started) / (turn + 1) * (repeat - turn - 1)
        say(f"  {name}: turn {turn + 1} of {repeat}" + (f", about {words(left)} left" if left else ""))
    return found


def say(text: str) -> None:
    """Say something beside the answers."""
    print(text, file=sys.stderr, flush=True)


def words(seconds: float) -> str:
    """Return a time for people."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


# -- a side that computes ----------------------------------------------------------------------------------------------


class Enough(BaseException):
    """Raised in a measuring function from its turn: no more is asked of it, and it leaves what it opened."""


class Turn:
    """What a measuring function calls after each measurement: it hands the value on and waits until the next is asked.

    So it works for a loop, and for a callback of something that takes many measurements on its way.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __call__(self, value: float, *, megabytes: float | None = None, said: Any = None) -> None:
        """Hand a value on, and whatever else is `said` with it; `megabytes` stands for the memory of this process."""
        self._pipe.send((value, largest(os.getpid()) if megabytes is None else megabytes, said))
        self.wait()

    def wait(self) -> None:
        """Wait until a measurement is asked for."""
        with contextlib.suppress(EOFError):
            if self._pipe.recv():
                return
        raise Enough


Measuring = Callable[..., None]  # (turn, *arguments): measures and calls its turn, until that raises Enough


class Apart(contextlib.AbstractContextManager["Apart"]):
    """A measure in a process of its own, which lives and stays warm inside the block; a failure there is one here."""

    def __init__(self, what: str, function: Measuring, *arguments: Any, threads: int = CORES) -> None:
        self.what, self.threads, self.said = what, threads, None
        """`said` is what came with the last value."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_measuring, args=(theirs, function, arguments))
        with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": str(threads)}):
            self._process.start()
        theirs.close()

    def __call__(self) -> Measured:
        try:
            self._pipe.send(True)
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            raise RuntimeError(f"{self.what}: its process died with {self._process.exitcode}") from error
        if isinstance(answer, str):
            raise RuntimeError(f"{self.what}: {answer}")
        value, megabytes, self.said = answer
        return measured(value, megabytes)

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(False)
        self._process.join(60)
        self._process.kill()

    def side(self, found: Sequence[Measured]) -> Side:
        """Return the side that these measurements are of."""
        return Side(self.what, found, self.threads)


def together(sides: Mapping[K, Apart], *, repeat: int, name: str) -> dict[K, Side]:
    """Return what was measured of sides that take turns; their processes live that long."""
    with contextlib.ExitStack() as held:
        for side in sides.values():
            held.enter_context(side)
        found = in_turn(*sides.values(), repeat=repeat, name=name)
    return {key: side.side(values) for (key, side), values in zip(sides.items(), found, strict=True)}


def _measuring(pipe: Connection, function: Measuring, arguments: Sequence[Any]) -> None:
    turn = Turn(pipe)
    try:
        turn.wait()
        function(turn, *arguments)
        pipe.send("it ended before the last measurement was asked for")
    except Enough:
        pass
    except Exception:
        pipe.send(traceback.format_exc())


# -- a side that is a command ------------------------------------------------------------------------------------------


class Command:
    """A measure of the wall seconds of a command; RuntimeError with its last words where it fails."""

    def __init__(self, *words: str | Path, **env: str) -> None:
        self.words, self.env = [str(word) for word in words], env

    def __call__(self) -> Measured:
        started = time.perf_counter()
        process = subprocess.Popen(
            self.words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=os.environ | self.env,
        )  # fmt: skip
        with _watched(process.pid) as most:
            _, errors = process.communicate()
            seconds = time.perf_counter() - started
        if process.returncode:
            raise RuntimeError(f"{' '.join(self.words)} ended with {process.returncode}: {errors[-2000:]}")
        return measured(seconds, most() if seconds > SHORT else 0.0)


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[Callable[[], float]]:
    """Give what says how many megabytes the largest process of a command held so far, or of those below it."""
    most, ended = 0.0, threading.Event()

    def look() -> None:
        nonlocal most
        for at in itertools.count(1):
            most = max(most, largest(pid) if at % TREE == 0 else _number(pid, "VmHWM") / 1024)
            if ended.wait(LOOK_SECONDS):
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield lambda: most
    finally:
        ended.set()
        thread.join()


def largest(pid: int) -> float:
    """Return the most megabytes that any process of a tree that lives held so far; 0 where there is no /proc."""
    return max((_number(one, "VmHWM") / 1024 for one in _tree(pid)), default=0.0)


def resident(pid: int) -> float:
    """Return the megabytes that a process holds now."""
    return _number(pid, "VmRSS") / 1024


def _tree(pid: int) -> set[int]:
    """Return the ids of a process and of all below it."""
    parents = {int(one.name): _number(int(one.name), "PPid") for one in Path("/proc").glob("[0-9]*")}
    found, more = set(), {pid} & set(parents)
    while more:
        found |= more
        more = {one for one, parent in parents.items() if parent in more} - found
    return found


def _number(pid: int, name: str) -> int:
    """Return a number of /proc/PID/status; 0 where the process is gone or lacks it."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0


def cpu() -> Mapping[str, str]:
    """Return what the system says of its first processor, by name; empty where it says nothing."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        pairs = (line.partition(":") for line in file.read().partition("\n\n")[0].splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}
    return {}


# -- how it is shown ---------------------------------------------------------------------------------------------------

HEADER = ("row", "ours", "peer", "unit", "ours, median", "peer's", "ratio", "goal", "reached", "MB, ours", "MB, peer")


def table(comparisons: Iterable[Comparison]) -> str:
    """Return the rows as a table in Markdown: medians, how many times as good ours is, and the goals."""
    lines = [HEADER, tuple("---" for _ in HEADER), *map(_cells, comparisons)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(one: Comparison) -> tuple[str, ...]:
    peer, reached = one.peer, {None: "", True: "yes", False: "no"}[one.reached]
    return (
        one.row, one.ours.what, peer.what if peer else "", one.unit, f"{one.ours.median:.4g}",
        f"{peer.median:.4g}" if peer else "", "" if one.ratio is None else f"{one.ratio:.2f}",
        one.goal.words if one.goal else "", reached, _megabytes(one.ours), _megabytes(peer) if peer else "",
    )  # fmt: skip


def _megabytes(side: Side) -> str:
    return f"{side.megabytes:.0f}" if side.megabytes else ""


Compare = Callable[[int, bool], Iterable[Comparison]]  # how often, and whether small → rows, as they are done


def parser(about: str | None) -> argparse.ArgumentParser:
    """Return what reads the options that all benchmarks share."""
    found = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    found.add_argument("--repeat", type=_count, default=REPEAT, help="how often each side is measured, after a warm-up")
    found.add_argument("--small", action="store_true", help="seconds of work a row, to see that it works")
    return found


def _count(text: str) -> int:
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")


def main(compare: Compare, about: str | None) -> None:
    """Do one benchmark by itself and print its rows."""
    asked = parser(about).parse_args()
    print(table(compare(asked.repeat, asked.small)))
