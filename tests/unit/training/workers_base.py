"""What each of two workers does in the tests of training together: functions that a new process finds by name."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from training_base import at_call, checkpoints, network, part, rows, settings

from rna_ray.networks.build import Network
from rna_ray.networks.norms import Norm, gather_statistics
from rna_ray.networks.spaces import NormLayer, parse
from rna_ray.running.spawn import Report
from rna_ray.running.tasks import Job
from rna_ray.training.fit import Fitted, Stopped, fit
from rna_ray.training.workers import Workers

UNEVEN = {"batch": 33, "epochs": 2, "attack_mode": "train"}
CASES: dict[str, dict[str, Any]] = {
    "GN[2]+IN": {"norm": "GN[2]+IN", "epochs": 2},
    "GN[1-8] members that a slice leaves out": {"norm": "GN[1-8]", "epochs": 1, "batch": 8},
    "BN": {"norm": "BN", "epochs": 2},
    "BN+IN": {"norm": "BN+IN", **UNEVEN},
    "BGN[2]+GN[2] per batch": {"norm": "BGN[2]+GN[2]", "paths": "batch", "epochs": 2},
    "BN+IN trades awp": {
        "norm": "BN+IN", "epochs": 1, "loss": {"name": "trades", "beta": 6.0},
        "weight_perturbation": {"gamma": 0.01, "warmup": 0},
    },
    "stn stability": {
        "norm": "none", "name": "stn-cifar10", "width": 6, "objective": "natural", "epochs": 2, "batch": 33, "lr": 0.5,
        "noise_255": 25.5, "loss": {"name": "stability", "gamma": 1.0, "target": "softmax"},
    },
    "BN+IN adam noise": {
        "norm": "BN+IN", "epochs": 1, "objective": "natural", "optimizer": "adam", "lr": 0.001, "noise_255": 25.5,
    },
}  # fmt: skip
IN_PARTS = ("BN", "BN+IN adam noise")
IMAGES, HELD_OUT = 99, 41


def asked(case: str) -> dict[str, Any]:
    return settings(**{"lr": 0.02, **CASES[case]})


def everything(job: Job, workers: Workers, report: Report) -> None:
    """Do all that can be done in the same two processes: to start them takes longer."""
    torch.set_num_threads(1)
    normalise(workers, report)
    train_cases(Path(job.store), workers, report)


def train_cases(folder: Path, workers: Workers, report: Report) -> None:
    """Train every case in a store of its own, and report the rows and the weights."""
    for case in CASES:
        made = network(asked(case))
        found = fit(
            asked(case), made, part(0, IMAGES), part(1000, 1000 + HELD_OUT), checkpoints(folder / case),
            device=workers.device("cpu"), workers=workers,
        )
        if workers.first:
            state = {name: tensor.numpy() for name, tensor in made.state_dict().items()}
            report({"case": case, "epochs": found.epochs, "state": state})
    for case in IN_PARTS:
        found, made, stops = train_in_parts(folder / f"{case} in parts", case, workers)
        if workers.first:
            state = {name: tensor.numpy() for name, tensor in made.state_dict().items()}
            report({"case": f"{case} in parts", "epochs": rows(found), "state": state, "stops": stops})


def train_in_parts(folder: Path, case: str, workers: Workers) -> tuple[Fitted, Network, int]:
    """Train a case in as many runs as it takes where the first worker is asked to stop at its second update."""
    for stops in itertools.count():
        made = network(asked(case))
        try:
            found = fit(
                asked(case), made, part(0, IMAGES), part(1000, 1000 + HELD_OUT), checkpoints(folder),
                device=workers.device("cpu"), workers=workers,
                stop=at_call(2) if workers.first else lambda: False,
            )
        except Stopped:
            continue
        return found, made, stops
    raise AssertionError


def layer_images(samples: int = 7) -> torch.Tensor:
    """Images cut off so that many pixels tie for the ends of a range, and not as many in each worker's slice."""
    return (torch.randn(samples, 4, 3, 3, generator=torch.Generator().manual_seed(3)) * 2 + 5).clamp(3.5, 6.5)


def norm_layer(space: str) -> Norm:
    return Norm(4, parse(space).at(NormLayer(name="norm", channels=4, height=3, width=3))).double()


SPACES = ("BN", "BGN[2]", "BN+IN", "BGN[2]+GN[2]+LN", "RN(track=true)", "MinMax(track=true)+RN(p=1)+none")


def normalise(workers: Workers, report: Report) -> None:
    """Report what each norm layer makes of this worker's slice, and the gradient at its input."""
    for space in SPACES:
        layer, x = norm_layer(space).train(), workers.part(layer_images().double()).requires_grad_()
        gather_statistics(layer, workers.gather)
        if len(layer.members) > 1:
            layer.path = workers.part(torch.arange(7)) % len(layer.members)
        y = layer(x)
        (gradient,) = torch.autograd.grad((y.square() * torch.arange(9.0).view(3, 3)).sum(), x)
        running = [t.clone() for name, t in layer.named_buffers() if "running" in name]
        parts = {"y": y.detach(), "gradient": gradient, "running": torch.cat(running)}
        report({"space": space, "rank": workers.rank, **{name: tensor.numpy() for name, tensor in parts.items()}})
