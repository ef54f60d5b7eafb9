"""The digest that stands for a data set's content in unit ids, computed once and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

from rna_ray.data.records import Dataset
from rna_ray.data.registry import folder, info
from rna_ray.errors import DataError

#: Bump it when a data set's decoding changes, so that no digest of the old decoding is remembered.
DECODING = 1

_known: dict[str, str] = {}


def content_digest(name: str, root: str | Path | None = None, download: bool = False) -> str:
    """Return blake2b-128, in hex, of the decoded images and labels: equal wherever and however they are kept on disk.

    Of a data set too large for that, it is what its module says: the names and sizes of its files, taken each time.

    Remembered in this process, and in the user's cache folder for files of the same paths, sizes and times, so that
    asking again reads nothing. Raises DataError if the data set is unknown, missing or damaged.
    """
    record, where = info(name), folder(root)
    if record.digest is not None:
        return record.digest(where, download)
    assert record.files is not None
    key = _key(name, record.files(where, download))
    if key not in _known:
        digest = _recall(key)
        if digest is None:
            digest = digest_of(record.load(where, False))
            # Files that changed while they were read must not be remembered under what they were before.
            if _key(name, record.files(where, False)) == key:
                _remember(key, digest)
        _known[key] = digest
    return _known[key]


def digest_of(dataset: Dataset) -> str:
    """Return blake2b-128, in hex, of each split's shape, images and labels (little-endian), training first.

    Of a data set in files, the digest that it came with.
    """
    if dataset.digest is not None:
        return dataset.digest
    state = hashlib.blake2b(digest_size=16)
    for split in (dataset.train, dataset.test):
        state.update(json.dumps(split.images.shape).encode())
        state.update(split.images)
        state.update(split.labels.astype("<i8"))
    return state.hexdigest()


def _key(name: str, files: tuple[Path, ...]) -> str:
    """Return a digest of the files' paths, sizes and times: what can be known of them without reading."""
    try:
        stats = [(str(path.absolute()), path.stat()) for path in files]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error
    facts = [DECODING, name, [[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats]]
    return _blake(json.dumps(facts))


def _cache_folder() -> Path:
    """Return the user's cache folder; a relative XDG_CACHE_HOME is invalid and ignored, as its specification says."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "rna-ray" / "digests"


def _line(key: str, digest: str) -> str:
    """Return a cache file's content: the digest, and a check that tells a damaged one."""
    return f"{digest} {_blake(f'{key} {digest}')}\n"


def _recall(key: str) -> str | None:
    try:
        text = (_cache_folder() / key).read_text("ascii")
    except (OSError, ValueError, RuntimeError):
        return None
    digest = text[:32]
    return digest if text == _line(key, digest) else None


def _remember(key: str, digest: str) -> None:
    """Write the cache file in one rename; where the cache cannot be written, the digest is computed again next time."""
    with contextlib.suppress(OSError, RuntimeError):
        cache = _cache_folder()
        cache.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".", dir=cache)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(_line(key, digest))
            os.replace(temporary, cache / key)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _blake(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
