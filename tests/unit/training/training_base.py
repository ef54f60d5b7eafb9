"""A training that takes a tenth of a second."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rna_ray.attacks.catalog import find
from rna_ray.data import Split, load
from rna_ray.networks.build import Network, build
from rna_ray.store import open_store
from rna_ray.training.checkpoint import Checkpoints
from rna_ray.training.fit import Fitted, fit

DIGITS = load("digits").train
CLOCK = ("seconds", "images_per_second")
STEPS = 2


def part(start: int, stop: int) -> Split:
    return Split(images=DIGITS.images[start:stop], labels=DIGITS.labels[start:stop])


def settings(
    norm: str = "BN+IN", *, name: str = "resnet8", width: int = 4, paths: str = "example", **training: Any
) -> dict[str, Any]:
    """Return a train unit's settings; `threat` and `lr` and the like change the training."""
    objective = training.get("objective", "blackbox")
    threat = training.pop("threat", "linf")
    eps = {"eps_255": 25.5, "step_255": 12.75} if threat == "linf" else {"eps_255": 255.0, "step_255": 128.0}
    attack = {"name": "pgd", **find("pgd").settings({"threat": threat, "steps": STEPS, **eps})}
    return {
        "network": {"name": name, "width": width, "norm": norm, "layer_based": False, "paths": paths},
        "training": {
            "objective": objective,
            "epochs": 3,
            "batch": 32,
            "lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "schedule": {"name": "cosine"},
            "augment": "crop",
            "attack": None if objective == "natural" else attack,
            "attack_mode": "train_frozen",
            **training,
        },
        "precision": "fp32",
        "compile": False,
        "seed": 0,
    }


def network(asked: dict[str, Any], seed: int = 0) -> Network:
    return build(asked["network"], shape=(1, 8, 8), classes=10, mean=(0.3054,), std=(0.3757,), seed=seed)


def checkpoints(folder: Path, unit: str = "unit") -> Checkpoints:
    return Checkpoints(open_store(folder / "store"), unit)


def fitted(
    folder: Path, asked: dict[str, Any], *, report: Callable[[dict[str, Any]], None] = lambda row: None,
    images: int = 96, held_out: int = 40, made: Network | None = None, **options: Any,
) -> tuple[Fitted, Network]:  # fmt: skip
    """Train a fresh network on digits, as a new process would, with the checkpoints of a store in the folder."""
    made = made or network(asked)
    train, held = part(0, images), part(1000, 1000 + held_out)
    cpu = torch.device("cpu")
    return fit(asked, made, train, held, checkpoints(folder), device=cpu, report=report, **options), made


def at_call(number: int) -> Callable[[], bool]:
    """Return what asks to stop when it is called for the n-th time, and from then on."""
    calls = itertools.count(1)
    return lambda: next(calls) >= number


def rows(result: Fitted) -> list[dict[str, Any]]:
    """Return the rows of the epochs without what a clock measured."""
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in result.epochs]


def same_weights(one: Network, other: Network) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(tensor, right[key]) for key, tensor in left.items())
