"""Let go of what a store need not keep: weights, units that no plan asks for, rows that were made by faulty code.

First everything is looked up, then acted upon, records before what they vouch for and evaluations before the networks
that they are of. So whatever dies in between, what still counts is whole, and pruning again does the rest.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal

import pyarrow as pa
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion
from pyarrow import fs

from rna_ray.errors import StoreError
from rna_ray.store import layout, packs, weights
from rna_ray.store.parquet import Store
from rna_ray.store.records import DETAILS, RECORDS, SCHEMAS

Keep = Literal["last", "best", "none"]
KEEP: tuple[Keep, ...] = ("last", "best", "none")
Made = Callable[[str | None, str | None], bool]
"""Says of a version of rna-ray and a git commit, None where it is not known, whether they made what is meant."""

_VIEWS = (*dict.fromkeys(record for record in RECORDS.values() if record != "trials"), "trials")
"""The record views, networks last."""
_ORDER = (*_VIEWS, *DETAILS, "failures", "stops", layout.CHECKPOINTS.name)
_CHECKPOINTS, _MARKER = layout.CHECKPOINTS.name, layout.resume_marker("x").name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruning:
    """What is to go, in the order in which it goes."""

    files: Mapping[PurePosixPath, int]
    """Files to remove, each with its bytes."""
    invalid: Mapping[tuple[str, str], Mapping[PurePosixPath, int]]
    """The units whose rows are set aside as invalid, by record view and id, each with all of its files."""
    needed: int
    """The networks whose weights stay because units that are still to do read them."""

    @property
    def units(self) -> int:
        """The units that lose something."""
        return len({unit_id for _, unit_id in self.invalid} | {unit_of(path) for path in self.files})

    @property
    def freed(self) -> int:
        """The bytes of the files that are removed."""
        return sum(self.files.values())

    def __bool__(self) -> bool:
        return bool(self.files or self.invalid)


def look(
    store: Store, *, keep: Keep | None = None, unplanned: bool = False, made: Made | None = None
) -> Pruning:
    """Return what would be pruned; touches nothing.

    `keep` is what of each finished network's weights stays (best: the last where none was chosen), the states to resume
    from not; weights that a planned unit still needs stay. `unplanned` drops units that no sweep of the store asks for.
    `made` tells rows that are invalid, from the code that made them: then so is what was measured on such networks.
    Raises StoreError where no sweep is known, so that all units would be unplanned.
    """
    sizes = dict(_sizes(store))
    plans = store.read("plans").select(["sweep", "unit_id", "kind", "variant", "axes", "source"]).to_pylist()
    if unplanned and not plans:
        raise StoreError(f"{store.uri} knows no sweep, so that every unit of it would go: run the sweep to keep first")
    of_unit = _by_unit(sizes)
    files: dict[PurePosixPath, None] = {}
    faulty = list(_invalid(store, made)) if made else []
    if made:
        files.update(dict.fromkeys(_faulty_states(store, sizes, made)))
    if unplanned:
        gone = of_unit.keys() - {row["unit_id"] for row in plans}
        files.update(dict.fromkeys(_in_order(path for unit_id in gone for path in of_unit[unit_id])))
    spared: set[str] = set()
    if keep:
        trials = store.read("trials").select(["unit_id", "last_sha256", "best_sha256"]).to_pylist()
        needed = _needed(store, plans)
        surplus = {row["unit_id"]: list(_surplus(row, of_unit[row["unit_id"]], keep)) for row in trials}
        spared = {unit_id for unit_id in needed if any(path.name != _MARKER for path in surplus.get(unit_id, ()))}
        for unit_id in surplus.keys() - spared:
            files.update(dict.fromkeys(surplus[unit_id]))
    invalid = {(view, unit_id): _in_order(of_unit[unit_id]) for view, unit_id in faulty}
    aside = {path for paths in invalid.values() for path in paths}
    return Pruning(
        files={path: sizes[path] for path in files if path not in aside},
        invalid={key: {path: sizes[path] for path in paths} for key, paths in invalid.items()},
        needed=len(spared),
    )  # fmt: skip


def do(store: Store, pruning: Pruning) -> Store | None:
    """Do what was looked up; return the store of the rows that were set aside, if any were."""
    aside = _set_aside(store, pruning.invalid) if pruning.invalid else None
    for _, paths in itertools.groupby(pruning.files, key=_rank):
        store.files.each(store.files.remove, list(paths))
    packs.retire(store, packs.stale(store, packs.known(store)))
    return aside


def made_by(versions: str | None, commits: Collection[str]) -> Made:
    """Return whether code is of a version in a range such as `<0.3` or `>=0.2,!=0.2.4`, or of one of some commits.

    A commit is given by 7 or more of its first digits. Code whose version nobody noted is older than any that is named.
    Raises StoreError for what is no range, and no commit.
    """
    try:
        within = SpecifierSet(versions) if versions is not None else None
    except InvalidSpecifier:
        raise StoreError(
            f"--versions {versions!r} is no range of versions: write comparisons such as '<0.3' or '>=0.2,<0.2.4'"
        ) from None
    if within is not None and not len(within):
        raise StoreError("--versions is empty and would mean every row: write comparisons such as '<0.3'")
    for commit in commits:
        if not (7 <= len(commit) <= 40 and set(commit) <= set("0123456789abcdef")):
            raise StoreError(f"--commit {commit!r} is no commit: write 7 to 40 of its hexadecimal digits")

    def matches(version: str | None, commit: str | None) -> bool:
        try:
            if within is not None and within.contains(version or "0", prereleases=True):
                return True
        except InvalidVersion:
            pass
        return commit is not None and commit.startswith(tuple(commits))

    return matches


# -- weights -----------------------------------------------------------------------------------------------------------


def _needed(store: Store, plans: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the networks that units still to do may read: those of their variant and axes, and of their source."""
    done = set().union(*(store.done(record) for record in _VIEWS))
    networks: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for row in plans:
        if row["kind"] in ("train", "import"):
            networks[row["sweep"], row["variant"] + row["axes"]].add(row["unit_id"])
            networks[row["sweep"], row["variant"]].add(row["unit_id"])
    found: set[str] = set()
    for row in plans:
        if row["kind"] not in ("train", "import") and row["unit_id"] not in done:
            found |= networks[row["sweep"], row["variant"] + row["axes"]]
            if row["source"] is not None:
                found |= networks[row["sweep"], row["source"]]
    return found


