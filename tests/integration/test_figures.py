"""Every figure from rows that real networks and real probes left."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from typer.testing import CliRunner

from rna_ray.analysis.figures import FIGURES
from rna_ray.cli import app

SWEEP = """\
name: tiny
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4}
training: {objective: natural, epochs: 1, batch: 32}
variants: {BN: {network.norm: BN}, IN: {network.norm: IN}, RNA: {network.norm: IN+BN}}
evaluation:
  - {attack: pgd, steps: 1, examples: 20, knowledge: [transfer, eot-2], checkpoint: last}
  - {attack: pgd, steps: 2, examples: 20, checkpoint: last}
probes:
  - {probe: transfer, steps: 1, examples: 20, checkpoint: last}
  - {probe: path-transfer, steps: 1, examples: 20, pairs: 2, differences: [0, 9], only: [RNA], checkpoint: last}
  - {probe: similarity, examples: 20, checkpoint: last}
  - {probe: similarity, between: members, only: [RNA], examples: 20, checkpoint: last}
  - {probe: surface, points: 3, examples: 4, checkpoint: last}
  - {probe: smoothness, examples: 4, only: [RNA, IN], checkpoint: last}
  - {probe: bound, examples: 20, eps_255: 128, only: [RNA], checkpoint: last}
"""
ROBUST = """\
name: robust
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4}
training: {objective: natural, epochs: 1, batch: 32}
variants: {BN: {network.norm: BN}, RN: {network.norm: RN}}
evaluation:
  - {attack: natural, batch: [10, 20], examples: 20, checkpoint: last}
  - {attack: pgd, steps: 1, eps_255: [4, 8], batch: 20, examples: 20, checkpoint: last}
probes:
  - {probe: landscape, points: 3, batch: 20, examples: 20, checkpoint: last}
  - {probe: statistics, batch: 20, examples: 20, only: [BN], checkpoint: last}
"""
SMOOTH = """\
name: smooth
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: stn-cifar10, width: 6}
training: {objective: natural, epochs: 1, batch: 32, optimizer: adam, lr: 0.001, schedule: {name: constant}}
variants:
  STN: {noise_255: 63.75, training.loss: {name: stability}}
  plain: {}
certification:
  - {draws: [20, 40], selection: 10, batch: 50, examples: 4, only: [STN], checkpoint: last}
evaluation:
  - {attack: pgd, threat: l2, eps_255: [51, 102], step_255: 51, steps: 1, loss: margin, examples: 20, checkpoint: last}
  - attack: pgd
    threat: linf
    eps_255: [4, 8]
    step_255: 8
    steps: 1
    source: plain
    only: [STN]
    examples: 20
    checkpoint: last
"""
HOLDS = {
    "rna-figure1": {"source": {"BN", "IN", "RNA"}, "target": {"BN", "IN", "RNA"}, "n": {20}},
    "rna-figure2": {"variant": {"BN", "IN", "RNA"}, "x": {-16.0, 0.0, 16.0}, "n": {4}},
    "rna-figure3": {"pair": {"BN, IN", "BN, BN+IN", "IN, BN+IN", "BN, IN in BN+IN"}, "n": {20}},
    "rna-figure5": {"panel": {"steps", "difference"}, "x": {0.0, 1.0, 2.0, 9.0}, "origin": {"measured"}, "n": {20}},
    "rna-theory": {"panel": {"eq5", "eq6", "bound"}, "member": {"BN", "IN"}, "n": {4, 20}},
    "robustnorm-figure3": {"images": {"held-out"}, "attack": {"natural"}, "n": {32}},
    "robustnorm-figure8": {"images": {"training", "held-out"}, "quantity": {"loss", "accuracy"}, "n": {32, 64}},
    "robustnorm-figure1": {"variant": {"BN"}},
    "robustnorm-figure2": {"variant": {"BN", "RN"}, "over": {"images"}, "n": {20}},
    "robustnorm-figure4": {"line": {"BN", "RN"}, "x": {4.0, 8.0}, "attack": {"pgd-1"}, "n": {20}},
    "robustnorm-figure5": {
        "line": {"BN", "RN"}, "x": {10.0, 20.0}, "attack": {"natural", "pgd-1, ε = 4/255", "pgd-1, ε = 8/255"}
    },
    "robustnorm-figure6": {"line": {"BN", "RN"}, "x": {4.0, 8.0}},
    "robustnorm-figure7": {"variant": {"BN", "RN"}},
    "robustnorm-figure9": {"variant": {"BN", "RN"}, "x": {-1.0, 0.0, 1.0}},
    "robustnorm-figure11": {"line": {"RN"}, "x": {0.2}},
    "stn-figure1": {"kind": {"certified", "empirical"}, "draws": {20, 40, None}, "n": {4, 20}},
    "stn-figure1-cifar10": {"variant": {"STN", "plain"}},
    "stn-figure2": {"threat": {"l2", "linf"}, "source": {None, "plain"}, "n": {20}},
    "stn-figure2-cifar10": {"threat": {"l2", "linf"}},
    "stn-figure3": {"variant": {"STN", "plain"}},
    "stn-figure3-cifar10": {"variant": {"STN", "plain"}},
    "stn-figure4": {"p1": {at / 100 for at in range(11, 100)}},
    "stn-figure5": {"sigma": {0.25, None}},
    "stn-figure6": {"threat": {"l2", "linf"}},
    "stn-figure7": {"threat": {"l2", "linf"}},
    "tiny": {"column": {"pgd-1@transfer", "pgd-1@eot-2", "pgd-2@transfer"}, "n": {20}},
}
"""Which values stand in the columns behind each figure."""
OF_EPOCHS = ("robustnorm-figure3", "robustnorm-figure8")


def test_every_figure_is_drawn_from_a_real_store(tmp_path: Path) -> None:
    assert {*FIGURES, "tiny"} == set(HOLDS)
    store = ["--store", str(tmp_path / "store")]
    for name, text in {"tiny": SWEEP, "robust": ROBUST, "smooth": SMOOTH}.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        ended = CliRunner().invoke(app, ["run", str(tmp_path / f"{name}.yaml"), "--address", "inline", *store])
        assert ended.exit_code == 0, ended.output
    for name, columns in HOLDS.items():
        sweep = "smooth" if name.startswith("stn") else "tiny"
        if name.startswith("robust") and name not in OF_EPOCHS:
            sweep = "robust"
        drawn = CliRunner().invoke(app, ["figure", name, "--sweep", sweep, "-o", str(tmp_path), *store])
        assert drawn.exit_code == 0, drawn.output
        rows = pq.read_table(tmp_path / f"{name}.parquet")
        assert {column: set(rows[column].to_pylist()) for column in columns} == columns
