"""The metrics of trainings for TensorBoard, MLflow and Weights & Biases, epoch by epoch, by Ray's own callbacks.

They are copies to look at: the store's `epochs` have the same numbers. So no training waits for them or ends by them:
each logger has a thread of its own, and one that raises is heard of once and left out from then on. As Ray's callbacks
only look at trials, they are shown each training as one, whether or not Tune runs it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.tune.logger import LoggerCallback, TBXLoggerCallback
from rich.console import Console

from rna_ray.errors import SweepError, sentence
from rna_ray.running.tasks import Done
from rna_ray.store import Store, layout
from rna_ray.sweep.logging import Logging
from rna_ray.sweep.plan import Plan
from rna_ray.sweep.units import canonical

CLOSE_SECONDS = 30.0
"""How long the end of a run waits for a logger that has not taken everything yet."""

_SHARES = {
    "train_accuracy": ("train_correct", "train_examples"),
    "natural_accuracy": ("natural_correct", "held_out"),
    "adversarial_accuracy": ("adversarial_correct", "held_out"),
}
_NUMBERS = ("loss", "natural_loss", "adversarial_loss", "lr", "images_per_second", "seconds")
_Event = Callable[[LoggerCallback], None]


def metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what is logged of an epoch's row, which is the step: accuracies in [0, 1], and nothing that is null."""
    found = {name: row.get(name) for name in _NUMBERS}
    for name, (right, of) in _SHARES.items():
        found[name] = row[right] / row[of] if row.get(of) and row.get(right) is not None else None
    return {name: value for name, value in found.items() if value is not None} | {"training_iteration": row["epoch"]}


@dataclasses.dataclass(eq=False)  # the callbacks keep what they know of a trial by the trial itself
class Shown:
    """A training, with what Ray's callbacks look at in a trial."""

    trial_id: str
    name: str
    config: dict[str, Any]
    """Its variant and settings, flat."""
    local_path: str
    experiment_dir_name: str
    """The sweep."""

    @property
    def evaluated_params(self) -> dict[str, Any]:
        """What TensorBoard's table of hyperparameters shows."""
        return self.config

    def init_local_path(self) -> None:
        """Make its folder."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self.name


def opened(plan: Plan, store: Store, *, console: Console, inline: bool) -> Logs:
    """Return what logs the trainings of a plan; SweepError where a package is missing, or a logger does not start."""
    asked = plan.spec.logging
    folder = Path(asked.folder or store.local_path(layout.BOARD) or layout.BOARD.name).absolute()
    _check(asked, inline=inline)
    writers = [Writer("tensorboard", TBXLoggerCallback, console)] if asked.tensorboard else []
    for name, make in _servers(asked, plan.sweep).items():
        try:
            logger = make()
            logger.setup()
        except Exception as error:
            raise SweepError(f"logging.{name}: {sentence(error)}") from error
        writers.append(Writer(name, lambda logger=logger: logger, console))
    return Logs(writers, dict(_shown(plan, folder)))


def _check(asked: Logging, *, inline: bool) -> None:
    for name in ("mlflow", "wandb"):
        if getattr(asked, name) is not None and importlib.util.find_spec(name) is None:
            raise SweepError(f"logging.{name}: {name} is not installed; pip install 'rna-ray[{name}]', or leave it out")
    if asked.wandb is not None and inline:
        raise SweepError(
            "logging.wandb: Ray's processes log there, and --address inline starts none; leave it out, or use "
            "--address local"
        )


def _servers(asked: Logging, sweep: str) -> dict[str, Callable[[], LoggerCallback]]:
    """Return what makes the loggers of the servers that are asked for; making one imports its package."""

    def mlflow() -> LoggerCallback:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        assert asked.mlflow is not None
        experiment = asked.mlflow.experiment or sweep
        return MLflowLoggerCallback(tracking_uri=asked.mlflow.tracking_uri, experiment_name=experiment)

    def wandb() -> LoggerCallback:
        from ray.air.integrations.wandb import WandbLoggerCallback

        class Patient(WandbLoggerCallback):
            """Lets the process of a run leave by itself: killed, as Ray does, it may not have written the run yet."""

            def _cleanup_logging_actor(self, trial: Any) -> None:
                with contextlib.suppress(RayError):
                    ray.get(self._trial_logging_actors[trial].__ray_terminate__.remote(), timeout=CLOSE_SECONDS)
                super()._cleanup_logging_actor(trial)

        assert asked.wandb is not None
        # By its unit's id, a training that is resumed goes on in the run that it had.
        return Patient(project=asked.wandb.project or sweep, group=sweep, resume="allow")

    makers = {"mlflow": mlflow, "wandb": wandb}
    return {name: make for name, make in makers.items() if getattr(asked, name) is not None}


def _shown(plan: Plan, folder: Path) -> Iterator[tuple[str, Shown]]:
    """Yield the trainings of a plan as trials, by unit id; one that several variants share is called by the first."""
    units = {unit.id: unit for unit in plan.units if unit.kind == "train"}
    for trial in reversed(plan.trials):
        if (unit := units.get(trial.network)) is not None:
            name = layout.spelled(f"{trial.variant}-seed{unit.settings['seed']}-{unit.id[:8]}")
            config = {"variant": trial.variant, **dict(_flat(unit.settings))}
            yield unit.id, Shown(unit.id, name, config, str(folder / plan.sweep / name), plan.sweep)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings under dotted keys, lists as JSON; what is null is not there."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", canonical(value) if isinstance(value, list | tuple) else value


class Writer(threading.Thread):
    """The thread in which a logger is made and works, an event at a time: TensorBoard's brings torch along."""

    def __init__(self, name: str, make: Callable[[], LoggerCallback], console: Console) -> None:
        super().__init__(name=f"rna-ray-{name}", daemon=True)
        self.called, self.make, self.console = name, make, console
        self.events: queue.SimpleQueue[_Event | None] = queue.SimpleQueue()

    def run(self) -> None:
        try:
            logger = self.make()
            while (event := self.events.get()) is not None:
                event(logger)
        except Exception as error:
            self.say(f"{sentence(error)}; nothing more is logged there")

    def say(self, what: str) -> None:
        line = f"logging.{self.called}: {what}, and the store has all metrics in its view epochs"
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)


