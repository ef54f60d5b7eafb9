"""Evaluators on Ray: how many there is room for beside the trials, and the loop that feeds them.

A unit takes its place on an evaluator that lives, so that none hangs on a node that never comes.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from rna_ray.errors import ResourceError, UserError, sentence
from rna_ray.running import own_code, slots
from rna_ray.running.deaths import NODES_LOST, RETRIES, lost
from rna_ray.running.machines import Machines, Sight
from rna_ray.running.progress import Progress
from rna_ray.running.queue import Queue
from rna_ray.running.stop import Stop
from rna_ray.running.tasks import TOGETHER, TOGETHER_SECONDS, Done, Job, Tasks
from rna_ray.sweep import cost
from rna_ray.sweep.forecast import Slots
from rna_ray.sweep.sections import Share
from rna_ray.sweep.units import Unit

POLL_SECONDS = 0.2
LOOK_SECONDS = 2.0
"""How often new nodes are looked for."""
IDLE_SECONDS = 30.0
"""How long an evaluator without work holds its place on a node that an autoscaler could give back."""
WORTH_SECONDS = 300.0
"""The work, at the assumed speed, beside which an evaluator's start, of some ten seconds, counts for little."""


class Room:
    """How many trials and evaluators there is room for, which changes as nodes and work come and go.

    Where both need the same slots, trials have them all until the evaluations that could begin are worth an evaluator's
    start: as much as one more trial, or several minutes. Then evaluators get their part until none of that is left.
    """

    def __init__(self, tasks: Tasks, machines: Machines) -> None:
        self.machines = machines
        self._train, self._evaluate = tasks.share("train"), tasks.where.evaluate
        self._train_cost = tasks.cost("train")
        self._evaluate_cost = sum(tasks.costs[unit.id] for unit in tasks.units) - self._train_cost
        minutes = WORTH_SECONDS * cost.assumed(gpu=self._evaluate.gpu > 0)
        self._worth = min(self._train_cost / max(len(tasks.of_kind("train")), 1), minutes)
        self._wanted = False

    def weigh(self, ready: int) -> None:
        """Take note of the estimated multiply-adds of the evaluations that could be done now, or are at work."""
        self._wanted = ready > 0 and (self._wanted or ready >= self._worth)

    def trials(self) -> int:
        """Return how many trials may run at once."""
        return self._trials(wanted=self._wanted)

    def evaluators(self, training: int) -> int:
        """Return how many evaluators may live while so many networks are to be trained."""
        return self._evaluators(min(self.trials(), training))

    def slots(self) -> Slots:
        """Return how many units may work side by side just now, for the estimate of the time left."""
        trials = self._trials(wanted=False)
        return Slots(trials=trials, evaluators=tuple(self._evaluators(left) for left in range(trials + 1)))

    def _trials(self, *, wanted: bool) -> int:
        return slots.trials_at_once(
            self._nodes(), self._train, self._evaluate, train_cost=self._train_cost, evaluate_cost=self._evaluate_cost,
            wanted=wanted,
        )

    def _evaluators(self, trials: int) -> int:
        return slots.evaluators(self._nodes(), self._evaluate, self._train, trials=trials, most=self._evaluate.actors)

    def _nodes(self) -> list[slots.Node]:
        return self.machines.possible(self._train, self._evaluate)


@ray.remote
class Evaluator:
    """A process that keeps the networks and images of its last units, and does one unit after the other."""

    def node(self) -> str:
        """Return the id of the node that it lives on, once it lives."""
        return ray.get_runtime_context().get_node_id()

    def perform(self, jobs: Sequence[Job]) -> list[Done]:
        from rna_ray.running.work import perform_all

        return perform_all([dataclasses.replace(job, sources=own_code.arrived(job.sources)) for job in jobs])


@dataclasses.dataclass(frozen=True)
class _Alive:
    """An evaluator that has started."""

    actor: Any
    node: str
    idle_since: float = 0.0


