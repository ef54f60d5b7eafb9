"""A unit is done once, whole, or recorded as failed; the others go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rna_ray import data
from rna_ray.attacks.catalog import find
from rna_ray.running import work
from rna_ray.running.work import Done, Job, perform
from rna_ray.store import Store, open_store
from rna_ray.store.records import SCHEMAS
from rna_ray.sweep import units
from rna_ray.sweep.units import Unit

PGD = {"name": "pgd", **find("pgd").settings({"steps": 1, "eps_255": 25.5, "step_255": 25.5})}
Perform = Callable[..., Done]


def train(norm: str = "BN+IN", **training: Any) -> Unit:
    objective = training.get("objective", "blackbox")
    return units.train(
        {
            "data": {"name": "digits", "digest": "x", "train_examples": 64, "held_out": 32},
            "network": {"name": "resnet8", "width": 4, "norm": norm, "layer_based": False, "paths": "example"},
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
            "compile": False,
            "seed": 0,
        }
    )


def evaluation(network: Unit, examples: tuple[int, int] = (0, 10), **given: Any) -> Unit:
    settings = {
        "network": network.id,
        "checkpoint": "last",
        "data": {"name": "digits", "digest": "x", "split": "test"},
        "attack": PGD,
        "knowledge": "transfer",
        "draws": 3,
        "eval": "eval",
        "paths": "example",
        "batch": 4,
        "precision": "fp32",
        **given,
    }
    return units.evaluate(settings, examples=examples)


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """What a process keeps for its next unit is forgotten between tests."""
    work._trained.cache_clear()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def do(store: Store) -> Perform:
    """Perform a unit in the test's store."""

    def run(unit: Unit, report: Callable[[dict[str, Any]], None] = lambda row: None, attempt: int = 1) -> Done:
        job = Job(unit=unit, store=store.uri, root=None, download=False, threads=1, device="cpu", attempt=attempt)
        return perform(job, report)

    return run


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
    assert trial["parameters"] == sum(t.numel() for t in work._build(network.settings, network.id).parameters())
    assert (evaluated["network_id"], evaluated["threads"], evaluated["eps_255"]) == (network.id, 1, 25.5)
    rows = store.read("examples").to_pylist()
    assert [row["example"] for row in rows] == list(range(10))
    assert [row["label"] for row in rows] == data.load("digits").test.labels[:10].tolist()
    assert {len(row["adversarial_predictions"]) for row in rows} == {3}
    assert max(row["linf"] for row in rows) == pytest.approx(0.1, abs=1e-6)
    assert {path.name for path in (Path(store.uri) / "checkpoints" / network.id).iterdir()} == {
        "best.safetensors",
        "last.safetensors",
    }


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
def test_a_damaged_checkpoint_is_named_and_fails_its_evaluations_only(damage: str, do: Perform, store: Store) -> None:
    damaged, whole = train(objective="natural", epochs=1), train("IN", objective="natural", epochs=1)
    do(damaged), do(whole)
    path = Path(store.uri) / "checkpoints" / damaged.id / "last.safetensors"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-100] if damage == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    done = do(evaluation(damaged))
    assert done.state == "failed" and done.error.startswith(f"CheckpointError: {path} ")
    assert do(evaluation(damaged, checkpoint="best")).state == "done"
    assert do(evaluation(whole)).state == "done"
    path.write_bytes(data)
    assert do(evaluation(damaged), attempt=2).state == "done"  # a failure is not kept for the next time
    assert len(store.failures()[evaluation(damaged).id]) == 1


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

    few, held = work._training_images({"name": "digits", "train_examples": 300, "held_out": 200}, job)
    many, same = work._training_images({"name": "digits", "train_examples": 1237, "held_out": 200}, job)
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
    info = work._trained.cache_info()
    assert (info.misses, info.hits) == (1, 2)
    assert do(evaluation(network, checkpoint="best")).state == "done" and work._trained.cache_info().misses == 2


def test_compiling_falls_back_where_there_is_no_compiler(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = work._build(train().settings, "unit")
    monkeypatch.setattr(work.shutil, "which", lambda name: None)
    assert work._forward(network, True, torch.device("cpu")) is network
    assert "none of g++, clang++, c++ is on this machine" in caplog.text
    caplog.clear()
    assert work._forward(network, False, torch.device("cpu")) is network and not caplog.text
