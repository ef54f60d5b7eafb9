"""What a test batch's statistics are at each norm layer, beside the tracked ones (RobustNorm, Figure 1).

A layer sees what inference gives it: the layers before it normalise by what they tracked. The paper draws batches of
the start of training; a network after little training is another network here, and its batches are of test images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from rna_ray.evaluation.batches import Batch
from rna_ray.networks.build import Network
from rna_ray.networks.norms import BatchStatistics, Norm
from rna_ray.probes.subject import Rows, Subject, attacked

Values = Mapping[str, torch.Tensor]
"""Statistics (groups,) by name: mean and variance; of RobustNorm mean (or minimum) and range, to its power."""


def measure(settings: Mapping[str, Any], subjects: Sequence[Subject], batch: Batch) -> Rows:
    """Compare a batch's statistics with the tracked ones, along each member of the space, taken at all layers.

    Attacked images were attacked along that very path. Values are the batch's and no example's: x is the channel (or
    the group of channels), y the first example of the batch, which tells batches apart.
    """
    (subject,), rows = subjects, Rows()
    for member, path in subject.network.members.items():
        layers = _tracking(subject.network, path)
        if not layers:
            continue
        defence = subject.along(torch.tensor(path), batch)
        x = attacked(settings, defence, batch)
        with _watched(layers, batch.real) as seen:
            defence.answer(x)
        for layer, norm in layers.items():
            of = {"member": member, "layer": layer.name, "y": float(batch.examples[0])}
            for which, values in (("batch", seen[layer]), ("tracked", norm.tracked)):
                for name, groups in values.items():
                    rows.measures += [
                        {"measure": f"{which}_{name}", "x": float(at), "value": value, **of}
                        for at, value in enumerate(groups.double().tolist())
                    ]
    return rows


def _tracking(network: Network, path: Sequence[int]) -> dict[Norm, BatchStatistics]:
    """Return the norm layers that track statistics along a path, each with its member there."""
    steps = iter(path)
    members = {
        layer: layer.members[next(steps) if len(layer.members) > 1 else 0]
        for layer in network.modules()
        if isinstance(layer, Norm)
    }
    return {layer: member for layer, member in members.items() if member.tracked}


@contextlib.contextmanager
def _watched(layers: Mapping[Norm, BatchStatistics], images: int) -> Iterator[dict[Norm, Values]]:
    """Collect the statistics of the first images at each layer that runs inside the block."""
    seen: dict[Norm, Values] = {}

    def before(layer: Norm, arguments: tuple[torch.Tensor]) -> None:
        seen[layer] = layers[layer].measured(arguments[0][:images].double())

    hooks = [layer.register_forward_pre_hook(before) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
