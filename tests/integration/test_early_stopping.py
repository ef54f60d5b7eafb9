"""ASHA on a real Ray: a learning rate that learns nothing is stopped early, its checkpoint kept, and nothing fails."""

from __future__ import annotations

from pathlib import Path

from integration_base import Clusters, Run

from rna_ray.store import open_store
from rna_ray.training.checkpoint import Checkpoints

SWEEP = """\
name: rates
data: {name: digits, train_examples: 256, held_out: 128}
network: {name: resnet8, width: 4, norm: BN}
training: {objective: natural, epochs: 3, batch: 32, schedule: {name: constant}}
search:
  trials: 8
  over: {training.lr: [0.1, 1.0e-9, 2.0e-9]}      # drawn in the order 2e-9, 0.1, 1e-9
  by: natural_correct
  early_stopping: {grace: 1, factor: 2}
evaluation: [{attack: natural, examples: 20, batch: 20}]
"""


def test_a_bad_rate_is_stopped_early(run: Run, cluster: Clusters, store: Path, tmp_path: Path) -> None:
    (tmp_path / "rates.yaml").write_text(SWEEP, encoding="utf-8")
    alone = cluster(1)  # one training after the other, so that it is known who is behind
    ended = run("run", tmp_path / "rates.yaml", "--store", store, "--address", alone, "--json")
    assert ended.code == 0, ended.err
    units = ended.document["units"]
    assert (units["train"]["done"], units["train"]["early"], units["evaluate"]["done"]) == (2, 1, 2)
    rows = open_store(store)
    (stop,) = rows.read("stops").to_pylist()
    (variant,) = {row["variant"] for row in rows.read("plans").to_pylist() if row["unit_id"] == stop["unit_id"]}
    assert (variant, stop["epoch"], stop["compared_by"]) == ("lr=1e-09", 1, "natural_correct")
    assert len((Checkpoints(rows, stop["unit_id"]).resume() or ({}, {}))[1]["rows"]) == 1 and not rows.failures()
    assert "lr=1e-09 (after epoch 1)" in run("table", "rates", "--store", store).out
    assert run("resume", "--store", store, "--address", alone, "--json").document["ran"] == 0
