"""Weights and training state as safetensors, checksummed: nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from rna_ray.errors import CheckpointError, StoreError
from rna_ray.store import layout
from rna_ray.store.parquet import Store

Tensors = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The weights of one unit in a store: `last`, `best`, and while it trains the state to resume from."""

    store: Store
    unit_id: str

    def write(self, name: str, tensors: Tensors, about: dict[str, Any]) -> str:
        """Write tensors and a JSON description as one file, at once; return its SHA-256."""
        with tempfile.TemporaryDirectory(prefix="rna-ray-") as folder:
            local = Path(folder) / "weights"
            contiguous = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            save_file(contiguous, local, metadata={"about": json.dumps(about)})
            self.store.put_file(self._path(name), local)
            return sha256(local)

    def read(self, name: str, expected: str | None = None) -> tuple[Tensors, dict[str, Any]]:
        """Return a file's tensors and description.

        Raises CheckpointError where it is missing, truncated, or not the bytes whose SHA-256 is `expected`.
        """
        with tempfile.TemporaryDirectory(prefix="rna-ray-") as folder:
            local = self.store.local_path(self._path(name))
            if local is None:
                local = Path(folder) / "weights"
                self.store.get_file(self._path(name), local)
            return load(local, expected)

    def keep_resume(self, tensors: Tensors, about: dict[str, Any]) -> None:
        """Write the state to resume from: first the tensors under a new name, then the marker that points to them.

        The marker comes last, so a death in between leaves the state before intact.
        """
        old, name = self._marker(), f"epoch-{about['epoch']:05d}"
        digest = self.write(name, tensors, about)
        self.store.files.write(self._marker_path, json.dumps({"name": name, "sha256": digest}).encode())
        if old and old["name"] != name:
            self._remove(old["name"])

    def resume(self) -> tuple[Tensors, dict[str, Any]] | None:
        """Return the state to resume from, or None where there is none that can be trusted."""
        marker = self._marker()
        try:
            return self.read(marker["name"], marker["sha256"]) if marker else None
        except (CheckpointError, StoreError):
            return None

    def drop_resume(self) -> None:
        """Forget the state to resume from, once the unit's rows are there."""
        if marker := self._marker():
            self.store.files.remove(self._marker_path)
            self._remove(marker["name"])

    def _marker(self) -> dict[str, str] | None:
        try:
            found = json.loads(self.store.files.read(self._marker_path))
            return {"name": str(found["name"]), "sha256": str(found["sha256"])}
        except (StoreError, ValueError, KeyError, TypeError):
            return None

    def _remove(self, name: str) -> None:
        self.store.files.remove(self._path(name))

    def _path(self, name: str) -> Any:
        return layout.checkpoint_file(self.unit_id, f"{name}.safetensors")

    @property
    def _marker_path(self) -> Any:
        return layout.checkpoint_file(self.unit_id, "resume.json")


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load(path: Path, expected: str | None = None) -> tuple[Tensors, dict[str, Any]]:
    """Return a safetensors file's tensors and description; CheckpointError where it is missing or damaged."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: train its network again")
    if expected is not None and (found := sha256(path)) != expected:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is {found[:16]}…, {expected[:16]}… was written")
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
            return tensors, json.loads((file.metadata() or {}).get("about", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or no safetensors file: {error}") from error


def load_into(network: nn.Module, tensors: Tensors, where: str) -> None:
    """Load weights strictly; CheckpointError naming the first key or shape that does not fit."""
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1 if "\n" in str(error) else 0].strip()
        raise CheckpointError(f"the weights in {where} do not fit the network: {first}") from error
