"""Ray clusters of several nodes on this machine, each of which can be killed, or see other files than the rest."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from integration_base import processes_of, until

HEAD = "f" * 51 + "00000"  # what Ray's provider of nodes on one machine calls the head
RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]

class Cluster:
    """Ray nodes on this machine, each a process that can be killed, found again by the port of their head."""

    def __init__(self, *, cpus: int = 0, autoscaling: Path | None = None) -> None:
        """Start the head; `autoscaling` is where the file lies that says what its autoscaler may start."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        self._nodes: list[subprocess.Popen[bytes]] = []
        port = self.address.rpartition(":")[2]
        options = ["--head", f"--port={port}", "--include-dashboard=false"]
        if autoscaling is not None:
            autoscaling.write_text(json.dumps(self._autoscaled()), encoding="utf-8")
            self.environment |= {
                "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_NODE_TYPE_NAME": "ray.head.default",
                "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
            }  # fmt: skip
            options.append(f"--autoscaling-config={autoscaling}")
        self.start(*options, cpus=cpus)
        self.until_alive(1)

    def _autoscaled(self) -> dict[str, Any]:
        """Return what the launcher would write: up to two nodes of one CPU, none to begin with, on this machine."""
        types = {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "small": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
        }
        commands = (
            "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
            "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude",
            "rsync_filter",
        )  # fmt: skip
        return {
            "cluster_name": "from-zero", "max_workers": 2, "idle_timeout_minutes": 5, "upscaling_speed": 1.0,
            "provider": {"type": "fake_multinode", "head_node_id": HEAD, "gcs_address": self.address},
            "available_node_types": types, "head_node_type": "ray.head.default", "auth": {}, "docker": {},
            "file_mounts": {}, "file_mounts_sync_continuously": False, **{name: [] for name in commands},
        }  # fmt: skip

    def start(self, *options: str, cpus: int, within: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start a node, by way of another command where one is given; return its process."""
        words = ["start", *options, f"--num-cpus={cpus}", "--num-gpus=0", "--node-ip-address=127.0.0.1", "--block"]
        log = subprocess.DEVNULL
        node = subprocess.Popen(
            [*within, *RAY, *words, "--min-worker-port=0", "--max-worker-port=0"], env=self.environment, stdout=log,
            stderr=log, start_new_session=True,
        )
        self._nodes.append(node)
        return node

    def join(self, cpus: int, within: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start one more node and wait until the cluster knows it."""
        before = self.alive()
        node = self.start(f"--address={self.address}", cpus=cpus, within=within)
        self.until_alive(before + 1)
        return node

    def alive(self) -> int:
        """Return how many nodes the cluster counts as living."""
        code = (
            "import sys; from ray._raylet import GcsClient\n"
            "nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)\n"
            "print(sum(node.state == 0 for node in nodes.values()))"
        )
        found = subprocess.run([sys.executable, "-c", code, self.address], env=self.environment, capture_output=True)
        return int(found.stdout or 0)

    def until_alive(self, count: int) -> None:
        until(lambda: self.alive() == count)

    @staticmethod
    def kill(node: subprocess.Popen[bytes]) -> None:
        """Kill a node and all that it started, as when a machine loses its power."""
        for pid, _ in processes_of(node.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()

    def clean(self) -> None:
        """Kill every node, also those that an autoscaler started."""
        for node in self._nodes:
            self.kill(node)
