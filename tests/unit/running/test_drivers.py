"""A driver shows that it is at work, and is recognised when it is not."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_work import train

from rna_ray import show
from rna_ray.errors import StoreError
from rna_ray.running import drivers
from rna_ray.running.drivers import Driver
from rna_ray.running.run import _say_who_else
from rna_ray.running.state import Active
from rna_ray.running.stop import Stop
from rna_ray.store import Store
from rna_ray.store.files import Files
from rna_ray.store.records import from_rows

SECONDS = 30.0


@pytest.fixture
def planned(store: Store) -> Store:
    """A store that a sweep was planned into."""
    row = {"sweep": "norms", "unit_id": train().id, "kind": "train", "variant": "BN", "axes": "{}", "spec": "{}"}
    store.put_plan("norms", from_rows("plans", [row]))
    return store


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(drivers, "_TICK_SECONDS", 0.01)


def left_behind(store: Store, **said: Any) -> Driver:
    """Write the file of a driver that nobody keeps."""
    now = datetime.now(UTC).isoformat()
    one = Driver(
        **{"id": "ab12", "sweep": "norms", "host": "elsewhere", "pid": 7, "started_at": now, "seen_at": now, **said}
    )
    store._begin()
    drivers._write(store, one)
    return one


def until(look: Any) -> Any:
    deadline = datetime.now(UTC) + timedelta(seconds=SECONDS)
    while not (found := look()):
        assert datetime.now(UTC) < deadline, "waited in vain"
    return found


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def gone_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_driver_is_seen_while_it_is_at_work_and_not_after(planned: Store, quick: None) -> None:
    stop = Stop()
    with drivers.present(planned, "d1", "norms", stop):
        (first,) = drivers.at_work(planned)
        assert (first.id, first.sweep, first.host, first.pid) == ("d1", "norms", platform.node(), os.getpid())
        assert first.state == "running" and first.seen_at == first.started_at
        later = until(lambda: next((d for d in drivers.all_of(planned) if d.seen_at > first.seen_at), None))
        assert later.started_at == first.started_at
        document = show.status("norms", planned)
        assert document["drivers"][0]["pid"] == os.getpid()
        words = show.status_text([document], "here")
        assert words.splitlines()[1].startswith(f"  running: norms, on {platform.node()}, process {os.getpid()}, since")
        stop.ask()
        until(lambda: drivers.find(planned, "d1").state == "stopping")  # type: ignore[union-attr]
    assert drivers.all_of(planned) == [] and show.status("norms", planned)["drivers"] == []


@pytest.mark.parametrize(
    ("said", "stale"),
    [
        ({}, False),
        ({"unseen": 30}, False),
        ({"unseen": 65}, True),
        ({"host": platform.node(), "pid": os.getpid()}, False),
        ({"host": platform.node(), "pid": os.getpid(), "unseen": 3600}, True),
        ({"host": platform.node(), "pid": gone_pid()}, True),
        ({"pid": gone_pid()}, False),  # another machine's processes are not known here
        ({"host": platform.node(), "pid": gone_pid(), "space": "pid:[1]"}, False),  # nor another container's
        ({"host": platform.node(), "pid": 1}, False),  # someone else's
    ],
)
def test_a_driver_that_is_dead_is_recognised(said: dict[str, Any], stale: bool, planned: Store) -> None:
    one = left_behind(planned, seen_at=ago(said.get("unseen", 0)), **{k: v for k, v in said.items() if k != "unseen"})
    assert one.stale is stale
    assert drivers.at_work(planned) == ([] if stale else [one])
    assert drivers.tidy(planned) == ([one] if stale else [])
    assert drivers.find(planned, "ab12") == (None if stale else one)


def test_a_process_that_died_and_was_not_asked_after_is_dead(planned: Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.read() == b""  # it has ended, and is a zombie
    until(lambda: left_behind(planned, host=platform.node(), pid=process.pid).stale)
    process.communicate()


def test_the_second_driver_says_who_else_is_at_work(planned: Store) -> None:
    left_behind(planned, sweep="other")
    left_behind(planned, id="cd34", pid=31, seen_at=ago(90), started_at="2026-01-02T03:04:05.123456+00:00")
    said: list[str] = []
    _say_who_else(planned, said.append)
    assert said[0] == (
        "a driver ended without a word: norms, on elsewhere, process 31, since 2026-01-02T03:04:05Z, seen 90 s ago"
    )
    assert said[1].startswith("also at work on this store: other, on elsewhere, process 7, since ")
    assert said[1].endswith("seen 0 s ago; both go on, but may do the same unit twice") and len(said) == 2
    assert [driver.id for driver in drivers.all_of(planned)] == ["ab12"]


def test_a_driver_of_a_later_release_may_say_more(planned: Store) -> None:
    one = left_behind(planned, active=(Active(unit="a", seconds=1.0),), left=3.0)
    said = dataclasses.asdict(one)
    more = {**said, "mood": "fine", "active": [{**said["active"][0], "mood": "fine"}]}
    Path(planned.uri, "drivers/ab12.json").write_text(json.dumps(more), encoding="utf-8")
    assert drivers.find(planned, "ab12") == one


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"sweep": 1}', b'{"pid": "x"}', b"\xff"])
def test_a_file_that_says_nothing_is_no_driver(content: bytes, planned: Store) -> None:
    folder = Path(planned.uri, "drivers")
    folder.mkdir()
    whole = dataclasses.asdict(left_behind(planned))
    changes: list[dict[str, Any]] = [
        {"pid": -1}, {"pid": True, "host": 3}, {"seen_at": "yesterday"}, {"seen_at": 3}, {"started_at": "then"},
        {"started_at": "2026-01-02T03:04:05"}, {"active": [3]}, {"active": [{"unit": "a"}]}, {"left": "soon"},
    ]  # fmt: skip
    for at, change in enumerate(changes):
        (folder / f"x{at}.json").write_text(json.dumps({**whole, **change}))
    (folder / "bad name.json").write_text(json.dumps(whole))
    (folder / "ef56.json").write_bytes(content)
    (folder / "12.json").mkdir()
    assert [driver.id for driver in drivers.all_of(planned)] == ["ab12"]


def test_a_store_that_does_not_take_the_file_ends_the_run(
    planned: Store, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "STALE_SECONDS", 0.3)
    stop, plain, writes = Stop(), Files.write, []

    def silent(self: Files, path: Any, data: bytes) -> None:
        writes.append(path)
        if len(writes) in (2, 3) or len(writes) > 6:  # now and then for a moment, then for good
            raise StoreError(f"cannot write {path}: no answer")
        plain(self, path, data)

    monkeypatch.setattr(Files, "write", silent)
    with drivers.present(planned, "d1", "norms", stop):
        until(lambda: stop.asked)
    assert len(writes) > 7 and stop.reason == "cannot write drivers/d1.json: no answer"


def test_a_store_whose_disk_was_taken_away_is_not_begun_anew(
    planned: Store, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "STALE_SECONDS", 0.2)
    stop, place = Stop(), Path(planned.uri)
    with drivers.present(planned, "d1", "norms", stop):
        place.rename(place.with_name("elsewhere"))
        until(lambda: stop.asked)
    assert stop.reason == f"the store {planned.uri} is gone: {planned.uri}/store.json is not there"
    assert not place.exists()


def test_what_is_asked_at_every_beat_may_end_the_run(planned: Store, quick: None) -> None:
    stop, asked = Stop(), []

    def spent() -> str | None:
        asked.append(None)
        return "the budget of 2 hours is spent" if len(asked) == 3 else None

    with drivers.present(planned, "d1", "norms", stop, [spent]):
        until(lambda: stop.asked)
        until(lambda: drivers.find(planned, "d1").state == "stopping")  # type: ignore[union-attr]
    assert stop.reason == "the budget of 2 hours is spent"
