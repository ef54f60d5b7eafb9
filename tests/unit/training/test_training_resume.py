"""Interrupted then resumed equals uninterrupted, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_base import at_call, checkpoints, fitted, network, rows, same_weights, settings

from rna_ray import __version__
from rna_ray.errors import CheckpointError, StoreError
from rna_ray.networks.build import Network
from rna_ray.store import Store, layout, open_store
from rna_ray.store.files import Files
from rna_ray.store.records import from_rows
from rna_ray.training import fit as fits
from rna_ray.training.checkpoint import Checkpoints, Tensors, load, load_into, sha256
from rna_ray.training.fit import Fitted, Stopped

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
QUICK = "natural, no momentum"
"""For what hangs on files, not on what is trained."""


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


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_trainings_are_the_same(
    case: str, uninterrupted: dict[str, tuple[Fitted, Network]], tmp_path: Path
) -> None:
    torch.manual_seed(9)
    assert_same(fitted(tmp_path, settings(**CASES[case])), uninterrupted[case])


@pytest.mark.parametrize("after", [2, *(pytest.param(after, marks=pytest.mark.slow) for after in (1, EPOCHS))])
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


@pytest.mark.parametrize("case", CASES)
def test_a_training_stopped_within_its_epochs_ends_the_same(
    case: str, uninterrupted: dict[str, tuple[Fitted, Network]], tmp_path: Path
) -> None:
    """Three epochs of three updates and two held-out batches, each run asked to stop at its third look."""
    asked, places, reported = settings(**CASES[case]), [], []
    while True:
        try:
            ended = fitted(tmp_path, asked, report=lambda row: reported.append(row["epoch"]), stop=at_call(3))
            break
        except Stopped:
            state = checkpoints(tmp_path).resume() or pytest.fail("a training that was asked to stop keeps its state")
            places.append((state[1]["epoch"], state[1]["position"]["step"]))
    assert places == [(0, 3), (1, 1), (1, 3), (2, 1), (2, 3)] and reported == [1, 2, 3]
    assert_same(ended, uninterrupted[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["blackbox", "stability, adam, dropout"])
def test_a_training_killed_within_an_epoch_loses_no_more_than_the_time_between_checkpoints(
    case: str, uninterrupted: dict[str, tuple[Fitted, Network]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates, plain = [], fits._Trainer._update

    def counted(self: Any, epoch: int, random: Any, batch: torch.Tensor) -> Any:
        if len(updates) == 5:  # in the middle of the second epoch
            updates.append("killed")
            raise Killed
        updates.append(epoch)
        return plain(self, epoch, random, batch)

    monkeypatch.setattr(fits._Trainer, "_update", counted)
    with pytest.raises(Killed):
        fitted(tmp_path, settings(**CASES[case]), checkpoint_seconds=0.0)
    assert_same(fitted(tmp_path, settings(**CASES[case]), checkpoint_seconds=0.0), uninterrupted[case])
    assert updates == [0, 0, 0, 1, 1, "killed", 1, 2, 2, 2]  # each of the nine was made once
    with pytest.raises(Stopped):
        fitted(tmp_path / "other", settings(**CASES[case]), stop=at_call(2))
    del updates[:6]
    fitted(tmp_path / "other", settings(**CASES[case]))
    assert len(updates) == 4 + 2 + 7  # the two before it stopped are not made again


def test_a_training_that_diverges_after_it_was_stopped_returns_to_the_weights_before_the_epoch(
    tmp_path: Path
) -> None:
    asked = settings("BN", lr=1e30, weight_decay=0.1, objective="natural")
    whole, made = fitted(tmp_path / "whole", asked)
    assert whole.state == "diverged"
    with pytest.raises(Stopped):
        fitted(tmp_path, asked, stop=at_call(1))
    found, resumed = fitted(tmp_path, asked)
    assert found.state == "diverged" and found.last_sha256 == whole.last_sha256 and same_weights(resumed, made)


def test_a_training_that_is_done_is_not_asked(tmp_path: Path) -> None:
    fitted(tmp_path, settings(epochs=1))
    fitted(tmp_path, settings(epochs=1), stop=lambda: pytest.fail("there is nothing left to stop"))


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
            fitted(tmp_path, settings(**CASES[QUICK]))
    resumed: list[int] = []
    ended = fitted(tmp_path, settings(**CASES[QUICK]), report=lambda row: resumed.append(row["epoch"]))
    assert_same(ended, uninterrupted[QUICK])
    assert resumed == list(range(epoch, EPOCHS + 1))


@pytest.mark.parametrize("damage", ["truncated", "one byte", "missing", "marker"])
def test_a_damaged_state_is_not_trusted_and_training_starts_from_nothing(
    damage: str, uninterrupted: dict[str, tuple[Fitted, Network]], tmp_path: Path
) -> None:
    def kill(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        fitted(tmp_path, settings(**CASES[QUICK]), report=kill)
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
    ended = fitted(tmp_path, settings(**CASES[QUICK]), report=lambda row: started.append(row["epoch"]))
    assert_same(ended, uninterrupted[QUICK])
    assert started == [1, 2, 3]


def test_a_state_that_a_bucket_lost_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "local_path", lambda self, name: None)  # as in a bucket: files are copied, then read
    kept = checkpoints(tmp_path)
    kept.keep_resume({"w": torch.zeros(2)}, {"epoch": 1})
    (state,) = (tmp_path / "store" / "checkpoints" / "unit").glob("resume-*.safetensors")
    state.unlink()
    assert kept.resume() is None


@pytest.mark.parametrize("silent", [["read"], ["read", "exists"]], ids=" and ".join)
def test_a_store_that_does_not_answer_is_no_reason_to_begin_anew(
    silent: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def says_nothing(plain: Callable[[Files, Any], Any]) -> Callable[[Files, Any], Any]:
        def asked(self: Files, path: Any) -> Any:
            if path.name == "resume.json":
                raise StoreError(f"cannot look at {path}")
            return plain(self, path)

        return asked

    fitted(tmp_path, settings(epochs=1))
    with monkeypatch.context() as patch:
        for name in silent:
            patch.setattr(Files, name, says_nothing(getattr(Files, name)))
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


def test_two_attempts_that_resume_from_one_state_leave_each_other_its_best(tmp_path: Path) -> None:
    def leave(row: dict[str, Any]) -> None:
        raise Killed

    with pytest.raises(Killed):
        fitted(tmp_path, settings(), report=leave)
    state = checkpoints(tmp_path).resume()
    assert state is not None
    shared = state[1]["best"]["sha256"]  # which the other attempt may commit
    ended, _ = fitted(tmp_path, settings())
    assert ended.best_sha256 != shared, "this one found better weights"
    kept = checkpoints(tmp_path)
    kept.read("best", shared)
    kept.keep_only([ended.best_sha256, ended.last_sha256])  # once one of them counts
    with pytest.raises(CheckpointError, match="does not exist"):
        kept.read("best", shared)
    kept.read("best", ended.best_sha256), kept.read("last", ended.last_sha256)


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


@pytest.mark.parametrize("local", [True, False])
def test_a_state_that_is_replaced_while_it_is_read_is_read_again(
    local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not local:  # as in a bucket, whose files are copied before they are read
        monkeypatch.setattr(Store, "local_path", lambda self, name: None)
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


def test_a_state_says_all_code_that_trained_it(tmp_path: Path) -> None:
    """The version is this one; the commit changed while the training went on, and back again."""
    store = open_store(tmp_path / "store")
    assert Checkpoints(store, "u").made_by() == []
    for commit in ("aaaaaaa", "bbbbbbb", "aaaaaaa"):
        Checkpoints(store, "u", commit).keep_resume({"w": torch.ones(2)}, {"epoch": 1})
    assert Checkpoints(store, "u").made_by() == [
        {"rna_ray": __version__, "commit": commit} for commit in ("aaaaaaa", "bbbbbbb")
    ]
    store.put(layout.resume_marker("u"), b'{"sha256": "0"}')  # as an older release wrote it
    assert Checkpoints(store, "u").made_by() == [{"rna_ray": None, "commit": None}]
