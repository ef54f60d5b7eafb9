"""A unit whose network was compiled gives the numbers of one whose network was not."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from unittest import mock

import numpy as np
import pytest
from rich.console import Console

from rna_ray.networks.precision import multiplies_bf16
from rna_ray.running import compiling
from rna_ray.running.run import run
from rna_ray.store import Store, open_store
from rna_ray.sweep.plan import plan
from rna_ray.sweep.spec import load

pytestmark = [
    pytest.mark.slow,  # compiles
    pytest.mark.timeout(1200),
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's own compiler
]
EXAMPLES = 200
SWEEP = f"""\
name: compiled
data: {{name: digits, train_examples: 512, held_out: 100}}
network: {{name: resnet8, width: {compiling.ONEDNN_BLOCK}, norm: BN+IN}}
training:
  {{objective: blackbox, epochs: 4, batch: 64, lr: 0.2, schedule: {{name: cosine}}, augment: none,
   attack: {{eps_255: 12, step_255: 6, steps: 2}}}}
compile: true
evaluation:
  - {{attack: pgd, eps_255: 12, steps: 5, knowledge: fixed, draws: 1, examples: {EXAMPLES}, shard: {EXAMPLES}}}
certification:
  - {{draws: 40, selection: 10, noise_255: 30, examples: 20, shard: 20, batch: 100}}
"""


@pytest.fixture(params=["fp32", "bf16"], scope="module")
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Store]:
    """The sweep done eagerly; all of it compiled; and its evaluations alone, so that the same network answers."""
    precision = request.param
    if precision == "bf16" and not multiplies_bf16():
        pytest.skip("this processor does not multiply bf16, so that none is compiled in it")
    folder = tmp_path_factory.mktemp(precision)
    (folder / "sweep.yaml").write_text(f"precision: {precision}\n{SWEEP}", encoding="utf-8")
    planned = plan(load(folder / "sweep.yaml"))
    found = []
    for name in ("eager", "compiled", "same network"):
        if name == "same network":
            ignored = shutil.ignore_patterns("examples", "evaluations", "certificates", "certifications")
            shutil.copytree(folder / "eager", folder / name, ignore=ignored)
        store = open_store(folder / name)
        with mock.patch.object(compiling, "compiles", lambda *given, name=name: name != "eager"):
            ended = run(planned, store, address="inline", console=Console(quiet=True))
        assert not ended.failures
        rows = [*store.read("evaluations").to_pylist(), *store.read("certifications").to_pylist()]
        assert len(rows) == 2 and all(row["compiled"] is (name != "eager") for row in rows)
        found.append(store)
    return found


def test_the_same_network_compiled_answers_the_same(stores: Sequence[Store]) -> None:
    eager, _, compiled = stores
    (trial,) = eager.read("trials").to_pylist()
    fp32 = trial["precision"] == "fp32"
    rows, others = (store.read("examples").sort_by("example") for store in (eager, compiled))
    margins = [of["natural_margin"].to_numpy() for of in (rows, others)]
    np.testing.assert_allclose(*margins, rtol=1e-5 if fp32 else 0.02, atol=1e-5 if fp32 else 0.1)
    for name in ("natural_correct", "adversarial_correct"):
        share, other = (of[name].to_numpy().mean() for of in (rows, others))
        assert abs(share - other) <= (2 / EXAMPLES if fp32 else interval(share))
    counts, others = (counted(store) for store in (eager, compiled))
    assert np.abs(counts - others).max() <= (1 if fp32 else 2)


def test_a_training_compiled_learns_as_much(stores: Sequence[Store]) -> None:
    # Rounding decides the sign of a step of PGD here and there, and the trainings part as those of two seeds do.
    eager, compiled, _ = stores
    losses = [store.read("epochs").sort_by("epoch")["adversarial_loss"].to_numpy()[[0, -1]] for store in stores[:2]]
    np.testing.assert_allclose(*losses, rtol=0.15)
    share, other = (store.read("examples")["adversarial_correct"].to_numpy().mean() for store in (eager, compiled))
    assert abs(share - other) <= 2 * interval(share)


def interval(share: float) -> float:
    """Return how far the 95 % interval of a share of the examples reaches."""
    return 1.96 * math.sqrt(share * (1 - share) / EXAMPLES)


def counted(store: Store) -> np.ndarray:
    """Return how often each class was counted of each certified example."""
    return np.array(store.read("certificates").sort_by("example")["counts"].to_pylist())
