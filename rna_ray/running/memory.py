"""What to say, and to do, where memory ran out: what was asked, what there was, and the batch that fits, measured."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import resource
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

_SAID = (
    "out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "std::bad_alloc",
    "unable to allocate",
)  # fmt: skip
_UNSURE = ("could not create a primitive", "could not create a memory")
"""What oneDNN says where memory runs out, and where it cannot do what is asked: a smaller batch tells which it is."""
_CGROUP = Path("/sys/fs/cgroup")
_KEEPING = ((-3, 2**30), (-1, 2**31 - 1), (-2, 2**26))
"""glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD, in bytes."""
_REFERENCES = Path("/proc/self/clear_refs")
_GIB = 2**30


def exhausted(error: BaseException) -> bool:
    """Return whether an error says that memory ran out: the GPU's, torch's on the CPU, Python's or numpy's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in (*_SAID, *_UNSURE))


def unsure(error: BaseException) -> bool:
    """Return whether an error may be another one, if no smaller batch fits."""
    return any(text in str(error).lower() for text in _UNSURE)


def asked(error: BaseException) -> str:
    """Return what was asked for, in the words of the error: the part that counts of torch's, which are many."""
    said = " ".join(str(error).split()) or type(error).__name__
    for opening in ("Tried to allocate", "you tried to allocate"):
        if opening in said:
            return said[said.index(opening) :].split(". ")[0].removeprefix("you ").rstrip(".")
    return said.split(". ")[0].rstrip(".")


def there_is(device: torch.device) -> str:
    """Return how much memory is free, and the smallest of the limits that count."""
    if device.type == "cuda":
        left, total = torch.cuda.mem_get_info(device)
        return f"{left / _GIB:.2f} GiB free of {total / _GIB:.2f} GiB on the GPU"
    return free()[1]


def free() -> tuple[float, str]:
    """Return how many bytes this process may still take, and the same in words, within which limit."""
    left, limit = min(_limits())
    return left, f"{left / _GIB:.2f} GiB free within {limit}"


def _limits() -> Iterator[tuple[float, str]]:
    """Yield the free bytes within each limit that there is."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    yield available, f"the machine's {total / _GIB:.2f} GiB"
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        yield most - pages * resource.getpagesize(), f"the process's limit of {most / _GIB:.2f} GiB (ulimit -v)"
    for most_file, now_file in (
        ("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")
    ):  # fmt: skip
        try:
            most, now = (int((_CGROUP / name).read_text()) for name in (most_file, now_file))
        except (OSError, ValueError):  # no such file, or no limit
            continue
        if most < total:
            yield most - now, f"the container's limit of {most / _GIB:.2f} GiB"


@functools.cache
def keep() -> None:
    """Let this process keep the memory that it frees for what it needs next, where that is glibc's to say.

    By itself glibc gives large blocks back to the kernel, which clears each page anew when the next operation asks for
    one of that size: a fifth to a third of a training's time on a CPU. Whoever sets MALLOC_… variables is left alone.
    """
    if not any(name.startswith("MALLOC_") for name in os.environ):
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            for parameter, value in _KEEPING:
                libc.mallopt(parameter, value)


def forget_peak() -> None:
    """Let what `peak` tells begin anew, as far as this machine can."""
    with contextlib.suppress(OSError):
        _REFERENCES.write_text("5")  # resets the kernel's mark of the most that was resident
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak(device: torch.device) -> int | None:
    """Return the most bytes that this process held since `forget_peak`: resident, or on a GPU those allocated on it.

    None where the kernel does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not os.access(_REFERENCES, os.W_OK):
        return None
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def release(error: BaseException) -> None:
    """Let go of what the frames of an error hold; where it came from can still be told."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        one = one.__cause__ or one.__context__
    _collect()


def fitting(batch: int, attempt: Callable[[int], None]) -> int | None:
    """Return the largest of a batch's halves, quarters … that an attempt gets through; None where none does."""
    while batch > 1:
        batch //= 2
        try:
            attempt(batch)
        except Exception as error:
            if not exhausted(error):
                return None  # nothing that a smaller one would change
            release(error)
        else:
            _collect()
            return batch
    return None


def _collect() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps what was freed, within the process's limit
        ctypes.CDLL("libc.so.6").malloc_trim(0)
