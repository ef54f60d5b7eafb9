"""What a machine keeps of remote files for all its processes: each is copied once, and read from the disk.

    <cache>/<room>/<name>          a file or a folder; it appears by rename, once it is whole
    <cache>/<room>/<name>.lock     shared by who needs it to stay, held by who removes it; says its size in bytes
    <cache>/<room>/.<name>.making  held by who makes it, and there only meanwhile: who waits for the maker must not wait
                                   for those who need it to stay, as they may hold their lock for hours

The folder is $RNA_RAY_CACHE, else rna-ray in the user's cache folder. What was used longest ago gives way once it holds
more than $RNA_RAY_CACHE_GB (default 20). The kernel frees the locks of a process that died, so none is ever stale.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from rna_ray.errors import CacheError

ROOMS = ("weights", "data", "decoded")
_DEFAULT_GB = 20.0
_LOCK = ".lock"


def folder() -> Path:
    """Return where the cache is on this machine; CacheError where that cannot be told."""
    given = os.environ.get("RNA_RAY_CACHE")
    if given:
        return Path(given).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "rna-ray"
    except RuntimeError as error:
        raise CacheError(f"no folder for the cache ({error}): set RNA_RAY_CACHE to one") from error


def limit_bytes() -> int:
    """Return how much the cache may hold; CacheError where RNA_RAY_CACHE_GB is no number."""
    given = os.environ.get("RNA_RAY_CACHE_GB") or str(_DEFAULT_GB)
    try:
        found = float(given)
    except ValueError:
        found = -1.0
    if not found >= 0:
        raise CacheError(f"RNA_RAY_CACHE_GB is {given!r}: give a number of gigabytes, such as 20")
    return sys.maxsize if found == float("inf") else int(found * 1e9)


def kept(room: str, name: str, make: Callable[[Path], None], *, stays: bool = False) -> Path:
    """Return the path of what the cache keeps under a name, made where it is missing.

    `make` writes a file or a folder at the path that it gets. Other processes that want the same wait meanwhile; one
    that is killed leaves nothing that counts. What `stays` does so as long as this process lives; else it may give way
    at any time, and is asked for again. Raises CacheError where the disk does not take it.
    """
    path = folder() / room / name
    lock = _lock(path)
    with _one_sentence(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            shared = _locked(lock, fcntl.LOCK_SH)
            there = path.exists()
            if there:
                os.utime(path)  # the last to give way
            if there and stays and path not in _STAYS:
                _STAYS[path] = shared
            else:
                os.close(shared)
            if there:
                return path
            with _its_maker(path):
                if not path.exists():
                    _make(path, make)


def forget(room: str, name: str) -> None:
    """Remove what is kept under a name, as it is damaged; not from under another process for which it stays."""
    path = folder() / room / name
    with _one_sentence(path):
        if path in _STAYS:
            os.close(_STAYS.pop(path))
        with _alone(_lock(path), wait=False) as got:
            if got:  # else another process was promised that it stays
                _remove(path)


_STAYS: dict[Path, int] = {}
"""The shared locks of this process, by what they keep from giving way."""


def _make(path: Path, make: Callable[[Path], None]) -> None:
    limit = limit_bytes()
    _tidy(path)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        make(beside)
        size = _size(beside)
        _give_way(limit - size)
        os.rename(beside, path)
        _lock(path).write_text(str(size), "ascii")
    except BaseException:
        _remove(beside)
        raise


def _tidy(mine: Path) -> None:
    """Remove what processes left that were killed while they made something; `mine` is made by nobody but this one."""
    for left in [left for room in ROOMS for left in (folder() / room).glob(".*.tmp")]:
        hidden = left.name.rsplit(".", 2)[0]
        if left.with_name(hidden.removeprefix(".")) == mine:
            _remove(left)
            continue
        making = left.with_name(f"{hidden}.making")
        with _alone(making, wait=False) as got:
            if got:
                _remove(left)
                making.unlink(missing_ok=True)


def _give_way(limit: int) -> None:
    """Remove what was used longest ago and no process holds, until the cache holds no more than a limit, in bytes."""
    found = [path for room in ROOMS for path in (folder() / room).glob("[!.]*") if path.suffix != _LOCK]
    sizes = {path: _noted(path) for path in found}
    whole = sum(sizes.values())
    for path in sorted(found, key=_used):
        if whole <= limit:
            return
        with _alone(_lock(path), wait=False) as got:
            if got:
                _remove(path)
                _lock(path).unlink(missing_ok=True)
                whole -= sizes[path]


def _lock(path: Path) -> Path:
    return path.with_name(f"{path.name}{_LOCK}")


def _noted(path: Path) -> int:
    """Return the size that was noted when it was made: a folder may hold a million files."""
    try:
        return int(_lock(path).read_text("ascii"))
    except (OSError, ValueError):
        return _size(path)


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return sum(one.stat().st_size for one in (path, *path.rglob("*")) if one.is_file())
    return 0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _its_maker(path: Path) -> Iterator[None]:
    """Be the one process that may make this inside the block."""
    making = path.with_name(f".{path.name}.making")
    with _alone(making):
        try:
            yield
        finally:
            making.unlink(missing_ok=True)  # while it is held: who waits for it then locks a new one


@contextlib.contextmanager
def _alone(lock: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock that no one shares inside the block; say whether it was got, where it is not waited for."""
    try:
        held = _locked(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(held)


def _locked(lock: Path, how: int) -> int:
    """Return an open file that holds the lock, until it is closed or this process ends."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, how)
            if os.fstat(descriptor).st_ino == os.stat(lock).st_ino:
                return descriptor
        except FileNotFoundError:  # removed, with what it locked, between the two steps
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextlib.contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise CacheError(
            f"cannot keep {path}: {what}; set RNA_RAY_CACHE to a folder with room, RNA_RAY_CACHE_GB to what it may hold"
        ) from error
