"""Certification: noisy draws a second, against the loop of one example at a time, both in batches of 1,000.

    python benchmarks/certification.py [--repeat N] [--small]

Ours is a certify unit, as an evaluator does it, of ResNet-18 with BN+IN: its passes are full of draws of several
examples, each along a path of its own. The peer, with the textbook's network, takes one example after the other, and
one path a pass: draws that choose a class, then draws that bound it (Cohen et al. 2019, Figure 2). Both compute in
fp32, and in bf16 where the processor can. Ours is compiled as a unit of the usual 100,000 draws an example is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from pairs import Apart, Comparison, Turn, by_precision, main, times, together
from subjects import called, cifar, folder, hardly_trained, jobs, long, precisions, repeated

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
    sides = {}
    for precision in precisions():
        sweep = hardly_trained(**given, certification=[{**entry, "precision": precision}])
        network, short = jobs(sweep, open_store(folder() / "certification" / precision))
        unit, what = long(short), f"loop of examples, textbook, {precision}"
        sides["ours", precision] = Apart(called(unit), repeated, network, unit, total)
        sides["peer", precision] = Apart(what, loop, cifar(), size, precision == "bf16")
    of = together(sides, repeat=repeat, name="certification")
    yield from by_precision(f"certification, batch {size['batch']:,}", of, times(1.8), unit="draws a second")


def loop(turn: Turn, root: str, size: Mapping[str, int], bf16: bool) -> None:
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
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            for x in images:
                counts(x, size["selection"]).argmax()
                counts(x, size["draws"])
        turn(len(images) * (size["selection"] + size["draws"]) / (time.perf_counter() - started))


if __name__ == "__main__":
    main(compare, __doc__)
