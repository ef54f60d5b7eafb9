"""Do units on Ray: training as Ray Tune trials, evaluation and probes on actors. The only file that imports ray.

Importing a network is short and trains nothing, so the evaluators do that too.

Tune is a disposable executor over what the store lacks. A trial and an evaluator each take all their resources in one
step and never wait for another unit while holding them, so a cluster of one CPU is slow, never stuck.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import platform
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

# Before ray is imported: Tune's own reporters and per-trial log files give way to our progress and our store.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
# Ctrl-C is ours: Tune's handler would tell nobody, and an exception in the middle of Ray's calls can get lost.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError

from rna_ray.errors import ResourceError
from rna_ray.running import slots
from rna_ray.running.progress import Progress
from rna_ray.running.tasks import Done, Job, Tasks
from rna_ray.running.work import perform, sentence
from rna_ray.store import open_store
from rna_ray.sweep.sections import Share
from rna_ray.sweep.units import Unit

log = logging.getLogger(__name__)

RETRIES = 2
"""How often a unit is started again after its process died; an error that a unit raises is not tried again."""

POLL_SECONDS = 0.2
CONNECT_SECONDS = 10.0


@contextlib.contextmanager
def cluster(address: str) -> Iterator[None]:
    """Start a Ray on this machine (`local`), or join the one that runs (`auto`, or its address), inside the block.

    Raises ResourceError where there is no cluster to join, or Ray does not start.
    """
    _check_address(address)
    dashboard = False if address == "local" else None
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=dashboard)
    except Exception as error:  # ray raises a bare Exception where a node does not start in time
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:")
        remedy = (
            "try again, or use --address inline"
            if address == "local"
            else "start a cluster with this Ray and Python, or use --address local or inline"
        )
        raise ResourceError(f"--address {address}: Ray does not answer as it should: {why}; {remedy}") from error
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Ray prints that a worker died, and stdout is for answers
            yield
    finally:
        ray.shutdown()


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


def nodes() -> list[slots.Node]:
    """Return the resources of each living node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check(tasks: Tasks) -> None:
    """Raise ResourceError where a unit would wait for ever: no node has what it asks for."""
    for kind in sorted(tasks.kinds):
        slots.check(nodes(), tasks.share(kind), "train" if kind == "train" else "evaluate")


def slots_for(tasks: Tasks) -> int:
    """Return how many units run at once, for the estimate of the time left."""
    return max(slots.count(nodes(), tasks.share(kind)) for kind in tasks.kinds) if tasks.kinds else 1


def run(tasks: Tasks, progress: Progress) -> None:
    """Do every unit: trials first, each network's evaluations and probes as soon as all that they need is trained.

    Raises KeyboardInterrupt where the user stopped it; what is in the store by then is kept.
    """
    trains, others = tasks.of_kind("train"), [unit for unit in tasks.units if unit.kind != "train"]
    at_once = slots.trials_at_once(
        nodes(), tasks.share("train"), tasks.share("evaluate"), train_cost=tasks.cost("train"),
        evaluate_cost=sum(tasks.costs[unit.id] for unit in others),
    )
    training = {unit.id for unit in trains}
    pool = Pool(tasks, progress, others, training, at_once)
    with pool.running():
        if trains:
            _train(tasks, trains, at_once, pool, progress)
        pool.close()


# -- training ----------------------------------------------------------------------------------------------------------


def _trial(config: dict[str, Any]) -> dict[str, Any]:
    """Do one training unit as a Tune trial; metrics only, its checkpoints are its own."""
    done = perform(config["job"], lambda row: tune.report({"row": row}))
    return {"ended": done}


