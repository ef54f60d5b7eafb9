"""Packs: the rows of many small files in one large file, which questions read in their stead.

A pack is a copy. The units' own files stay, and they alone say what is done; a pack counts while each file that it
copies is there as it was, by size and time. So nothing is lost wherever the writing of one ends, and nothing that
changes later is answered from a copy.

    packs/<view>.<digest>.parquet   the rows
    packs/<view>.<digest>.json      written last: the SHA-256 of the rows, and each file copied with its size and time
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from rna_ray.store import layout, weights
from rna_ray.store.parquet import Store
from rna_ray.store.records import EXAMPLE, SCHEMAS

LOOSE = 100
"""Fewer files than this are as quick to read as a pack of them."""
PACKS = 8
"""From so many packs of a view on, all its rows are packed anew, as one."""
ROWS = 1 << 20
"""The rows of a row group, at most: large enough to decode fast, small enough to read by several threads."""
LEFT_SECONDS = 3600.0
"""What nothing refers to is removed only after an hour: before, someone may be reading it, or about to refer to it."""
_AT_ONCE = 256
_CELL = "cell"

Report = Callable[[int, int], None]
Copied = Mapping[str, tuple[int, int]]
"""The size in bytes and the time in nanoseconds of each file, by its stem."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pack:
    """A pack as its own file of facts has it; `copied` and `sha256` are empty where that file is damaged.

    The digest in its name is that of `copied`.
    """

    view: str
    digest: str
    copied: Copied
    sha256: str

    @property
    def rows(self) -> PurePosixPath:
        """Where its rows lie."""
        return layout.pack_file(self.view, self.digest, ".parquet")

    @property
    def facts(self) -> PurePosixPath:
        """Where it is said what it copies."""
        return layout.pack_file(self.view, self.digest, ".json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed:
    """What was done for a view."""

    view: str
    files: int
    """How many files the new pack copies."""
    bytes: int
    """The size of the new pack."""


def sources(store: Store, view: str, stems: Iterable[str], packs: Iterable[Pack]) -> list[PurePosixPath]:
    """Return the files to read for the rows of a view that count, by their stems: packs that count, and the rest."""
    loose, found = dict.fromkeys(stems), []
    if packs := sorted((pack for pack in packs if pack.view == view), key=lambda pack: -len(pack.copied)):
        there = _there(store, view, loose)
        for pack in packs:
            if _counts(pack, there) and loose.keys() >= pack.copied.keys():
                found.append(pack.rows)
                loose = {stem: None for stem in loose if stem not in pack.copied}
    return [*found, *(layout.rows_file(view, stem) for stem in loose)]


def known(store: Store) -> list[Pack]:
    """Return the packs of a store that have rows and facts, whether or not they count."""
    there = set(store.files.names(layout.PACKS))
    names = sorted(found for name in there if (found := layout.pack_name(name)) is not None)
    packs = store.files.each(lambda name: _read(store, *name), names)
    return [pack for pack in packs if pack.rows.name in there]


def stale(store: Store, packs: Sequence[Pack]) -> list[Pack]:
    """Return those packs that count no more: files that they copy changed or went, or a larger pack copies them too."""
    there = {view: _there(store, view, store.counted(view).values()) for view in {pack.view for pack in packs}}
    return [
        pack for pack in packs
        if not _counts(pack, there[pack.view])
        or any(pack.view == other.view and pack.copied.items() < other.copied.items() for other in packs)
    ]  # fmt: skip


def retire(store: Store, packs: Iterable[Pack]) -> None:
    """Let nobody read packs from now on; who chose their rows before has an hour to do so."""
    for pack in packs:
        store.files.touch(pack.rows)
        store.files.remove(pack.facts)


def _sweep_up(store: Store) -> None:
    """Remove the rows without facts that are an hour old: of packs that were retired, or never finished."""
    there = store.files.entries(layout.PACKS)
    for name, (_, time_ns) in there.items():
        facts = PurePosixPath(name).with_suffix(".json").name
        if layout.pack_name(facts) and facts not in there and time.time() - time_ns / 1e9 > LEFT_SECONDS:
            store.files.remove(layout.PACKS / name)


def compact(store: Store, report: Report = lambda done, total: None) -> list[Packed]:
    """Pack the rows of the views that have many files, and return what was done.

    What was packed before stays so, unless it counts no more or is damaged. `report` gets the number of files copied
    and of all. Raises DamageError naming a file that is damaged, StoreError where the store does not answer or has no
    room; nothing of a pack is left then.
    """
    _sweep_up(store)
    packs = known(store)
    old = stale(store, packs)
    gone = [pack for pack in packs if pack in old or weights.sha256(store, pack.rows) != pack.sha256]
    retire(store, gone)
    of = {view: [pack for pack in packs if pack.view == view and pack not in gone] for view in SCHEMAS}
    asked = {view: work for view in SCHEMAS if (work := _asked(store, view, of[view]))}
    total, done, found = sum(len(copied) for copied, _ in asked.values()), 0, []
    cells = _cells(store) if asked else {}
    for view, (copied, replaced) in asked.items():
        found.append(_pack(store, view, copied, cells, lambda files, before=done: report(before + files, total)))
        done += len(copied)
        retire(store, replaced)
    return found


def _asked(store: Store, view: str, packs: list[Pack]) -> tuple[Copied, list[Pack]] | None:
    """Return which files of a view are to be packed and which packs go then; None where that would be of no use."""
    there = _there(store, view, store.counted(view).values())
    packed = {stem for pack in packs for stem in pack.copied}
    loose = {stem: facts for stem, facts in there.items() if stem not in packed}
    if len(loose) < LOOSE:
        return None
    return (loose, []) if len(packs) + 1 < PACKS else (there, packs)


def _cells(store: Store) -> dict[str, tuple[int, int]]:
    """Return the cell of a table that each planned unit belongs to, by its number, and its place in it."""
    by = ("sweep", "variant", "attack", "knowledge")
    order = [(name, "ascending") for name in (*by, "position")]
    plans = store.read("plans", whole=True).select([*by, "position", "unit_id"]).sort_by(order)
    columns = [plans[name].combine_chunks().dictionary_encode().indices.to_pylist() for name in by]
    planned = zip(plans["unit_id"].to_pylist(), zip(*columns, strict=True), strict=True)
    found: dict[str, tuple[int, int]] = {}
    for cell, (_, units) in enumerate(itertools.groupby(planned, key=operator.itemgetter(1))):
        for place, (unit_id, _) in enumerate(units):
            found.setdefault(unit_id, (cell, place))
    return found


def _pack(
    store: Store, view: str, copied: Copied, cells: Mapping[str, tuple[int, int]], report: Callable[[int], None]
) -> Packed:
    pack = Pack(view=view, digest=_digest(copied), copied=copied, sha256="")
    with store.files.appearing(pack.rows) as stream:
        sink = _Hashed(stream)
        with pq.ParquetWriter(
            pa.PythonFile(sink, "w"), SCHEMAS[view], compression="zstd", write_page_checksum=True
        ) as writer:  # fmt: skip
            for rows in _groups(store, view, copied, cells, report):
                writer.write_table(rows, row_group_size=ROWS)
        size = stream.tell()
    facts = {"sha256": sink.sha256.hexdigest(), "files": copied}
    try:
        store.put(pack.facts, json.dumps(facts).encode())
    except BaseException:
        store.files.remove(pack.rows)
        raise
    return Packed(view=view, files=len(copied), bytes=size)


def _groups(
    store: Store, view: str, copied: Copied, cells: Mapping[str, tuple[int, int]], report: Callable[[int], None]
) -> Iterator[pa.Table]:
    """Yield the rows of files, together where they are few; in each lot those of a cell lie image by image.

    Questions group them so, and are faster where the rows of a group are neighbours.
    """
    unplanned = len(cells), 0
    order = sorted((cells.get(layout.unit_of(stem), unplanned), stem) for stem in copied)
    held, rows = [], 0
    for at in range(0, len(order), _AT_ONCE):
        some = order[at : at + _AT_ONCE]
        tables = store.files.each(lambda one: store.read_file(view, one[1]), some)
        for ((cell, _), _), table in zip(some, tables, strict=True):
            if rows and rows + len(table) > ROWS:
                yield _by_image(held)
                held, rows = [], 0
            held.append(table.append_column(_CELL, pa.repeat(cell, len(table))))
            rows += len(table)
        held = [pa.concat_tables(held).combine_chunks()]  # a table of one row takes as much as one of hundreds
        report(min(len(order), at + _AT_ONCE))
    if rows:
        yield _by_image(held)


def _by_image(held: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of tables with a column of cells, by cell and, where rows are those of images, by image."""
    rows = pa.concat_tables(held)
    by = [name for name in (_CELL, EXAMPLE.name) if name in rows.column_names]
    return rows.sort_by([(name, "ascending") for name in by]).drop_columns(_CELL)


class _Hashed:
    """A stream that takes the SHA-256 of what is written to it."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.sha256 = stream, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return self._stream.write(data)

    def tell(self) -> int:
        return self._stream.tell()

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """Whoever opened the stream closes it."""


def _read(store: Store, view: str, digest: str) -> Pack:
    pack = Pack(view=view, digest=digest, copied={}, sha256="")
    try:
        said = json.loads(store.files.find(pack.facts) or b"")
        copied = {str(stem): (int(size), int(time)) for stem, (size, time) in said["files"].items()}
        if _digest(copied) == digest:
            return dataclasses.replace(pack, copied=copied, sha256=str(said["sha256"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return pack


def _there(store: Store, view: str, stems: Iterable[str]) -> Copied:
    """Return size and time of the files of a view that count and are there."""
    entries = store.files.entries(layout.folder(view))
    return {stem: entries[name] for stem in stems if (name := layout.file_name(stem)) in entries}


def _counts(pack: Pack, there: Copied) -> bool:
    return bool(pack.copied) and all(there.get(stem) == facts for stem, facts in pack.copied.items())


def _digest(copied: Copied) -> str:
    return hashlib.blake2b(json.dumps(sorted(copied.items())).encode(), digest_size=8).hexdigest()
