"""A real Ray on this machine: a small sweep, its rows without Ray, and drivers that leave nothing behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration_base import Clusters, Driver, Run, Start, undisturbed

from rna_ray.store import Store

SWEEP = """\
name: small
data: {name: digits, train_examples: 256, held_out: 32}
network: {name: resnet8, width: 4}
training:
  objective: blackbox
  epochs: 8
  batch: 32
  schedule: {name: cosine}
  attack: {eps_255: 25.5, step_255: 12.8, steps: 1}
variants:
  BN+IN: {network.norm: BN+IN}
  BN: {network.norm: BN}
evaluation:
  - {attack: natural, examples: 40, batch: 20, shard: 20}
  - {attack: pgd, steps: 10, knowledge: [transfer, eot-4], examples: 40, batch: 20, shard: 20}
"""

@pytest.fixture(scope="session", autouse=True)
def own_environment() -> Iterator[None]:
    """No store or cluster of the user's is touched."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name in ("RNA_RAY_STORE", "RAY_ADDRESS")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "small.yaml"
    path.write_text(SWEEP, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def reference(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The rows of the sweep as one undisturbed process makes them."""
    return undisturbed(sweep, tmp_path_factory.mktemp("reference") / "store")


@pytest.fixture
def finished(reference: Store, tmp_path: Path) -> Path:
    """A store of one's own in which all is done."""
    return Path(shutil.copytree(reference.uri, tmp_path / "finished"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command line; what is left of it is killed when the test ends."""
    drivers: list[Driver] = []

    def started(*words: object) -> Driver:
        drivers.append(Driver(*words))
        return drivers[-1]

    yield started
    for driver in drivers:
        driver.clean()


@pytest.fixture
def run(start: Start) -> Run:
    """Run the command line to its end."""
    return lambda *words: start(*words).ended()


@pytest.fixture
def cluster() -> Iterator[Clusters]:
    """Start a cluster of one node with so many CPUs and return its address."""
    from ray.cluster_utils import Cluster as RayCluster

    clusters = []

    def started(cpus: int) -> str:
        node = {"num_cpus": cpus, "num_gpus": 0, "include_dashboard": False}
        clusters.append(RayCluster(initialize_head=True, head_node_args=node))
        return clusters[-1].address

    yield started
    for one in clusters:
        one.shutdown()
