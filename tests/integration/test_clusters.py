"""Clusters that someone else started: as small as one CPU, or without what a sweep asks for."""

from __future__ import annotations

import datetime
from pathlib import Path

from integration_base import Clusters, Run

from rna_ray.store import Store, differences, open_store


def test_one_cpu_is_enough_and_more_than_there_is_is_refused_at_once(
    run: Run, cluster: Clusters, sweep: Path, store: Path, reference: Store
) -> None:
    address = cluster(1)
    for share, asked in {"train.gpu": 1, "evaluate.cpu": 2}.items():
        refused = run("run", sweep, "--store", store, "--address", address, "--set", f"resources.{share}={asked}")
        assert (refused.code, refused.out) == (2, ""), refused.err
        assert refused.err.startswith(f"rna-ray: resources.{share.split('.')[0]} asks for "), refused.err
        assert refused.err.count("\n") == 1 and not store.exists()
    ended = run("run", sweep, "--store", store, "--address", address, "--json")
    assert ended.code == 0, ended.err
    assert differences(reference, open_store(store)) == []


LONG = """\
name: long
data: {name: digits, train_examples: 640, held_out: 32}
network: {name: resnet8, width: 4}
training: {objective: natural, batch: 32, schedule: {name: cosine}}
variants:
  short: {network.norm: BN, training.epochs: 1}
  long: {network.norm: IN, training.epochs: 80}
evaluation:
  - {attack: natural, examples: 40, batch: 20, shard: 20}
"""


def test_a_network_is_evaluated_while_another_still_trains(
    run: Run, cluster: Clusters, store: Path, tmp_path: Path
) -> None:
    path = tmp_path / "long.yaml"
    path.write_text(LONG, encoding="utf-8")
    assert run("run", path, "--store", store, "--address", cluster(2)).code == 0
    rows = open_store(store)
    spans = {row["unit_id"]: span(row) for view in ("trials", "evaluations") for row in rows.read(view).to_pylist()}
    trials = {row["norm"]: row["unit_id"] for row in rows.read("trials").to_pylist()}
    first = [row["unit_id"] for row in rows.read("evaluations").to_pylist() if row["network_id"] == trials["BN"]]
    assert len(first) == 2
    for unit in first:
        assert spans[trials["BN"]][1] <= spans[unit][0] < spans[trials["IN"]][1]


def span(row: dict[str, object]) -> tuple[datetime.datetime, datetime.datetime]:
    """Return when a unit started and ended."""
    begun, seconds = row["started_at"], row["seconds"]
    assert isinstance(begun, datetime.datetime) and isinstance(seconds, float)
    return begun, begun + datetime.timedelta(seconds=seconds)
