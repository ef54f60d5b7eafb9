"""Do one probe unit: measure its network, or its pair of networks, batch by batch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch

from rna_ray.attacks.expectation import Forward
from rna_ray.data import Split
from rna_ray.evaluation.batches import Batch, batches
from rna_ray.networks.build import Network
from rna_ray.networks.paths import mode
from rna_ray.probes import bound, landscape, path_transfer, similarity, smoothness, statistics, surface, transfer
from rna_ray.probes.subject import Rows, Subject
from rna_ray.randomness import Randomness

Settings = Mapping[str, Any]

MEASURES: dict[str, Callable[[Settings, Sequence[Subject], Batch], Rows]] = {
    "transfer": transfer.measure,
    "path-transfer": path_transfer.measure,
    "similarity": similarity.measure,
    "surface": surface.measure,
    "smoothness": smoothness.measure,
    "bound": bound.measure,
    "landscape": landscape.measure,
    "statistics": statistics.measure,
}
"""Each probe of the catalog → the function that measures a batch."""


@final
@dataclasses.dataclass(frozen=True)
class Probed:
    """What a unit measured."""

    rows: Rows
    native: bool
    """Whether the norms ran on torch's own kernels throughout."""


def probe(
    settings: Settings, networks: Sequence[Network], images: Split, *, device: torch.device,
    forwards: Sequence[Forward | None] | None = None,
) -> Probed:
    """Return what one probe unit measures, for networks on `device` with their weights loaded: a pair's source first.

    Every draw is a function of (what the probe's units share, example, step, draw), so cutting the examples otherwise
    into units changes no row. The networks' parameters stop requiring grad.
    """
    random, found = Randomness(settings["evaluation"]), Rows()
    roles = [settings[role] for role in ("source", "network") if role in settings]
    subjects = [
        Subject(network, role, random, batch=settings["batch"], forward=forward)
        for network, role, forward in zip(networks, roles, forwards or [None] * len(networks), strict=True)
    ]
    with contextlib.ExitStack() as modes:
        for network in networks:
            network.requires_grad_(False)
            modes.enter_context(mode(network, "eval"))
        for batch in batches(images, tuple(settings["examples"]), settings["batch"], device):
            found.extend(MEASURES[settings["probe"]](settings, subjects, batch))
    return Probed(found, all(subject.native and subject.network.native for subject in subjects))
