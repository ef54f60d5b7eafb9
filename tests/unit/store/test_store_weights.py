"""What a look at a safetensors file's header and length finds, before anything is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rna_ray.errors import CheckpointError
from rna_ray.store import Store, layout, weights

NAME = layout.weights_file("u1", "last", "ab" * 32)


@pytest.fixture
def path(store: Store, tmp_path: Path) -> Path:
    """Two tensors in a store, where they lie on the disk."""
    tensors = {"weight": np.zeros((4, 3), np.float32), "steps": np.zeros((), np.int64)}
    save_file(tensors, tmp_path / "w", metadata={"about": "{}"})
    store.put_file(NAME, tmp_path / "w")
    return Path(store.uri) / NAME


def test_the_shapes_are_those_of_the_tensors(store: Store, path: Path) -> None:
    assert weights.shapes(store, NAME, "redo") == {"weight": (4, 3), "steps": ()}


def test_a_missing_file_is_named_with_what_to_do(store: Store, path: Path) -> None:
    path.unlink()
    with pytest.raises(CheckpointError) as error:
        weights.shapes(store, NAME, "train it again")
    assert str(path) in str(error.value) and str(error.value).endswith("train it again")


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_than_its_header_says_is_refused(change: int, store: Store, path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:change] if change < 0 else whole + b"x")
    said = rf"have {len(whole) + change:,} bytes, their header says {len(whole):,}: train it again$"
    with pytest.raises(CheckpointError, match=said):
        weights.shapes(store, NAME, "train it again")


def headed(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize("damaged", [b"", b"\x05", b"\xff" * 40, headed(b'{"a": 3}'), headed(b"[]"), headed(b"{")])
def test_a_header_that_is_none_is_refused(damaged: bytes, store: Store, path: Path) -> None:
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"the weights .*last-abababababababab\.safetensors .*: train it again$"):
        weights.shapes(store, NAME, "train it again")
