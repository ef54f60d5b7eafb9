"""Every byte of a store is vouched for: what was altered is named, what was lost is missed, what is left is told."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rna_ray.errors import DamageError
from rna_ray.store import Store, footers, layout, open_store, seal
from rna_ray.store.files import Files
from rna_ray.store.records import from_rows
from rna_ray.store.verify import remove, verify

LATER = time.time() + 2 * 3600.0


@pytest.fixture
def root(store: Store, rows, evaluated) -> Path:
    """A network with its weights, two evaluations of it, a failure and a plan."""
    root = Path(store.uri)
    shas = {}
    for name in ("last", "best"):
        local = root.parent / name
        local.write_bytes(name.encode() * 1000)
        shas[name] = hashlib.sha256(local.read_bytes()).hexdigest()
        store.put_file(layout.weights_file("net", name, shas[name]), local)
    trial = rows("trials", unit_id="net", last_sha256=shas["last"], best_sha256=shas["best"])
    store.commit("net", {"epochs": rows("epochs", 2, unit_id="net"), "trials": trial}, record="trials")
    for unit in ("u1", "u2"):
        evaluated(store, unit, n=30)
    store.fail("u1", kind="evaluate", attempt=1, error="OSError", message="m", traceback="t", host="h")
    store.put_plan("s", rows("plans", 3, sweep="s", unit_id=["net", "u1", "u2"]))
    return root


def damaged(store: Store, units: set[str] | None = None) -> dict[str, str]:
    return {one.file: one.why for one in verify(store, units).damaged}


def test_a_whole_store_has_nothing_to_tell(store: Store, root: Path) -> None:
    calls: list[tuple[int, int]] = []
    found = verify(store, report=lambda done, total: calls.append((done, total)), now=LATER)
    assert (found.files, found.damaged, found.absent, found.leftovers) == (10, (), (), ())
    assert calls == [(at, 10) for at in range(1, 11)]
    assert found.bytes == sum(path.stat().st_size for path in root.rglob("*/*") if path.is_file())
    assert verify(store, {"u1"}).files == 3  # its record, its examples and its failure


def test_no_flipped_byte_of_a_row_file_goes_unnoticed(root: Path) -> None:
    whole = (root / "examples" / "u1.parquet").read_bytes()
    key = whole.rindex(b"rna_ray.sha256")  # where the seal's own name is gone, no value of the rows is
    for at in range(len(whole)):
        flipped = whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :]
        with contextlib.suppress(ValueError):
            assert seal.digest(flipped) is None and (key <= at < key + 16 or at >= len(whole) - 8), at
    assert seal.digest(whole) is not None


@pytest.mark.parametrize("file", ["examples/u1", "evaluations/u1", "trials/net", "failures/u1.1", "plans/s"])
def test_a_flipped_bit_of_a_row_file_is_named(file: str, store: Store, root: Path) -> None:
    path = root / f"{file}.parquet"
    whole = path.read_bytes()
    for at in (0, 100, len(whole) // 2, len(whole) - 100, len(whole) - 6, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert list(damaged(store)) == [f"{file}.parquet"], at


def test_a_flipped_bit_of_a_footer_is_no_row(store: Store, root: Path) -> None:
    path = root / "evaluations" / "u1.parquet"
    whole = path.read_bytes()
    at = whole.rindex(b"batch_statistics")  # an optional column: without its name, all of it would read as null
    path.write_bytes(whole[:at] + b"c" + whole[at + 1 :])
    assert pq.read_table(path).num_rows == 1  # nobody else would notice
    with pytest.raises(DamageError, match=r"evaluations/u1\.parquet is damaged: its SHA-256 is not the one"):
        store.read_file("evaluations", "u1")


def test_a_file_in_the_stead_of_another_is_named(store: Store, root: Path, evaluated) -> None:
    shutil.copy(root / "examples" / "u2.parquet", root / "examples" / "u1.parquet")
    assert damaged(store) == {"examples/u1.parquet": "is damaged: it holds rows of u2"}
    evaluated(open_store(root.parent / "other"), "u1", n=3)  # of the same unit, by another attempt
    shutil.copy(root.parent / "other" / "examples" / "u1.parquet", root / "examples" / "u1.parquet")
    assert damaged(store) == {"examples/u1.parquet": "is not the file that its unit's record was written with"}


def test_what_is_missing_or_no_file_is_named(store: Store, root: Path) -> None:
    (root / "examples" / "u1.parquet").unlink()
    (root / "epochs" / "net.parquet").unlink()
    (root / "epochs" / "net.parquet").mkdir()
    (root / "evaluations" / "not a unit.parquet").write_bytes(b"x")
    assert damaged(store) == {
        "epochs/net.parquet": "is a folder",
        "evaluations/not a unit.parquet": "is no file of rows: its name is none of a unit",
        "examples/u1.parquet": "is missing",
    }
    remove(store, verify(store))
    assert (store.done("trials"), store.done("evaluations")) == (set(), {"u2"})
    assert not damaged(store)


@pytest.mark.parametrize("file", ["examples/u1.parquet", "epochs/net.parquet"])
def test_a_unit_that_ends_while_the_files_are_listed_is_whole(
    file: str, store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Details come before their record; a listing may come to the record's folder last."""
    below = Files.below

    def before_it_was_there(self: Files, folder: Any) -> Any:
        return [info for info in below(self, folder) if not info.path.endswith(file)]

    monkeypatch.setattr(Files, "below", before_it_was_there)
    assert not damaged(store)
    (root / file).unlink()
    assert damaged(store) == {file: "is missing"}


