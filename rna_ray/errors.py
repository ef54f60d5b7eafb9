"""Every error that rna-ray raises on purpose.

    RnaRayError
    ├── UserError             a mistake in what was given: one sentence, exit status 2, nothing started or written
    │   ├── SweepError        a sweep file or an override (`--set`)
    │   ├── SpaceError        a norm space that does not parse, or does not fit a network
    │   ├── NetworkError      a network of the user's own that cannot be found, built or used
    │   ├── DataError         a data set that is missing, damaged or unknown
    │   ├── StoreError        a store that cannot be opened, read or written
    │   │   ├── CacheError    a cache of this machine that cannot be written
    │   │   ├── DamageError   a file of a store whose bytes are not those that were written
    │   │   └── UnreachableError  one that does not answer: nothing is wrong with what was asked
    │   ├── CheckpointError   weights that are damaged or do not fit their network
    │   ├── QueryError        SQL or a table name that cannot be answered
    │   ├── FigureError       a figure that is unknown, has no rows yet, or cannot be written
    │   ├── ReportError       a report that cannot be written
    │   └── ResourceError     CPUs or GPUs that the cluster does not have
    ├── RunStopped            a run that ended before all was done, and not by the user's wish: exit status 1, resumable
    └── UnitError             a unit that cannot give a result; recorded, the others go on
        ├── LimitError        a unit that took longer than it may
        ├── OutOfMemory       a unit that needs more memory than there is
        └── AttackError       an attack that left its ball, or broke its contract
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RnaRayError(Exception):
    """The root: catches everything that rna-ray raises on purpose."""


class UserError(RnaRayError):
    """A mistake in what was given; its message is the one sentence that the user reads."""


class SweepError(UserError):
    """A sweep file, or an override of it, that cannot be used."""


class SpaceError(UserError):
    """A norm space that does not parse, or does not fit a layer of the network."""


class NetworkError(UserError):
    """A network of the user's own (`network.import`) that cannot be found, built or used."""


class DataError(UserError):
    """A data set that is missing, damaged or unknown."""


class StoreError(UserError):
    """A store that cannot be opened, read or written."""


class DamageError(StoreError):
    """A file of a store whose bytes are not those that were written."""


class UnreachableError(StoreError):
    """A store that does not answer, however often it is asked; nothing is wrong with the unit that asked."""


class CacheError(StoreError):
    """A machine's cache that takes no file."""


class CheckpointError(UserError):
    """Weights that are missing, damaged, or do not fit their network."""


class QueryError(UserError):
    """SQL or a table name that cannot be answered from the store."""


class FigureError(UserError):
    """A figure that is unknown, has no rows yet, or cannot be written."""


class ReportError(UserError):
    """A report that cannot be written where it was asked for."""


class ResourceError(UserError):
    """CPUs or GPUs asked for that the cluster does not have."""


class RunStopped(RnaRayError):
    """A run that ended before all was done: a full disk, a store that does not answer, a budget that is spent."""


class UnitError(RnaRayError):
    """A unit that cannot give a result: recorded as failed, the others go on."""


class LimitError(UnitError):
    """A unit that took longer than its limit."""


class OutOfMemory(UnitError):
    """A unit that needs more memory than there is; says which batch would fit."""


class AttackError(UnitError):
    """An attack that left its ball or returned what is not an image."""


def unknown(what: str, given: str, known: Iterable[str]) -> str:
    """Return the sentence for an unknown name: the nearest known one first, then all of them.

    >>> unknown("attack", "pdg", ["fgsm", "pgd"])
    "unknown attack 'pdg'; did you mean 'pgd'? Known: fgsm, pgd"
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {given!r}{hint} Known: {', '.join(names)}"


def first_line(error: BaseException) -> str:
    """Return what an error says in its first line, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def sentence(error: BaseException) -> str:
    """Return an error's type and first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
