"""States are shown on a terminal, elsewhere a line now and then, and to scripts as JSON."""

from __future__ import annotations

import errno
import io
import json
import threading
from collections.abc import Iterator
from typing import TextIO

import pytest
from rich.console import Console

from rna_ray.running import display
from rna_ray.running.state import Active, Count, Failure, State


def state(done: int, **given: object) -> State:
    counts = {"train": Count(done=done, ready=3 - done)}
    return State(sweep="norms", counts=counts, passed=1.0, left=2.0, share=0.5, **given)  # type: ignore[arg-type]


def console(**given: object) -> Console:
    return Console(file=io.StringIO(), width=100, **given)  # type: ignore[arg-type]


class Full(io.StringIO):
    """A file on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_LOOK_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(display, name, 0.001)


def shown_thrice(plain: Console, events: TextIO | None = None) -> None:
    """Let a display look at the same state, three times or more."""
    looks = threading.Semaphore(0)

    def look() -> State:
        looks.release()
        return state(1)

    with display.shown(look, plain, events):
        assert all(looks.acquire(timeout=10) for _ in range(3))


def test_where_there_is_no_terminal_a_line_is_printed_now_and_then(
    monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    monkeypatch.setattr(display, "LINE_SECONDS", 0.0)
    plain = console()
    shown_thrice(plain)
    written = plain.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(written) >= 3
    assert set(written) == {"norms: trials 1/3 (2 to do) · 1 s passed, about 2 s left"}
    assert not any(thread.name == "rna-ray-display" for thread in threading.enumerate())


def test_within_a_minute_there_is_one_line_and_the_last_one(quick: None) -> None:
    plain, states = console(), iter([state(0), state(1)])
    last = state(2)
    with display.shown(lambda: next(states, last), plain):
        pass
    assert plain.file.getvalue().count("\n") == 1  # type: ignore[attr-defined]


def test_a_terminal_shows_the_lines_and_no_colour_where_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    failed = Failure(unit="f", kind="train", name="IN", error="no")
    said = state(1, active=(Active(unit="a", seconds=1.0),), names={"a": "BN"}, failures=(failed,))
    for wanted in (True, False):
        if not wanted:
            monkeypatch.setenv("NO_COLOR", "1")
        terminal = console(force_terminal=True, force_interactive=False)
        with display.shown(lambda: said, terminal):
            pass
        shown = terminal.file.getvalue()  # type: ignore[attr-defined]
        assert "trials" in shown and "1/3 (2 to do)" in shown and "at work  a  BN, for 1 s" in shown
        assert ("\x1b[31m" in shown) is wanted


def test_events_are_one_a_change() -> None:
    file = io.StringIO()
    events = display.Events(file)
    for one in (state(0), state(0), state(1), state(1), state(1, active=(Active(unit="a", seconds=3.0),))):
        events.show(one)
    events.close(state(3, phase="done"))
    found = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [one["units"]["train"]["done"] for one in found] == [0, 1, 1, 3]
    assert found[-1]["phase"] == "done" and found[0]["time"] <= found[-1]["time"]


def test_a_file_of_events_that_takes_no_more_is_named_once_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    monkeypatch.setattr(display, "LINE_SECONDS", 0.0)
    plain = console()
    shown_thrice(plain, Full())
    first, *others = plain.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first == "events: OSError: [Errno 28] No space left on device; nothing more is shown there"
    assert len(others) >= 3 and all(line.startswith("norms: trials 1/3") for line in others)


def test_events_that_go_where_the_display_goes_take_its_place() -> None:
    plain, elsewhere = console(), io.StringIO()
    assert [type(one) for one in display.made(plain, None)] == [display.Lines]
    assert [type(one) for one in display.made(plain, elsewhere)] == [display.Events, display.Lines]
    assert [type(one) for one in display.made(plain, plain.file)] == [display.Events]


def test_following_ends_with_the_sweep_and_shows_its_end() -> None:
    plain = console()

    def states() -> Iterator[State]:
        yield from (state(0), state(1, phase="stopping"), state(1, phase="left", store="a store"))

    told = states()
    last = display.follow(lambda: next(told), [display.Lines(plain)], every=0.0)
    assert last.phase == "left"
    assert plain.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "norms: trials 1/3 (2 to do) · nobody is at work on it; this goes on: rna-ray resume norms --store 'a store'"
    ]
