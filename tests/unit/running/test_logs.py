"""Metrics for TensorBoard: the epochs that the store has too, read back; a logger that fails ends nothing."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import rna
from ray.tune.logger import LoggerCallback
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from rna_ray.running import logs
from rna_ray.running.tasks import Done
from rna_ray.store import open_store

SWEEP = """\
name: one
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4, norm: BN+IN}
training: {objective: natural, epochs: 2, batch: 32, schedule: {name: cosine}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text(SWEEP, encoding="utf-8")
    return tmp_path


def events(file: Path) -> Iterator[Event]:
    """Yield the records of a file of TensorBoard's: each its length, a checksum, the event, a checksum."""
    data, at = file.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield Event.FromString(data[at + 12 : at + 12 + length])
        at += length + 16


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    found = [event for file in sorted(folder.glob("events.*")) for event in events(file)]
    return {(one.tag, event.step): one.simple_value for event in found for one in event.summary.value if event.step}


def test_every_epoch_of_the_store_is_in_its_training_s_file() -> None:
    assert rna("run", "one.yaml", "--address", "inline").code == 0
    (written,) = Path("rna-store/tensorboard/one").iterdir()
    (trial,) = open_store("rna-store").read("trials").to_pylist()
    assert written.name == f"BN+IN-seed0-{trial['unit_id'][:8]}"
    found, epochs = scalars(written), open_store("rna-store").read("epochs").to_pylist()
    assert len(epochs) == 2
    for row in epochs:
        expected = {
            "loss": row["loss"], "natural_loss": row["natural_loss"], "lr": row["lr"],
            "natural_accuracy": row["natural_correct"] / 32, "train_accuracy": row["train_correct"] / 64,
        }  # fmt: skip
        for name, value in expected.items():
            assert found[f"ray/tune/{name}", row["epoch"]] == pytest.approx(value, rel=1e-6)
    assert {step for _, step in found} == {1, 2}
    assert not [name for name, _ in found if "adversarial" in name]  # nothing was attacked
    assert rna("verify").code == 0 and rna("verify").out.count("damaged") == 0


def test_where_they_go_is_a_setting_and_none_is_one() -> None:
    assert rna("run", "one.yaml", "--address", "inline", "--set", "logging.folder=board").code == 0
    assert len(list(Path("board/one").iterdir())) == 1 and not Path("rna-store/tensorboard").exists()
    ended = rna("run", "one.yaml", "--address", "inline", "--set", "logging.tensorboard=false", "--store", "other")
    assert ended.code == 0 and not Path("other/tensorboard").exists()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_one_sentence_before_anything_starts(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    ended = rna("run", "one.yaml", "--address", "inline", "--set", f"logging.{name}={{}}")
    assert ended.one_sentence and f"logging.{name}: {name} is not installed; pip install 'rna-ray[{name}]'" in ended.err
    assert [path.name for path in folder.iterdir()] == ["one.yaml"]


def test_weights_and_biases_takes_a_ray(folder: Path) -> None:
    ended = rna("run", "one.yaml", "--address", "inline", "--set", "logging.wandb={}")
    assert ended.one_sentence and "--address inline starts none" in ended.err
    assert [path.name for path in folder.iterdir()] == ["one.yaml"]


class Told(LoggerCallback):
    """Keeps what it is told; the second training is too much for one that is weak."""

    def __init__(self, *, weak: bool) -> None:
        self.weak, self.heard = weak, []

    def log_trial_start(self, trial: Any) -> None:
        if self.weak and trial.name == "b":
            raise OSError(28, "No space left on device")
        self.heard.append(("start", str(trial)))

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self.heard.append((iteration, str(trial), result["training_iteration"], result["loss"]))

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self.heard.append(("failed" if failed else "ended", str(trial)))


def test_a_logger_that_fails_is_named_once_and_the_others_go_on(tmp_path: Path) -> None:
    weak, strong, said = Told(weak=True), Told(weak=False), io.StringIO()
    console = Console(file=said)
    trials = {name: logs.Shown(name, name, {}, str(tmp_path / name), "s") for name in "abc"}
    writers = [logs.Writer("weak", lambda: weak, console), logs.Writer("strong", lambda: strong, console)]
    with logs.Logs(writers, trials) as heard:
        heard.begun("an evaluation")
        for name in "abc":
            heard.begun(name)
            heard.epoch(name, {"epoch": 3, "loss": 0.5})
            if name != "c":  # which is stopped
                done = {"kind": "train", "state": "done", "seconds": 1.0}
                heard.finished(Done(unit_id=name, **done))
        heard.finished(Done(unit_id="an evaluation", **done))
    whole = [[("start", name), (3, name, 3, 0.5), ("ended", name)] for name in "ab"]
    assert strong.heard == [*whole[0], *whole[1], ("start", "c"), (3, "c", 3, 0.5), ("failed", "c")]
    assert weak.heard == whole[0]
    assert " ".join(said.getvalue().split()) == (
        "logging.weak: OSError: [Errno 28] No space left on device; nothing more is logged there, and the store has "
        "all metrics in its view epochs"
    )


def test_shares_are_of_what_was_looked_at_and_what_is_unknown_is_left_out() -> None:
    row = {"epoch": 2, "loss": 1.5, "train_correct": 3, "train_examples": 4, "natural_correct": 0, "held_out": 0}
    assert logs.metrics(row) == {"loss": 1.5, "train_accuracy": 0.75, "training_iteration": 2}
