"""Decoded images that the processes of a machine share: decoded by the first, and mapped from one file by all.

A trial of CIFAR-10 would else hold 184 MB of its own, and decode them by itself. Training images lie in the one order
that tells those held out from those trained on, so that every part of them is a slice, which copies nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rna_ray.data import Dataset, Split
from rna_ray.data.image_files import ImageFiles
from rna_ray.errors import CacheError
from rna_ray.randomness import Randomness
from rna_ray.store import cache

log = logging.getLogger(__name__)
ROOM = "decoded"
_ARRAYS = ("train-images", "train-labels", "test-images", "test-labels")
_FACTS = "facts.json"


def ordered(found: Dataset) -> Dataset:
    """Return a data set with its training images in the order of `held out`, which no seed changes."""
    order = Randomness(f"held-out/{found.name}").permutation("order", len(found.train))
    train = found.train.part(order)
    return Dataset(
        name=found.name, train=train, test=found.test, classes=found.classes, origin=found.origin, digest=found.digest
    )


def shared(digest: str, decode: Callable[[], Dataset]) -> Dataset:
    """Return the data set of a digest, `ordered`, its arrays mapped from this machine's cache; decoded where not there.

    Arrays may be written to: what is written stays in this process. Where the cache takes no file, they are its own.
    """
    once = functools.cache(lambda: ordered(decode()))
    try:
        for _ in range(2):
            folder = cache.kept(ROOM, digest, lambda target: _write(target, once()), stays=True)
            if (mapped := _mapped(folder)) is not None:
                return mapped
            cache.forget(ROOM, digest)  # it is damaged
        why = f"what is kept at {cache.folder() / ROOM / digest} is damaged, and cannot be removed"
    except CacheError as error:
        why = str(error)
    log.warning("images are decoded by each process for itself: %s", why)
    return once()


def _write(target: Path, found: Dataset) -> None:
    assert not isinstance(found.train.images, ImageFiles) and not isinstance(found.test.images, ImageFiles)
    arrays = (found.train.images, found.train.labels, found.test.images, found.test.labels)
    target.mkdir()
    for name, array in zip(_ARRAYS, arrays, strict=True):
        np.save(target / f"{name}.npy", array)
    facts = {"name": found.name, "classes": found.classes, "origin": found.origin, "blake2b": _checksum(arrays)}
    (target / _FACTS).write_text(json.dumps(facts), "utf-8")


def _mapped(folder: Path) -> Dataset | None:
    """Return what was written to a folder, None where that is not there whole: it may have given way just now."""
    try:
        facts = json.loads((folder / _FACTS).read_text("utf-8"))
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="c") for name in _ARRAYS]
        if _checksum(arrays) != facts["blake2b"]:
            return None
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    train, test = (Split(images=images, labels=labels) for images, labels in (arrays[:2], arrays[2:]))
    return Dataset(
        name=facts["name"], train=train, test=test, classes=tuple(facts["classes"]), origin=facts["origin"]
    )  # fmt: skip


def _checksum(arrays: tuple[np.ndarray, ...] | list[np.ndarray]) -> str:
    state = hashlib.blake2b(digest_size=16)
    for array in arrays:
        state.update(f"{array.dtype} {array.shape}".encode())
        state.update(array)
    return state.hexdigest()
