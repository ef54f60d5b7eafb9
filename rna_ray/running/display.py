"""Show how a sweep stands, again and again: moving lines on a terminal, elsewhere one a minute; JSON for scripts."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from rna_ray.errors import sentence
from rna_ray.running import state as words
from rna_ray.running.state import State

LINE_SECONDS = 60.0
"""How often a line is printed where there is no terminal."""

LOOK_SECONDS = 0.5
"""How often a run looks at itself."""

FIRST_LOOK_SECONDS = 2.0
"""When it does so first: a look knows how fast the store's units were, and reads some, while the first unit starts."""

_REST = 10.0
"""How many times as long as a look took it is left alone: a sweep of 100,000 units takes a second of computing."""


class Display(Protocol):
    """Something that states are shown on."""

    def show(self, state: State) -> None:
        """Show a state, if it is time."""

    def close(self, state: State | None) -> None:
        """Show the last one, whatever the time."""


class Screen:
    """The terminal: the same lines, written over."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def show(self, state: State) -> None:
        styles = {"  failed": "red", "  at work": "dim"}
        said = [Text(line, style=next((styles[start] for start in styles if line.startswith(start)), ""))
                for line in words.lines(state)]  # fmt: skip
        self._live.update(Text("\n").join(said), refresh=True)

    def close(self, state: State | None) -> None:
        if state is not None:
            self.show(state)
        self._live.stop()


class Lines:
    """Whatever else a console writes to: one line a minute, and a last one."""

    def __init__(self, console: Console) -> None:
        self.console, self._last = console, time.monotonic()

    def show(self, state: State) -> None:
        if time.monotonic() - self._last >= LINE_SECONDS:
            self._print(state)

    def close(self, state: State | None) -> None:
        if state is not None:
            self._print(state)

    def _print(self, state: State) -> None:
        self._last = time.monotonic()
        self.console.print(words.line(state), highlight=False, soft_wrap=True, markup=False)


class Events:
    """A file for scripts: a line of JSON whenever a unit or an epoch began or ended, and one a minute."""

    def __init__(self, file: TextIO) -> None:
        self.file, self._last, self._key = file, -LINE_SECONDS, object()

    def show(self, state: State) -> None:
        key = state.counts, state.phase, [(one.unit, one.epoch) for one in state.active], len(state.failures)
        if key != self._key or time.monotonic() - self._last >= LINE_SECONDS:
            self._key, self._last = key, time.monotonic()
            said = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **words.event(state)}
            print(json.dumps(said), file=self.file, flush=True)

    def close(self, state: State | None) -> None:
        if state is not None:
            self.show(state)


def made(console: Console, events: TextIO | None) -> list[Display]:
    """Return what states are shown on: people's display, and a file of events where one is given.

    Where that is what the console writes to, it is the only one.
    """
    found: list[Display] = [] if events is None else [Events(events)]
    if events is None or events is not console.file:
        found.append(Screen(console) if console.is_terminal else Lines(console))
    return found


def follow(look: Callable[[], State], displays: Sequence[Display], every: float) -> State:
    """Show what `look` returns, again and again, until nobody is at work any more; return that last state."""
    last = None
    try:
        while True:
            began = time.perf_counter()
            last = look()
            if last.phase not in ("running", "stopping"):
                return last
            for one in displays:
                one.show(last)
            time.sleep(max(every, _REST * (time.perf_counter() - began)))
    finally:
        for one in displays:
            one.close(last)


@contextlib.contextmanager
def shown(look: Callable[[], State], console: Console, events: TextIO | None = None) -> Iterator[None]:
    """Show what `look` returns, again and again, while the block runs, from a thread of its own; then a last time.

    The block does not end by who looks at it: a display whose file takes no more is named once, and left out.
    """
    stop = threading.Event()

    def took(one: Display, state: State) -> bool:
        try:
            one.show(state)
        except OSError as error:
            _lost(one, error, console)
            return False
        return True

    def keep() -> None:
        displays, rest, last = made(console, events), FIRST_LOOK_SECONDS, None
        try:
            while not stop.wait(rest):
                began = time.perf_counter()
                last = look()
                displays = [one for one in displays if took(one, last)]
                rest = max(LOOK_SECONDS, _REST * (time.perf_counter() - began))
            last = look()
        finally:
            for one in displays:
                try:
                    one.close(last)
                except OSError as error:
                    _lost(one, error, console)

    thread = threading.Thread(target=keep, name="rna-ray-display", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _lost(one: Display, error: OSError, console: Console) -> None:
    said = f"{type(one).__name__.lower()}: {sentence(error)}; nothing more is shown there"
    with contextlib.suppress(OSError):  # it was the console's own
        console.print(said, highlight=False, soft_wrap=True, markup=False)
