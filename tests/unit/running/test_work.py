"""A unit is done once, whole, or recorded as failed; the others go on."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rna_ray import data
from rna_ray.attacks.catalog import find
from rna_ray.errors import CheckpointError, DataError, StoreError
from rna_ray.running import inputs, work
from rna_ray.running.tasks import Code, Done, Job
from rna_ray.running.work import perform
from rna_ray.store import Store, layout, open_store
from rna_ray.store.records import SCHEMAS
from rna_ray.sweep import units
from rna_ray.sweep.units import Unit
from rna_ray.training.checkpoint import Checkpoints

DIGEST = data.digest_of(data.load("digits"))
PGD = {"name": "pgd", **find("pgd").settings({"steps": 1, "eps_255": 25.5, "step_255": 25.5})}
Perform = Callable[..., Done]


def train(norm: str = "BN+IN", compile: bool = False, width: int = 4, **training: Any) -> Unit:
    objective = training.get("objective", "blackbox")
    return units.train(
        {
            "data": {"name": "digits", "digest": DIGEST, "train_examples": 64, "held_out": 32},
            "network": {"name": "resnet8", "width": width, "norm": norm, "layer_based": False, "paths": "example"},
            "training": {
                "objective": objective,
                "epochs": 2,
                "batch": 32,
                "lr": 0.1,
                "momentum": 0.9,
                "weight_decay": 5e-4,
                "schedule": {"name": "cosine"},
                "augment": "none",
                "attack": None if objective == "natural" else PGD,
                "attack_mode": "train_frozen",
                **training,
            },
            "precision": "fp32",
            "compile": compile,
            "seed": 0,
        }
    )


def evaluation(network: Unit, examples: tuple[int, int] = (0, 10), **given: Any) -> Unit:
    settings = {
        "network": network.id,
        "checkpoint": "last",
        "data": {"name": "digits", "digest": DIGEST, "split": "test"},
        "attack": PGD,
        "knowledge": "transfer",
        "draws": 3,
        "eval": "eval",
        "paths": "example",
        "batch": 4,
        "precision": "fp32",
        "compile": False,
        "noise_255": 0.0,
        **given,
    }
    return units.evaluate(settings, examples=examples)


@pytest.fixture(autouse=True)
def unhurried() -> Iterator[None]:
    """Several units are done together however slow the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "TOGETHER_SECONDS", 60.0)
        yield


@pytest.fixture
def do(store: Store) -> Perform:
    """Perform a unit in the test's store."""

    def run(unit: Unit, report: Callable[[dict[str, Any]], None] = lambda row: None, attempt: int = 1) -> Done:
        job = Job(unit=unit, store=store.uri, root=None, download=False, threads=1, device="cpu", attempt=attempt)
        return perform(job, report)

    return run


def test_an_attack_from_another_network_is_answered_and_recorded(do: Perform, store: Store) -> None:
    madry, network = train("BN", objective="natural", epochs=1), train("IN", objective="natural", epochs=1)
    role = {"id": madry.id, "checkpoint": "best", "paths": "example", "noise_255": 0.0, "precision": "fp32"}
    own = evaluation(network, knowledge="fixed", draws=1)
    taken = evaluation(network, knowledge="fixed", draws=1, source=role | {"compile": False})
    assert taken.needs == (network.id, madry.id)
    assert [do(unit).state for unit in (madry, network, own, taken)] == ["done"] * 4
    found = {row["unit_id"]: row for row in store.read("evaluations").to_pylist()}
    assert (found[own.id]["source_id"], found[taken.id]["source_id"]) == (None, madry.id)
    assert found[taken.id]["network_id"] == network.id
    of = {unit: store.read_file("examples", unit.id).to_pydict() for unit in (own, taken)}
    assert of[own]["natural_margin"] == of[taken]["natural_margin"] and of[own]["margin"] != of[taken]["margin"]


