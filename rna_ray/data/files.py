"""Finding and reading the files of a data set, with errors that say what to put where."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rna_ray.errors import DataError


@dataclass(frozen=True)
class Layout:
    """One way in which people keep a data set: these files in this folder, each with any one of the suffixes."""

    folder: Path
    names: tuple[str, ...]
    suffixes: tuple[str, ...] = ("",)

    def find(self, name: str) -> Path | None:
        """Return the file called `name`, under the first suffix that exists."""
        candidates = (self.folder / f"{name}{suffix}" for suffix in self.suffixes)
        # os.path.isfile also answers (False) for folders that may not be entered, where Path.is_file raises.
        return next((path for path in candidates if os.path.isfile(path)), None)

    def lacking(self) -> tuple[str, ...]:
        """Return the names that are not there."""
        return tuple(name for name in self.names if self.find(name) is None)

    def files(self) -> tuple[Path, ...]:
        """Return the files found, in the order of `names`."""
        return tuple(path for name in self.names if (path := self.find(name)) is not None)


def locate(
    title: str,
    root: Path | None,
    layouts: Callable[[Path], Sequence[Layout]],
    fetch: Callable[[Path], None] | None,
) -> tuple[Path, ...]:
    """Return the files of the first complete layout under `root`, fetching them first if none is and `fetch` is given.

    `title` is the data set's name in messages. Raises DataError naming the accepted files and folders.
    """
    if root is None:
        raise DataError(f"{title} is read from a folder: set data.root to the one that holds it")
    complete = _first_complete(layouts(root))
    if complete is None and fetch is not None:
        fetch(root)
        complete = _first_complete(layouts(root))
    if complete is None:
        raise DataError(_advice(title, root, layouts(root)))
    return complete.files()


def read(path: Path) -> bytes:
    """Return the bytes of a file, or raise a DataError that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def entries(folder: Path, *, folders: bool) -> Iterator[os.DirEntry[str]]:
    """Yield the folders or the files in a folder, but for those whose name starts with a dot."""
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if not entry.name.startswith(".") and entry.is_dir() == folders:
                    yield entry
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}") from error


def _first_complete(layouts: Sequence[Layout]) -> Layout | None:
    return next((layout for layout in layouts if not layout.lacking()), None)


def _advice(title: str, root: Path, layouts: Sequence[Layout]) -> str:
    """Return the sentence on what was found and what to put where."""
    there = "" if os.path.isdir(root) else " (a file, not a folder)" if os.path.exists(root) else " (no such folder)"
    folders: dict[str, list[str]] = {}
    for layout in layouts:
        folders.setdefault(_wanted(layout), []).append(str(layout.folder))
    accepted = "; or ".join(f"{wanted} into {' or '.join(where)}" for wanted, where in folders.items())
    partial = "".join(f" ({layout.folder} lacks {', '.join(layout.lacking())})" for layout in layouts if layout.files())
    return f"no complete {title} under {root}{there}{partial}: put {accepted}; or set data.download=true to fetch it"


def _wanted(layout: Layout) -> str:
    endings = [suffix for suffix in layout.suffixes if suffix]
    return ", ".join(layout.names) + (f" (each may end in {' or '.join(endings)})" if endings else "")
