"""How well an attack along one path of a network works on another path (RNA, Figure 5c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rna_ray.attacks.make import make
from rna_ray.evaluation.batches import Batch
from rna_ray.networks.paths import difference
from rna_ray.probes.subject import Rows, Subject, predicted, seen
from rna_ray.randomness import Randomness


def measure(settings: Mapping[str, Any], subjects: Sequence[Subject], batch: Batch) -> Rows:
    """Attack the network along the first path of each pair, from a start of the pair's own; the second one answers."""
    (subject,), options = subjects, settings["options"]
    attack, rows = make(settings["attack"], std=subject.network.std), Rows()
    for pair in range(options["pairs"]):
        a, b = paths(subject.random, subject.network.paths.sizes, options["difference"], pair)
        source, target = (subject.along(path, batch, draw=pair) for path in (a, b))
        x_adv = attack.perturb(source, batch.x, batch.y).x_adv
        rows.transfers += batch.rows(
            label=batch.y, pair=pair, path_difference=int(difference(a, b)),
            natural_prediction=predicted(target, batch.x, "natural"), source_prediction=seen(source, x_adv),
            prediction=predicted(target, x_adv),
        )
    return rows


def paths(random: Randomness, sizes: Sequence[int], apart: int, pair: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a pair of paths (L,) that part at exactly `apart` random layers, the same ones for every example.

    The first is uniform over all paths, and so are the layers where the second parts from it, and its norms there.
    """
    number = torch.tensor([pair])
    first = random.integers("path-transfer/path", number, sizes)[0]
    other = random.integers("path-transfer/other", number, [size - 1 for size in sizes])[0]
    second, parting = first.clone(), random.permutation("path-transfer/layers", len(sizes), step=pair)[:apart]
    second[parting] = (first + 1 + other)[parting] % torch.tensor(sizes, dtype=torch.int64)[parting]
    return first, second
