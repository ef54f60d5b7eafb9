"""A store in a notebook: its rows, tables, figures and networks, read as they are and never written."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pytest
import torch
from commands import rna
from matplotlib.figure import Figure

import rna_ray
from rna_ray.errors import CheckpointError, FigureError, QueryError, StoreError
from rna_ray.networks.paths import following
from rna_ray.notebook import ReadOnlyStore
from rna_ray.store import layout
from rna_ray.store import open_store as writable

MIXED = "BN+IN black-box"
IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def store(quickstart: Path) -> ReadOnlyStore:
    return rna_ray.open_store(quickstart)


def bytes_of(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_rows_are_duckdbs_relations_for_pandas_and_arrow(store: ReadOnlyStore) -> None:
    trained = store.query("SELECT norm, count(*) AS n FROM trials WHERE seed < $end GROUP BY norm ORDER BY n", end=2)
    assert isinstance(trained, duckdb.DuckDBPyRelation)
    assert trained.df().to_dict("list") == {"norm": ["BN", "BN+IN"], "n": [1, 2]}
    assert trained.to_arrow_table().to_pydict() == {"norm": ["BN", "BN+IN"], "n": [1, 2]}
    assert trained.filter("n > 1").fetchall() == [("BN+IN", 2)]
    assert store.view("epochs").aggregate("count(*)").fetchall() == [(3,)]
    assert "epochs" in store.views and store.connect().sql("SELECT count(*) FROM plans").fetchall() == [(12,)]
    with pytest.raises(QueryError, match="nowhere"):
        store.query("SELECT nowhere FROM trials")
    with pytest.raises(QueryError, match="only reads, DROP does not"):
        store.query("DROP VIEW trials")


def test_rows_that_came_since_are_seen(quickstart: Path, tmp_path: Path) -> None:
    shutil.copytree(quickstart, tmp_path / "store")
    store = rna_ray.open_store(tmp_path / "store")
    before = store.view("evaluations").to_arrow_table()
    first = next((tmp_path / "store/evaluations").iterdir())
    first.rename(tmp_path / "aside")
    assert len(store.view("evaluations")) == before.num_rows - 1
    (tmp_path / "aside").rename(first)
    assert len(store.view("evaluations")) == before.num_rows == 8


def test_a_table_has_the_numbers_that_the_command_prints(store: ReadOnlyStore, quickstart: Path) -> None:
    found = store.table("quickstart", answer="worst")
    printed = json.loads(
        rna("table", "quickstart", "--answer", "worst", "--format", "json", "--store", quickstart).out
    )
    assert isinstance(found, pd.DataFrame) and list(found.columns) == list(printed[0])
    assert found["accuracy"].tolist() == [row["accuracy"] for row in printed] and len(found) == 6
    assert found["median_l2"].dtype == "float64" and found["median_l2"].isna().all()  # none of them is without a ball
    wide = found.pivot(index="variant", columns=["attack", "knowledge"], values="accuracy")
    assert wide.shape == (2, 3)
    assert set(store.table("quickstart", against="BN")["variant"]) == {MIXED}
    with pytest.raises(QueryError, match="unknown table 'quick'"):
        store.table("quick")


def test_a_figure_is_matplotlibs_with_its_axes(store: ReadOnlyStore) -> None:
    figure = store.figure("quickstart")
    assert isinstance(figure, Figure) and figure.axes
    figure.axes[0].set_title("mine")
    figure.canvas.draw()
    with pytest.raises(FigureError, match="no rows"):
        store.figure("rna-figure1")


def test_a_network_is_found_by_what_people_call_it(store: ReadOnlyStore) -> None:
    ids = dict(store.query("SELECT seed, unit_id FROM trials WHERE norm = 'BN+IN'").fetchall())
    one, same = store.network(MIXED, seed=1, sweep="quickstart"), store.network(ids[1][:8])
    assert all(map(torch.equal, one.state_dict().values(), same.state_dict().values()))
    last, other = store.network(MIXED, seed=1, checkpoint="last"), store.network(MIXED, seed=0, checkpoint="last")
    assert not torch.equal(*(next(network.parameters()) for network in (last, other)))
    for given, said in {
        (MIXED, None): f"'{MIXED}' is 2 networks: say which seed, of 0, 1",
        (MIXED, 7): f"there is no finished network '{MIXED}' of seed 7 yet; rna-ray resume quickstart",
        ("BN+LN", None): f"'BN+LN'. Known: BN, {MIXED}",
        (ids[0][:7], None): "unknown network",
    }.items():
        with pytest.raises(StoreError, match=re.escape(said)):
            store.network(given[0], seed=given[1])
    with pytest.raises(StoreError, match=r"unknown sweep of .* 'other'"):
        store.network("BN", sweep="other")


def test_a_network_that_was_stopped_early_is_said_to_be(quickstart: Path, tmp_path: Path) -> None:
    shutil.copytree(quickstart, tmp_path / "store")
    written = writable(tmp_path / "store")
    (row,) = (row for row in written.read("trials").to_pylist() if row["norm"] == "BN")
    written.files.remove(layout.rows_file("trials", row["unit_id"]))
    with pytest.raises(StoreError, match="no finished network 'BN' yet; rna-ray resume quickstart"):
        rna_ray.open_store(tmp_path / "store").network("BN")
    written.stop(row["unit_id"], "quickstart", epoch=1, compared_by="held_out_accuracy", value=0.5)
    with pytest.raises(StoreError, match="no finished network 'BN': quickstart stopped it early"):
        rna_ray.open_store(tmp_path / "store").network("BN")


def test_a_networks_random_paths_are_the_callers(store: ReadOnlyStore) -> None:
    network = store.network(MIXED, seed=0)
    assert not network.training and not any(module.training for module in network.modules())
    with torch.no_grad():
        first, second = network(IMAGES), network(IMAGES)
        path = network.path_source.last
        assert path is not None and not torch.equal(first, second)
        network.path_source.call = 0
        assert torch.equal(network(IMAGES), first)
        with following(network, path):
            assert torch.equal(network(IMAGES), second)
        assert torch.equal(store.network(MIXED, seed=0)(IMAGES), first)
        assert not torch.equal(store.network(MIXED, seed=0, path_seed=1)(IMAGES), first)
        plain = store.network("BN")
        assert torch.equal(plain(IMAGES), plain(IMAGES)) and not hasattr(plain, "path_source")


def test_reading_changes_nothing_even_where_a_file_is_damaged(quickstart: Path, tmp_path: Path) -> None:
    shutil.copytree(quickstart, tmp_path / "store")
    store = rna_ray.open_store(tmp_path / "store")
    (unit,) = store.query("SELECT unit_id FROM trials WHERE norm = 'BN'").fetchall()[0]
    for weights in (tmp_path / "store/checkpoints" / unit).glob("best-*"):
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    before = bytes_of(tmp_path / "store")
    with pytest.raises(CheckpointError, match="damaged: its SHA-256 is"):
        store.network("BN")
    assert store.network("BN", checkpoint="last")(IMAGES).shape == (6, 10)
    store.table("quickstart"), store.figure("quickstart"), repr(store)
    assert bytes_of(tmp_path / "store") == before


def test_where_there_is_no_store_it_says_so(tmp_path: Path, store: ReadOnlyStore) -> None:
    with pytest.raises(StoreError, match=r"there is no store at .*nowhere"):
        rna_ray.open_store(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    assert repr(store) == f"<rna-ray store {store.uri}: quickstart>" and store.sweeps == ["quickstart"]
