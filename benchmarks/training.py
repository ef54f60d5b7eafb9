"""A training step: ResNet-18, BN+IN layer-free, black-box, PGD-10, batch 128, against the textbook's in fp32 and bf16.

    python benchmarks/training.py [--repeat N] [--small]

Ours is an epoch of a train unit, by its row's images a second: as a sweep does it by default, and in bf16. Networks are
compiled on GPUs alone; `compiled` is what that would give here. An epoch is one step; the first one is the warm-up.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

from pairs import Apart, Comparison, Turn, cpu, in_turn, main, times
from subjects import cifar, done, folder, jobs, resnet18

from rna_ray.running.tasks import Job
from rna_ray.store import open_store

MINUTES = 8
BF16 = {"precision": "bf16"}
LR = 1e-3
"""On images of noise a high rate may diverge."""
SIZES = {False: {"width": 64, "batch": 128}, True: {"width": 8, "batch": 16}}


def compare(repeat: int, small: bool) -> Iterator[Comparison]:
    """Yield the rows."""
    size = SIZES[small]
    goals = (times(3.5), times(1.5)) if amx() else (times(1), times(1))
    with contextlib.ExitStack() as held:
        ours = [apart(held, job(repeat, **size, **given)) for given in ({}, BF16)]
        theirs = [
            held.enter_context(Apart(f"textbook, {name}", textbook_steps, cifar(), size, name == "bf16"))
            for name in ("fp32", "bf16")
        ]
        found = in_turn(*ours, *theirs, repeat=repeat, name="training step")
        sides = [side.side(values) for side, values in zip([*ours, *theirs], found, strict=True)]
    plain, bf16, fp32, half = sides
    for name, one, peer, goal in (
        ("as by default", plain, fp32, times(1)), ("bf16, against fp32", bf16, fp32, goals[0]),
        ("bf16, against bf16", bf16, half, goals[1]),
    ):  # fmt: skip
        yield Comparison(row=f"training step, {name}", ours=one, peer=peer, unit="seconds", goal=goal)
    if small:  # to compile is no work of seconds
        return
    for width in (size["width"], size["width"] // 4):
        with contextlib.ExitStack() as held:
            jobs = [job(repeat, **{**size, "width": width}, **BF16, compile=how) for how in (True, False)]
            both = [apart(held, one) for one in jobs]
            found = in_turn(*both, repeat=repeat, name=f"compiled, width {width}")
            compiled, eager = (side.side(values) for side, values in zip(both, found, strict=True))
        yield Comparison(
            row=f"training step, bf16, width {width}: compiled, against eager", ours=compiled, peer=eager,
            unit="seconds",
        )  # fmt: skip


def apart(held: contextlib.ExitStack, job: Job) -> Apart:
    """Return the side that trains a job."""
    return held.enter_context(Apart(called(job), epochs, job))


def amx() -> bool:
    """Return whether the processor multiplies matrices of bf16 by itself."""
    return "amx_bf16" in cpu().get("flags", "").split()


def job(
    repeat: int, *, width: int, batch: int, steps: int = 1, gpu: bool = False, **given: Any
) -> Job:
    """Return the job that trains so many epochs and one more, of so many steps each."""
    sweep = resnet18(
        width=width, data={"train_examples": batch * steps, "held_out": 0},
        training={
            "objective": "blackbox", "epochs": repeat + 1, "batch": batch, "lr": LR, "augment": "none",
            "schedule": {"name": "constant"},
        },
        **given,
    )  # fmt: skip
    if gpu:
        sweep = {**sweep, "resources": {"train": {"cpu": 1, "gpu": 1}}}
    (found,) = jobs(sweep, open_store(tempfile.mkdtemp(dir=folder())))  # in one store a unit is done once
    return found


def called(job: Job) -> str:
    """Return what a job's way of training is."""
    settings = job.unit.settings
    return f"rna-ray, {settings['precision']}, {'compiled' if settings['compile'] else 'eager'}"


def epochs(turn: Turn, job: Job) -> None:
    """Measure the seconds of a step, in each epoch of a training; one that asks for it is compiled on a CPU too."""
    import torch

    from rna_ray.running import inputs

    batch = job.unit.settings["training"]["batch"]

    def report(row: Mapping[str, Any]) -> None:
        turn(batch / row["images_per_second"], megabytes=memory(job.device))

    def compiled(network: Any, asked: bool, device: torch.device) -> Any:
        return torch.compile(network, dynamic=False) if asked else network

    with mock.patch.object(inputs, "compiled", compiled):
        done(job, report=report)


def textbook_steps(
    turn: Turn, root: str, size: Mapping[str, int], bf16: bool, steps: int = 1, device: str = "cpu", bare: bool = False
) -> None:
    """Measure the seconds of the textbook's step, on the average over so many of them.

    A `bare` one has no norms, and is compiled, its channels last: the convolutions, as fast as they are to be had.
    """
    import textbook
    import torch

    network = textbook.ResNet18(size["width"], torch.nn.Identity if bare else textbook.RandomNorm).to(device)
    if bare:
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
