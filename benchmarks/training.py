"""A training step: ResNet-18, BN+IN layer-free, black-box, PGD-10, batch 128, against the textbook's.

    python benchmarks/training.py [--repeat N] [--small]

Ours is an epoch of a train unit, by its row's images a second: with a path for each example, as a sweep does it by
default, and with one path a batch, which is what the textbook has. Its network without norms leaves the convolutions,
the limit of what norms may cost. All in fp32, and in bf16 where the processor can. Ours is compiled where each example
has a path, as in every long unit of a sweep that asks for it (`compiling.py`). An epoch is one step; the first one is
the warm-up.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pairs import Apart, Comparison, Goal, Side, Turn, by_precision, cpu, main, times, together
from subjects import called, cifar, done, folder, jobs, long, precisions, resnet18

from rna_ray.running.tasks import Job
from rna_ray.store import open_store

MINUTES = 10
LR = 1e-3
"""On images of noise a high rate may diverge."""
SIZES = {False: {"width": 64, "batch": 128}, True: {"width": 64, "batch": 2}}


def compare(repeat: int, small: bool) -> Iterator[Comparison]:
    """Yield the rows."""
    size = SIZES[small]
    sides: dict[tuple[str, str], Apart] = {}
    for how in precisions():
        plain = (textbook_steps, cifar(), size, how == "bf16", 1, "cpu")
        sides |= {
            ("ours", how): apart(job(repeat, **size, compile=not small, precision=how)),
            ("per batch", how): apart(job(repeat, **size, precision=how, protocol="paper")),
            ("peer", how): Apart(f"textbook, {how}", *plain),
            ("bare", how): Apart(f"textbook without norms, {how}", *plain, True),
        }
    of = together(sides, repeat=repeat, name="training step")
    across, same = (times(3.5), times(1.5)) if amx() else (times(1), times(1))
    yield from by_precision("training step", of, across, same=same)
    for how in precisions():
        yield step(f"{how}, one path a batch, against {how}", of["per batch", how], of["peer", how], times(1))
        yield step(f"{how}, against no norms", of["ours", how], of["bare", how])


def step(what: str, ours: Side, peer: Side, goal: Goal | None = None) -> Comparison:
    """Return a row."""
    return Comparison(row=f"training step, {what}", ours=ours, peer=peer, unit="seconds", goal=goal)


def apart(job: Job) -> Apart:
    """Return the side that trains a job."""
    return Apart(f"{called(job)}, a path for each {job.unit.settings['network']['paths']}", epochs, job)


def amx() -> bool:
    """Return whether the processor multiplies matrices of bf16 by itself."""
    return "amx_bf16" in cpu().get("flags", "").split()


def job(
    repeat: int, *, width: int, batch: int, steps: int = 1, held_out: int = 0, gpu: bool = False, **given: Any
) -> Job:
    """Return the job that trains so many epochs and one more, of so many steps each."""
    sweep = resnet18(
        width=width, data={"train_examples": batch * steps, "held_out": held_out},
        training={
            "objective": "blackbox", "epochs": repeat + 1, "batch": batch, "lr": LR, "augment": "none",
            "schedule": {"name": "constant"},
        },
        **given,
    )  # fmt: skip
    if gpu:
        sweep = {**sweep, "resources": {"train": {"cpu": 1, "gpu": 1}}}
    (found,) = jobs(sweep, open_store(tempfile.mkdtemp(dir=folder())))  # in one store a unit is done once
    return long(found)


def epochs(turn: Turn, job: Job) -> None:
    """Measure the seconds of a step, in each epoch of a training."""
    batch = job.unit.settings["training"]["batch"]

    def report(row: Mapping[str, Any]) -> None:
        turn(batch / row["images_per_second"], megabytes=memory(job.device))

    done(job, report=report)


def textbook_steps(
    turn: Turn, root: str, size: Mapping[str, int], bf16: bool, steps: int = 1, device: str = "cpu", bare: bool = False
) -> None:
    """Measure the seconds of the textbook's step, on the average over so many of them.

    A `bare` one has no norms, and on a GPU is compiled, its channels last: the convolutions, as fast as can be had.
    """
    import textbook
    import torch

    network = textbook.ResNet18(size["width"], torch.nn.Identity if bare else textbook.RandomNorm).to(device)
    if bare and device == "cuda":
        network.to(memory_format=torch.channels_last)
        network.compile(dynamic=False)
    optimizer = textbook.sgd(network, LR)
    x, y = textbook.images(root, size["batch"], device)
    while True:
        started = time.perf_counter()
        for _ in range(steps):
            textbook.adversarial_step(network, optimizer, x, y, bf16=bf16)
        turn((time.perf_counter() - started) / steps, megabytes=memory(device))


def memory(device: str) -> float | None:
    """Return the megabytes of the GPU that this process held at most; None on a CPU, where others look."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None


if __name__ == "__main__":
    main(compare, __doc__)
