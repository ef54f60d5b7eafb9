"""Look after a unit in the process that does it: whether its driver still wants it, and whether it takes too long."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Iterator

from rna_ray.errors import LimitError, StoreError
from rna_ray.running import drivers
from rna_ray.running.tasks import Job
from rna_ray.store import Store

LOOK_SECONDS = {True: 1.0, False: 5.0}
"""How often a worker looks at its driver's file: on a local disk, and on a remote store, where each look costs."""

VISIBLE_SECONDS = 30.0
"""How long a file that was just written may stay unseen by another machine: NFS remembers what was not there."""

GRACE_SECONDS = 30.0
"""How long a unit whose time is up may take to end, before its process leaves."""

HANG_SECONDS = 60.0
"""How long after that a process that hangs altogether, where no thread can run, is ended."""

_seen: dict[tuple[str, str], float] = {}
"""When this process last saw a store's driver running, by its own clock."""


class TimeUp(BaseException):
    """Raised in the middle of a unit whose time is up; no Exception, which some library might swallow."""


def check_in(job: Job, store: Store) -> str | None:
    """Return why a unit is not to be started, None where it is.

    Raises StoreError where this machine does not see the driver: then it does not see the store either, and whatever
    it wrote would be lost.
    """
    if job.driver is None:
        return None
    key = job.store, job.driver
    if time.monotonic() - _seen.get(key, -1e9) < LOOK_SECONDS[store.files.local]:
        return None
    deadline = time.monotonic() + VISIBLE_SECONDS
    while (found := drivers.find(store, job.driver)) is None:
        if time.monotonic() > deadline:
            raise StoreError(
                f"{platform.node()} does not see in {job.store} the driver that gave it a unit: what lies there is not "
                "the driver's store, or the driver has left; give a store that every machine sees, such as a shared "
                "folder or s3://…"
            )
        time.sleep(min(1.0, VISIBLE_SECONDS / 10))
    if found.state == "stopping":
        return "the run is stopping"
    _seen[key] = time.monotonic()
    return None


class Watch:
    """What a thread beside a unit has found out."""

    def __init__(self) -> None:
        self.reason = ""
        """Why the unit is to stop, once it is."""

    def asked(self) -> bool:
        """Say whether the unit is to stop."""
        return bool(self.reason)


@contextlib.contextmanager
def watching(
    job: Job, store: Store, *, looks: bool = True, limit: float | None = None, last: bool = True
) -> Iterator[Watch]:
    """Watch over what this thread does inside the block.

    With `looks`, the watch says when the driver stops, leaves, or is not seen for a minute or more. After `limit`
    seconds LimitError is raised out of the block, with the traceback of where it was; what does not end so within some
    seconds is recorded as failed, with its stack, and the process leaves: `last` says that this is the process to do
    that.
    """
    watch, left, turn = Watch(), threading.Event(), threading.Lock()
    if job.driver is None:
        looks = False
    if not looks and limit is None:
        yield watch
        return
    thread = threading.get_ident()
    beside = [threading.Thread(target=_look, args=(job, store, watch, left), daemon=True)] if looks else []
    if limit is not None:
        beside.append(threading.Thread(target=_limit, args=(job, store, thread, limit, last, left, turn), daemon=True))
        if last and sys.__stderr__ is not None:
            # The interpreter itself may hang, in code that never gives way to another thread.
            faulthandler.dump_traceback_later(limit + GRACE_SECONDS + HANG_SECONDS, exit=True, file=sys.__stderr__)
    for one in beside:
        one.start()
    try:
        yield watch
    except TimeUp as error:
        raise LimitError(_took(job, limit)) from error
    finally:
        try:
            with turn:
                left.set()
            if limit is not None:
                faulthandler.cancel_dump_traceback_later()
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)
        except TimeUp:  # it came as the unit ended by itself
            left.set()


def _took(job: Job, limit: float | None) -> str:
    section = "train" if job.unit.kind == "train" else "evaluate"
    return f"the unit took longer than its limit of {limit:g} s (resources.{section}.limit)"


def _look(job: Job, store: Store, watch: Watch, left: threading.Event) -> None:
    """Look at the driver's file until the unit is done, or is to stop."""
    assert job.driver is not None
    seen, unseen, looked_at, gone_at = "", 0.0, time.monotonic(), 0.0
    while True:
        if left.wait(LOOK_SECONDS[store.files.local]):
            return
        # One turn counts a third at most: this process may have stood still in it, as after Ctrl-Z, and its driver too.
        turn, looked_at = time.monotonic() - looked_at, time.monotonic()
        unseen += min(turn, drivers.STALE_SECONDS / 3)
        try:
            found = drivers.find(store, job.driver)
        except StoreError:  # it may answer the next time
            gone_at = 0.0
        else:
            if found is None:
                gone_at = gone_at or time.monotonic()
                if time.monotonic() - gone_at > 2 * drivers.BEAT_SECONDS:  # else it would have been written anew
                    watch.reason = f"on {platform.node()}: the driver has left"
            elif found.state == "stopping":
                watch.reason = "the run is stopping"
            else:
                gone_at = 0.0
                if found.seen_at != seen:
                    seen, unseen = found.seen_at, 0.0
        if unseen >= drivers.STALE_SECONDS:
            watch.reason = f"on {platform.node()}: the driver was not seen in the store for a minute"
        if watch.reason:
            return


def _limit(
    job: Job, store: Store, thread: int, limit: float, last: bool, left: threading.Event, turn: threading.Lock
) -> None:
    """Once the time is up, interrupt the unit; where it does not end, record it as failed and leave."""
    if left.wait(limit):
        return
    with turn:  # between looking and interrupting, the unit must not end
        if left.is_set():
            return
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimeUp))
    if left.wait(GRACE_SECONDS) or not last:
        return
    stack = "".join(traceback.format_stack(sys._current_frames()[thread]))
    message = f"{_took(job, limit)}, and did not end within {GRACE_SECONDS:g} s of being interrupted"
    with contextlib.suppress(StoreError):
        store.fail(
            job.unit.id, kind=job.unit.kind, attempt=job.attempt, error="LimitError", message=message,
            traceback=stack, host=platform.node(),
        )
    print(f"rna-ray: {message}; its process leaves", file=sys.stderr, flush=True)
    os._exit(1)
