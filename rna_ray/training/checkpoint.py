"""Weights and training state as safetensors, checksummed: nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

import rna_ray
from rna_ray.errors import CheckpointError, StoreError
from rna_ray.store import cache, layout, weights
from rna_ray.store.parquet import Store

log = logging.getLogger(__name__)
Tensors = dict[str, torch.Tensor]
_ROOM = "weights"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The weights of one unit in a store: `last`, `best`, and while it trains the state to resume from."""

    store: Store
    unit_id: str
    commit: str | None = None
    """The git commit of the code that writes them, where there is one."""

    def write(self, name: str, tensors: Tensors, about: dict[str, Any]) -> str:
        """Write tensors and a JSON description as one file, at once; return its SHA-256, which is part of its name.

        So two attempts at a unit never write over each other's weights, even where their bits differ.
        """
        with tempfile.TemporaryDirectory(prefix="rna-ray-") as folder:
            local = Path(folder) / "weights"
            digest = save(local, tensors, about)
            self.store.put_file(self.path(name, digest), local)
            return digest

    def read(self, name: str, digest: str) -> tuple[Tensors, dict[str, Any]]:
        """Return the tensors and description of the file with this SHA-256.

        Raises CheckpointError where it is missing, truncated or altered.
        """
        local = self.store.local_path(self.path(name, digest))
        if local is not None:
            return load(local, digest)
        try:
            return load(self._cached(name, digest), digest)
        except CheckpointError:  # it gave way to others just now, or this machine's disk damaged it
            cache.forget(_ROOM, f"{digest}.safetensors")
            return load(self._cached(name, digest), digest)

    def _cached(self, name: str, digest: str) -> Path:
        """Return where this machine keeps a remote store's weights: a copy for all its processes, checked as it comes.

        What a training resumes from is copied too: by the process that goes on, and by it alone.
        """

        def fetch(target: Path) -> None:
            self.store.get_file(self.path(name, digest), target)
            if (found := sha256(target)) != digest:
                where = self.store.files.full(self.path(name, digest))
                raise CheckpointError(f"{where} is damaged: its SHA-256 is {found[:16]}…, {digest[:16]}… was written")

        return cache.kept(_ROOM, f"{digest}.safetensors", fetch)

    def remove(self, name: str, digest: str) -> None:
        """Remove a file that a later one took the place of."""
        self.store.files.remove(self.path(name, digest))

    def keep_resume(self, tensors: Tensors, about: dict[str, Any]) -> None:
        """Write the state to resume from: first the tensors under a new name, then the marker that points to them.

        The marker comes last, so a death in between leaves the state before intact.
        """
        made_by = self.made_by()
        if (mine := {"rna_ray": rna_ray.__version__, "commit": self.commit}) not in made_by:
            made_by.append(mine)
        old, digest = self._marker(), self.write("resume", tensors, about)
        self.store.files.write(self._marker_path, json.dumps({"sha256": digest, "made_by": made_by}).encode())
        if old and old != digest:
            self.remove("resume", old)

    def resume(self) -> tuple[Tensors, dict[str, Any]] | None:
        """Return the state to resume from, or None where there is none that can be trusted.

        Raises StoreError where the store does not answer: that is no reason to begin anew.
        """
        digest = self._marker()
        while digest:
            try:
                return self.read("resume", digest)
            except (CheckpointError, StoreError) as error:
                failed, digest = digest, self._marker()
                if digest != failed:
                    continue  # another attempt at the unit, one whose driver has died say, went on meanwhile
                if isinstance(error, StoreError) and not isinstance(error.__cause__, FileNotFoundError):
                    raise
                log.warning("%s; unit %s is trained from the start", error, self.unit_id)
                return None
        return None

    def made_by(self) -> list[dict[str, str | None]]:
        """Return the versions and commits that trained the state to resume from; of an older release's, none."""
        return weights.made_by(self.store, self.unit_id)

    def keep_only(self, digests: Collection[str]) -> None:
        """Remove the weights with other SHA-256s than these, which earlier and other attempts left behind.

        Not from an object store, where the record of another attempt may still take the place of the one that is there.
        """
        if not self.store.files.local:
            return
        for name in self.store.files.names(layout.CHECKPOINTS / self.unit_id):
            if (said := layout.weights_name(name)) and not any(digest.startswith(said[1]) for digest in digests):
                self.store.files.remove(layout.CHECKPOINTS / self.unit_id / name)

    def drop_resume(self) -> None:
        """Forget the state to resume from, once the unit's rows are there."""
        if digest := self._marker():
            self.store.files.remove(self._marker_path)
            self.remove("resume", digest)

    def _marker(self) -> str | None:
        """Return the SHA-256 of the state to resume from, if there is one."""
        marker = self.store.files.find(self._marker_path)
        if marker is None:
            return None
        try:
            found = json.loads(marker)["sha256"]
        except (ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, str) and _SHA256.fullmatch(found) else None

    def path(self, name: str, digest: str) -> PurePosixPath:
        """Return where in the store the file of these weights lies."""
        return layout.weights_file(self.unit_id, name, digest)

    @property
    def _marker_path(self) -> PurePosixPath:
        return layout.resume_marker(self.unit_id)


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def save(path: Path, tensors: Tensors, about: dict[str, Any]) -> str:
    """Write tensors and a JSON description as one safetensors file; return its SHA-256.

    CheckpointError where it cannot be written.
    """
    contiguous = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    try:
        save_file(contiguous, path, metadata={"about": json.dumps(about)})
    except SafetensorError as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error
    return sha256(path)


def load(path: Path, expected: str | None = None) -> tuple[Tensors, dict[str, Any]]:
    """Return a safetensors file's tensors and description; CheckpointError where it is missing or damaged."""
    if not os.path.isfile(path):
        raise CheckpointError(f"{path} does not exist: train its network again")
    try:
        if expected is not None and (found := sha256(path)) != expected:
            raise CheckpointError(f"{path} is damaged: its SHA-256 is {found[:16]}…, {expected[:16]}… was written")
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
            return tensors, json.loads((file.metadata() or {}).get("about", "{}"))
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:  # the last where it vanished meanwhile
        raise CheckpointError(f"{path} is truncated, was removed or is no safetensors file: {error}") from error


def load_into(network: nn.Module, tensors: Tensors, where: str) -> None:
    """Load weights strictly; CheckpointError naming the first key or shape that does not fit."""
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1 if "\n" in str(error) else 0].strip()
        raise CheckpointError(f"the weights in {where} do not fit the network: {first}") from error
