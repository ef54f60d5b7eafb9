"""One thread: the networks here are too small for more. And a store with networks that were trained for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import rna

QUICK = """\
name: quickstart
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4}
training:
  {objective: blackbox, epochs: 1, batch: 32, lr: 0.05, schedule: {name: cosine}, attack: {eps_255: 25.5, steps: 1}}
variants:
  BN: {network.norm: BN}
  BN+IN black-box: {network.norm: BN+IN, seed: [0, 1]}
evaluation:
  - {attack: natural, examples: 20}
  - {attack: pgd, steps: 2, knowledge: [transfer, eot-4], examples: 20}
logging: {tensorboard: false}
"""


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a sweep of the name and the variants of quickstart, in seconds; only to read."""
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "quickstart.yaml").write_text(QUICK, encoding="utf-8")
    ended = rna("run", folder / "quickstart.yaml", "--address", "inline", "--store", folder / "store")
    assert ended.code == 0, ended.err
    return folder / "store"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch  # here, as xdist's own process reads this file too, and runs no test

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
