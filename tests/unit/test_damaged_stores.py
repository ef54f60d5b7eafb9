"""Stores that something happened to: every command answers or says one sentence, and they heal to the same rows."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import Ended, rna
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rna_ray.running import inputs
from rna_ray.store import differences, open_store

SWEEP = """\
name: one
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4, norm: BN+IN}
training: {objective: natural, epochs: 1, batch: 32, schedule: {name: cosine}}
evaluation:
  - {attack: natural, examples: 20, batch: 10, shard: 10}
probes: [{probe: path-transfer, examples: 10, batch: 10, pairs: 1, steps: 1, eps_255: 8, step_255: 8}]
"""
COMMANDS = (
    ("plan", "FILE", "--store", "STORE"),
    ("status", "--store", "STORE"),
    ("table", "one", "--store", "STORE"),
    ("query", "SELECT sum(natural_correct) FROM examples JOIN evaluations USING (unit_id)", "--store", "STORE"),
    ("audit", "one", "--store", "STORE"),
    ("verify", "--store", "STORE"),
    ("run", "FILE", "--address", "inline", "--store", "STORE"),
)
Root = Path
Damage = Callable[[st.DrawFn, Root, list[Path]], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the sweep is done, beside its file."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "one.yaml").write_text(SWEEP, encoding="utf-8")
    ended = run("run", "FILE", "--address", "inline", "--store", "STORE", folder=folder)
    assert ended.code == 0, ended
    return folder


def run(*words: str, folder: Path) -> Ended:
    """Run a command as a process that has done nothing before."""
    inputs.trained.cache_clear()
    threads = torch.get_num_threads()
    try:
        return rna(*({"FILE": folder / "one.yaml", "STORE": folder / "store"}.get(word, word) for word in words))
    finally:
        torch.set_num_threads(threads)


def one_of(draw: st.DrawFn, files: list[Path]) -> Path:
    return draw(st.sampled_from(files))


def cut(draw: st.DrawFn, root: Root, files: list[Path]) -> None:
    path = one_of(draw, files)
    data = path.read_bytes()
    path.write_bytes(data[: draw(st.integers(0, len(data)))])


def flip(draw: st.DrawFn, root: Root, files: list[Path]) -> None:
    path = one_of(draw, files)
    data = bytearray(path.read_bytes())
    if data:
        data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    path.write_bytes(data)


def swap(draw: st.DrawFn, root: Root, files: list[Path]) -> None:
    a, b = one_of(draw, files), one_of(draw, files)
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


def garbage(draw: st.DrawFn, root: Root, files: list[Path]) -> None:
    one_of(draw, files).write_bytes(draw(st.binary(max_size=200)))


def delete(draw: st.DrawFn, root: Root, files: list[Path]) -> None:
    one_of(draw, files).unlink()


def folder_there(draw: st.DrawFn, root: Root, files: list[Path]) -> None:
    path = one_of(draw, files)
    path.unlink()
    path.mkdir()
    if draw(st.booleans()):
        (path / "inside").write_bytes(b"x")


def stranger(draw: st.DrawFn, root: Root, files: list[Path]) -> None:
    """A file that is none of a store's, beside those that are."""
    name = draw(st.sampled_from(("a b.parquet", "x'; --.parquet", ".parquet", "x" * 200, "u.parquet.bak", "é.parquet",
                                 "u.1.2.parquet", "stranger.parquet", "%2e%2e.parquet")))  # fmt: skip
    one_of(draw, files).with_name(name).write_bytes(draw(st.binary(max_size=20)))


def folder_gone(draw: st.DrawFn, root: Root, files: list[Path]) -> None:
    shutil.rmtree(draw(st.sampled_from(sorted(path for path in root.iterdir() if path.is_dir()))))


DAMAGE: tuple[Damage, ...] = (cut, flip, flip, swap, garbage, delete, folder_there, stranger, folder_gone)


def check(data: st.DataObject, whole: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copytree(whole, folder, dirs_exist_ok=True)
        root = folder / "store"
        for damage in data.draw(st.lists(st.sampled_from(DAMAGE), min_size=1, max_size=3)):
            files = sorted(path for path in root.rglob("*") if path.is_file())
            damage(data.draw, root, files)
        for words in COMMANDS:
            ended = run(*words, folder=folder)
            assert "Traceback" not in ended.err and ended.code in (0, 1, 2), (words, ended)
            assert ended.code != 2 or ended.one_sentence, (words, ended)
        heal(folder)
        assert differences(open_store(whole / "store"), open_store(root)) == []


def heal(folder: Path) -> None:
    """Do what the commands say: a marker that is lost is written by hand, then verify --remove, then run.

    A network whose weights are found altered when they are read is made again by the next run.
    """
    marker = folder / "store" / "store.json"
    looked = run("verify", "--remove", "--store", "STORE", folder=folder)
    if looked.code == 2:
        assert str(marker) in looked.err or "has schema" in looked.err, looked
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(marker) if marker.is_dir() else marker.unlink()
        marker.write_text('{"schema": 1}')
        run("verify", "--remove", "--store", "STORE", folder=folder)
    ended = run("run", "FILE", "--address", "inline", "--store", "STORE", "--retry", "all", folder=folder)
    assert ended.code == 0, ended
    after = run("verify", "--store", "STORE", folder=folder)
    assert after.code == 0, after
    assert run("table", "one", "--store", "STORE", folder=folder).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("words", [("table", "one"), ("audit", "one")])
def test_a_file_that_lies_in_the_place_of_another_is_named(words: tuple[str, str], whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    record, other = (min((tmp_path / "store" / view).iterdir()) for view in ("evaluations", "probes"))
    shutil.copy(other, record)  # whole, and its sum fits
    ended = run(*words, "--store", "STORE", folder=tmp_path)
    assert ended.code == 2 and ended.one_sentence and f"the store's file {record} " in ended.err, ended
    heal(tmp_path)
    assert differences(open_store(whole / "store"), open_store(tmp_path / "store")) == []


OPTIONS = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.slow
@settings(max_examples=4, derandomize=True, **OPTIONS)
@given(data=st.data())
def test_a_few_damaged_stores_heal_to_the_same_rows(whole: Path, data: st.DataObject) -> None:
    check(data, whole)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=50, phases=[Phase.explicit, Phase.generate], **OPTIONS)  # a store takes too long to be shrunk
@given(data=st.data())
def test_50_damaged_stores_heal_to_the_same_rows(whole: Path, data: st.DataObject) -> None:
    check(data, whole)
