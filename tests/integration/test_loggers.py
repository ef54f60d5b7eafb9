"""One run on Ray, logged everywhere: TensorBoard's files, MLflow's database and W&B's offline run hold its epochs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from integration_base import Run

from rna_ray.store import open_store

SWEEP = """\
name: logged
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4, norm: BN+IN}
training: {objective: natural, epochs: 2, batch: 32}
grid: {seed: [0, 1]}
"""


def test_a_run_on_ray_is_logged_everywhere(
    run: Run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "logged.yaml").write_text(SWEEP, encoding="utf-8")
    sets = "--set", f"logging.mlflow.tracking_uri=sqlite:///{tmp_path}/mlflow.db", "--set", "logging.wandb={}"
    ended = run("run", tmp_path / "logged.yaml", "--store", store, *sets, "--json")
    assert ended.code == 0 and ended.document["units"]["train"]["done"] == 2, ended.err
    assert "logging." not in ended.err, ended.err  # none of them failed
    epochs = open_store(store).read("epochs").sort_by("epoch").to_pylist()
    units = {row["unit_id"] for row in epochs}
    assert len(epochs) == 4 and len(units) == 2

    folders = list((store / "tensorboard/logged").iterdir())
    assert {folder.name[-8:] for folder in folders} == {unit[:8] for unit in units}
    for folder in folders:
        assert len(list(folder.glob("events.*"))) == 1
        (offline,) = folder.glob("wandb/offline-run-*/run-*.wandb")
        assert all(name in offline.read_bytes() for name in (b"natural_accuracy", b"natural_loss", b"logged"))

    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        runs = database.execute(
            "SELECT runs.name, runs.status, run_uuid FROM runs JOIN experiments USING (experiment_id) "
            "WHERE experiments.name = 'logged'"
        ).fetchall()
        assert {name for name, _, _ in runs} == {folder.name for folder in folders}
        assert {status for _, status, _ in runs} == {"FINISHED"}
        for name, _, of in runs:
            asked = "SELECT value FROM metrics WHERE run_uuid = ? AND key = 'loss' ORDER BY step"
            logged = [value for (value,) in database.execute(asked, (of,))]
            assert logged == [row["loss"] for row in epochs if name.endswith(row["unit_id"][:8])]
            given = dict(database.execute("SELECT key, value FROM params WHERE run_uuid = ?", (of,)))
            assert (given["network.norm"], given["training.epochs"]) == ("BN+IN", "2")
    database.close()