def _start(logger: LoggerCallback, trial: Shown) -> None:
    trial.init_local_path()
    logger.log_trial_start(trial)


class Logs:
    """Hears of trainings from the ledger of a run, and lets each logger write of them inside its `with` block."""

    def __init__(self, writers: list[Writer], trials: Mapping[str, Shown]) -> None:
        self._writers, self._trials = writers, trials
        self._open: set[str] = set()

    def __enter__(self) -> Logs:
        for writer in self._writers:
            writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        for unit_id in sorted(self._open):  # stopped: they go on in another run
            self._end(unit_id, failed=True)
        self._tell(lambda logger: logger.on_experiment_end([]))
        deadline = time.monotonic() + CLOSE_SECONDS
        for writer in self._writers:
            writer.events.put(None)
        for writer in self._writers:
            writer.join(max(0.0, deadline - time.monotonic()))
            if writer.is_alive():
                writer.say(f"it did not take everything within {CLOSE_SECONDS:g} s")

    def begun(self, unit_id: str) -> None:
        """Take note of a training that begins, for the first time or once more."""
        if (trial := self._trials.get(unit_id)) is not None:
            self._open.add(unit_id)
            self._tell(lambda logger: _start(logger, trial))

    def epoch(self, unit_id: str, row: Mapping[str, Any]) -> None:
        """Log an epoch's metrics."""
        trial, found = self._trials[unit_id], metrics(row)
        self._tell(lambda logger: logger.log_trial_result(row["epoch"], trial, dict(found)))

    def finished(self, done: Done) -> None:
        """Take note of a unit that ended."""
        if done.unit_id in self._open:
            self._end(done.unit_id, failed=done.state == "failed")

    def _end(self, unit_id: str, *, failed: bool) -> None:
        self._open.discard(unit_id)
        trial = self._trials[unit_id]
        self._tell(lambda logger: logger.log_trial_end(trial, failed=failed))

    def _tell(self, event: _Event) -> None:
        for writer in self._writers:
            if writer.is_alive():
                writer.events.put(event)
