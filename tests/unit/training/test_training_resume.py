"""Interrupted then resumed equals uninterrupted, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training_base import checkpoints, fitted, network, rows, same_weights, settings

from rna_ray.errors import CheckpointError, StoreError
from rna_ray.networks.build import Network
from rna_ray.store.files import Files
from rna_ray.store.records import from_rows
from rna_ray.training.checkpoint import Checkpoints, Tensors, load, load_into, sha256
from rna_ray.training.fit import Fitted

EPOCHS = 3


class Killed(BaseException):
    """What ends a training from outside."""


CASES: dict[str, dict[str, Any]] = {
    "blackbox": {"norm": "BN+IN"},
    "per-batch, train": {"norm": "BN+IN+LN", "paths": "batch", "attack_mode": "train", "objective": "whitebox"},
    "natural, no momentum": {"norm": "BN", "objective": "natural", "momentum": 0.0},
    "stability, adam, dropout": {
        "norm": "none", "name": "stn-cifar10", "width": 6, "objective": "natural", "optimizer": "adam", "lr": 0.002,
        "schedule": {"name": "constant"}, "noise_255": 25.5,
        "loss": {"name": "stability", "gamma": 1.0, "target": "softmax"},
    },
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Fitted, Network]]:
    torch.set_num_threads(1)
    return {name: fitted(tmp_path_factory.mktemp("whole"), settings(**case)) for name, case in CASES.items()}


def assert_same(found: tuple[Fitted, Network], expected: tuple[Fitted, Network]) -> None:
    assert rows(found[0]) == rows(expected[0])
    assert same_weights(found[1], expected[1])
    assert found[0].best_epoch == expected[0].best_epoch
    # The files too: their checksums are of every byte.
    assert (found[0].last_sha256, found[0].best_sha256) == (expected[0].last_sha256, expected[0].best_sha256)


@pytest.mark.parametrize("case", CASES)
def test_two_trainings_are_the_same(
    case: str, uninterrupted: dict[str, tuple[Fitted, Network]], tmp_path: Path
) -> None:
    torch.manual_seed(9)
    assert_same(fitted(tmp_path, settings(**CASES[case])), uninterrupted[case])


@pytest.mark.parametrize("after", range(1, EPOCHS + 1))
@pytest.mark.parametrize("case", CASES)
def test_a_training_killed_after_an_epoch_goes_on_from_there(
    case: str, after: int, uninterrupted: dict[str, tuple[Fitted, Network]], tmp_path: Path
) -> None:
    def kill(row: dict[str, Any]) -> None:
        if row["epoch"] == after:
            raise Killed

    asked, resumed = settings(**CASES[case]), []
    with pytest.raises(Killed):
        fitted(tmp_path, asked, report=kill)
    assert_same(fitted(tmp_path, asked, report=lambda row: resumed.append(row["epoch"])), uninterrupted[case])
    assert resumed == list(range(after + 1, EPOCHS + 1))


def test_a_training_killed_after_every_epoch_ends_the_same(
    uninterrupted: dict[str, tuple[Fitted, Network]], tmp_path: Path
) -> None:
    def kill(row: dict[str, Any]) -> None:
        raise Killed

    for _ in range(EPOCHS):
        with pytest.raises(Killed):
            fitted(tmp_path, settings(), report=kill)
    assert_same(fitted(tmp_path, settings(), report=kill), uninterrupted["blackbox"])


LATER = ("train_correct", "train_examples", "natural_loss", "adversarial_loss")
"""Columns that an older release did not measure."""


@pytest.mark.parametrize("case", CASES)
def test_a_training_that_an_older_release_began_goes_on_with_its_rows_as_they_are(
    case: str, uninterrupted: dict[str, tuple[Fitted, Network]], tmp_path: Path
) -> None:
    def kill(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise Killed

    asked, whole = settings(**CASES[case]), uninterrupted[case]
    with pytest.raises(Killed):
        fitted(tmp_path, asked, report=kill)
    tensors, about = checkpoints(tmp_path).resume() or pytest.fail("there is a state to resume from")
    for row in about["rows"]:
        for name in LATER:
            del row[name]
    checkpoints(tmp_path).keep_resume(tensors, about)
    resumed: list[int] = []
    found, made = fitted(tmp_path, asked, report=lambda row: resumed.append(row["epoch"]))
    assert resumed == [3] and same_weights(made, whole[1])
    assert rows(found)[2] == rows(whole[0])[2]
    table = from_rows("epochs", [{"unit_id": "unit", **row} for row in found.epochs])
    for name in LATER:
        assert table[name].to_pylist() == [None, None, whole[0].epochs[2][name]]
    assert table["loss"].to_pylist() == [row["loss"] for row in whole[0].epochs]


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
@pytest.mark.parametrize("between", ["best and resume", "resume and marker"])
def test_a_training_killed_between_two_files_goes_on_from_the_epoch_before(
    between: str, epoch: int, uninterrupted: dict[str, tuple[Fitted, Network]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    plain_keep, plain_write, kept = Checkpoints.keep_resume, Files.write, []

    def keep(self: Checkpoints, tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        if about["epoch"] == epoch and between == "best and resume":
            raise Killed
        kept.append(about["epoch"])
        plain_keep(self, tensors, about)

    def write(self: Files, path: Any, data: bytes) -> None:
        if path.name == "resume.json" and kept[-1] == epoch and between == "resume and marker":
            raise Killed
        plain_write(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "keep_resume", keep)
        patch.setattr(Files, "write", write)
        with pytest.raises(Killed):
            fitted(tmp_path, settings())
    resumed: list[int] = []
    assert_same(
        fitted(tmp_path, settings(), report=lambda row: resumed.append(row["epoch"])), uninterrupted["blackbox"]
    )
    assert resumed == list(range(epoch, EPOCHS + 1))


@pytest.mark.parametrize("damage", ["truncated", "one byte", "missing", "marker"])
def test_a_damaged_state_is_not_trusted_and_training_starts_from_nothing(
    damage: str, uninterrupted: dict[str, tuple[Fitted, Network]], tmp_path: Path
) -> None:
    def kill(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        fitted(tmp_path, settings(), report=kill)
    (state,) = (tmp_path / "store" / "checkpoints" / "unit").glob("resume-*.safetensors")
    whole = state.read_bytes()
    if damage == "truncated":
        state.write_bytes(whole[: len(whole) // 2])
    elif damage == "one byte":
        state.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    elif damage == "missing":
        state.unlink()
    else:
        (state.parent / "resume.json").write_text('{"sha256": "01')
    assert checkpoints(tmp_path).resume() is None
    started: list[int] = []
    assert_same(
        fitted(tmp_path, settings(), report=lambda row: started.append(row["epoch"])), uninterrupted["blackbox"]
    )
    assert started == [1, 2, 3]


@pytest.mark.parametrize("asked", ["kind", "read"])
def test_a_store_that_does_not_answer_is_no_reason_to_begin_anew(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = getattr(Files, asked)

    def silent(self: Files, path: Any) -> Any:
        if path.name == "resume.json":
            raise StoreError(f"cannot look at {path}")
        return plain(self, path)

    fitted(tmp_path, settings(epochs=1))
    with monkeypatch.context() as patch:
        patch.setattr(Files, asked, silent)
        with pytest.raises(StoreError, match=r"cannot look at checkpoints/unit/resume\.json"):
            checkpoints(tmp_path).resume()
        with pytest.raises(StoreError):
            fitted(tmp_path, settings(epochs=1))
    resumed = checkpoints(tmp_path).resume()
    assert resumed is not None and resumed[1]["epoch"] == 1


def test_a_superseded_best_is_removed_only_once_the_marker_points_to_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, removed = Checkpoints.remove, []

    def remove(self: Checkpoints, name: str, digest: str) -> None:
        if name == "best":
            _, about = checkpoints(tmp_path).resume() or pytest.fail("there is a state to resume from")
            assert about["best"]["sha256"] != digest
            assert (tmp_path / "store" / self.path("best", about["best"]["sha256"])).is_file()
            removed.append(digest)
        plain(self, name, digest)

    monkeypatch.setattr(Checkpoints, "remove", remove)
    found, _ = fitted(tmp_path, settings())
    assert removed and found.best_sha256 not in removed  # the untrained weights at least
    assert len(list((tmp_path / "store" / "checkpoints" / "unit").glob("best-*"))) == 1


def test_two_attempts_never_write_over_each_others_weights(tmp_path: Path) -> None:
    kept = checkpoints(tmp_path)
    one, other = ({"weight": torch.full((3,), value)} for value in (1.0, 2.0))
    digests = [kept.write("last", tensors, {"epoch": 3}) for tensors in (one, other, one)]
    assert digests[0] == digests[2] != digests[1]
    for digest, tensors in zip(digests, (one, other), strict=False):
        assert torch.equal(kept.read("last", digest)[0]["weight"], tensors["weight"])
    kept.remove("last", digests[0])
    assert [path.name for path in (tmp_path / "store" / "checkpoints" / "unit").iterdir()] == [
        f"last-{digests[1][:16]}.safetensors"
    ]


def test_one_state_is_kept_and_none_once_the_unit_is_done(tmp_path: Path) -> None:
    found, _ = fitted(tmp_path, settings())
    folder = tmp_path / "store" / "checkpoints" / "unit"
    kept = {f"best-{found.best_sha256[:16]}.safetensors", f"last-{found.last_sha256[:16]}.safetensors"}
    resume = json.loads((folder / "resume.json").read_text())["sha256"]
    assert {path.name for path in folder.iterdir()} == kept | {"resume.json", f"resume-{resume[:16]}.safetensors"}
    assert sha256(folder / f"resume-{resume[:16]}.safetensors") == resume
    checkpoints(tmp_path).drop_resume()
    assert {path.name for path in folder.iterdir()} == kept
    checkpoints(tmp_path).drop_resume()


def test_a_state_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, read = checkpoints(tmp_path), Checkpoints.read
    kept.keep_resume({"w": torch.zeros(2)}, {"epoch": 1})

    def overtaken(self: Checkpoints, name: str, digest: str) -> tuple[Tensors, dict[str, Any]]:
        monkeypatch.setattr(Checkpoints, "read", read)
        kept.keep_resume({"w": torch.ones(2)}, {"epoch": 2})  # the worker of a driver that died goes on for a while
        return read(self, name, digest)

    monkeypatch.setattr(Checkpoints, "read", overtaken)
    state = kept.resume()
    assert state is not None and state[1] == {"epoch": 2} and torch.equal(state[0]["w"], torch.ones(2))


def test_the_files_are_those_that_the_record_names(tmp_path: Path) -> None:
    found, made = fitted(tmp_path, settings())
    last, about = checkpoints(tmp_path).read("last", found.last_sha256)
    assert about == {"epoch": 3} and all(torch.equal(last[key], t) for key, t in made.state_dict().items())
    best, about = checkpoints(tmp_path).read("best", found.best_sha256)
    assert about == {"epoch": found.best_epoch}
    scores = [row["adversarial_correct"] for row in found.epochs]
    assert found.best_epoch == scores.index(max(scores)) + 1
    load_into(network(settings()), best, "best")


def test_a_checkpoint_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    found, _ = fitted(tmp_path, settings(epochs=1))
    kept = checkpoints(tmp_path)
    path = tmp_path / "store" / kept.path("last", found.last_sha256)
    last = rf"last-{found.last_sha256[:16]}\.safetensors"
    with pytest.raises(CheckpointError, match=r"last-0{16}\.safetensors does not exist: train its network again"):
        kept.read("last", "0" * 64)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=rf"{last} is damaged: its SHA-256 is "):
        kept.read("last", found.last_sha256)
    path.write_bytes(whole[:200])
    with pytest.raises(CheckpointError, match=rf"{last} is truncated, was removed or is no safetensors file"):
        load(path)
    tensors, _ = kept.read("best", found.best_sha256)
    with pytest.raises(CheckpointError, match=r"the weights in here do not fit the network: size mismatch for "):
        load_into(network(settings(width=8)), tensors, "here")
    with pytest.raises(CheckpointError, match=r"do not fit the network: (Missing|Unexpected) key"):
        load_into(network(settings("IN")), tensors, "here")