class Pool:
    """Evaluators that live while there is work for them and room beside the trials; a thread of the driver feeds them.

    A unit is queued once its networks are trained or imported. Those of milliseconds are handed out several at a time.
    One whose evaluator died is queued again, up to `RETRIES` times, or `NODES_LOST` times where its whole node left.
    Where it was the evaluator alone, it is handed out alone then, as nobody knows which of several it was.
    """

    def __init__(
        self, tasks: Tasks, progress: Progress, units: Sequence[Unit], training: set[str], room: Room, sight: Sight,
        stop: Stop,
    ) -> None:
        self.tasks, self.progress, self.room, self.sight, self.stop = tasks, progress, room, sight, stop
        self._untrained = set(training)
        self._waiting: list[tuple[Unit, set[str]]] = []
        self._queue, self._ready = Queue(tasks.priorities), 0
        self._nodes_lost: collections.Counter[str] = collections.Counter()
        awaited = training | {unit.id for unit in units if unit.kind == "import"}
        for unit in units:
            if missing := awaited & set(unit.needs):
                self._waiting.append((unit, missing))
            else:
                self._enqueue(unit)
        self._starting: dict[Any, Any] = {}
        self._idle: list[_Alive] = []
        self._busy: dict[Any, tuple[_Alive, list[tuple[Unit, int]]]] = {}
        self._pace = math.inf  # the seconds that a multiply-add took, as of the last call
        self._lock, self._closed, self._stopped = threading.Lock(), threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._looked, self._false_starts = 0.0, 0

    def left(self, unit: Unit, node_id: str | None) -> bool:
        """Return whether a unit's process died because its node left, and not too often for that to be chance."""
        return self.room.machines.gone(node_id) and self._by_chance(unit)

    def _by_chance(self, unit: Unit) -> bool:
        """Return whether one more node that left counts for nothing against a unit that was there."""
        with self._lock:
            self._nodes_lost[unit.id] += 1
            return self._nodes_lost[unit.id] <= NODES_LOST

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
                    self._enqueue(unit)

    def _enqueue(self, unit: Unit) -> None:
        self._queue.append((unit, 0))
        self._ready += self.tasks.costs[unit.id]
        self.room.weigh(self._ready)

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
        """Wait until every evaluation is done, or the run is to stop; no more networks will be trained."""
        with self._lock:
            self._untrained.clear()
        self._closed.set()
        while not self._stopped.wait(POLL_SECONDS) and not self.stop.asked:  # interruptible, where join() would not be
            pass
        if self._failure is not None:
            raise self._failure

    def _loop(self) -> None:
        try:
            while not self._stopped.is_set():
                self._look()
                self._resize()
                self._assign()
                if not self._busy and self._closed.is_set() and not self._queue:
                    break
                pending = [*self._busy, *self._starting]
                if not pending:
                    time.sleep(POLL_SECONDS)
                    continue
                ready, _ = ray.wait(pending, num_returns=1, timeout=POLL_SECONDS)
                for reference in ready:
                    if reference in self._busy:
                        self._collect(reference)
                    else:
                        self._welcome(reference)
            alive = [*self._idle, *(evaluator for evaluator, _ in self._busy.values())]
            self._end([*self._starting.values(), *(evaluator.actor for evaluator in alive)])
        except UserError as failure:
            self.stop.ask(str(failure))
        except BaseException as failure:
            self._failure = failure
        finally:
            self._stopped.set()

    @staticmethod
    def _end(actors: list[Any]) -> None:
        for actor in actors:
            with contextlib.suppress(RayError):  # dead already, or its whole cluster is
                ray.kill(actor)

    def _look(self) -> None:
        """Let nodes that joined since look for the store, now and then."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self.sight.look()
            self._looked = time.monotonic()

    def _resize(self) -> None:
        """Create evaluators up to what fits and there is work for; end those that nobody needs where they stand."""
        with self._lock:
            training, queued = len(self._untrained), len(self._queue)
        room = self.room.evaluators(training)
        waiting = max(0, queued - len(self._idle))
        while self._starting and len(self._starting) > waiting:
            self._end([self._starting.popitem()[1]])
        alive = len(self._starting) + len(self._idle) + len(self._busy)
        surplus = max(0, min(alive - room, len(self._idle)))
        self._end([self._idle.pop(0).actor for _ in range(surplus)])
        if self.room.machines.grows and not queued:
            long = [one for one in self._idle if time.monotonic() - one.idle_since > IDLE_SECONDS]
            self._idle = [one for one in self._idle if one not in long]
            self._end([one.actor for one in long])
        for _ in range(min(room - alive, waiting - len(self._starting))):
            actor = _evaluator(self.tasks.where.evaluate)
            self._starting[actor.node.remote()] = actor

    def _welcome(self, reference: Any) -> None:
        """Take an evaluator that has started; one that could not, as its node left, is tried again elsewhere."""
        actor = self._starting.pop(reference)
        try:
            self._rest(_Alive(actor, ray.get(reference)))
            self._false_starts = 0
        except RayError as error:
            self._end([actor])
            self._false_starts += 1
            if self._false_starts > NODES_LOST:
                raise ResourceError(f"no evaluator starts on the cluster: {sentence(error)}") from error

    def _rest(self, evaluator: _Alive) -> None:
        self._idle.append(dataclasses.replace(evaluator, idle_since=time.monotonic()))

    def _assign(self) -> None:
        while self._idle and self._queue and not self.stop.asked:
            evaluator = self._idle.pop()
            units = self._take()
            self.progress.begun(units[0][0].id)  # the others as they end, so that one at a time is seen at work
            jobs = [self.tasks.job(unit) for unit, _ in units]
            self._busy[evaluator.actor.perform.remote(jobs)] = (evaluator, units)

    def _take(self) -> list[tuple[Unit, int]]:
        """Take from the queue what one evaluator does next: a unit, or several short ones, never all that are left."""
        with self._lock:
            evaluators = 1 + len(self._idle) + len(self._busy) + len(self._starting)
            most = min(TOGETHER, len(self._queue) // (2 * evaluators))
            taken = [self._queue.popleft()]
            seconds = self._seconds(taken[0])
            while len(taken) < most and (seconds := seconds + self._seconds(self._queue.first())) < TOGETHER_SECONDS:
                taken.append(self._queue.popleft())
        return taken

    def _seconds(self, waiting: tuple[Unit, int]) -> float:
        """Return how long a unit may take, from its cost; one that died is not to be done with others."""
        unit, deaths = waiting
        return math.inf if deaths else self.tasks.costs[unit.id] * self._pace

    def _collect(self, reference: Any) -> None:
        evaluator, units = self._busy.pop(reference)
        try:
            ended = ray.get(reference)
            self._rest(evaluator)
            if all(one.state == "done" for one in ended):  # one that fails at once says nothing of the next one
                costs = sum(self.tasks.costs[one.unit_id] for one in ended)
                self._pace = sum(one.seconds for one in ended) / max(1, costs)
            self._put_back(units[len(ended) :])
        except RayTaskError as error:
            self._rest(evaluator)
            ended = []
            if len(units) == 1:
                ended = [lost(self.tasks.job(units[0][0]), sentence(error))]
            else:  # whose error it is shows once each is alone
                self._put_back([(unit, deaths + 1) for unit, deaths in units])
        except RayError as error:  # the actor, its node, or what it needed is gone
            self._end([evaluator.actor])
            gone = self.room.machines.gone(evaluator.node)
            ended = [done for one in reversed(units) if (done := self._died(one, error, gone))]
        if all(one.state != "stopped" for one in ended):
            self._resize()  # first, or an evaluator that has to go would always be at work again
            self._assign()  # here already, so that it works while what it has done is counted
        for done in ended:
            if done.unit_id != units[0][0].id:
                self.progress.begun(done.unit_id)
            self._ended(done)

    def _died(self, waiting: tuple[Unit, int], error: RayError, gone: bool) -> Done | None:
        """Queue a unit again whose evaluator died, or its node; return how it ended if that was once too often."""
        unit, deaths = waiting
        deaths += not (gone and self._by_chance(unit))
        if deaths > RETRIES:
            return lost(self.tasks.job(unit), sentence(error))
        self._put_back([(unit, deaths)])
        return None

    def _put_back(self, units: Sequence[tuple[Unit, int]]) -> None:
        """Let units be the next ones, in their order."""
        with self._lock:
            for waiting in reversed(units):
                self._queue.appendleft(waiting)

    def _ended(self, done: Done) -> None:
        if done.state == "stopped":
            self.stop.ask(done.error)
            return
        with self._lock:
            self._ready -= self.tasks.costs[done.unit_id]
            self.room.weigh(self._ready)
        self.progress.finished(done)
        if done.kind == "import":
            self.trained(done.unit_id, done.state == "done")


def _evaluator(share: Share) -> Any:
    return Evaluator.options(num_cpus=share.cpu, num_gpus=share.gpu).remote()
