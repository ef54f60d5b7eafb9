"""Certificates and their record, from a sweep file to the store, and how they end where they cannot be made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from rna_ray import data
from rna_ray.running.run import Summary
from rna_ray.running.run import run as run_plan
from rna_ray.store import Store, connect
from rna_ray.store.records import SCHEMAS
from rna_ray.sweep.plan import plan
from rna_ray.sweep.spec import load
from rna_ray.sweep.status import PLACES

SWEEP = """\
name: certified
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4}
training: {objective: natural, epochs: 1, batch: 32}
noise_255: 51
variants:
  one: {network.norm: BN}
  many: {network.norm: BN+IN}
certification:
  - {draws: [8, 12], selection: 6, examples: 25, shard: 10, batch: 40}
  - {draws: 5, selection: 20, examples: 25, batch: 100, abandon: misclassified, only: [one]}
"""
OWN = """\
name: own
data: {name: digits}
network: {import: same_name:build}
certification:
  - {draws: 8, selection: 6, noise_255: 51, examples: 10}
"""
MODULE = """\
import torch
from torch import nn

import rna_ray


class Guess(nn.Module):
    def forward(self, x):
        return x + torch.rand(len(x), 10)


def build():
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    return rna_ray.randomize(nn.Sequential(*layers), "BN+IN")


def guessing():
    return nn.Sequential(build(), Guess())
"""


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> Callable[..., Summary]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "same_name.py").write_text(MODULE, encoding="utf-8")

    def run(*sets: str, text: str = SWEEP) -> Summary:
        (tmp_path / "sweep.yaml").write_text(text, encoding="utf-8")
        return run_plan(plan(load(tmp_path / "sweep.yaml", sets)), store, address="inline", console=Console(quiet=True))

    return run


def test_a_sweep_with_certifications_runs_inline_from_file_to_rows(ran: Callable[..., Summary], store: Store) -> None:
    ended = ran()
    assert (ended.failures, ended.ran) == ((), 2 + 2 * 2 * 3 + 1)
    assert ended.status.counts()["certify"] == dict.fromkeys(PLACES, 0) | {"done": 13}
    for view, count in {"certifications": 13, "certificates": 5 * 25, "evaluations": 0, "examples": 0}.items():
        table = store.read(view)
        assert (table.schema, table.num_rows) == (SCHEMAS[view], count)

    sql = connect(store)
    joined = "FROM certificates JOIN certifications USING (unit_id) JOIN plans USING (unit_id)"
    said = f"SELECT variant, draws, count(*) {joined} WHERE sweep = 'certified' AND kind = 'certify'"
    said += " AND attack IS NULL AND knowledge IS NULL GROUP BY ALL ORDER BY min(position)"
    assert sql.execute(said).fetchall() == [
        ("one", 8, 25), ("one", 12, 25), ("one", 5, 25), ("many", 8, 25), ("many", 12, 25)
    ]  # fmt: skip
    sums = f"SELECT DISTINCT list_sum(selection_counts) - selection, list_sum(counts) - draws, len(counts) {joined}"
    assert sql.execute(f"{sums} WHERE NOT abandoned").fetchall() == [(0, 0, 10)]
    labels = data.load("digits").test.labels
    rows = store.read("certificates").to_pylist()
    assert all(row["label"] == labels[row["example"]] and row["sigma"] == 0.2 for row in rows)

    again = ran()
    assert (again.ran, again.failures) == (0, ())


def test_only_images_whose_class_is_wrong_are_abandoned(ran: Callable[..., Summary], store: Store) -> None:
    ran("certification=[{draws: 5, selection: 20, examples: 25, abandon: misclassified}]")
    rows = store.read("certificates").to_pylist()
    wrong = [row["selection_counts"].index(max(row["selection_counts"])) != row["label"] for row in rows]
    assert 0 < sum(wrong) < len(rows) == 50
    assert [row["abandoned"] for row in rows] == wrong
    assert [sum(row["counts"]) for row in rows] == [0 if one else 5 for one in wrong]


def test_the_record_says_what_was_counted(ran: Callable[..., Summary], store: Store) -> None:
    ran("certification.0.checkpoint=last")
    shown = ("checkpoint", "data", "classes", "noise_255", "draws", "selection", "abandon", "start", "stop", "batch")
    records = store.read("certifications").to_pylist()
    (record,) = [one for one in records if one["start"] == 20 and one["draws"] == 8 and one["kernel"] == "mixture"]
    assert [record[name] for name in shown] == ["last", "digits", 10, 51.0, 8, 6, "none", 20, 25, 40]
    assert (record["precision"], record["compiled"], record["device"], record["threads"]) == ("fp32", False, "cpu", 1)
    settings = json.loads(record["settings"])
    assert settings["evaluation"] == record["evaluation"] and settings["network"] == record["network_id"]
    assert {one["kernel"] for one in records} == {"mixture", "native"}


def test_other_shards_are_other_units_with_the_same_rows(ran: Callable[..., Summary], store: Store) -> None:
    ran("certification=[{draws: 8, selection: 6, examples: 25, shard: 25, batch: 40}]")
    ran("certification=[{draws: 8, selection: 6, examples: 25, shard: 10, batch: 40}]")
    distinct = "SELECT count(*), count(DISTINCT (network_id, example, selection_counts, counts)) FROM certificates"
    assert connect(store).execute(distinct).fetchone() == (100, 50)


def test_a_network_of_ones_own_is_certified_unless_it_draws_by_itself(
    ran: Callable[..., Summary], store: Store
) -> None:
    assert ran(text=OWN).failures == () and store.read("certificates").num_rows == 10
    ended = ran("network.import=same_name:guessing", text=OWN)
    (failure,) = ended.failures
    assert failure.kind == "certify" and "draws from a global generator" in failure.error
    (row,) = store.read("failures").to_pylist()
    assert (row["kind"], row["error"]) == ("certify", "NetworkError") and "rna_ray.randomize" in row["message"]
    assert store.read("certificates").num_rows == 10