def test_several_are_done_as_each_alone_and_one_that_fails_is_no_other_s_matter(
    do: Perform, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = train("BN", objective="natural", epochs=1)
    assert do(network).state == "done"
    whole = [evaluation(network, (at, at + 10)) for at in range(0, 40, 10)]
    assert do(whole[0]).state == "done"
    broken = evaluation(network, checkpoint="no")
    jobs = [
        Job(unit=unit, store=store.uri, root=None, download=False, threads=1, device="cpu", attempt=1)
        for unit in (whole[0], whole[1], broken, *whole[2:])
    ]
    calls, plain = [], Store.commit_all

    def commit_all(self: Store, units: Any) -> None:
        given = list(units)
        calls.append([unit_id for unit_id, *_ in given])
        plain(self, given)

    monkeypatch.setattr(Store, "commit_all", commit_all)
    ended = work.perform_all(jobs)
    assert [done.unit_id for done in ended] == [job.unit.id for job in jobs]
    assert [done.state for done in ended] == ["done", "done", "failed", "done", "done"]
    assert calls == [[unit.id for unit in whole[1:]]]
    assert store.done("evaluations") == {unit.id for unit in whole} and set(store.failures()) == {broken.id}
    assert work.perform_all(jobs[:1])[0].state == "done"


def four(do: Perform, store: Store) -> list[Job]:
    """Train a network, and return the jobs that evaluate it on ten images each."""
    network = train("BN", objective="natural", epochs=1)
    assert do(network).state == "done"
    return [
        Job(unit=evaluation(network, (at, at + 10)), store=store.uri, root=None, download=False, threads=1,
            device="cpu", attempt=1)
        for at in range(0, 40, 10)
    ]  # fmt: skip


def test_several_that_take_their_time_are_not_all_done_together(
    do: Perform, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = four(do, store)
    plain, clock = work.perform, [0.0]

    def perform(job: Job, **given: Any) -> Done:
        clock[0] += work.TOGETHER_SECONDS / 2 + 0.01
        return plain(job, **given)

    monkeypatch.setattr(work, "perform", perform)
    monkeypatch.setattr(work.time, "monotonic", lambda: clock[0])
    ended = work.perform_all(jobs)
    assert [done.unit_id for done in ended] == [job.unit.id for job in jobs[:2]]
    assert store.done("evaluations") == {done.unit_id for done in ended}


def test_of_several_none_is_begun_after_one_that_was_stopped(
    do: Perform, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = four(do, store)

    def full(self: Store, given: Any) -> None:
        raise StoreError(os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Store, "commit_all", full)
    assert [done.state for done in work.perform_all(jobs)] == ["stopped"]
    assert not store.done("evaluations")
    monkeypatch.undo()
    plain, left = work.check_in, [2]

    def check_in(job: Job, store: Store) -> str:
        left[0] -= 1
        return "not wanted any more" if left[0] < 0 else plain(job, store)

    monkeypatch.setattr(work, "check_in", check_in)
    ended = work.perform_all(jobs)
    assert [done.state for done in ended] == ["done", "done", "stopped"]
    assert store.done("evaluations") == {done.unit_id for done in ended[:2]}


def test_where_several_cannot_be_written_together_each_says_why_itself(do: Perform, store: Store) -> None:
    network = train("BN", objective="natural", epochs=1)
    assert do(network).state == "done"
    asked = [evaluation(network, (at, at + 10)) for at in range(0, 30, 10)]
    (Path(store.uri) / "evaluations" / f"{asked[1].id}.parquet").mkdir(parents=True)  # no file can take that name
    ended = work.perform_all([
        Job(unit=unit, store=store.uri, root=None, download=False, threads=1, device="cpu", attempt=1)
        for unit in asked
    ])  # fmt: skip
    assert [done.state for done in ended] == ["done", "failed", "done"]
    assert "cannot write" in ended[1].error and asked[1].id in ended[1].error


def weights_path(store: Store, network: Unit, checkpoint: str) -> Path:
    """Return where the weights lie that a trained network's record names."""
    trial = store.read_file("trials", network.id).to_pylist()[0]
    return Path(store.uri) / layout.weights_file(network.id, checkpoint, trial[f"{checkpoint}_sha256"])


def test_rows_say_where_an_attack_was_measured_and_how_it_was_crafted(do: Perform, store: Store) -> None:
    network = train("BN", objective="natural", epochs=1)
    normalized = {**PGD, "eps_space": "normalized"}
    gaussian = {"name": "gaussian", "std_255": 25.5, "eps_space": "normalized"}
    asked = {
        ("pixel", None): evaluation(network),
        ("normalized", None): evaluation(network, attack=normalized),
        ("normalized", "train_frozen"): evaluation(network, attack=normalized, attack_mode="train_frozen"),
        ("gaussian", None): evaluation(network, attack=gaussian, knowledge="none"),
    }
    assert [do(unit).state for unit in (network, *asked.values())] == ["done"] * 5
    found = {row["unit_id"]: row for row in store.read("evaluations").to_pylist()}
    for (space, crafted), unit in asked.items():
        row, blind = found[unit.id], space == "gaussian"
        assert row["eps_space"] == ("normalized" if blind else space)
        assert (row["attack_mode"], row["eval_mode"]) == (crafted, "eval")
        assert (row["eps_255"], row["threat"]) == ((None, "none") if blind else (25.5, "linf"))
    far = {key: max(row["linf"] for row in rows_of(store, unit)) for key, unit in asked.items()}
    std = data.record("digits").std[0]
    assert far["pixel", None] == pytest.approx(0.1, abs=1e-6)
    assert far["normalized", None] == pytest.approx(0.1 * std, abs=1e-6)  # distances are always of pixels
    assert far["gaussian", None] > 0.1 * std
    crafted = [rows_of(store, asked["normalized", mode]) for mode in (None, "train_frozen")]
    assert [row["margin"] for row in crafted[0]] != [row["margin"] for row in crafted[1]]


def rows_of(store: Store, unit: Unit) -> list[dict[str, Any]]:
    return store.read_file("examples", unit.id).to_pylist()


def test_a_training_and_its_evaluation_leave_rows_in_their_views(do: Perform, store: Store) -> None:
    network, reported = train(), []
    done = do(network, lambda row: reported.append(row["epoch"]))
    assert (done.unit_id, done.kind, done.state, done.error) == (network.id, "train", "done", "")
    assert done.seconds > 0 and reported == [1, 2]
    asked = evaluation(network)
    assert do(asked).state == "done"
    for view, count in {"trials": 1, "epochs": 2, "evaluations": 1, "examples": 10, "failures": 0}.items():
        table = store.read(view)
        assert (table.schema, table.num_rows) == (SCHEMAS[view], count)
    (trial,), (evaluated,) = store.read("trials").to_pylist(), store.read("evaluations").to_pylist()
    assert (trial["state"], trial["epochs"], trial["log2_paths"], trial["kernel"]) == ("finished", 2, 9.0, "mixture")
    assert trial["parameters"] == sum(t.numel() for t in inputs.built(network.settings, network.id).parameters())
    assert (evaluated["network_id"], evaluated["threads"], evaluated["eps_255"]) == (network.id, 1, 25.5)
    rows = store.read("examples").to_pylist()
    assert [row["example"] for row in rows] == list(range(10))
    assert [row["label"] for row in rows] == data.load("digits").test.labels[:10].tolist()
    assert {len(row["adversarial_predictions"]) for row in rows} == {3}
    assert max(row["linf"] for row in rows) == pytest.approx(0.1, abs=1e-6)
    assert {path.name for path in (Path(store.uri) / "checkpoints" / network.id).iterdir()} == {
        f"best-{trial['best_sha256'][:16]}.safetensors",
        f"last-{trial['last_sha256'][:16]}.safetensors",
    }


@pytest.mark.parametrize(("norm", "kernel"), [("BN", "native"), ("none", "native"), ("RN", "mixture")])
def test_rows_say_native_only_where_torch_has_a_kernel(do: Perform, store: Store, norm: str, kernel: str) -> None:
    assert do(train(norm, objective="natural", epochs=1, lr=0.01)).state == "done"
    assert store.read("trials")["kernel"].to_pylist() == [kernel]


def test_a_finished_unit_is_left_alone(do: Perform, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"fit": 0, "evaluate": 0}

    def counting(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **options: Any) -> Any:
            calls[name] += 1
            return plain(*given, **options)

        return counted

    for name in calls:
        monkeypatch.setattr(work, name, counting(name, getattr(work, name)))
    network = train(objective="natural", epochs=1)
    for _ in range(3):
        assert do(network).state == do(evaluation(network)).state == "done"
    assert calls == {"fit": 1, "evaluate": 1}
    assert do(evaluation(network, (10, 14))).state == "done" and calls == {"fit": 1, "evaluate": 2}


def test_a_unit_that_fails_is_recorded_and_does_not_stop_the_others(do: Perform, store: Store) -> None:
    network = train(objective="natural", epochs=1)
    do(network)
    broken = evaluation(network, attack={"name": "psychic"})
    done = do(broken, attempt=3)
    assert (done.state, done.error) == ("failed", "KeyError: 'psychic'")
    assert do(evaluation(network)).state == "done"
    (failures,) = store.failures().values()
    assert [(row["unit_id"], row["kind"], row["attempt"], row["error"]) for row in failures] == [
        (broken.id, "evaluate", 3, "KeyError")
    ]
    assert "rna_ray/attacks/make.py" in failures[0]["traceback"]
    assert store.done("evaluations") == {evaluation(network).id}


def test_an_evaluation_without_its_network_fails_and_says_so(do: Perform, store: Store) -> None:
    done = do(evaluation(train()))
    assert done.state == "failed" and done.error.startswith("StoreError: ") and train().id in done.error
    assert not store.done("evaluations")


@pytest.mark.parametrize("damage", ["truncated", "one byte", "missing"])
def test_a_damaged_checkpoint_is_named_and_its_network_made_again(damage: str, do: Perform, store: Store) -> None:
    damaged, whole = train(objective="natural", epochs=1), train("IN", objective="natural", epochs=1)
    do(damaged), do(whole)
    path = weights_path(store, damaged, "last")
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-100] if damage == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    assert do(evaluation(damaged, checkpoint="best")).state == "done"
    done = do(evaluation(damaged))
    assert done.state == "failed" and done.error.startswith(f"CheckpointError: {path} ")
    assert done.error.endswith(f"; the next run makes network {damaged.id} again")
    assert store.done("trials") == {whole.id} and do(evaluation(whole)).state == "done"
    assert do(damaged).state == "done" and path.read_bytes() == data  # bit for bit what it was
    assert do(evaluation(damaged), attempt=2).state == "done"  # a failure is not kept for the next time
    assert len(store.failures()[evaluation(damaged).id]) == 1
    rows = [row for row in store.read("evaluations").to_pylist() if row["network_id"] == damaged.id]
    answered = {row["checkpoint"]: row["weights_sha256"] for row in rows}
    trial = store.read("trials", [damaged.id]).to_pylist()[0]
    assert answered["best"] == trial["best_sha256"] and answered["last"] == trial["last_sha256"]


def test_what_does_not_answer_costs_no_network(do: Perform, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    network = train("BN", objective="natural", epochs=1)
    assert do(network).state == "done"

    def busy(self: Checkpoints, name: str, digest: str) -> None:
        raise CheckpointError("too many open files")

    monkeypatch.setattr(Checkpoints, "read", busy)
    assert do(evaluation(network)).error == "CheckpointError: too many open files"
    assert store.done("trials") == {network.id}


def test_a_training_that_failed_half_way_is_resumed_by_its_next_attempt(do: Perform, store: Store) -> None:
    def fail(row: dict[str, Any]) -> None:
        raise RuntimeError(f"no more after epoch {row['epoch']}\nsecond line")

    done = do(train(), fail)
    assert (done.state, done.error) == ("failed", "RuntimeError: no more after epoch 1")
    assert not store.done("trials") and store.read("epochs").num_rows == 0
    reported: list[int] = []
    assert do(train(), lambda row: reported.append(row["epoch"]), 2).state == "done"
    assert reported == [2] and store.read("epochs")["epoch"].to_pylist() == [1, 2]
    assert store.read("trials")["attempt"].to_pylist() == [2]


def test_a_training_that_diverges_is_a_result(do: Perform, store: Store) -> None:
    network = train("BN", lr=1e30, weight_decay=0.1)
    assert do(network).state == "done"
    (trial,) = store.read("trials").to_pylist()
    assert trial["state"] == "diverged" and trial["epochs"] == store.read("epochs").num_rows < 2
    assert do(evaluation(network, knowledge="fixed", draws=1)).state == "done"
    assert not store.failures()


def test_rows_are_the_same_in_another_store(do: Perform, store: Store, tmp_path: Path) -> None:
    network = train(epochs=1)
    asked = evaluation(network)
    do(network), do(asked)
    other = open_store(tmp_path / "other")
    torch.manual_seed(4)
    for unit in (network, asked):
        perform(Job(unit=unit, store=other.uri, root=None, download=False, threads=1, device="cpu", attempt=1))
    assert other.read("examples").equals(store.read("examples"))
    for column in ("last_sha256", "best_sha256", "settings"):
        assert other.read("trials")[column] == store.read("trials")[column]


def test_held_out_images_are_no_training_images_and_no_seed_changes_them(store: Store) -> None:
    job = Job(unit=train(), store=store.uri, root=None, download=False, threads=1, device="cpu", attempt=1)
    everything = data.load("digits").train
    index = {image.tobytes(): row for row, image in enumerate(everything.images)}

    def rows(images: np.ndarray) -> list[int]:
        return [index[image.tobytes()] for image in images]

    digits = {"name": "digits", "digest": DIGEST}
    few, held = inputs.training_images({**digits, "train_examples": 300, "held_out": 200}, job)
    many, same = inputs.training_images({**digits, "train_examples": 1237, "held_out": 200}, job)
    assert (len(few.labels), len(held.labels), len(many.labels)) == (300, 200, 1237)
    assert not set(rows(many.images)) & set(rows(held.images))
    assert (same.images == held.images).all() and (many.images[:300] == few.images).all()
    assert (held.labels == everything.labels[rows(held.images)]).all()
    assert np.bincount(held.labels, minlength=10).min() >= 8  # all classes: an order drawn at random


def test_a_network_is_loaded_once_for_its_units(do: Perform, monkeypatch: pytest.MonkeyPatch) -> None:
    network = train(objective="natural", epochs=1)
    do(network)
    for start in range(0, 12, 4):
        assert do(evaluation(network, (start, start + 4))).state == "done"
    info = inputs.trained.cache_info()
    assert (info.misses, info.hits) == (1, 2)
    assert do(evaluation(network, checkpoint="best")).state == "done" and inputs.trained.cache_info().misses == 2


def test_images_that_are_not_those_of_the_plan_are_refused(do: Perform, store: Store) -> None:
    planned = "0" * 32
    with pytest.raises(DataError) as error:
        inputs.dataset("digits", planned, None, False)
    assert f"have digest {DIGEST}, this unit was planned on {planned}: give every node" in str(error.value)
    settings = train(objective="natural", epochs=1).settings
    other = units.train({**settings, "data": {**settings["data"], "digest": planned}})
    done = do(other)
    assert done.state == "stopped" and done.error.startswith("the images of digits on ")  # no fault of the unit's
    assert not store.failures()
    assert DIGEST in done.error and planned in done.error
    assert not store.done("trials") and not (Path(store.uri) / "checkpoints").exists()
    assert len(inputs.dataset("digits", DIGEST, None, False).test.labels) == 360


def test_images_are_read_once_for_the_units_of_a_process(do: Perform) -> None:
    network = train(objective="natural", epochs=1)
    for unit in (network, evaluation(network), evaluation(network, (10, 14))):
        assert do(unit).state == "done"
    assert (inputs.dataset.cache_info().misses, inputs.dataset.cache_info().hits) == (1, 2)


@pytest.fixture
def trained(do: Perform, store: Store) -> Unit:
    """A network of the test's store."""
    network = train("BN", objective="natural", epochs=1)
    assert do(network).state == "done"
    return network


def test_weights_that_fit_are_let_through(trained: Unit, store: Store) -> None:
    for checkpoint in ("last", "best"):
        inputs.check_weights(store, trained.id, checkpoint)
    with pytest.raises(StoreError):
        inputs.check_weights(store, train().id, "last")


@pytest.mark.parametrize(("damage", "said"), [("truncated", "bytes, their header says"), ("missing", "")])
def test_weights_that_are_damaged_are_told_before_anything_starts(
    damage: str, said: str, trained: Unit, store: Store
) -> None:
    path = weights_path(store, trained, "last")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError) as error:
        inputs.check_weights(store, trained.id, "last")
    assert str(path) in str(error.value) and said in str(error.value)
    assert inputs.damaged_weights(store, trained.id, "last") == str(error.value)
    inputs.check_weights(store, trained.id, "best")
    assert inputs.damaged_weights(store, trained.id, "best") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"body.head.bias": torch.zeros(7)},
            r"body\.head\.bias has shape \(7,\) in the file and \(10,\) in the network;",
        ),
        ({"body.head.bias": None}, r"body\.head\.bias has shape none in the file and \(10,\) in the network;"),
        ({"a.extra": torch.zeros(2, 3)}, r"a\.extra has shape \(2, 3\) in the file and none in the network;"),
    ],
)
def test_weights_of_another_network_are_named_by_key_and_shapes(
    change: dict[str, torch.Tensor | None], said: str, trained: Unit, store: Store
) -> None:
    network = inputs.built(trained.settings, trained.id)
    tensors = {key: value for key, value in {**network.state_dict(), **change}.items() if value is not None}
    kept = Checkpoints(store, trained.id)
    other = Path(store.uri) / kept.path("other", kept.write("other", tensors, {}))
    path = weights_path(store, trained, "last")
    path.write_bytes(other.read_bytes())
    misfit = rf"the weights {path} do not fit their network: {said} to make it again, delete "
    with pytest.raises(CheckpointError, match=misfit):
        inputs.check_weights(store, trained.id, "last")


