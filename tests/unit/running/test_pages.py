"""Images are decoded once a machine, mapped by all of its processes, and never those of a damaged file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rna_ray import data
from rna_ray.data import Dataset
from rna_ray.errors import UnreachableError
from rna_ray.running import pages

DIGEST = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RNA_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / pages.ROOM / DIGEST


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load("digits")


@pytest.fixture
def decode(digits: Dataset) -> Callable[[], Dataset]:
    """Return the digits, but once."""
    left = [digits]
    return lambda: left.pop()


def same(a: Dataset, b: Dataset) -> bool:
    pairs = [(getattr(a, split), getattr(b, split)) for split in ("train", "test")]
    equal = all(np.array_equal(x.images, y.images) and np.array_equal(x.labels, y.labels) for x, y in pairs)
    return equal and (a.name, a.classes, a.origin) == (b.name, b.classes, b.origin)


def test_the_second_reader_maps_what_the_first_one_decoded(decode: Callable[[], Dataset], digits: Dataset) -> None:
    first, second = pages.shared(DIGEST, decode), pages.shared(DIGEST, decode)
    assert same(first, second) and same(first, pages.ordered(digits))
    assert isinstance(second.train.images, np.memmap)
    part = second.train.part(slice(10, 20))
    assert np.shares_memory(part.images, second.train.images) and len(part) == 10


def test_what_is_written_to_an_array_stays_in_its_process(decode: Callable[[], Dataset]) -> None:
    first = pages.shared(DIGEST, decode)
    first.test.images[:] = 0
    assert pages.shared(DIGEST, decode).test.images.any()


@pytest.mark.parametrize("harm", ["a byte", "the end", "the facts", "a file", "all of it"])
def test_a_damaged_copy_is_made_again(cache: Path, digits: Dataset, harm: str) -> None:
    pages.shared(DIGEST, lambda: digits)
    path = cache / ("facts.json" if harm == "the facts" else "train-images.npy")
    content = path.read_bytes()
    if harm == "a byte":
        path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    elif harm == "a file":
        path.unlink()
    elif harm == "all of it":  # as a power cut leaves it
        path.write_bytes(b"")
    else:
        path.write_bytes(content[: len(content) // 2])
    found = pages.shared(DIGEST, lambda: digits)
    assert same(found, pages.ordered(digits)) and isinstance(found.train.images, np.memmap)
    assert path.read_bytes() == content


def test_where_the_cache_takes_no_file_the_images_are_the_process_s_own(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RNA_RAY_CACHE", str(tmp_path / "file"))
    found = pages.shared(DIGEST, lambda: digits)
    assert same(found, pages.ordered(digits)) and not isinstance(found.train.images, np.memmap)
    assert "images are decoded by each process for itself: cannot keep" in caplog.text


def test_what_decoding_raises_is_raised_as_it_is_and_once() -> None:
    asked = []

    def decode() -> Dataset:
        asked.append(1)
        raise UnreachableError("no answer")

    with pytest.raises(UnreachableError, match="no answer"):
        pages.shared(DIGEST, decode)
    assert asked == [1]


def test_images_in_use_do_not_give_way(
    cache: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages.shared(DIGEST, lambda: digits)
    monkeypatch.setenv("RNA_RAY_CACHE_GB", "0.000001")
    program = "from rna_ray.store import cache; cache.kept('weights', 'w', lambda path: path.write_bytes(b'0' * 2000))"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert cache.exists()


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="the kernel says nothing of pages here")
def test_two_processes_hold_the_images_once(cache: Path, digits: Dataset) -> None:
    pages.shared(DIGEST, lambda: digits)
    program = f"""
import sys
from rna_ray.running import pages
found = pages.shared({DIGEST!r}, None)
held = found.train.part(slice(100, None)), found.test
sum(int(part.images.sum()) for part in held)
print("mapped", flush=True)
sys.stdin.read()
print(open("/proc/self/smaps").read())
"""
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for one in both:
            assert one.stdout is not None and one.stdout.readline() == "mapped\n"
        maps, _ = both[0].communicate("")
    finally:
        for one in both:
            one.kill()
            one.communicate()
    (mapped,) = re.findall(rf"{re.escape(str(cache))}/train-images.npy\n(.*?)VmFlags", maps, re.DOTALL)
    size = {name: int(kilobytes) for name, kilobytes in re.findall(r"(\w+): +(\d+) kB", mapped)}
    assert size["Rss"] > 0 and size["Private_Dirty"] == size["Private_Clean"] == 0
    assert size["Pss"] <= size["Rss"] / 2 + 4
