"""Certification on Ray: the rows of one process, from two actors, and none of it done twice."""

from __future__ import annotations

from pathlib import Path

from integration_base import Run

from rna_ray.store import differences, open_store

SWEEP = """\
name: certified
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4, norm: BN+IN}
training: {objective: natural, epochs: 1, batch: 32}
noise_255: 51
evaluation:
  - {attack: natural, examples: 20, batch: 20}
certification:
  - {draws: [20, 40], selection: 10, examples: 40, shard: 10, batch: 100, abandon: misclassified}
"""


def test_certificates_from_two_actors_are_those_of_one_process(run: Run, store: Path, tmp_path: Path) -> None:
    (tmp_path / "certified.yaml").write_text(SWEEP, encoding="utf-8")
    alone = run("run", tmp_path / "certified.yaml", "--store", tmp_path / "alone", "--address", "inline")
    assert alone.code == 0, alone.err
    ended = run("run", tmp_path / "certified.yaml", "--store", store, "--json", "--set", "resources.evaluate.actors=2")
    assert ended.code == 0, ended.err
    assert (ended.document["ran"], ended.document["units"]["certify"]["done"]) == (1 + 1 + 8, 8)
    rows = open_store(store)
    assert (rows.read("certifications").num_rows, rows.read("certificates").num_rows) == (8, 80)
    assert differences(open_store(tmp_path / "alone"), rows) == []
    status = run("status", "--store", store)
    assert status.out == "certified: trials 1/1 done; evaluations 1/1 done; certifications 8/8 done\n"