def _train(tasks: Tasks, units: list[Unit], at_once: int, pool: Pool, progress: Progress) -> None:
    share, watcher, events = tasks.share("train"), _Watcher(), _Events(tasks, pool, progress)
    _EVENTS[watcher.key] = events
    folder = tempfile.mkdtemp(prefix="rna-ray-tune-")
    try:
        tuner = tune.Tuner(
            tune.with_resources(_trial, {"cpu": share.cpu, "gpu": share.gpu}),
            param_space={"job": tune.grid_search([tasks.job(unit) for unit in units])},
            tune_config=tune.TuneConfig(max_concurrent_trials=at_once, reuse_actors=True),
            run_config=tune.RunConfig(
                name="trials", storage_path=folder, verbose=0, callbacks=[watcher],
                failure_config=tune.FailureConfig(max_failures=RETRIES), stop=_Stop(watcher.key),
            ),
        )
        with _interrupts(events.stopped):
            tuner.fit()
    finally:
        del _EVENTS[watcher.key]
        shutil.rmtree(folder, ignore_errors=True)
    if events.failure is not None:
        raise events.failure
    if events.stopped.is_set() or events.ended < len(units):
        raise KeyboardInterrupt


@contextlib.contextmanager
def _interrupts(stopped: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C inside the block set an event, and the second one interrupt at once."""

    def interrupt(number: int, frame: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Events:
    """What Tune's events mean here. An error is kept until `fit` returns: Tune would take it for the trial's."""

    def __init__(self, tasks: Tasks, pool: Pool, progress: Progress) -> None:
        self.tasks, self.pool, self.progress, self.ended = tasks, pool, progress, 0
        self.failure: Exception | None = None
        self.stopped = threading.Event()

    def take(self, event: Any, *arguments: Any) -> None:
        """Handle an event, and keep what it raises."""
        try:
            event(self, *arguments)
        except Exception as failure:
            self.failure = self.failure or failure

    def epoch(self, job: Job, row: dict[str, Any]) -> None:
        self.progress.epoch(job.unit.id, row)

    def completed(self, done: Done) -> None:
        self.ended += 1
        self.progress.finished(done)
        self.pool.trained(done.unit_id, done.state == "done")

    def lost(self, job: Job) -> None:
        """Record a trial whose process died more often than it is started again."""
        self.completed(Done(unit_id=job.unit.id, kind="train", state="failed", seconds=0.0, error="its process died"))
        record_lost(job, "its process died")


_EVENTS: dict[str, _Events] = {}


class _Stop(tune.Stopper):
    """Ends the trials once the user asks for it."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.key in _EVENTS and _EVENTS[self.key].stopped.is_set()


class _Watcher(tune.Callback):
    """Hands Tune's events on. Tune pickles it, so what is alive is found through its key."""

    def __init__(self) -> None:
        self.key = os.urandom(8).hex()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if self.key in _EVENTS and "row" in result and "ended" not in result:
            _EVENTS[self.key].take(_Events.epoch, trial.config["job"], result["row"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self.key in _EVENTS and "ended" in trial.last_result:
            _EVENTS[self.key].take(_Events.completed, trial.last_result["ended"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self.key in _EVENTS:
            _EVENTS[self.key].take(_Events.lost, trial.config["job"])


def record_lost(job: Job, why: str) -> None:
    """Record in the store that a unit's process died, as the process itself could not."""
    open_store(job.store).fail(
        job.unit.id, kind=job.unit.kind, attempt=job.attempt, error="ProcessDied", message=why, traceback="",
        host=platform.node(),
    )


# -- evaluation --------------------------------------------------------------------------------------------------------


@ray.remote
class Evaluator:
    """A process that keeps the networks and images of its last units, and does one unit at a time."""

    def perform(self, job: Job) -> Done:
        return perform(job)


class Pool:
    """Evaluators that live while there is work for them and room beside the trials; a thread of the driver feeds them.

    A unit is queued once its networks are trained or imported. One whose evaluator died is queued again, up to
    `RETRIES` times.
    """

    def __init__(
        self, tasks: Tasks, progress: Progress, units: list[Unit], training: set[str], trials_at_once: int
    ) -> None:
        self.tasks, self.progress, self.trials_at_once = tasks, progress, trials_at_once
        self._untrained = set(training)
        self._waiting: list[tuple[Unit, set[str]]] = []
        self._queue: collections.deque[tuple[Unit, int]] = collections.deque()
        awaited = training | {unit.id for unit in units if unit.kind == "import"}
        for unit in units:
            if missing := awaited & set(unit.needs):
                self._waiting.append((unit, missing))
            else:
                self._queue.append((unit, 0))
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Unit, int]] = {}
        self._lock, self._closed, self._stopped = threading.Lock(), threading.Event(), threading.Event()
        self._failure: BaseException | None = None

    def trained(self, network_id: str, well: bool) -> None:
        """Queue what waited for this network alone, as it is in the store now; where it could not be made, drop it."""
        with self._lock:
            self._untrained.discard(network_id)
            waiting, self._waiting = self._waiting, []
            for unit, missing in waiting:
                if network_id in missing and not well:
                    continue
                if left := missing - {network_id}:
                    self._waiting.append((unit, left))
                else:
                    self._queue.append((unit, 0))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Feed the evaluators inside the block; leaving it by an error stops them."""
        thread = threading.Thread(target=self._loop, name="rna-ray-pool", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def close(self) -> None:
        """Wait until every evaluation is done; no more networks will be trained."""
        with self._lock:
            self._untrained.clear()
        self._closed.set()
        while not self._stopped.wait(POLL_SECONDS):  # interruptible, where join() would not be
            pass
        if self._failure is not None:
            raise self._failure

    def _loop(self) -> None:
        try:
            while not self._stopped.is_set():
                self._resize()
                self._assign()
                if not self._busy:
                    if self._closed.is_set() and not self._queue:
                        break
                    time.sleep(POLL_SECONDS)
                    continue
                ready, _ = ray.wait(list(self._busy), num_returns=1, timeout=POLL_SECONDS)
                for reference in ready:
                    self._collect(reference)
            self._end([*self._idle, *(busy[0] for busy in self._busy.values())])
        except BaseException as failure:
            self._failure = failure
        finally:
            self._stopped.set()

    @staticmethod
    def _end(evaluators: list[Any]) -> None:
        for evaluator in evaluators:
            with contextlib.suppress(RayError):  # dead already, or its whole cluster is
                ray.kill(evaluator)

    def _resize(self) -> None:
        """Create evaluators up to what fits and there is work for; end idle ones where trials need the room."""
        with self._lock:
            trials, queued = min(self.trials_at_once, len(self._untrained)), len(self._queue)
        where = self.tasks.where
        room = slots.evaluators(nodes(), where.evaluate, where.train, trials=trials, most=where.evaluate.actors)
        alive = len(self._idle) + len(self._busy)
        surplus = max(0, min(alive - room, len(self._idle)))
        self._end([self._idle.pop() for _ in range(surplus)])
        for _ in range(min(room, queued + len(self._busy)) - alive):
            self._idle.append(_evaluator(where.evaluate))

    def _assign(self) -> None:
        while self._idle and self._queue:
            evaluator = self._idle.pop()
            with self._lock:
                unit, deaths = self._queue.popleft()
            self._busy[evaluator.perform.remote(self.tasks.job(unit))] = (evaluator, unit, deaths)

    def _collect(self, reference: Any) -> None:
        evaluator, unit, deaths = self._busy.pop(reference)
        try:
            done = ray.get(reference)
            self._idle.append(evaluator)
        except RayTaskError as error:
            self._idle.append(evaluator)
            done = self._lost(unit, sentence(error))
        except RayError as error:  # the actor, its node, or what it needed is gone
            self._end([evaluator])
            if deaths < RETRIES:
                with self._lock:
                    self._queue.appendleft((unit, deaths + 1))
                return
            done = self._lost(unit, sentence(error))
        self.progress.finished(done)
        if unit.kind == "import":
            self.trained(unit.id, done.state == "done")

    def _lost(self, unit: Unit, why: str) -> Done:
        record_lost(self.tasks.job(unit), why)
        return Done(unit_id=unit.id, kind=unit.kind, state="failed", seconds=0.0, error=why)


def _evaluator(share: Share) -> Any:
    return Evaluator.options(num_cpus=share.cpu, num_gpus=share.gpu).remote()
