"""Tiny networks, and the settings of units that probe them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rna_ray.data import Split
from rna_ray.networks.build import Network, build
from rna_ray.networks.paths import following
from rna_ray.probes.probe import Probed, probe
from rna_ray.sweep import units
from rna_ray.sweep.units import Unit

CPU = torch.device("cpu")
PGD = {"name": "pgd", "threat": "linf", "eps_255": 8.0, "step_255": 2.0, "steps": 3, "random_start": True}


def network(norm: str = "BN+IN", *, layer_based: bool = False, seed: int = 0) -> Network:
    """Return a network whose members do differ, and which gives the images of `split` different classes."""
    settings = {"name": "resnet8", "width": 4, "norm": norm, "layer_based": layer_based, "paths": "example"}
    made = build(settings, shape=(1, 8, 8), classes=10, mean=(0.5,), std=(0.5,), seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    x, path = torch.from_numpy(split().images).float() / 255, torch.zeros(len(made.paths.sizes), dtype=torch.int64)
    with torch.no_grad(), following(made, path, shared=True):
        for name, values in [*made.named_buffers(), *made.named_parameters()]:
            if "running" in name or (values.dim() == 1 and "norm" in name):
                values.mul_(1 + torch.rand(values.shape, generator=generator))
        made.body.head.weight.mul_(10)
        made.body.head.bias.sub_(made(x).mean(0))
    return made


def split(n: int = 24) -> Split:
    generator = np.random.RandomState(0)
    images = generator.randint(0, 256, (n, 1, 8, 8)).astype(np.uint8)
    return Split(images=images, labels=generator.randint(0, 10, n).astype(np.int64))


def role(name: str = "network", **given: Any) -> dict[str, Any]:
    shared = {"checkpoint": "last", "paths": "example", "noise_255": 0.0, "precision": "fp32", "compile": False}
    return {"id": name, **shared, **given}


def unit(name: str, examples: tuple[int, int] = (0, 8), *, attack: dict[str, Any] | None = PGD, **given: Any) -> Unit:
    """Return a probe unit; what is not one of its fields is an option of the probe."""
    fields = {"network": given.pop("network", role()), "batch": given.pop("batch", 4)}
    if "source" in given:
        fields["source"] = given.pop("source")
    return units.probe({"probe": name, "attack": attack, "options": given, **fields}, examples=examples)


def probed(made: Unit, *networks: Network, images: Split | None = None) -> Probed:
    return probe(made.settings, networks or (network(),), images or split(), device=CPU)
