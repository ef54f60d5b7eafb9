"""The machines of a Ray cluster: which are there, which its autoscaler may add, and whether they see the store.

Machines come and go while a sweep runs, so nothing here is asked once and kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import ray
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.exceptions import RayError, RayTaskError
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rna_ray.errors import ResourceError, StoreError, sentence
from rna_ray.running import slots
from rna_ray.store import layout, open_store
from rna_ray.sweep import yaml_file
from rna_ray.sweep.sections import Share

FRESH_SECONDS = 1.0
"""For how long the list of nodes is not asked for again."""
ANSWER_SECONDS = 120.0
"""How long a node may take to start a process and look; one that is slower finds out in its first unit."""
KNOCK_SECONDS = 2.0
UNKNOWN_MOST = 32
"""How many nodes are counted on where an autoscaler does not say how many it may add."""

_GROUP, _HEAD = "ray.io/node-group", "node:__internal_head__"
_STATUS = "__autoscaling_status"  # where Ray's monitor writes what it did last
_UNKNOWN = slots.Growth(
    types=(slots.NodeType(name="workers", resources={}, most=UNKNOWN_MOST),), most=UNKNOWN_MOST
)
_READ_ONLY = "node_"  # the types that a monitor makes up where there is no autoscaler


class Machines:
    """The nodes of the cluster that this process has joined, and those that may join. Thread-safe."""

    def __init__(self, *, alone: bool) -> None:
        """`alone` says that this machine is the only one, so that no other needs to be asked."""
        self.alone = alone
        self._lock, self._asked = threading.Lock(), -FRESH_SECONDS
        self._nodes: list[dict[str, Any]] = []
        self._growth = None if alone else _growth(self.nodes())

    @property
    def grows(self) -> bool:
        """Whether there is an autoscaler that may add nodes."""
        return self._growth is not None

    def nodes(self) -> list[dict[str, Any]]:
        """Return the living nodes, as Ray describes them."""
        with self._lock:
            if time.monotonic() - self._asked >= FRESH_SECONDS:
                self._nodes = [node for node in ray.nodes() if node["Alive"]]
                self._asked = time.monotonic()
            return self._nodes

    def resources(self) -> list[slots.Node]:
        """Return what each living node has."""
        return [node["Resources"] for node in self.nodes()]

    def possible(self, *shares: Share) -> list[slots.Node]:
        """Return what each living node has, and each that the autoscaler may still add.

        Where it does not say how large those are, each is taken to hold one unit of the largest of the shares.
        """
        if self._growth is None:
            return self.resources()
        nodes = [(node["Labels"].get(_GROUP), node["Resources"]) for node in self.nodes()]
        return slots.grown(nodes, self._growth.guessed(*shares))

    def awaited(self, shares: Sequence[Share]) -> str | None:
        """Return what has to be waited for before a unit of each share fits somewhere; None where there is nothing."""
        if self._growth is None or all(slots.count(self.resources(), share) for share in shares):
            return None
        return f"no node is large enough yet; waiting for the cluster's autoscaler, which may add {self._growth.text()}"

    def gone(self, node_id: str | None) -> bool:
        """Return whether a node is no longer there, even where the cluster has not noticed yet."""
        if node_id is None:
            return False
        node = next((node for node in ray.nodes() if node["NodeID"] == node_id), None)
        if node is None or not node["Alive"]:
            return True
        try:
            address = node["NodeManagerAddress"], node["NodeManagerPort"]
            socket.create_connection(address, timeout=KNOCK_SECONDS).close()
        except OSError:
            return True
        return False


# -- the store, as the other machines see it ---------------------------------------------------------------------------


class Sight:
    """Looks from every machine that units may run on for a file that this one wrote to the store."""

    def __init__(self, store: str, machines: Machines, shares: Sequence[Share]) -> None:
        self.store, self.machines, self.shares = store, machines, shares
        self._token = os.urandom(8).hex()
        self._file = layout.sight_file(self._token)
        self._here = ray.get_runtime_context().get_node_id()
        self._asked: set[str] = {self._here}
        self._looking: dict[Any, dict[str, Any]] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Write the file, let every node look for it, and remove it when the block ends.

        Raises StoreError, naming the node, where one does not see it; ResourceError where one cannot run rna-ray.
        """
        if self.machines.alone:
            yield
            return
        files = open_store(self.store).files
        try:
            self.look(wait=ANSWER_SECONDS)
            yield
        finally:
            with contextlib.suppress(StoreError):
                files.remove(self._file)
            if files.local:
                with contextlib.suppress(OSError):  # a refusal leaves what there was before: maybe nothing
                    Path(files.full(PurePosixPath())).rmdir()

    def look(self, *, wait: float = 0.0) -> None:
        """Let nodes that are new look, and raise what those found out that were asked before."""
        if self.machines.alone:
            return
        news = [node for node in self.machines.nodes() if self._is_new(node)]
        if news:  # written anew: the file may have been taken for one that nobody needs
            open_store(self.store).files.write(self._file, self._token.encode())
        for node in news:
            self._asked.add(node["NodeID"])
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked = _finds.options(scheduling_strategy=there)
            self._looking[asked.remote(self.store, str(self._file), self._token)] = node
        if self._looking:
            done, _ = ray.wait(list(self._looking), num_returns=len(self._looking), timeout=wait)
            for reference in done:
                self._take(reference, self._looking.pop(reference))

    def _is_new(self, node: Mapping[str, Any]) -> bool:
        """Return whether a node was not asked yet and may get units."""
        return node["NodeID"] not in self._asked and any(slots.count([node["Resources"]], one) for one in self.shares)

    def _take(self, reference: Any, node: Mapping[str, Any]) -> None:
        name = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        try:
            why = ray.get(reference)
        except RayTaskError as error:
            raise ResourceError(
                f"{name} cannot run rna-ray: {sentence(error.cause)}; install the same version "
                "on every node"
            ) from error
        except RayError:
            return  # it left again
        if why is not None:
            raise StoreError(
                f"{name} does not see the store {self.store}: {why}; give a store that every node sees: a URI such as "
                "s3://bucket/store, or a folder on a file system that all of them share"
            )


