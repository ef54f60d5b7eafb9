"""That a run is to end before all is done, and why: asked for by anyone, heeded by whoever starts or does units."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

LEAVE_SECONDS = 10.0
"""How long what was interrupted twice may take to leave by itself."""


class Stop:
    """Whether the run is to end. Plain attributes, no lock: a signal may arrive while its own thread holds one."""

    def __init__(self) -> None:
        self.asked = False
        self.reason: str | None = None
        """The sentence that says why, where it was not the user who stopped it."""
        self.gentle = False
        """Whether what runs heeds `asked` by itself; else Ctrl-C interrupts it."""

    def ask(self, reason: str | None = None) -> None:
        """Ask the run to end; the first reason counts, None being the user's wish."""
        if not self.asked:
            self.reason = reason
            self.asked = True

    @contextlib.contextmanager
    def gently(self) -> Iterator[None]:
        """Let the first Ctrl-C inside the block only ask, as what runs there heeds it."""
        self.gentle = True
        try:
            yield
        finally:
            self.gentle = False


@contextlib.contextmanager
def interrupts(stop: Stop) -> Iterator[None]:
    """Let Ctrl-C, or SIGTERM, inside the block ask to stop once, and the second one leave at once.

    Raises KeyboardInterrupt from the second on, and from the first where nothing that runs would heed it.
    """
    presses = 0

    def interrupt(number: int, frame: object) -> None:
        nonlocal presses
        presses += 1
        stop.ask()
        if presses == 2:
            leaving = threading.Timer(LEAVE_SECONDS, _leave)  # should an exception get lost in what is interrupted
            leaving.daemon = True
            leaving.start()
        if presses > 1 or not stop.gentle:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave() -> None:
    print("rna-ray: left at once; what is finished is kept", file=sys.stderr, flush=True)
    os._exit(130)
