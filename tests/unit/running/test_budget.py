"""A budget ends a run as Ctrl-C does; GPU hours are those of all runs of a sweep, wall hours those of one."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from rich.console import Console

from rna_ray.errors import RunStopped
from rna_ray.running import drivers
from rna_ray.running.budget import Spending, reached, spent_gpu_hours
from rna_ray.running.progress import Known, Progress
from rna_ray.running.run import run
from rna_ray.running.stop import Stop
from rna_ray.running.tasks import Done
from rna_ray.store import Store, differences, open_store
from rna_ray.store.records import SCHEMAS, from_rows
from rna_ray.sweep.forecast import ONE
from rna_ray.sweep.plan import Plan, plan
from rna_ray.sweep.sections import Budget
from rna_ray.sweep.spec import load
from rna_ray.sweep.status import subtract
from rna_ray.training.checkpoint import Checkpoints

SWEEP = """\
name: one
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4, norm: BN+IN}
training: {objective: natural, epochs: 3, batch: 32, schedule: {name: cosine}}
evaluation:
  - {attack: natural, examples: 40, batch: 20, shard: 20}
"""


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    def made(*sets: str, text: str = SWEEP) -> Plan:
        path = tmp_path / "one.yaml"
        path.write_text(text, encoding="utf-8")
        return plan(load(path, sets))

    return made


def row(view: str, **given: Any) -> pa.Table:
    """Return one row of a view, filled in where nothing is said."""
    filled = {pa.string(): "x", pa.bool_(): False, pa.timestamp("us", tz="UTC"): datetime(2024, 5, 6, tzinfo=UTC)}
    plain = {c.name: None if c.nullable else filled.get(c.type, 0) for c in SCHEMAS[view]}
    return from_rows(view, [plain | given])


def ledger(planned: Plan) -> Progress:
    return Progress(
        subtract(planned, set(), {}), sweep=planned.sweep, known=lambda: Known(asked={}, usual={}), slots=lambda: ONE,
        stop=Stop(), console=Console(file=io.StringIO()),
    )  # fmt: skip


def test_the_sentence_says_which_part_is_used_up() -> None:
    whole = Budget(hours=2, gpu_hours=8)
    assert reached(whole, hours=1.9, gpu_hours=7.9) is None and reached(Budget(), hours=99, gpu_hours=99) is None
    assert reached(whole, hours=2, gpu_hours=0) == "the run has taken its 2 h (--max-hours, budget.hours)"
    assert "the sweep has taken its 8 GPU hours" in (reached(whole, hours=0, gpu_hours=8.5) or "")


def test_gpu_hours_are_those_of_the_sweeps_units_in_the_store(planned: Callable[..., Plan], store: Store) -> None:
    gpus = planned("resources.train={gpu: 2}", "resources.evaluate={gpu: 0.5}")
    train, first, second = gpus.units
    assert spent_gpu_hours(gpus, store) == 0.0
    # 1 h of the unit that is training, as its state to resume from says.
    about = {"rows": [{"seconds": 1800.0}], "position": {"seconds": 1800.0}}
    Checkpoints(store, train.id).keep_resume({"w": torch.zeros(2)}, about)
    assert spent_gpu_hours(gpus, store) == pytest.approx(2.0)
    # It ends: its own row begins anew where it was resumed, its epochs do not.
    epochs = pa.concat_tables([row("epochs", unit_id=train.id, epoch=n, seconds=3600.0) for n in (1, 2)])
    trial = row("trials", unit_id=train.id, device="NVIDIA H100", seconds=60.0)
    store.commit(train.id, {"epochs": epochs, "trials": trial}, record="trials")
    assert spent_gpu_hours(gpus, store) == pytest.approx(4.0)
    for unit, device in ((first, "NVIDIA H100"), (second, "cpu")):  # the second one took no GPU
        store.commit(
            unit.id, {"evaluations": row("evaluations", unit_id=unit.id, device=device, seconds=7200.0)},
            record="evaluations",
        )
    assert spent_gpu_hours(gpus, store) == pytest.approx(5.0)
    assert spent_gpu_hours(planned("seed=1", "resources.train={gpu: 2}"), store) == 0.0  # another sweep's units
    assert spent_gpu_hours(planned(), store) == 0.0  # it takes no GPU now


def test_what_runs_counts_from_its_begin_and_what_died_too(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, clock = planned(), [0.0]
    monkeypatch.setattr("rna_ray.running.progress.time.monotonic", lambda: clock[0])
    progress = ledger(whole)
    train, first, second = (unit.id for unit in whole.units)
    progress.begun(train)
    progress.begun(first)
    clock[0] = 10.0
    progress.begun(first)  # its process died and another took it up
    clock[0] = 15.0
    assert progress.held() == {"train": 15.0, "evaluate": 15.0}
    progress.finished(Done(unit_id=first, kind="evaluate", state="done", seconds=5.0))
    progress.finished(Done(unit_id=second, kind="evaluate", state="failed", seconds=0.0))  # which never began
    clock[0] = 20.0
    assert progress.held() == {"train": 20.0, "evaluate": 15.0}


def test_a_run_is_to_end_once_it_held_gpus_for_too_long(
    planned: Callable[..., Plan], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus, clock = planned("resources.evaluate={gpu: 1}"), [0.0]
    monkeypatch.setattr("rna_ray.running.progress.time.monotonic", lambda: clock[0])
    progress = ledger(gpus)
    spending = Spending.of(gpus, Budget(gpu_hours=2), store)
    clock[0] = 3 * 3600.0
    assert spending.reason(progress) is None  # nothing held a GPU
    progress.begun(gpus.units[0].id)  # a training: it takes none
    progress.begun(gpus.units[1].id)
    clock[0] += 1.9 * 3600
    assert spending.reason(progress) is None
    clock[0] += 0.2 * 3600
    assert "the sweep has taken its 2 GPU hours" in (spending.reason(progress) or "")


@pytest.mark.slow
def test_a_run_ends_at_its_hours_and_resumes_to_the_same_rows(
    planned: Callable[..., Plan], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "BEAT_SECONDS", 0.05)
    long, console = planned("training.epochs=10"), Console(file=io.StringIO())
    with pytest.raises(RunStopped, match=r"the run has taken its .* h \(--max-hours, budget.hours\)"):
        run(long, store, address="inline", console=console, budget=Budget(hours=0.02 / 3600))
    assert not store.failures() and not store.done("evaluations") and store.sweeps() == ["one"]
    resumed = run(long, store, address="inline", console=console)
    assert not resumed.status.to_do
    whole = open_store(tmp_path / "whole")
    run(long, whole, address="inline", console=console)
    assert differences(whole, store) == []


def test_a_budget_that_is_used_up_starts_nothing(planned: Callable[..., Plan], store: Store) -> None:
    spec = planned("budget={gpu_hours: 1}", "resources.evaluate={gpu: 1}")
    unit = spec.units[1]
    record = row("evaluations", unit_id=unit.id, device="NVIDIA H100", seconds=3600.0)
    store.commit(unit.id, {"evaluations": record}, record="evaluations")
    with pytest.raises(RunStopped, match=r"the sweep has taken its 1 GPU hours \(--max-gpu-hours, budget.gpu_hours\)"):
        run(spec, store, address="inline", console=Console(file=io.StringIO()))
    assert store.done("evaluations") == {unit.id} and store.sweeps() == ["one"]


@pytest.mark.parametrize("given", ["hours: -1", "gpu_hours: x", "minutes: 3"])
def test_a_budget_is_hours_from_0_on(planned: Callable[..., Plan], given: str) -> None:
    with pytest.raises(Exception, match=f"budget.{given.partition(':')[0]}: "):
        planned(f"budget={{{given}}}")
