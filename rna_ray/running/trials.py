"""Train units as Ray Tune trials: a disposable executor, over what the store lacks.

What is to be known of a trial's end arrives by Tune's callbacks. Trials write their own checkpoints and report metrics.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

# Before Tune is imported: its own reporters and per-trial log files give way to our progress and our store.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
# Ctrl-C is ours: Tune's handler would tell nobody, and an exception in the middle of Ray's calls can get lost.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from rna_ray.errors import StoreError
from rna_ray.running.deaths import RETRIES, lost
from rna_ray.running.progress import Progress
from rna_ray.running.stop import Stop
from rna_ray.running.tasks import Done, Job, Tasks
from rna_ray.sweep.units import Unit

if TYPE_CHECKING:
    from rna_ray.running.pool import Pool
    from rna_ray.running.races import Races


def _trial(config: dict[str, Any]) -> None:
    """Do one training unit as a Tune trial; metrics only, its checkpoints are its own."""
    node = {"node": ray.get_runtime_context().get_node_id(), "unit": config["job"].unit.id}
    tune.report(node)
    from rna_ray.running.work import perform  # here: the driver, which does none, should not wait for torch

    done = perform(config["job"], lambda row: tune.report({**node, "row": row}))
    tune.report({"ended": done, "done": True})  # where this were returned, Tune would ask once more whether that is all


def train(
    tasks: Tasks, units: list[Unit], pool: Pool, progress: Progress, stop: Stop, races: Races | None = None
) -> None:
    """Train units until all have ended, or the run is to stop; units whose node left are started again."""
    while units and not stop.asked:
        units = _fit(tasks, units, pool, progress, stop, races)


def _fit(
    tasks: Tasks, units: list[Unit], pool: Pool, progress: Progress, stop: Stop, races: Races | None
) -> list[Unit]:
    """Train units, and return those that are to be started again, as their node left."""
    share, watcher = tasks.share("train"), _Watcher()
    events = _Events(tasks, units, pool, progress, stop, races)
    _EVENTS[watcher.key] = events
    folder = tempfile.mkdtemp(prefix="rna-ray-tune-")
    try:
        tuner = tune.Tuner(
            tune.with_resources(_trial, {"cpu": share.cpu, "gpu": share.gpu}),
            param_space={"number": tune.grid_search([*range(len(units))])},
            tune_config=tune.TuneConfig(
                search_alg=_Grid(watcher.key), scheduler=_Yielding(watcher.key), reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name="trials", storage_path=folder, verbose=0, callbacks=[watcher],
                failure_config=tune.FailureConfig(max_failures=RETRIES), stop=_Stop(watcher.key),
            ),
        )
        with stop.gently():
            tuner.fit()
    finally:
        del _EVENTS[watcher.key]
        shutil.rmtree(folder, ignore_errors=True)
    if events.failure is not None:
        raise events.failure
    if events.ended + len(events.again) < len(units):
        stop.ask()  # Tune ended by itself: it was interrupted in a way that only it noticed
    return events.again


class _Grid(BasicVariantGenerator):
    """Every unit once, as many at a time as there is room for just then; Tune's own limit would never change.

    Tune copies the whole grid for each trial, so this is one of numbers, and a trial is given its job here.
    """

    def __init__(self, key: str) -> None:
        super().__init__(max_concurrent=1)
        self.key = key

    def next_trial(self) -> Any:
        events = _EVENTS.get(self.key)
        if events is not None:
            self.max_concurrent = events.pool.room.trials()
        trial = super().next_trial()
        if trial is not None and events is not None:
            trial.config = {"job": events.tasks.job(events.units[trial.config["number"]])}
        return trial


class _Yielding(FIFOScheduler):
    """Says who gets the process of a finished trial, and ends it where it holds a place of an evaluator."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        controller = tune_controller._tune_controller  # Tune has no public way
        if self.key in _EVENTS:
            running = sum(trial.status == "RUNNING" for trial in tune_controller.get_live_trials())
            if running >= _EVENTS[self.key].pool.room.trials():
                controller._cleanup_cached_actors(force_all=True)
        # Tune would give it to a trial whose own process is starting, and end that one: as long as trials are short.
        for trial in tune_controller.get_trials():
            if trial.status == "PENDING" and trial not in controller._trial_to_actor:
                return trial
        return super().choose_trial_to_run(tune_controller)


