"""What a machine keeps of remote files: made once by whoever comes first, whole or not there, and bounded."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from rna_ray.errors import CacheError, StoreError
from rna_ray.store import cache, open_store

_PROCESS = """
    import sys, time
    from pathlib import Path
    from rna_ray.store import cache

    here = Path(sys.argv[1])

    def make(target):
        target.write_text("half")
        with (here / "made").open("a") as said:
            said.write("x")
        while not (here / "go").exists():
            time.sleep(0.01)
        target.write_text("whole")

    (here / f"began-{sys.argv[2]}").touch()
    print(cache.kept("weights", "one", make).read_text())
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("RNA_RAY_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    for descriptor in cache._STAYS.values():
        os.close(descriptor)
    cache._STAYS.clear()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a process that wants what is slow to make."""
    with contextlib.ExitStack() as left:

        def started(name: str) -> subprocess.Popen[str]:
            words = [sys.executable, "-c", textwrap.dedent(_PROCESS), str(tmp_path), name]
            process = left.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
            left.callback(process.kill)
            until(lambda: (tmp_path / f"began-{name}").exists())
            return process

        yield started


def until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not look():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def written(text: str) -> Callable[[Path], None]:
    return lambda target: target.write_text(text) and None


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.mark.slow
def test_a_second_process_waits_for_the_first_and_makes_nothing(
    start: Callable[[str], subprocess.Popen[str]], tmp_path: Path, own_cache: Path
) -> None:
    first = start("first")
    until(lambda: (tmp_path / "made").exists())
    second = start("second")
    time.sleep(0.3)  # were it not to wait, it would have seen a half by now
    assert second.poll() is None and not (own_cache / "weights/one").exists()
    (tmp_path / "go").touch()
    assert [process.communicate(timeout=120)[0] for process in (first, second)] == ["whole\n", "whole\n"]
    assert (tmp_path / "made").read_text() == "x"


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_nothing_half_and_nobody_waiting(
    start: Callable[[str], subprocess.Popen[str]], tmp_path: Path, own_cache: Path
) -> None:
    first = start("first")
    until(lambda: (tmp_path / "made").exists())
    second = start("second")
    first.send_signal(signal.SIGKILL)
    (tmp_path / "go").touch()
    assert second.communicate(timeout=120)[0] == "whole\n"
    assert (tmp_path / "made").read_text() == "xx" and names(own_cache / "weights") == {"one"}


def test_who_began_as_early_as_the_maker_does_not_wait_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The maker needs what it made to stay: that may take hours."""
    all_found_nothing, locked = threading.Barrier(5), cache._locked
    made: list[Path] = []

    def meet(lock: Path, how: int) -> int:
        if how == fcntl.LOCK_EX and not made:
            all_found_nothing.wait(60)
        return locked(lock, how)

    def make(target: Path) -> None:
        made.append(target)
        target.write_text("whole")

    monkeypatch.setattr(cache, "_locked", meet)
    others = [threading.Thread(target=cache.kept, args=("weights", "one", make), daemon=True) for _ in range(4)]
    for other in others:
        other.start()
    cache.kept("weights", "one", make, stays=True)
    for other in others:
        other.join(60)
    assert not any(other.is_alive() for other in others) and len(made) == 1


def test_what_cannot_be_made_is_not_kept_and_is_tried_again(own_cache: Path) -> None:
    def fails(target: Path) -> None:
        target.write_text("half")
        raise StoreError("it broke off")

    with pytest.raises(StoreError, match="it broke off"):
        cache.kept("weights", "one", fails)
    assert names(own_cache / "weights") == set()
    assert cache.kept("weights", "one", written("whole")).read_text() == "whole"
    cache.forget("weights", "one")
    assert cache.kept("weights", "one", written("anew")).read_text() == "anew"


def test_what_was_used_longest_ago_gives_way(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNA_RAY_CACHE_GB", "3e-6")  # three of a thousand bytes
    for at, name in enumerate("abc"):
        os.utime(cache.kept("weights", name, written("x" * 1000)), (at, at))
    cache.kept("weights", "a", written("never asked for"))  # is there, and is now the one used last
    cache.kept("weights", "d", written("x" * 1000))
    assert names(own_cache / "weights") == {"a", "c", "d"}
    assert {path.name for path in (own_cache / "weights").glob("*.lock")} == {"a.lock", "c.lock", "d.lock"}


def test_a_data_set_in_use_does_not_give_way(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(target: Path) -> None:
        (target / "below").mkdir(parents=True)
        (target / "below/images").write_text("x" * 2000)

    monkeypatch.setenv("RNA_RAY_CACHE_GB", "1e-6")
    used = cache.kept("data", "used", folder, stays=True)
    cache.kept("data", "left", folder)
    cache.kept("weights", "new", written("x" * 1000))
    assert (used / "below/images").exists() and names(own_cache / "data") == {"used"}
    assert names(own_cache / "weights") == {"new"}


def test_what_a_killed_maker_left_goes_as_soon_as_anything_is_made(own_cache: Path) -> None:
    left = own_cache / "data" / ".images-1.0123.tmp"
    (left / "below").mkdir(parents=True)
    (left / "below/images").write_text("half")
    busy = own_cache / "weights" / ".two.4567.tmp"
    busy.parent.mkdir()
    busy.touch()
    with cache._alone(busy.with_name(".two.making")):  # by another process
        cache.kept("weights", "one", written("whole"))
        assert busy.exists() and not left.exists()
    assert {path.name for path in own_cache.rglob(".*")} == {busy.name, ".two.making"}


def test_a_disk_that_is_full_is_the_cache_s_and_not_the_store_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "store")
    store.files.write(PurePosixPath("a"), b"x" * 100)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match=r"cannot keep .*one: the disk is full; set RNA_RAY_CACHE to"):
        cache.kept("weights", "one", lambda target: store.files.copy_out(PurePosixPath("a"), target))
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"cannot read .*/b: "):
        store.files.copy_out(PurePosixPath("b"), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_what_is_promised_to_another_process_is_not_forgotten(own_cache: Path) -> None:
    kept = cache.kept("data", "one", written("whole"))
    shared = cache._locked(cache._lock(kept), fcntl.LOCK_SH)  # as another process holds it
    cache.forget("data", "one")
    assert kept.exists()
    os.close(shared)
    cache.forget("data", "one")
    assert not kept.exists()


@pytest.mark.parametrize("given", ["much", "-1", "nan"])
def test_a_bound_that_is_no_number_is_a_mistake(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNA_RAY_CACHE_GB", given)
    with pytest.raises(StoreError, match=f"RNA_RAY_CACHE_GB is '{given}': give a number of gigabytes"):
        cache.limit_bytes()


@pytest.mark.parametrize(("given", "limit"), [("", 20e9), ("2.5", 2.5e9), ("0", 0), ("inf", sys.maxsize)])
def test_a_bound_may_be_none(given: str, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNA_RAY_CACHE_GB", given)
    assert cache.limit_bytes() == limit


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RNA_RAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"cannot keep .*: Not a directory; set RNA_RAY_CACHE to a folder"):
        cache.kept("weights", "one", written("x"))


def test_the_cache_is_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RNA_RAY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "rna-ray"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache.folder() == Path("/home/someone/.cache/rna-ray")
