"""A sweep without rna-ray's running: what the peers of `sweeps.py` do, with the very units that rna-ray does.

    python benchmarks/plain.py step STEPS.pickle N      one step, as a shell loop does it: a training, or an attack
    python benchmarks/plain.py tune STEPS.pickle        a plain Ray Tune script: each trial trains, then attacks

A file of steps holds a list of lists of lists: for each network its steps, for each step the jobs of its units.
"""

from __future__ import annotations

import logging
import pickle
import sys
from pathlib import Path
from typing import Any


def step(steps: Path, number: int) -> None:
    """Do one of all steps, counted through the networks."""
    from subjects import done

    every = [one for network in pickle.loads(steps.read_bytes()) for one in network]
    for job in every[number]:
        done(job)


def trial(config: dict[str, Any]) -> dict[str, int]:
    """Do all steps of a network."""
    from rna_ray.running.work import perform

    ended = [perform(job).state for step in config["steps"] for job in step]
    assert set(ended) == {"done"}, ended
    return {"units": len(ended)}


def tuned(steps: Path) -> None:
    """Do all networks as trials of one core."""
    import ray
    from ray import tune

    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={"steps": tune.grid_search(pickle.loads(steps.read_bytes()))},
        run_config=tune.RunConfig(storage_path=str(steps.parent / "tune")),
    )
    assert not tuner.fit().errors
    ray.shutdown()


if __name__ == "__main__":
    what, path, *rest = sys.argv[1:]
    tuned(Path(path)) if what == "tune" else step(Path(path), int(rest[0]))
