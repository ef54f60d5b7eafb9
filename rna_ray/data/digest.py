"""What stands for a data set's content in unit ids, above all a digest: computed once and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from rna_ray.data import image_folder
from rna_ray.data.records import Dataset
from rna_ray.data.registry import folder, load, record
from rna_ray.errors import DataError

#: Bump it when a data set's decoding changes, so that no digest of the old decoding is remembered.
DECODING = 1

_known: dict[str, str] = {}


def content_digest(name: str, root: str | Path | None = None, download: bool = False) -> str:
    """Return blake2b-128, in hex, of the decoded images and labels: equal wherever and however they are kept on disk.

    Of a data set too large for that, it is what its module says: the names and sizes of its files, taken each time.

    Raises DataError if the data set is unknown, missing or damaged.
    """
    return described(name, root, download)["digest"]


def described(
    name: str, root: str | Path | None = None, download: bool = False, side: int | None = None
) -> dict[str, Any]:
    """Return what the settings of units say of a data set: its name, the digest, and what was `found` in a folder.

    Remembered in this process, and in the user's cache folder for files of the same paths, sizes and times, so that
    asking again reads nothing. Raises DataError as `content_digest` does.
    """
    known, where = record(name), folder(root)
    if known.digest is not None:
        return {"name": name, "digest": known.digest(where, download)}
    assert known.files is not None
    key = _key(name, known.files(where, download), side)
    if key not in _known:
        said = _recall(key)
        if said is None:
            dataset = load(name, where, side=side)
            more = {"found": image_folder.found(dataset)} if name == image_folder.NAME else {}
            said = json.dumps({"digest": digest_of(dataset), **more})
            # Files that changed while they were read must not be remembered under what they were before.
            if _key(name, known.files(where, False), side) == key:
                _remember(key, said)
        _known[key] = said
    return {"name": name, **json.loads(_known[key])}


def digest_of(dataset: Dataset) -> str:
    """Return blake2b-128, in hex, of each split's shape, images and labels (little-endian), training first.

    Of one that came with a digest, that one.
    """
    if dataset.digest is not None:
        return dataset.digest
    state = hashlib.blake2b(digest_size=16)
    for split in (dataset.train, dataset.test):
        state.update(json.dumps(split.images.shape).encode())
        state.update(split.images)
        state.update(split.labels.astype("<i8"))
    return state.hexdigest()


def _key(name: str, files: tuple[Path, ...], side: int | None) -> str:
    """Return a digest of what is known without reading: the files' paths, sizes and times, and what decodes them."""
    try:
        stats = [(str(path.absolute()), path.stat()) for path in files]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error
    decoder = [DECODING, importlib.metadata.version("pillow"), name, side]
    facts = [*decoder, [[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats]]
    return _blake(json.dumps(facts))


def _cache_folder() -> Path:
    """Return the user's cache folder; a relative XDG_CACHE_HOME is invalid and ignored, as its specification says."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "rna-ray" / "digests"


def _line(key: str, said: str) -> str:
    """Return a cache file's content: what is remembered, and a check that tells a damaged one."""
    return f"{said} {_blake(f'{key} {said}')}\n"


def _recall(key: str) -> str | None:
    try:
        text = (_cache_folder() / key).read_text("ascii")
    except (OSError, ValueError, RuntimeError):
        return None
    said = text.rpartition(" ")[0]
    return said if text == _line(key, said) else None


def _remember(key: str, said: str) -> None:
    """Write the cache file in one rename; where the cache cannot be written, the digest is computed again next time."""
    with contextlib.suppress(OSError, RuntimeError):
        cache = _cache_folder()
        cache.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".", dir=cache)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(_line(key, said))
            os.replace(temporary, cache / key)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _blake(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