@ray.remote(num_cpus=0, max_retries=0)
def _finds(store: str, path: str, token: str) -> str | None:
    """Return why a node does not find a file of the store; None where it does."""
    return finds(store, PurePosixPath(path), token)


def finds(store: str, path: PurePosixPath, token: str) -> str | None:
    """Return why this machine does not find a file of the store with this text in it; None where it does."""
    try:
        files = open_store(store).files
        if not files.exists(path):
            return f"it has no file {files.full(path)}, which was just written"
        if files.read(path) != token.encode():
            return f"its {files.full(path)} is another file"
    except StoreError as error:
        return f"there {error}"
    return None


# -- the autoscaler ----------------------------------------------------------------------------------------------------


def _growth(nodes: Sequence[Mapping[str, Any]]) -> slots.Growth | None:
    """Return what the cluster's autoscaler may add; None where there is none.

    The cluster launcher's reads a file on the head, which says it. KubeRay's is in a container of its own: all that
    is seen of it is that it works.
    """
    head = next((node["NodeID"] for node in nodes if _HEAD in node["Resources"]), None)
    if head is not None:
        there = NodeAffinitySchedulingStrategy(head, soft=False)
        asked = _config.options(scheduling_strategy=there).remote(ray.get_runtime_context().gcs_address)
        with contextlib.suppress(RayError):  # a head without rna-ray can lead a cluster
            if (config := ray.get(asked, timeout=ANSWER_SECONDS)) is not None:
                return slots.growth(config)
    # The second version of Ray's autoscaler writes no report, and is only ever switched on for one that works.
    working = is_autoscaler_v2(fetch_from_server=True) or _scales(_internal_kv_get(_STATUS))
    return _UNKNOWN if working else None


def _scales(status: bytes | None) -> bool:
    """Return whether the last report of Ray's monitor is an autoscaler's, and not a mere list of nodes."""
    types = json.loads(status or b"{}").get("autoscaler_report", {}).get("node_type_mapping") or {}
    return any(not name.startswith(_READ_ONLY) for name in types.values())


@ray.remote(num_cpus=0, max_retries=0)
def _config(address: str) -> dict[str, Any] | None:
    """Return what the autoscaler on this node was started with."""
    return autoscaler_config(address)


def autoscaler_config(address: str, processes: Path = Path("/proc")) -> dict[str, Any] | None:
    """Return what the file says that the autoscaler of the cluster at this address reads; None where none runs here."""
    for entry in processes.iterdir():
        words: list[str] = []
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
                words = (entry / "cmdline").read_text(errors="replace").split("\0")
        options = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
        if options.get("--gcs-address") == address and (path := options.get("--autoscaling-config")):
            return yaml_file.read(path)
    return None