def test_files_of_an_older_release_have_their_page_checksums(store: Store, root: Path) -> None:
    for path in [*root.glob("evaluations/*"), *root.glob("examples/*"), *root.glob("trials/*")]:
        table = pq.read_table(path).replace_schema_metadata()
        pq.write_table(table, path, write_page_checksum=True)
        assert seal.digest(path.read_bytes()) is None
    assert not damaged(store)
    (root / "epochs" / "net.parquet").unlink()
    path = root / "examples" / "u1.parquet"
    path.write_bytes(path.read_bytes().replace(b"\xff", b"\xfe", 1) if b"\xff" in path.read_bytes()[:900] else b"")
    assert set(damaged(store)) == {"epochs/net.parquet", "examples/u1.parquet"}


def test_weights_are_compared_with_their_name_and_record(store: Store, root: Path) -> None:
    last, best = sorted(root.glob("checkpoints/net/*"), reverse=True)
    last.write_bytes(last.read_bytes()[:-1])
    best.unlink()
    found = verify(store)
    (one,) = found.damaged
    assert one.file == f"checkpoints/net/{last.name}" and one.why.startswith("is damaged: its SHA-256 is ")
    assert [one.file for one in found.absent] == [f"checkpoints/net/{best.name}"]  # pruned, perhaps: nobody needs them
    remove(store, found)
    assert store.done("trials") == set() and not list(root.glob("checkpoints/net/*"))
    assert store.done("evaluations") == {"u1", "u2"}  # what was done with them stays


def test_states_to_resume_from_cost_no_rows(store: Store, root: Path) -> None:
    folder = root / "checkpoints" / "net2"
    folder.mkdir()
    (folder / "resume.json").write_text('{"sha256": "../../x"}')
    (folder / f"resume-{'ab' * 8}.safetensors").write_bytes(b"x")
    found = verify(store)
    assert {one.file: one.view for one in found.damaged} == {
        "checkpoints/net2/resume.json": None, f"checkpoints/net2/resume-{'ab' * 8}.safetensors": None,
    }  # fmt: skip
    remove(store, found)
    assert not list(folder.iterdir()) and store.done("trials") == {"net"}


def test_what_nothing_refers_to_is_left_over_after_an_hour(store: Store, root: Path) -> None:
    stray = [
        root / "examples" / ".u3.parquet.0123.tmp", root / "examples" / "u3.parquet",
        root / "examples" / "u1.0123456789abcdef.parquet", root / "checkpoints" / "net" / "resume.json",
    ]  # fmt: skip
    for path in stray[:2]:
        shutil.copy(root / "examples" / "u2.parquet", path)
    table = store.read_file("examples", "u2").to_pylist()
    other = [row | {"unit_id": "u3"} for row in table]
    stray[1].write_bytes(seal.sealed(from_rows("examples", other))[0])
    stray[2].write_bytes(seal.sealed(from_rows("examples", [row | {"unit_id": "u1"} for row in table[:3]]))[0])
    sha256 = hashlib.sha256(b"x").hexdigest()
    stray[3].write_text(f'{{"sha256": "{sha256}"}}')
    stray.append(root / layout.weights_file("net", "resume", sha256))
    stray[4].write_bytes(b"x")
    assert verify(store).leftovers == () and verify(store).damaged == ()  # someone may be about to refer to them
    found = verify(store, now=LATER)
    assert sorted(one.file for one in found.leftovers) == sorted(str(path.relative_to(root)) for path in stray)
    assert found.damaged == () and store.read("examples", ["u1"]).num_rows == 30
    remove(store, found)
    assert not [path for path in stray if path.exists()] and store.read("examples").num_rows == 60


# -- the look at the ends ----------------------------------------------------------------------------------------------

KINDS = {"net": "train", "u1": "evaluate", "u2": "evaluate"}


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def garbage(path: Path) -> None:
    path.write_bytes(b"x" * 100 + (200).to_bytes(4, "little") + b"PAR1")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (cut, "is truncated, or no Parquet file"), (empty, "is empty"), (garbage, "its footer does not fit into it"),
    (folder, "is a folder"), (Path.unlink, "is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "said"), DAMAGE)
@pytest.mark.parametrize("file", ["examples/u1", "evaluations/u1", "epochs/net"])
def test_a_look_at_the_ends_finds_what_was_cut(
    file: str, damage: Callable[[Path], None], said: str, store: Store, root: Path
) -> None:
    assert footers.damaged(store, KINDS) == {}
    damage(root / f"{file}.parquet")
    (why,) = footers.damaged(store, KINDS).values()
    assert why.startswith(str(root / f"{file}.parquet")) and said in why


def test_a_remote_store_is_looked_at_alike(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(root / "examples" / "u1.parquet")
    (root / "epochs" / "net.parquet").unlink()
    here = footers.damaged(store, KINDS)
    assert set(here) == {"net", "u1"}
    monkeypatch.setattr(Files, "local", property(lambda self: False))
    assert footers.damaged(store, KINDS) == here


def test_ten_thousand_units_take_half_a_second(tmp_path: Path, rows) -> None:
    store = open_store(tmp_path / "store")
    views = {"evaluations": rows("evaluations", unit_id="u"), "examples": rows("examples", unit_id="u")}
    store.commit("u", views, record="evaluations")
    names = [f"{at:032x}" for at in range(10_000)]
    for view in views:
        source = root_file = tmp_path / "store" / view / "u.parquet"
        for name in names:
            os.link(source, root_file.with_name(f"{name}.parquet"))
    kinds = dict.fromkeys(names, "evaluate")
    took = []
    for _ in range(3):
        started = time.thread_time()  # of this process alone: the machine may be busy
        assert footers.damaged(store, kinds) == {}
        took.append(time.thread_time() - started)
    assert min(took) < 0.5, took
