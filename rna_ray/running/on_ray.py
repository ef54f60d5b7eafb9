"""Do units on Ray: training as Ray Tune trials (`trials`), evaluation and probes on actors.

Importing a network is short and trains nothing, so the evaluators do that too.

Tune is a disposable executor over what the store lacks. A trial and an evaluator each take all their resources in one
step and never wait for another unit while holding them, so a cluster of one CPU is slow, never stuck. Nodes may come
and go: how many run at once is asked again all the time, and a unit whose node left is started again elsewhere.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray._private import ray_constants

from rna_ray.errors import ResourceError, first_line
from rna_ray.networks.source import Source
from rna_ray.running import own_code, slots
from rna_ray.running.machines import Machines, Sight
from rna_ray.running.pool import Pool, Room
from rna_ray.running.progress import Progress
from rna_ray.running.stop import Stop
from rna_ray.running.tasks import Tasks
from rna_ray.sweep.sections import Share

if TYPE_CHECKING:
    from rna_ray.running.races import Races

CONNECT_SECONDS = 10.0


@contextlib.contextmanager
def cluster(address: str, sources: Iterable[Source] = ()) -> Iterator[Machines]:
    """Start a Ray on this machine (`local`), or join the one that runs (`auto`, or its address), inside the block.

    The user's own modules that networks come from (`sources`) go to the machines of a cluster that is joined. Raises
    ResourceError where there is none, or Ray does not start.
    """
    _check_address(address)
    local = address == "local"
    with tempfile.TemporaryDirectory(prefix="rna-ray-own-") as folder:
        roots = {source.root for source in sources if source.root is not None}
        modules = [] if local else own_code.gather(roots, Path(folder))
        # An empty environment is left out: a submitted job brings its own, and Ray refuses to mix what both say.
        brought = {"runtime_env": {"py_modules": [str(module) for module in modules]}} if modules else {}
        begin = functools.partial(
            ray.init, address=address, log_to_driver=False, logging_level=logging.ERROR,
            include_dashboard=False if local else None, **brought,
        )  # fmt: skip
        try:
            if local:
                _begin_here(begin)
            else:
                begin()
        except Exception as error:
            why = first_line(error).rstrip(":")
            remedy = (
                "try again, or use --address inline"
                if local
                else "start a cluster with this Ray and Python, or use --address local or inline"
            )
            raise ResourceError(f"--address {address}: Ray does not answer as it should: {why}; {remedy}") from error
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints that a worker died, and stdout is for answers
        try:
            yield Machines(alone=local)
        finally:
            ray.shutdown()  # which prints what it has not yet


def _begin_here(begin: Callable[[], object]) -> None:
    """Start a Ray on this machine; once more where it did not start in time, as on a machine that is busy."""
    with _on_loopback():
        try:
            begin()
        except Exception as error:  # a bare one is what Ray raises then
            if type(error) is not Exception:
                raise
            ray.shutdown()
            begin()


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that is started inside the block listen on the loopback alone.

    On macOS and Windows it does so by itself; on Linux it listens on every interface, and has no public switch.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def alone() -> dict[str, float]:
    """Return the resources that a Ray of its own finds on this machine; ResourceError where it does not start."""
    with cluster("local"):
        return ray.cluster_resources()


def _check_address(address: str) -> None:
    """Raise ResourceError for an address at which nothing answers: Ray itself would try for minutes."""
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or int(port) > 65535:
        raise ResourceError(f"--address {address}: give inline, local, auto, or the host:port of a Ray cluster")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ResourceError(f"--address {address}: no Ray cluster answers: {error.strerror or error}") from error


def _shares(tasks: Tasks) -> list[Share]:
    return [tasks.share(kind) for kind in sorted(tasks.kinds)]


def check(tasks: Tasks, machines: Machines) -> None:
    """Raise ResourceError where a unit would wait for ever: no node has what it asks for, and none may be added."""
    possible = machines.possible(*_shares(tasks))
    for kind in sorted(tasks.kinds):
        name = "train" if kind == "train" else "evaluate"
        slots.check(possible, tasks.share(kind), name, grows=machines.grows)


def awaited(tasks: Tasks, machines: Machines) -> str | None:
    """Return what has to be waited for before each unit fits somewhere; None where there is nothing."""
    return machines.awaited(_shares(tasks))


@contextlib.contextmanager
def seen(tasks: Tasks, machines: Machines) -> Iterator[Sight]:
    """Let every node look whether it sees the store; StoreError names one that does not."""
    sight = Sight(tasks.store, machines, _shares(tasks))
    with sight.open():
        yield sight


def run(
    tasks: Tasks, progress: Progress, stop: Stop, machines: Machines, sight: Sight, races: Races | None = None
) -> None:
    """Do every unit: trials first, each network's evaluations and probes as soon as all that they need is trained.

    Returns before all is done once the run is to stop: trainings leave as soon as their states are written, what the
    evaluators are at is dropped.
    """
    trains, others = tasks.of_kind("train"), [unit for unit in tasks.units if unit.kind != "train"]
    room = Room(tasks, machines)
    pool = Pool(tasks, progress, others, {unit.id for unit in trains}, room, sight, stop)
    with pool.running():
        if trains:
            from rna_ray.running import trials  # here: where there is nothing to train nobody should wait for Tune

            trials.train(tasks, trains, pool, progress, stop, races)
        pool.close()
