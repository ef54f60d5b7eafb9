"""Downloads: a file is kept only if its checksum is the published one, a folder appears whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from rna_ray.errors import DataError

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A published file: its addresses, in the order to try them, and the md5 that its publisher gives."""

    urls: tuple[str, ...]
    md5: str


def md5_hex(content: bytes) -> str:
    """Return the md5 of `content`: what publishers give, good against damage, not against forgery."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def fetch(remote: Remote, path: Path) -> None:
    """Write the published file to `path`, from the first address that gives it; DataError if none does."""
    failures = []
    for url in remote.urls:
        try:
            found = _copy(url, path)
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{url}: {_reason(error)}")
        else:
            if found == remote.md5:
                return
            failures.append(f"{url}: md5 {found} where {remote.md5} is published")
    raise DataError(f"cannot download {path.name} ({'; '.join(failures)})")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` in one rename, or vanishes if the body raises.

    Raises DataError if `folder` already holds something: what a user put there is never replaced or added to.
    """
    if _occupied(folder):
        raise DataError(f"cannot download into {folder}, which is not an empty folder: move it away first")
    # Beside the folder's first existing parent: same disk, so that the rename is atomic, and nothing else is left.
    anchor = next(parent for parent in folder.parents if os.path.isdir(parent))
    try:
        work = Path(tempfile.mkdtemp(prefix=".rna-ray-download-", dir=anchor))
    except OSError as error:
        raise DataError(f"cannot write under {anchor}: {error.strerror}") from error
    try:
        # One level below: mkdtemp's own folder is closed to other users, and a rename would keep that.
        inner = work / folder.name
        inner.mkdir()
        yield inner
        _rename(inner, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def extract(archive: Path, members: Iterable[str], folder: Path) -> None:
    """Write the named regular members of a tar archive into `folder`, each under the last part of its name.

    Every other member is passed over, so no name in the archive can reach outside `folder`.
    """
    wanted = set(members)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                source = tar.extractfile(member) if member.isreg() and member.name in wanted else None
                if source is not None:
                    with source, (folder / PurePosixPath(member.name).name).open("wb") as target:
                        shutil.copyfileobj(source, target, CHUNK_BYTES)
                    wanted.discard(member.name)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"cannot unpack {archive.name}: {error}") from error
    if wanted:
        raise DataError(f"{archive.name} lacks {', '.join(sorted(wanted))}")


def _reason(error: Exception) -> object:
    """Return what to say of a network error."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it is the server's answer as well, and holds its connection open
        return error
    return error.reason if isinstance(error, urllib.error.URLError) else error


def _copy(url: str, path: Path) -> str:
    """Write what `url` gives to `path`, with progress on stderr, and return its md5; OSError if it is cut short."""
    request = urllib.request.Request(url, headers={"User-Agent": "rna-ray"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response, path.open("wb") as target:
        expected = int(response.headers.get("Content-Length") or 0)
        digest, done = _pump(response, target, _Progress(url, expected))
    if done < expected:
        raise OSError(f"the connection closed after {done:,} of {expected:,} bytes")
    return digest


def _pump(source: BinaryIO, target: BinaryIO, progress: _Progress) -> tuple[str, int]:
    """Copy one stream into the other and return the md5 and the number of bytes."""
    digest, done = hashlib.md5(usedforsecurity=False), 0
    try:
        while chunk := source.read(CHUNK_BYTES):
            target.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            progress.show(done)
    finally:
        progress.end()
    return digest.hexdigest(), done


class _Progress:
    """One line on stderr: rewritten as bytes arrive where a person watches, printed once in a log."""

    def __init__(self, url: str, expected: int) -> None:
        self.url, self.live = url, sys.stderr.isatty()
        self.size = f"{expected / 1e6:.1f} MB" if expected else "unknown size"
        if not self.live:
            print(f"downloading {url} ({self.size})", file=sys.stderr, flush=True)

    def show(self, done: int) -> None:
        if self.live:
            print(f"\rdownloading {self.url}: {done / 1e6:.1f} of {self.size}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.live:
            print(file=sys.stderr)


def _rename(source: Path, folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, folder)
    except OSError as error:
        # Another process may have put the same verified files there meanwhile, in one rename as well.
        if folder.is_dir() and _occupied(folder):
            return
        raise DataError(f"cannot write {folder}: {error.strerror}") from error


def _occupied(folder: Path) -> bool:
    """Return whether something is there: files, or what cannot be looked into."""
    try:
        return bool(os.listdir(folder))
    except FileNotFoundError:
        return False
    except OSError:
        return True
