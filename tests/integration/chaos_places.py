"""Where a disturbed sweep runs, whom there is to strike there, and what is left to mend before the next launch."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import object_store
from integration_base import EVALUATOR, TRIAL, Driver, processes_of

AWAY = (1.0, 45.0)  # seconds that nothing answers for the object store; a run has 30 of patience


class Place:
    """This machine, on a Ray that the driver starts itself, with a store on its disk."""

    name = "local"
    whom: tuple[str, ...] = ("trial", "evaluator", "driver", "Ctrl-C")
    """Whom there is to strike."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        """Make the place; what the stack holds is undone at the end."""
        self.store = self.seen = str(folder)
        """The store as the sweep is given it, and as whoever watches it sees it."""
        self.arguments: list[str] = []

    def busy(self, driver: Driver) -> dict[str, list[int]]:
        """Return the processes that do a unit now, trials and evaluators."""
        found = list(processes_of(self._session(driver)))
        titles = {"trial": TRIAL, "evaluator": EVALUATOR}
        return {whom: [pid for pid, name in found if name.startswith(title)] for whom, title in titles.items()}

    def _session(self, driver: Driver) -> int:
        return driver.process.pid

    def strike(self, chance: random.Random) -> None:
        """Strike what only this place has: its last one of `whom`."""
        raise AssertionError(f"{self.name} has nothing of its own to strike")

    def mended(self) -> None:
        """Return once a sweep can be launched again."""


class OnCluster(Place):
    """A cluster of a head and two nodes, which can die."""

    name, whom = "cluster", (*Place.whom, "node")

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        super().__init__(folder, stack)
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        stack.callback(self._cluster.shutdown)
        self._nodes = [self._joined() for _ in range(2)]
        self.arguments = ["--address", self._cluster.address]

    def _joined(self) -> Any:
        return self._cluster.add_node(num_cpus=1, num_gpus=0)

    def _session(self, driver: Driver) -> int:
        return os.getsid(0)  # the nodes are children of this very process

    def strike(self, chance: random.Random) -> None:
        """Kill a node without a word; another one joins."""
        self._cluster.remove_node(self._nodes.pop(chance.randrange(2)), allow_graceful=False)
        self._nodes.append(self._joined())


class OnStorage(Place):
    """A store on an S3 server, behind an endpoint in a process of its own, which can die and comes back."""

    name, whom = "object store", (*Place.whom, "storage")

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        super().__init__(folder, stack)
        surroundings = {**object_store.CREDENTIALS, "RNA_RAY_CACHE": str(folder.with_name(f"{folder.name}-cache"))}
        stack.enter_context(mock.patch.dict(os.environ, surroundings))
        served = stack.enter_context(object_store.running())
        self._port, self._behind = object_store.free_port(), served.behind
        self.store, self.seen = served.uri("store", self._port), served.uri("store", served.behind)
        self._back = threading.Timer(0, lambda: None)
        stack.callback(self._end)
        self._serve()

    def _serve(self) -> None:
        words = [object_store.__file__, str(self._port), str(self._behind)]
        self._endpoint = contextlib.ExitStack()
        self._process = self._endpoint.enter_context(object_store.listening(words, self._port))

    def strike(self, chance: random.Random) -> None:
        """Kill the endpoint amid its requests; it is back after a while, which a run may not be patient for."""
        self.mended()
        self._endpoint.close()
        self._back = threading.Timer(chance.uniform(*AWAY), self._serve)
        self._back.start()

    def mended(self) -> None:
        """Wait until the endpoint is back."""
        if self._back.is_alive():
            self._back.join()

    def _end(self) -> None:
        self.mended()
        self._endpoint.close()


PLACES: tuple[type[Place], ...] = (Place, OnCluster, OnStorage)


@contextlib.contextmanager
def at(kind: type[Place], folder: Path) -> Iterator[Place]:
    """Give a place inside the block, with its store in a folder, or by its name; leave no process of it behind."""
    with contextlib.ExitStack() as stack:
        yield kind(folder, stack)
