"""A tiny network, and the settings of a unit that attacks it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rna_ray.attacks.catalog import find
from rna_ray.data import Split
from rna_ray.evaluation.evaluate import Evaluated, evaluate
from rna_ray.networks.build import Network, build

CPU = torch.device("cpu")


def network(norm: str = "BN+IN", *, layer_based: bool = False) -> Network:
    settings = {"name": "resnet8", "width": 4, "norm": norm, "layer_based": layer_based, "paths": "example"}
    return build(settings, shape=(1, 8, 8), classes=10, mean=(0.5,), std=(0.5,), seed=0)


def split(n: int = 24) -> Split:
    generator = np.random.RandomState(0)
    images = generator.randint(0, 256, (n, 1, 8, 8)).astype(np.uint8)
    return Split(images=images, labels=generator.randint(0, 10, n).astype(np.int64))


def settings(attack: str = "pgd", examples: tuple[int, int] = (0, 8), **given: Any) -> dict[str, Any]:
    """Return an evaluate unit's settings; options of the attack are given as `attack_<option>`."""
    stated = [key for key in given if key.startswith("attack_") and key != "attack_mode"]
    options = {key.removeprefix("attack_"): given.pop(key) for key in stated}
    defaults = {"steps": 3} if attack == "pgd" else {}
    return {
        "attack": {"name": attack, **find(attack).settings(defaults | options)},
        "knowledge": "none" if attack == "natural" else "transfer",
        "draws": 3,
        "eval": "eval",
        "examples": list(examples),
        "batch": 4,
        "paths": "example",
        "precision": "fp32",
        "noise_255": 0.0,
        **given,
    }


def evaluated(made: Network | None = None, images: Split | None = None, unit: str = "unit", **given: Any) -> Evaluated:
    return evaluate(settings(**given), unit, made or network(), images or split(), device=CPU)