def _surplus(row: Mapping[str, Any], paths: Iterable[PurePosixPath], keep: Keep) -> Iterator[PurePosixPath]:
    """Yield the files of a finished network's weights that are not to be kept, and of states to resume from."""
    name = "last" if keep == "best" and row["best_sha256"] is None else keep
    digest = None if name == "none" else row[f"{name}_sha256"]
    kept = layout.weights_file(row["unit_id"], name, digest) if digest else None
    yield from (path for path in _in_order(paths) if path.parts[0] == _CHECKPOINTS and path != kept)


# -- files -------------------------------------------------------------------------------------------------------------


def _sizes(store: Store) -> Iterator[tuple[PurePosixPath, int]]:
    """Yield every file of the store and its bytes."""
    for info in store.files.below(PurePosixPath(".")):
        if info.type == fs.FileType.File:
            yield PurePosixPath(info.path).relative_to(store.files.root), info.size


def _by_unit(paths: Iterable[PurePosixPath]) -> dict[str, list[PurePosixPath]]:
    found: dict[str, list[PurePosixPath]] = collections.defaultdict(list)
    for path in paths:
        if (unit_id := unit_of(path)) is not None:
            found[unit_id].append(path)
    return found


def _in_order(paths: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """Return files in the order in which they may go: records, networks' last, then what they vouch for."""
    return sorted(paths, key=lambda path: (*_rank(path), path.as_posix()))


def _rank(path: PurePosixPath) -> tuple[int, bool]:
    return _ORDER.index(path.parts[0]), path.name != _MARKER  # a state that the marker names must be there


def unit_of(path: PurePosixPath) -> str | None:
    """Return the unit that a file of rows, of a failure, of a stop or of weights is of; None for any other file."""
    if path.name.startswith("."):
        return None  # being written, or left by a writer that died
    if path.parts[0] == _CHECKPOINTS and len(path.parts) == 3:
        return path.parts[1]
    if path.parts[0] in SCHEMAS and path.parts[0] != "plans" and len(path.parts) == 2:
        stem = layout.stem(path.name)
        return layout.unit_of(stem) if stem is not None else None
    return None


# -- invalid rows ------------------------------------------------------------------------------------------------------


def _invalid(store: Store, made: Made) -> Iterator[tuple[str, str]]:
    """Yield record view and id of each unit that such code made, or whose network it made: networks last."""
    trials = store.read("trials").select(["unit_id", "rna_ray", "commit", "earlier_code"]).to_pylist()
    faulty = {
        row["unit_id"]
        for row in trials
        if any(made(one["rna_ray"], one["commit"]) for one in (row, *json.loads(row["earlier_code"] or "[]")))
    }
    for view in _VIEWS[:-1]:
        columns = [name for name in ("unit_id", "rna_ray", "commit", "network_id", "source_id")
                   if name in SCHEMAS[view].names]  # fmt: skip
        for row in store.read(view).select(columns).to_pylist():
            if made(row["rna_ray"], row["commit"]) or {row["network_id"], row.get("source_id")} & faulty:
                yield view, row["unit_id"]
    yield from (("trials", unit_id) for unit_id in sorted(faulty))


def _faulty_states(store: Store, sizes: Mapping[PurePosixPath, int], made: Made) -> Iterator[PurePosixPath]:
    """Yield the files of the states to resume from that such code trained, the marker first."""
    for path in sizes:
        unit_id = unit_of(path)
        if path.name != _MARKER or unit_id is None:
            continue
        if any(made(one["rna_ray"], one["commit"]) for one in weights.made_by(store, unit_id)):
            yield path
            yield from (one for one in sizes if one.parent == path.parent and one.name.startswith("resume-"))


def _set_aside(store: Store, invalid: Mapping[tuple[str, str], Iterable[PurePosixPath]]) -> Store:
    """Move units to a store of invalid rows, inside this one: copied whole first, so that no row is ever lost."""
    folder = layout.invalid_folder(f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    aside = Store(dataclasses.replace(store.files, uri=_inside(store.uri, folder), root=store.files.root / folder))
    stems = details(store)
    for (view, unit_id), paths in invalid.items():
        aside.commit(unit_id, rows_of(store, unit_id, view, stems), record=view)
        for path in paths:
            if path.parts[0] in (*_VIEWS, *DETAILS):
                store.files.remove(path)
            else:  # its failures, which would count as attempts, its stops and its weights
                store.files.move(path, aside.files)
    return aside


def details(store: Store) -> dict[str, dict[str, str]]:
    """Return the files of each detail view that count: view → unit id → stem."""
    return {view: store.counted(view) for view in DETAILS}


def rows_of(store: Store, unit_id: str, record: str, stems: Mapping[str, Mapping[str, str]]) -> dict[str, pa.Table]:
    """Return a finished unit's rows in each of its views; StoreError where one of the files is damaged."""
    found = {record: store.read_file(record, unit_id)}
    for view, of in DETAILS.items():
        if of == record and (stem := stems[view].get(unit_id)) is not None:
            found[view] = store.read_file(view, stem)
    return found


def _inside(uri: str, folder: PurePosixPath) -> str:
    """Return the address of a folder of a store, what a URI says after `?` kept."""
    if "://" not in uri:
        return f"{uri}/{folder}"
    parts = urllib.parse.urlsplit(uri)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{folder}").geturl()
