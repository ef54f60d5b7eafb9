"""Networks of the user's own on Ray: every process that needs the module finds it, and the rows are those of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from integration_base import Run

from rna_ray.store import differences, open_store

MODULE = """\
import torch
from torch import nn

import rna_ray
from my_layers import stem


def build():
    return rna_ray.randomize(nn.Sequential(*stem(), nn.Flatten(), nn.Linear(288, 10)), "BN+IN")


def broken():
    raise ValueError("nothing here")
"""
LAYERS = """\
from torch import nn


def stem():
    return nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
"""
SWEEP = """\
name: own
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4, norm: BN}
training: {objective: natural, epochs: 1, batch: 32, attack: {eps_255: 25.5, step_255: 12.8}}
variants:
  theirs: {network.import: my_module:build, network.root: code}
  broken: {network.import: my_module:broken, network.root: code}
  ours: {}
evaluation:
  - {attack: pgd, steps: 2, knowledge: [transfer, eot-4], examples: 40, batch: 20, shard: 20}
probes:
  - {probe: transfer, steps: 2, examples: 40, batch: 20}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep file in a folder with the code beside it, from which the command line is started."""
    folder = tmp_path / "own"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "my_module.py").write_text(MODULE, encoding="utf-8")
    (folder / "code" / "my_layers.py").write_text(LAYERS, encoding="utf-8")
    (folder / "own.yaml").write_text(SWEEP, encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


def test_a_network_that_is_imported_is_judged_beside_one_that_is_trained(
    run: Run, own: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run("run", "own.yaml", "--store", store, "--json")
    assert ended.code == 1, ended.err
    (failure,) = ended.document["failures"]
    assert failure["kind"] == "import" and "my_module:broken() did not return on " in failure["error"]
    assert "ValueError: nothing here" in failure["error"]
    units = ended.document["units"]
    assert (units["train"]["done"], units["import"]["done"], units["import"]["failed"]) == (1, 1, 1)
    assert (units["evaluate"]["done"], units["evaluate"]["blocked"]) == (6, 4)  # ours: one path, two shards

    assert (units["probe"]["done"], units["probe"]["blocked"]) == (4, 5)  # of the pairs, those without the broken one

    alone = run("run", "own.yaml", "--store", tmp_path / "alone", "--address", "inline")
    assert alone.code == 1 and differences(open_store(tmp_path / "alone"), open_store(store)) == []

    module = own / "code" / "my_module.py"
    monkeypatch.chdir("/")  # the store knows where the module is
    module.write_text(MODULE.replace('raise ValueError("nothing here")', "return build()"), encoding="utf-8")
    mended = run("resume", "own", "--store", store, "--address", "inline", "--json")
    assert mended.code == 0, mended.err
    counts = mended.document["units"]
    assert (mended.document["ran"], counts["train"]["done"], counts["import"]["done"]) == (18, 1, 2)
    status = run("status", "--store", store)
    assert status.out == "own: trials 1/1 done; imports 2/2 done; evaluations 10/10 done; probes 9/9 done\n"
    table = run("table", "own", "--store", store)
    assert [line.split("|")[1].strip() for line in table.out.splitlines()[2:5]] == ["theirs", "broken", "ours"]