class _Events:
    """What Tune's events mean here. An error is kept until `fit` returns: Tune would take it for the trial's."""

    def __init__(
        self, tasks: Tasks, units: list[Unit], pool: Pool, progress: Progress, stop: Stop, races: Races | None
    ) -> None:
        self.tasks, self.units, self.pool = tasks, units, pool
        self.progress, self.stop, self.races = progress, stop, races
        self.ended = 0
        self.again: list[Unit] = []
        self.failure: Exception | None = None
        self.leaving: set[str] | None = None
        """The trials that ran when the run was asked to stop, and have not left yet."""

    def take(self, event: Any, *arguments: Any) -> None:
        """Handle an event, and keep what it raises."""
        try:
            event(self, *arguments)
        except StoreError as error:  # nobody trains for days beside a store that takes nothing
            self.stop.ask(str(error))
        except Exception as failure:
            self.failure = self.failure or failure

    def begun(self, job: Job) -> None:
        self.progress.begun(job.unit.id)

    def epoch(self, job: Job, row: dict[str, Any]) -> None:
        self.progress.epoch(job.unit.id, row)

    def compare(self, unit_id: str, row: dict[str, Any]) -> None:
        """Let the races know of an epoch, before anyone else hears of it."""
        if self.races is not None:
            self.races.epoch(unit_id, row)

    def stopped_early(self, unit_id: str) -> bool:
        """Return whether a training is trained no further in this sweep."""
        return self.races is not None and unit_id in self.races.stopped

    def left(self, job: Job) -> None:
        """Take note of a trial that Tune ended, where that was because it is trained no further."""
        if not self.stopped_early(job.unit.id):
            return
        self.ended += 1
        self.progress.stopped_early(job.unit.id)
        self.pool.trained(job.unit.id, False)

    def step(self, trials: list[Any]) -> None:
        """Keep account of who is still to leave, once the run is to stop."""
        if self.stop.asked:
            running = {trial.trial_id for trial in trials if trial.status == "RUNNING"}
            self.leaving = running if self.leaving is None else self.leaving & running

    def completed(self, done: Done) -> None:
        if done.state == "stopped":
            self.stop.ask(done.error)
            return
        self.ended += 1
        self.progress.finished(done)
        self.pool.trained(done.unit_id, done.state == "done")

    def recovered(self, trial: Any) -> None:
        """Let Tune forget that a trial's process died, where that was because its node left."""
        if self.pool.left(trial.config["job"].unit, trial.last_result.get("node")):
            trial.run_metadata.num_failures -= 1

    def lost(self, job: Job, node_id: str | None) -> None:
        """Record a trial whose process died more often than it is started again."""
        if self.pool.left(job.unit, node_id):
            self.again.append(job.unit)
            return
        self.completed(lost(job, "its process died"))


_EVENTS: dict[str, _Events] = {}


def _tell(key: str, event: Callable[..., None], *arguments: Any) -> None:
    """Hand an event on to the run of a key, as long as it lasts."""
    if key in _EVENTS:
        _EVENTS[key].take(event, *arguments)


class _Stop(tune.Stopper):
    """Ends a trial that is behind in its race; and all once the run is to stop, and those that ran have left.

    Then these have written their states, and others may have started meanwhile, in their places: they find the run
    stopping, and do nothing.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if self.key not in _EVENTS or "row" not in result or "ended" in result:
            return False
        _EVENTS[self.key].take(_Events.compare, result["unit"], result["row"])
        return _EVENTS[self.key].stopped_early(result["unit"])

    def stop_all(self) -> bool:
        return self.key in _EVENTS and _EVENTS[self.key].leaving == set()


class _Watcher(tune.Callback):
    """Hands Tune's events on. Tune pickles it, so what is alive is found through its key."""

    def __init__(self) -> None:
        self.key = os.urandom(8).hex()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        _tell(self.key, _Events.step, trials)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _tell(self.key, _Events.begun, trial.config["job"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "row" in result and "ended" not in result:
            _tell(self.key, _Events.epoch, trial.config["job"], result["row"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if "ended" in trial.last_result:
            _tell(self.key, _Events.completed, trial.last_result["ended"])
        else:
            _tell(self.key, _Events.left, trial.config["job"])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _tell(self.key, _Events.recovered, trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _tell(self.key, _Events.lost, trial.config["job"], trial.last_result.get("node"))
