"""Whose fault an error is: the unit's, or that of a disk, a store or a data set that let it down."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from rna_ray.errors import DataError, StoreError, first_line

_FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))
_AWAY = tuple(
    os.strerror(number)
    for number in (
        errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT,
        errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED, errno.ECONNRESET,
    )
)  # fmt: skip
_REMOTE = ("AWS Error", "google::cloud::Status")
_ABSENT = ("NO_SUCH_KEY", "RESOURCE_NOT_FOUND", "NOT_FOUND")


def outside(error: BaseException) -> str | None:
    """Return the sentence of an error that is not the unit's fault, None for one that is.

    Not the unit's are a full disk, a store that does not answer, and data that vanished or changed: the next unit would
    meet them too. Judged by texts, as libraries and processes in between leave nothing else.
    """
    for one in _chain(error):
        said = str(one)
        if any(text in said for text in _FULL) or isinstance(one, DataError):
            return _both(error, one)
        if isinstance(one, StoreError):
            for cause in _chain(one):
                if any(text in str(cause) for text in _AWAY) or _remote(str(cause)):
                    return _both(error, cause)
    return None


def _both(error: BaseException, cause: BaseException) -> str:
    """Return what an error said, and its cause where the error does not say that itself."""
    said, why = first_line(error), first_line(cause)
    return said if why in said else f"{said}: {why}"


def _remote(said: str) -> bool:
    return any(text in said for text in _REMOTE) and not any(text in said for text in _ABSENT)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came from."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__
