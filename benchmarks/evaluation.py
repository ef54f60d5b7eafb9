"""PGD-20 under eot-10, under `fixed`, and natural answers, against torchattacks on the textbook's network.

    python benchmarks/evaluation.py [--repeat N] [--small]

Ours is an evaluate unit, as an evaluator does it: it looks the network up, attacks, answers the natural and the
attacked images on the defender's draws, and commits its rows. The peer does the same attack on the same images, with
the same ε, steps and draws, and answers both on as many draws. Each side has a network of its own, of the same size;
ours computes in fp32, as the peer does, and in bf16 where the processor can, compiled as in every long unit of a sweep
that asks for it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from pairs import Apart, Comparison, Turn, in_turn, main, times
from subjects import cifar, folder, hardly_trained, jobs, long, precisions, repeated

from rna_ray.running.tasks import Job
from rna_ray.store import open_store

MINUTES = 35
SIZES = {False: {"width": 64, "images": 64, "steps": 20}, True: {"width": 8, "images": 8, "steps": 5}}
ANSWERS = 10
"""The draws that answer, but under `fixed`, where one does."""


def compare(repeat: int, small: bool) -> Iterator[Comparison]:
    """Yield the rows."""
    size = SIZES[small]
    images, steps = size["images"], size["steps"]
    units = {precision: asked(precision, small, **size) for precision in precisions()}
    for name, knowledge, eot, goal in (
        (f"PGD-{steps} under eot-10", "eot-10", 10, 5.0), (f"PGD-{steps} under fixed", "fixed", 1, 2.0),
        ("natural answers", "none", 0, 2.0),
    ):  # fmt: skip
        row = f"{name}, {images} images"
        peer = f"torchattacks {'EOTPGD' if eot > 1 else 'PGD'}" if eot else "passes"
        with contextlib.ExitStack() as held:
            sides = [
                held.enter_context(Apart(f"rna-ray, {precision}", repeated, network, of[knowledge]))
                for precision, (network, of) in units.items()
            ]
            sides.append(held.enter_context(Apart(f"{peer}, textbook, fp32", library, cifar(), size, eot)))
            found = in_turn(*sides, repeat=repeat, name=row)
            *ours, theirs = (side.side(values) for side, values in zip(sides, found, strict=True))
        for precision, one in zip(precisions(), ours, strict=True):
            yield Comparison(row=f"{row}, {precision}", ours=one, peer=theirs, unit="seconds", goal=times(goal))


def asked(precision: str, small: bool, *, width: int, images: int, steps: int) -> tuple[Job, dict[str, Job]]:
    """Return the job of a network, and those that evaluate it in a precision, by what their attacker knows."""
    entry = {"examples": images, "batch": images, "checkpoint": "last", "precision": precision}
    pgd = {"attack": "pgd", "eps_255": 8, "step_255": 2, "steps": steps, **entry}
    entries = [{**pgd, "knowledge": ["eot-10", "fixed"]}, {"attack": "natural", **entry}]
    store = open_store(folder() / "evaluation" / precision)
    network, *units = jobs(hardly_trained(width=width, evaluation=entries, compile=not small), store)
    return network, {job.unit.settings["knowledge"]: long(job) for job in units}


def library(turn: Turn, root: str, size: dict[str, int], eot: int) -> None:
    """Measure the seconds of an attack of torchattacks, of so many draws a step, and of the answers; 0 is no attack."""
    import textbook
    import torch
    import torchattacks

    network = textbook.ResNet18(size["width"]).eval()
    network.redraws = eot != 1
    x, y = textbook.images(root, size["images"])
    given: dict[str, Any] = {"eps": textbook.EPS, "alpha": textbook.STEP, "steps": size["steps"]}
    attack: Callable[..., Any] = lambda x, y: x  # noqa: E731
    if eot:
        attack = torchattacks.EOTPGD(network, eot_iter=eot, **given) if eot > 1 else torchattacks.PGD(network, **given)
    while True:
        started = time.perf_counter()
        network.draw_path()
        x_adv = attack(x, y)
        with torch.no_grad():
            for images in (x, x_adv):
                answers = [network(images).argmax(1) for _ in range(1 if eot == 1 else ANSWERS)]
                torch.stack([answer == y for answer in answers]).float().mean(0).tolist()
        turn(time.perf_counter() - started)


if __name__ == "__main__":
    main(compare, __doc__)
