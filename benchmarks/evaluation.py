"""PGD-20 under eot-10, under `fixed`, and natural answers, against torchattacks on the textbook's network.

    python benchmarks/evaluation.py [--repeat N] [--small]

Ours is an evaluate unit, as an evaluator does it: it looks the network up, attacks, answers the natural and the
attacked images on the defender's draws, and commits its rows. The peer does the same attack on the same images, with
the same ε, steps and draws, and answers both on as many draws. Each side has a network of its own, of the same size,
and computes in fp32, and in bf16 where the processor can. Ours asks for `compile`, and is compiled where a sweep's unit
of that size is: under `fixed` and for natural answers, which cost less an image, there is a unit that is too short for
it and one that is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pairs import Apart, Comparison, Turn, by_precision, main, times, together
from subjects import called, cifar, folder, hardly_trained, jobs, precisions, repeated

from rna_ray.running.tasks import Job
from rna_ray.store import open_store

MINUTES = 120
BATCH = {False: 64, True: 8}
LONG = {False: {"fixed": 640, "none": 2048}, True: {"fixed": 16, "none": 16}}
"""The images of a unit that is long enough to be compiled, by what its attacker knows; others have one batch."""
SIZES = {False: {"width": 64, "steps": 20}, True: {"width": 8, "steps": 5}}
ANSWERS = 10
"""The draws that answer, but under `fixed`, where one does."""


def compare(repeat: int, small: bool) -> Iterator[Comparison]:
    """Yield the rows."""
    size, batch, many = SIZES[small], BATCH[small], LONG[small]
    steps = size["steps"]
    units = {precision: asked(precision, batch, many, **size) for precision in precisions()}
    for name, knowledge, images, eot, goal in (
        (f"PGD-{steps} under eot-10", "eot-10", batch, 10, 5.0),
        (f"PGD-{steps} under fixed", "fixed", many["fixed"], 1, 2.0),
        (f"PGD-{steps} under fixed", "fixed", batch, 1, 2.0),
        ("natural answers", "none", many["none"], 0, 2.0),
        ("natural answers", "none", batch, 0, 2.0),
    ):  # fmt: skip
        row = f"{name}, {images:,} images"
        what = f"torchattacks {'EOTPGD' if eot > 1 else 'PGD'}" if eot else "passes"
        sides = {}
        for precision, (network, evaluations) in units.items():
            unit, bf16 = evaluations[knowledge, images], precision == "bf16"
            sides["ours", precision] = Apart(called(unit), repeated, network, unit)
            sides["peer", precision] = Apart(
                f"{what}, textbook, {precision}", library, cifar(), size, images, batch, eot, bf16
            )
        of = together(sides, repeat=repeat, name=row)
        yield from by_precision(row, of, times(goal))


def asked(
    precision: str, batch: int, many: Mapping[str, int], *, width: int, steps: int
) -> tuple[Job, dict[tuple[str, int], Job]]:
    """Return the job of a network, and those that evaluate it, by what their attacker knows and their images."""
    pgd = {"attack": "pgd", "eps_255": 8, "step_255": 2, "steps": steps, "knowledge": ["fixed"]}
    natural = {"attack": "natural"}
    found = {}
    for images, entries in (
        (batch, [{**pgd, "knowledge": ["eot-10", "fixed"]}, natural]), (many["fixed"], [pgd]),
        (many["none"], [natural]),
    ):  # fmt: skip
        entry = {"examples": images, "shard": images, "batch": batch, "checkpoint": "last", "precision": precision}
        evaluation = [{**one, **entry} for one in entries]
        store = open_store(folder() / "evaluation" / precision)
        network, *units = jobs(hardly_trained(width=width, evaluation=evaluation, compile=True), store)
        found |= {(job.unit.settings["knowledge"], images): job for job in units}
    return network, found


def library(
    turn: Turn, root: str, size: Mapping[str, int], images: int, batch: int, eot: int, bf16: bool
) -> None:  # fmt: skip
    """Measure the seconds of an attack of torchattacks, of so many draws a step, and of the answers; 0 is no attack."""
    import textbook
    import torch
    import torchattacks

    network = textbook.ResNet18(size["width"]).eval()
    network.redraws = eot != 1
    x_all, y_all = textbook.images(root, images)
    given: dict[str, Any] = {"eps": textbook.EPS, "alpha": textbook.STEP, "steps": size["steps"]}
    attack: Callable[..., Any] = lambda x, y: x  # noqa: E731
    if eot:
        attack = torchattacks.EOTPGD(network, eot_iter=eot, **given) if eot > 1 else torchattacks.PGD(network, **given)
    while True:
        started = time.perf_counter()
        for x, y in zip(x_all.split(batch), y_all.split(batch), strict=True):
            network.draw_path()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                x_adv = attack(x, y)
                with torch.no_grad():
                    for seen in (x, x_adv):
                        answers = [network(seen).argmax(1) for _ in range(1 if eot == 1 else ANSWERS)]
                        torch.stack([answer == y for answer in answers]).float().mean(0).tolist()
        turn(time.perf_counter() - started)


if __name__ == "__main__":
    main(compare, __doc__)
