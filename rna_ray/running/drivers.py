"""Who is at work on a store: a file for each driver, written anew every few seconds, that its workers look at.

A driver is one invocation of `run` or `resume`. Content ids make two drivers harmless to each other; that they see
each other spares double work. A worker that outlives its driver sees it too, and leaves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from rna_ray.errors import StoreError
from rna_ray.running.state import Active
from rna_ray.running.stop import Stop
from rna_ray.store import Store, layout

BEAT_SECONDS = 5.0
"""How often a driver writes its file anew."""

STALE_SECONDS = 60.0
"""How long a driver may go unseen before it counts as dead."""

ACTIVE_TOLD = 200
"""The most units in progress that a driver's file lists: every worker reads it every few seconds."""

_TICK_SECONDS = 0.1

Reason = Callable[[], str | None]
"""Returns the sentence that says why a run is to end now, if it is; asked at every beat, from the driver's thread."""

Tell = Callable[[], Mapping[str, Any]]
"""Returns what else a driver's file says, by its field."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Driver:
    """A driver as its file says."""

    id: str
    sweep: str
    host: str
    pid: int
    started_at: str
    """ISO 8601, UTC, as is `seen_at`."""
    seen_at: str
    state: Literal["running", "stopping"] = "running"
    active: tuple[Active, ...] = ()
    """What it was at when it was last seen, as are the rest; the first ACTIVE_TOLD."""
    left: float | None = None
    """The seconds until it ends, as far as it can tell."""
    share: float = 0.0
    """Of its work, what is done."""
    space: str = ""
    """Where its host has several, which space of processes `pid` is a number in: containers may share a host's name."""

    @property
    def unseen(self) -> float:
        """The seconds since it was last seen, by this machine's clock."""
        return _since(self.seen_at)

    @property
    def passed(self) -> float:
        """The seconds since it began, by this machine's clock."""
        return _since(self.started_at)

    @property
    def stale(self) -> bool:
        """Whether it is dead: not seen for a minute, or no longer among the processes of this very host."""
        here = self.host == platform.node() and self.space in ("", _space())
        return self.unseen > STALE_SECONDS or (here and not _alive(self.pid))

    def text(self) -> str:
        """Return who it is, in words."""
        return (
            f"{self.sweep}, on {self.host}, process {self.pid}, since {self.started_at[:19]}Z, "
            f"seen {max(self.unseen, 0):.0f} s ago"
        )


def fresh_id() -> str:
    """Return an id for a new driver."""
    return uuid.uuid4().hex


def find(store: Store, driver_id: str) -> Driver | None:
    """Return a driver by its id; None where the store has no file of it, or none that can be read."""
    found = store.files.find(layout.driver_file(driver_id))
    if found is None:
        return None
    try:
        driver = _read(driver_id, json.loads(found))
        assert isinstance(driver.sweep, str) and isinstance(driver.host, str)
        assert isinstance(driver.pid, int) and driver.pid > 0
        assert isinstance(driver.unseen, float) and isinstance(driver.passed, float)
    except (ValueError, TypeError, AssertionError):
        return None
    return driver


def _read(driver_id: str, said: Any) -> Driver:
    """Return the driver that a file tells of; TypeError or AssertionError where it tells of none."""
    known = _known(Driver, said)
    active = tuple(Active(**_known(Active, one)) for one in said.get("active", ()))
    assert all(isinstance(one.unit, str) and isinstance(one.seconds, float | int) for one in active)
    assert isinstance(known.get("left"), float | int | None) and isinstance(known.get("share", 0.0), float | int)
    return Driver(**known | {"id": driver_id, "active": active})


def _known(kind: type, said: Any) -> dict[str, Any]:
    """Return what a document says of the fields of a dataclass: a later release may say more."""
    assert isinstance(said, dict)
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in said.items() if name in names}


def all_of(store: Store) -> list[Driver]:
    """Return every driver that the store has a file of, the first to start first."""
    names = store.files.names(layout.DRIVERS)
    ids = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    found = [driver for driver_id in ids if layout.allowed(driver_id) and (driver := find(store, driver_id))]
    return sorted(found, key=lambda driver: (driver.started_at, driver.id))


def at_work(store: Store) -> list[Driver]:
    """Return the drivers that are at work on a store, as far as one can see."""
    return [driver for driver in all_of(store) if not driver.stale]


def tidy(store: Store) -> list[Driver]:
    """Remove the files of drivers that are dead, and return them."""
    dead = [driver for driver in all_of(store) if driver.stale]
    for driver in dead:
        store.files.remove(layout.driver_file(driver.id))
    return dead


@contextlib.contextmanager
def present(
    store: Store, driver_id: str, sweep: str, stop: Stop, reasons: Sequence[Reason] = (), tell: Tell = dict
) -> Iterator[None]:
    """Keep this driver's file in the store inside the block; it says `stopping` as soon as the run is to end.

    `tell` gives what else it says of how far the run is: `active`, `left` and `share`. It must not fail.
    `reasons` are asked at every beat, and one that gives a sentence ends the run. So does a store that does not take
    the file for a minute: the workers then leave as well.
    """
    now = _now()
    me = Driver(
        id=driver_id, sweep=sweep, host=platform.node(), pid=os.getpid(), space=_space(), started_at=now, seen_at=now
    )
    _write(store, me)
    over = threading.Event()
    thread = threading.Thread(
        target=_beat, args=(store, me, stop, reasons, tell, over), name="rna-ray-driver", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(StoreError):  # a file that stays says by itself, soon, that nobody is there
            store.files.remove(layout.driver_file(driver_id))


def _beat(
    store: Store, me: Driver, stop: Stop, reasons: Sequence[Reason], tell: Tell, over: threading.Event
) -> None:
    taken, state = time.monotonic(), me.state
    while not over.wait(_TICK_SECONDS):
        wanted: Literal["running", "stopping"] = "stopping" if stop.asked else "running"
        if state == wanted and time.monotonic() - taken < BEAT_SECONDS:
            continue
        try:
            if not store.exists:  # as where a disk was taken away: what is written now would lie beneath it
                raise StoreError(f"the store {store.uri} is gone: {store.files.full(layout.MARKER)} is not there")
            _write(store, dataclasses.replace(me, seen_at=_now(), state=wanted, **tell()))
            taken, state = time.monotonic(), wanted
        except StoreError as error:
            if time.monotonic() - taken > STALE_SECONDS:
                stop.ask(str(error))
            over.wait(min(1.0, BEAT_SECONDS))
        for reason in reasons:
            if (why := reason()) is not None:
                stop.ask(why)


def _write(store: Store, driver: Driver) -> None:
    said: dict[str, Any] = dataclasses.asdict(driver)
    del said["id"]  # the file's name
    said["active"] = said["active"][:ACTIVE_TOLD]
    store.files.write(layout.driver_file(driver.id), json.dumps(said).encode())


def _since(instant: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(instant)) / timedelta(seconds=1)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@functools.cache
def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # not on Linux
        return ""


def _alive(pid: int) -> bool:
    try:
        # One that has died is listed until its parent asks, which a container's may never do.
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X"):
            return False
    except (OSError, IndexError):  # not on Linux, or gone
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True  # someone else's, or nothing that can be asked
    return True
