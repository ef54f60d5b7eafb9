"""An object store's filesystem that is asked again when it does not answer, and takes a file whole or not at all.

Networks and object stores fail for moments: connections break, servers answer 500 or `SlowDown`. Such a request is
made again, after ever longer pauses, for half a minute; what cannot get better, as a bucket that does not exist or
credentials that are not accepted, is said at once.
"""

from __future__ import annotations

import io
import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from rna_ray.errors import first_line

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

PATIENCE_SECONDS = 30.0
"""How long a request is made again and again."""

CONNECT_SECONDS, SILENT_SECONDS = 5.0, 10.0
"""How long a connection may take to be made, and an answer to go on; pyarrow's are 1 and 3 seconds."""

_PAUSES = (0.25, 4.0)  # the first pause and the longest, each cut by up to a half at random
_HASTE = random.SystemRandom()  # so that the workers of a sweep do not all come back at the same instant
_READ_BYTES = 1 << 16
_COPY_BYTES = 1 << 24
_HOPELESS = re.compile(
    r"ACCESS_DENIED|NO_SUCH_(BUCKET|KEY)|INVALID_(ACCESS|CLIENT|SIGNATURE)|SIGNATURE_DOES_NOT_MATCH|EXPIRED"
    r"|UNRECOGNIZED_CLIENT|MISSING_AUTH|NOT_SIGNED_UP|OPT_IN_REQUIRED|HTTP status (?!408|429)4\d\d"  # S3, by its codes
    r"|PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT|NOT_FOUND"  # Google's
    r"|Not a regular file|[Ii]s a directory"  # pyarrow's own
)


class NoAnswerError(OSError):
    """A filesystem that did not answer as it should, however often it was asked."""


@dataclass(frozen=True)
class Remote:
    """What a store asks of an object store, in pyarrow's words; NoAnswerError where that stays without an answer."""

    filesystem: fs.FileSystem

    def get_file_info(self, of: str | fs.FileSelector) -> Any:
        """Return what is at a path, or all that a selector finds."""
        return asked(lambda: self.filesystem.get_file_info(of))

    def has(self, path: str) -> bool:
        """Return whether there is an object; one request, where asking what there is takes two."""
        try:
            self.open_input_file(path).close()
        except FileNotFoundError:
            return False
        return True

    def open_input_stream(self, path: str) -> io.BufferedReader:
        """Return a stream to read from its start to its end, or at once."""
        return io.BufferedReader(_Ranges(self.filesystem, path), _COPY_BYTES)

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Return a file to read parts of."""
        return pa.PythonFile(io.BufferedReader(_Ranges(self.filesystem, path), _READ_BYTES), mode="r")

    def write(self, path: str, data: bytes | pa.Buffer) -> None:
        """Write an object: it appears once all its bytes have arrived, or not at all."""

        def put() -> None:
            # All bytes in one go: closing a half-filled stream after an error would publish half an object.
            with self.filesystem.open_output_stream(path, compression=None) as stream:
                stream.write(data)

        asked(put)

    def delete_file(self, path: str) -> None:
        """Remove an object; FileNotFoundError where there is none."""
        asked(lambda: self.filesystem.delete_file(path))

    def delete_dir(self, path: str) -> None:
        """Remove all objects whose names start with this path and a slash."""
        asked(lambda: self.filesystem.delete_dir(path))


def tuned(filesystem: fs.FileSystem) -> fs.FileSystem:
    """Return the filesystem with fewer requests and more patience, where it is S3's; the same else.

    A small object is then written by one request, where pyarrow makes three to open, fill and close it.
    """
    if not isinstance(filesystem, fs.S3FileSystem):
        return filesystem
    _, (options,) = filesystem.__reduce__()
    if not options["proxy_options"]["host"]:
        del options["proxy_options"]
    patience = {"connect_timeout": CONNECT_SECONDS, "request_timeout": SILENT_SECONDS}
    return fs.S3FileSystem(**{**options, **patience, "allow_delayed_open": True})


def asked(question: Callable[[], Answer]) -> Answer:
    """Return the answer of a filesystem, asked again where it gives none.

    Raises what it raises where asking again would not help, NoAnswerError once patience has run out.
    """
    started, pause = time.monotonic(), _PAUSES[0]
    tries = 0
    while True:
        try:
            return question()
        except OSError as error:
            if not passing(error):
                raise
            tries, taken = tries + 1, time.monotonic() - started
            if taken + pause > PATIENCE_SECONDS:
                said = f"no answer in {tries} tries over {taken:.0f} s, the last time: {first_line(error)}"
                raise NoAnswerError(said) from error
            if tries == 1:
                log.warning("%s; it is asked again for %.0f s", first_line(error), PATIENCE_SECONDS)
        time.sleep(pause * _HASTE.uniform(0.5, 1.0))
        pause = min(2 * pause, _PAUSES[1])


def passing(error: OSError) -> bool:
    """Return whether an error of an object store may be gone at the next try."""
    return error.errno is None and not isinstance(error, NoAnswerError) and not _HOPELESS.search(str(error))


class _Ranges(io.RawIOBase):
    """The bytes of an object, each part asked for until it has come."""

    def __init__(self, filesystem: fs.FileSystem, path: str) -> None:
        self._file = asked(lambda: filesystem.open_input_file(path))
        self._size, self._at = self._file.size(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        found = self._part(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def readall(self) -> bytes:
        return self._part(self._size)

    def _part(self, length: int) -> bytes:
        at, wanted = self._at, min(length, self._size - self._at)
        if wanted <= 0:
            return b""
        found = asked(lambda: self._whole(self._file.read_at(wanted, at), wanted))
        self._at += len(found)
        return found

    @staticmethod
    def _whole(found: bytes, wanted: int) -> bytes:
        """Return what came, if it is all: a connection may break in the middle of an answer."""
        if len(found) < wanted:
            raise OSError(f"the answer broke off after {len(found):,} of {wanted:,} bytes")
        return found

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
