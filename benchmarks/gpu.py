"""A training step on a GPU, against the textbook's in fp32 and bf16, itself without norms, and the GPU's matrix rate.

    python benchmarks/gpu.py [--repeat N] [--small]        or make bench-gpu

Everything is measured in one run on one GPU: ours in bf16 and compiled; without norms (the
textbook's network, compiled) only the convolutions are left, which is the limit of what norms may cost; and the GPU's
rate of bf16 multiply-adds in a product of two large matrices is the limit of what convolutions may reach. Memory is the
GPU's.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator

from pairs import Apart, Comparison, Turn, main, times, together
from subjects import cifar
from training import SIZES, apart, job, textbook_steps

from rna_ray.networks import describe

STEPS = 20
MATRIX = 8192


def compare(repeat: int, small: bool) -> Iterator[Comparison]:
    """Yield the rows; SystemExit in a sentence where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        sys.exit("make bench-gpu needs a GPU that torch can use, and there is none here")
    size = SIZES[small]
    ours = job(repeat, **size, steps=STEPS, gpu=True, precision="bf16", compile=True)
    plain = (textbook_steps, cifar(), size)
    sides = {
        "ours": apart(ours),
        "fp32": Apart("textbook, fp32, convolutions in TF32", *plain, False, STEPS, "cuda"),
        "bf16": Apart("textbook, bf16", *plain, True, STEPS, "cuda"),
        "bare": Apart("without norms, bf16, compiled", *plain, True, STEPS, "cuda", True),
        "matrices": Apart("product of two matrices, bf16", matrices),
    }
    of = together(sides, repeat=repeat, name="training step on a GPU")
    row = f"training step on {torch.cuda.get_device_name()}"
    for peer, what, goal in (("fp32", "fp32", times(5)), ("bf16", "bf16", None), ("bare", "no norms", times(0.6))):
        yield Comparison(row=f"{row}, against {what}", ours=of["ours"], peer=of[peer], unit="seconds", goal=goal)
    rate = [one._replace(value=macs(**size) / one.value / 1e12) for one in of["ours"].found]
    achieved = dataclasses.replace(of["ours"], found=rate)
    yield Comparison(
        row=f"{row}, multiply-adds", ours=achieved, peer=of["matrices"], unit="10¹² multiply-adds a second"
    )


def macs(*, width: int, batch: int, attack: int = 10) -> int:
    """Return the multiply-adds of a step: attacks go forth and back to the images, the update to the weights too."""
    image = describe.describe("resnet18", width=width, image_shape=(3, 32, 32), classes=10).macs
    return image * batch * (2 * attack + 3)


def matrices(turn: Turn) -> None:
    """Measure the rate of bf16 multiply-adds, in 10¹² a second."""
    import torch

    a, b = (torch.randn(MATRIX, MATRIX, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    while True:
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(STEPS):
            a @ b
        torch.cuda.synchronize()
        turn(STEPS * MATRIX**3 / (time.perf_counter() - started) / 1e12, megabytes=0.0)


if __name__ == "__main__":
    main(compare, __doc__)
