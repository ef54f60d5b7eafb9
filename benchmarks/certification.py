"""Certification: noisy draws a second, against the loop of one example at a time, both in batches of 1,000.

    python benchmarks/certification.py [--repeat N] [--small]

Ours is a certify unit, as an evaluator does it, of ResNet-18 with BN+IN in fp32, and in bf16 where the processor can:
its passes are full of draws of several examples, each along a path of its own. The peer, the textbook's network in
fp32, takes one example after the other, and one path a pass: draws that choose a class, then draws that bound it
(Cohen et al. 2019, Figure 2).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

from pairs import Apart, Comparison, Turn, in_turn, main, times
from subjects import cifar, folder, hardly_trained, jobs, long, precisions, repeated

from rna_ray.store import open_store

MINUTES = 9
NOISE_255 = 64
SIZES = {
    False: {"width": 64, "images": 4, "selection": 100, "draws": 900, "batch": 1000},
    True: {"width": 8, "images": 2, "selection": 10, "draws": 90, "batch": 100},
}  # fmt: skip


def compare(repeat: int, small: bool) -> Iterator[Comparison]:
    """Yield the rows."""
    size = SIZES[small]
    images, total = size["images"], size["images"] * (size["selection"] + size["draws"])
    entry = {"examples": images, "checkpoint": "last", "noise_255": NOISE_255, "shard": images}
    entry |= {name: size[name] for name in ("selection", "draws", "batch")}
    given = {"width": size["width"], "compile": not small}
    with contextlib.ExitStack() as held:
        sides = []
        for precision in precisions():
            sweep = hardly_trained(**given, certification=[{**entry, "precision": precision}])
            network, unit = jobs(sweep, open_store(folder() / "certification" / precision))
            sides.append(held.enter_context(Apart(f"rna-ray, {precision}", repeated, network, long(unit), total)))
        sides.append(held.enter_context(Apart("loop of examples, textbook", loop, cifar(), size)))
        *ours, peer = (
            side.side(found)
            for side, found in zip(sides, in_turn(*sides, repeat=repeat, name="certification"), strict=True)
        )
    row, unit = f"certification, batch {size['batch']:,}", "draws a second"
    for precision, one, goal in zip(precisions(), ours, (1, 1.8), strict=False):
        yield Comparison(row=f"{row}, {precision}", ours=one, peer=peer, unit=unit, goal=times(goal))


def loop(turn: Turn, root: str, size: Mapping[str, int]) -> None:
    """Measure the draws a second of the loop of one example at a time."""
    import textbook
    import torch

    network = textbook.ResNet18(size["width"]).eval()
    network.redraws = True
    images, _ = textbook.images(root, size["images"])

    def counts(x: torch.Tensor, draws: int) -> torch.Tensor:
        found = torch.zeros(10, dtype=torch.int64)
        while draws > 0:
            noisy = x.expand(min(draws, size["batch"]), *x.shape)
            predicted = network(noisy + NOISE_255 / 255 * torch.randn_like(noisy)).argmax(1)
            found += predicted.bincount(minlength=10)
            draws -= len(noisy)
        return found

    while True:
        started = time.perf_counter()
        with torch.no_grad():
            for x in images:
                counts(x, size["selection"]).argmax()
                counts(x, size["draws"])
        turn(len(images) * (size["selection"] + size["draws"]) / (time.perf_counter() - started))


if __name__ == "__main__":
    main(compare, __doc__)
