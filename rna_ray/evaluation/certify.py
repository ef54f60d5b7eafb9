"""Certify one unit: count each image's classes under Gaussian noise (randomised smoothing). One row an example.

What is smoothed is everything random: a draw is noise and, where the network has several, a path. For each image the
selection draws and the bounding draws are independent of each other and of those of other images. So the counts of one
image are those of a multinomial, of the smoothed classifier's probabilities at that image, and every radius is a query
over them (`evaluation.radii`): n0 draws choose the class, n others bound its probability (Cohen et al. 2019, Section
3.2; Li et al. 2019, STN, Algorithm 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rna_ray.attacks.expectation import Draws, Forward, Passes
from rna_ray.data import Split
from rna_ray.errors import NetworkError
from rna_ray.evaluation.behaviour import observe
from rna_ray.evaluation.knowledge import Defence, Knowledge
from rna_ray.networks.build import Network
from rna_ray.networks.paths import mode
from rna_ray.randomness import Randomness

Settings = Mapping[str, Any]
_LOOKED_AT = 8


@torch.no_grad()
def certify(
    settings: Settings, network: Network, images: Split, *, device: torch.device, forward: Forward | None = None
) -> list[dict[str, Any]]:
    """Return the rows of one certify unit, for a network on `device` with its weights loaded.

    Rows are those of the view `certificates`, without what they share. Every draw is a function of (what the
    certification's units share, example, draw), so cutting the examples otherwise into units changes no draw. The
    network's parameters stop requiring grad. `forward` is the network compiled. Raises NetworkError for an imported
    network whose draws are not known to be independent.
    """
    network.requires_grad_(False)
    start, stop = settings["examples"]
    index = np.arange(start, stop)
    labels, selection = torch.from_numpy(images.labels[index]), settings["selection"]
    with mode(network, "eval"):
        smoothed = _Smoothed(settings, network, images, index, device, forward)
        smoothed.refuse_dependent_draws()
        every = torch.arange(stop - start)
        chosen = smoothed.counts(every, range(selection))
        abandoned = torch.zeros(len(every), dtype=torch.bool)
        if settings["abandon"] == "misclassified":
            abandoned = chosen.argmax(1) != labels
        counts = torch.zeros_like(chosen)
        if not abandoned.all():
            counts[~abandoned] = smoothed.counts(every[~abandoned], range(selection, selection + settings["draws"]))
    columns = {
        "example": index, "label": labels, "selection_counts": chosen, "counts": counts, "abandoned": abandoned
    }
    return [
        {"sigma": smoothed.sigma, **dict(zip(columns, values, strict=True))}
        for values in zip(*(column.tolist() for column in columns.values()), strict=True)
    ]


class _Smoothed:
    """A network behind noise, on the images of one unit."""

    def __init__(
        self, settings: Settings, network: Network, images: Split, index: np.ndarray, device: torch.device,
        forward: Forward | None,
    ) -> None:
        self.sigma, self.batch = settings["noise_255"] / 255, settings["batch"]
        self.network, self.random = network, Randomness(settings["evaluation"])
        self.passes = Passes(network, forward=forward, batch=self.batch, bf16=settings["precision"] == "bf16")
        self.examples = torch.from_numpy(index).to(device)
        self.images = torch.from_numpy(images.images[index]).to(device)  # each is decoded once, and drawn on often

    def counts(self, rows: torch.Tensor, draws: range) -> torch.Tensor:
        """Return how often each class is answered (R, classes) for some rows (R,) of the unit, over some draws."""
        rows, n = rows.to(self.images.device), len(draws)
        total, predicted, classes = len(rows) * n, [], 0
        for first in range(0, total, self.batch):
            real = min(self.batch, total - first)
            at = first + torch.arange(self.batch, device=self.images.device) % real  # a short pass repeats its own
            logits = self._pass(rows[at // n], draws.start + at % n)
            predicted.append(logits.argmax(1)[:real])
            classes = logits.shape[1]
        cells = torch.arange(len(rows), device=rows.device).repeat_interleave(n) * classes + torch.cat(predicted)
        return torch.bincount(cells, minlength=len(rows) * classes).view(len(rows), classes).cpu()

    def _pass(self, rows: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, classes) of the images of some rows (B,), each on its draw (B,)."""
        x, examples = self.images[rows].float() / 255, self.examples[rows]

        def noise() -> torch.Tensor:
            return self.sigma * self.random.normal("smooth/noise", examples, x.shape[1:], draw=draws)

        path = self.network.paths.draw(self.random, "smooth", examples, draw=draws)
        return self.passes.logits(x, Draws(path[None], (0,), (noise,)))[0]

    def refuse_dependent_draws(self) -> None:
        """Raise NetworkError for an imported network that does not draw as it is told to, by paths and noise alone.

        One that draws from a global generator may do so once for a whole pass.
        """
        if not self.network.draws_globally:
            return
        defence = Defence(
            self.passes, self.network.paths, self.random, self.examples[:_LOOKED_AT], Knowledge("none"), draws=1,
            noise=self.sigma,
        )
        seen = observe(defence, self.images[:_LOOKED_AT].float() / 255)
        if seen.global_generator or not seen.repeats:
            where = "a global generator" if seen.global_generator else "a generator or a state of its own"
            raise NetworkError(
                f"certification: the imported network draws from {where}, perhaps once for many images, so that its "
                "draws are not known to be independent and certify nothing; make its layers random with "
                "rna_ray.randomize, or name the other variants with `only`"
            )
