"""Nodes that join and leave while a sweep runs, that an autoscaler starts, or that do not see the store."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from integration_base import Run, Start, epochs_behind
from nodes_base import Cluster

from rna_ray.store import Store, differences, open_store

SWEEP = """\
name: nodes
data: {name: digits, train_examples: 640, held_out: 32}
network: {name: resnet8, width: 4}
training: {objective: natural, batch: 32, schedule: {name: cosine}}
variants:
  long: {network.norm: BN, training.epochs: 250}
  short: {network.norm: IN, training.epochs: 1}
evaluation:
  - {attack: natural, examples: 40, batch: 20, shard: 20}
"""
LONG = 250


@pytest.fixture
def cluster() -> Iterator[Callable[..., Cluster]]:
    clusters: list[Cluster] = []

    def started(*, cpus: int = 0, autoscaling: Path | None = None) -> Cluster:
        clusters.append(Cluster(cpus=cpus, autoscaling=autoscaling))
        return clusters[-1]

    yield started
    for one in clusters:
        one.clean()


def test_a_node_that_joins_is_used_and_one_that_leaves_costs_an_epoch_at_most(
    start: Start, cluster: Callable[..., Cluster], store: Path, tmp_path: Path
) -> None:
    path = tmp_path / "nodes.yaml"
    path.write_text(SWEEP, encoding="utf-8")
    nodes, rows = cluster(), open_store(store)
    first = nodes.join(cpus=1)  # of the head's none and this one's one CPU a single trial takes all
    driver = start("run", path, "--store", store, "--address", nodes.address, "--json")
    driver.until(lambda: any(epochs_behind(store).values()))
    nodes.join(cpus=2)
    driver.until(lambda: rows.done("trials") and len(epochs_behind(store)) == 1)
    (behind,) = epochs_behind(store).values()  # the short one is done, and the long one still trains
    assert 0 < len(behind) < LONG
    nodes.kill(first)

    seen = [len(behind)]

    def went_on() -> bool:
        seen.extend(len(epochs) for epochs in epochs_behind(store).values())
        return seen[-1] > seen[0] + 5

    driver.until(went_on)
    assert seen == sorted(seen)  # from scratch it would have been fewer
    ended = driver.ended()
    assert ended.code == 0, ended.err
    assert rows.failures() == {}
    assert sorted(row["epoch"] for row in rows.read("epochs").to_pylist()) == sorted([1, *range(1, LONG + 1)])
    assert rows.read("evaluations").num_rows == 4


def test_nodes_are_started_from_zero_for_a_sweep(
    run: Run, cluster: Callable[..., Cluster], sweep: Path, store: Path, reference: Store, tmp_path: Path
) -> None:
    nodes = cluster(autoscaling=tmp_path / "autoscaling.json")
    refused = run("run", sweep, "--store", store, "--address", nodes.address, "--set", "resources.train.cpu=3")
    assert (refused.code, store.exists()) == (2, False), refused.err
    assert "the largest node of the cluster and of what its autoscaler may add has 1 CPU and 0 GPU" in refused.err
    ended = run("run", sweep, "--store", store, "--address", nodes.address)
    assert ended.code == 0, ended.err
    assert "waiting for the cluster's autoscaler, which may add up to 2 small (1 CPU, 0 GPU)" in ended.err
    assert differences(reference, open_store(store)) == []


ALONE = ("unshare", "--mount", "sh", "-c")  # a node with a mount table of its own, as another machine has
CAN_UNSHARE = subprocess.run([*ALONE, "mount -t tmpfs none /mnt"], capture_output=True, check=False).returncode == 0
unshared = pytest.mark.skipif(not CAN_UNSHARE, reason="a mount namespace of its own is not permitted here")


def without(folder: Path) -> tuple[str, ...]:
    """Return the command within which a node finds an empty folder there, on a disk of its own."""
    return (*ALONE, 'mount -t tmpfs none "$0" && exec "$@"', str(folder))


@unshared
def test_a_store_that_a_node_does_not_see_is_refused_by_the_name_of_the_node(
    run: Run, cluster: Callable[..., Cluster], sweep: Path, reference: Store, tmp_path: Path
) -> None:
    disk, shared = tmp_path / "disk", tmp_path / "shared"
    disk.mkdir()
    nodes = cluster()
    nodes.join(cpus=2, within=without(disk))
    refused = run("run", sweep, "--store", disk / "store", "--address", nodes.address)
    assert (refused.code, refused.out) == (2, ""), refused.err
    said = rf"rna-ray: node \S+ \(\S+\) does not see the store {disk}/store: it has no file {disk}/store/\S+, which was"
    assert re.match(said, refused.err) and refused.err.count("\n") == 1, refused.err
    assert list(disk.iterdir()) == []
    ended = run("run", sweep, "--store", shared / "store", "--address", nodes.address)
    assert ended.code == 0, ended.err
    assert differences(reference, open_store(shared / "store")) == []
    assert [path.name for path in (shared / "store").iterdir() if path.name[0] == "."] == []


OWN = """\
name: own
data: {name: digits}
network: {import: mynet:build}
evaluation:
  - {attack: natural, examples: 40, batch: 20, shard: 20}
"""
MYNET = """\
from torch import nn

import parts

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, parts.classes))
"""


@unshared
def test_ones_own_modules_reach_a_node_that_lacks_them(
    run: Run, cluster: Callable[..., Cluster], store: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name, text in {"own.yaml": OWN, "mynet.py": MYNET, "parts.py": "classes = 10\n"}.items():
        (project / name).write_text(text, encoding="utf-8")
    root = ("--set", f"network.root={project}")
    inline = tmp_path / "inline"
    assert run("run", project / "own.yaml", *root, "--store", inline, "--address", "inline").code == 0
    nodes = cluster()
    nodes.join(cpus=1, within=without(project))
    ended = run("run", project / "own.yaml", *root, "--store", store, "--address", nodes.address)
    assert ended.code == 0, ended.err
    assert differences(open_store(inline), open_store(store)) == []