def test_a_unit_settles_what_its_sums_depend_on() -> None:
    wanted = {
        (torch.backends.cuda.matmul, "allow_tf32"): False, (torch.backends.cudnn, "allow_tf32"): False,
        (torch.backends.cudnn, "deterministic"): True, (torch.backends.cudnn, "benchmark"): False,
    }  # fmt: skip
    before = {key: getattr(*key) for key in wanted}
    try:
        for (place, name), value in wanted.items():
            setattr(place, name, not value)
        work._settle(Job(unit=train(), store="", root=None, download=False, threads=2, device="cpu", attempt=1))
        assert {key: getattr(*key) for key in wanted} == wanted and torch.get_num_threads() == 2
    finally:
        for (place, name), value in before.items():
            setattr(place, name, value)


def test_rows_say_which_code_the_driver_found(store: Store) -> None:
    network = train(objective="natural", epochs=1)
    for unit, code in ((network, Code(commit="c0ffee", dirty=True)), (evaluation(network), Code())):
        job = Job(
            unit=unit, store=store.uri, root=None, download=False, threads=1, device="cpu", attempt=1, code=code
        )
        assert perform(job).state == "done"
    (trial,), (evaluated,) = store.read("trials").to_pylist(), store.read("evaluations").to_pylist()
    assert (trial["commit"], trial["dirty"]) == ("c0ffee", True)
    assert (evaluated["commit"], evaluated["dirty"]) == (None, None)


@pytest.mark.slow
def test_a_worker_starts_without_the_compiler() -> None:
    # The compiler takes longer to import than torch.
    code = "import sys, rna_ray.running.work; print('torch._dynamo' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "False\n"), ended.stderr
