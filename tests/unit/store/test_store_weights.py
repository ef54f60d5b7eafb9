"""What a look at a safetensors file's header and length finds, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from rna_ray.errors import CheckpointError, UnreachableError
from rna_ray.store import Store, layout, weights
from rna_ray.store.files import Files

Rows = Callable[..., pa.Table]
NAME = layout.weights_file("u1", "last", "ab" * 32)


@pytest.fixture
def path(store: Store, tmp_path: Path) -> Path:
    """Two tensors in a store, where they lie on the disk."""
    tensors = {"weight": np.zeros((4, 3), np.float32), "steps": np.zeros((), np.int64)}
    save_file(tensors, tmp_path / "w", metadata={"about": "{}"})
    store.put_file(NAME, tmp_path / "w")
    return Path(store.uri) / NAME


def test_the_shapes_are_those_of_the_tensors(store: Store, path: Path) -> None:
    assert weights.shapes(store, NAME) == {"weight": (4, 3), "steps": ()}


def test_a_missing_file_is_named(store: Store, path: Path) -> None:
    path.unlink()
    with pytest.raises(CheckpointError) as error:
        weights.shapes(store, NAME)
    assert str(path) in str(error.value) and str(error.value).endswith("are missing")


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_than_its_header_says_is_refused(change: int, store: Store, path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:change] if change < 0 else whole + b"x")
    said = rf"have {len(whole) + change:,} bytes, their header says {len(whole):,}$"
    with pytest.raises(CheckpointError, match=said):
        weights.shapes(store, NAME)


def headed(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize("damaged", [b"", b"\x05", b"\xff" * 40, headed(b'{"a": 3}'), headed(b"[]"), headed(b"{")])
def test_a_header_that_is_none_is_refused(damaged: bytes, store: Store, path: Path) -> None:
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"last-(ab){8}\.safetensors (are damaged: .* is none|have 40 .*)$"):
        weights.shapes(store, NAME)


def test_a_store_that_does_not_answer_did_not_train_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (weights.trained_seconds(store, "u1"), weights.trained_epochs(store, "u1")) == (0.0, [])

    def silent(self: Files, path: PurePosixPath) -> bytes:
        raise UnreachableError(f"cannot read {path}: timeout")

    monkeypatch.setattr(Files, "read", silent)
    for ask in (weights.trained_seconds, weights.trained_epochs):
        with pytest.raises(UnreachableError, match="timeout"):
            ask(store, "u1")


def test_weights_look_whole_where_they_are_as_many_as_the_record_counts(store: Store, path: Path, rows: Rows) -> None:
    """4 x 3 weights and a counter; what an attacker sees of norms that track statistics is no parameter."""

    def looks(parameters: int, network: str = '{"name": "n"}', **given: object) -> bool:
        store.discard("u1", "trials")
        said = {"settings": f'{{"network": {network}}}', "last_sha256": "ab" * 32} | given
        store.commit("u1", {"trials": rows("trials", unit_id="u1", parameters=parameters, **said)}, record="trials")
        return weights.look_whole(store, "u1", "last")

    tensors = {"a.weight": np.zeros((4, 3), np.float32), "a.running_mean": np.zeros(4, np.float32)}
    save_file(tensors, path)
    assert looks(12) and not looks(13) and looks(13, '{"import": "m:f"}')
    assert not looks(12, last_sha256=None) and not looks(12, last_sha256="cd" * 32) and not looks(12, settings="{")
    path.write_bytes(path.read_bytes()[:-1])
    assert not looks(12)
    store.discard("u1", "trials")
    assert not weights.look_whole(store, "u1", "last")
