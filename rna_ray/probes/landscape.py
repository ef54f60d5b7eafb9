"""The loss over a plane of weights, along two random filter-normalised directions (RobustNorm, Figure 9).

After Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", Section 4. The images stay as they are while the
weights move: attacked ones were attacked at the trained weights, once. Tracked statistics stay too, as published, so a
norm that tracks divides moved activations by old deviations, and one that takes its batch's follows the weights. That
alone makes their landscapes differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.func import functional_call
from torch.nn import functional as F

from rna_ray.evaluation.batches import Batch
from rna_ray.evaluation.knowledge import Defence
from rna_ray.networks.build import Network
from rna_ray.probes.subject import Rows, Subject, attacked
from rna_ray.randomness import Randomness

Direction = Mapping[str, torch.Tensor]
"""A step for each of a network's weights, by the parameter's name; those it does not name stay."""


def measure(settings: Mapping[str, Any], subjects: Sequence[Subject], batch: Batch) -> Rows:
    """Answer one batch at every point of the network's plane, on one draw of the defence's.

    Each image has its loss and whether its class was right; x and y count lengths of each filter. A network has one
    plane, keyed by its id alone: its natural and its attacked images, a large radius and a small one, compare.
    """
    (subject,), options, rows = subjects, settings["options"], Rows()
    random = Randomness(subject.settings["id"])
    defence = subject.drawn(batch)
    x = attacked(settings, defence, batch)
    plane = [direction(subject.network, random, axis) for axis in ("first", "second")]
    for first, second, logits in landscape(defence, x, plane, offsets(**options)):
        loss = F.cross_entropy(logits, batch.y, reduction="none").double()
        right = (logits.argmax(1) == batch.y).double()
        rows.measures += batch.rows(measure="loss", x=first, y=second, value=loss)
        rows.measures += batch.rows(measure="correct", x=first, y=second, value=right)
    return rows


def offsets(*, radius: float, points: int, **_: Any) -> list[float]:
    """Return evenly spaced numbers from -radius to radius, exactly 0 in the middle where there is one."""
    return [radius * (2 * at - (points - 1)) / (points - 1) for at in range(points)]


def direction(network: Network, random: Randomness, name: str) -> Direction:
    """Return a Gaussian direction of which each filter is as long (ℓ2) as the network's own filter.

    A filter is what makes one output: a slice of a weight along its first dimension, of a linear layer too. Biases and
    the parameters of norms, which are of one dimension, stay as they are (Li et al. 2018; so does their code).
    """
    found = {}
    for parameter, weight in network.named_parameters():
        if weight.dim() > 1:
            one = torch.zeros(1, dtype=torch.int64, device=weight.device)
            drawn = random.normal(f"landscape/{name}/{parameter}", one, weight.shape)[0].to(weight)
            found[parameter] = drawn * (_lengths(weight) / _lengths(drawn))
    return found


def _lengths(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1))


@torch.no_grad()
def landscape(
    defence: Defence, x: torch.Tensor, plane: Sequence[Direction], at: Sequence[float]
) -> Iterator[tuple[float, float, torch.Tensor]]:
    """Yield each point of the plane with the logits (N, classes) of images x (N, C, H, W) there.

    All points are answered on the same draw of the defence's. The network itself is never changed.
    """
    network, draws = defence.passes.network, defence.defender_draws(x, "landscape")
    weights = dict(network.named_parameters())
    for first in at:
        for second in at:
            moved = {name: weights[name] + first * a + second * plane[1][name] for name, a in plane[0].items()}
            passes = defence.passes.through(lambda images, moved=moved: functional_call(network, moved, (images,)))
            yield first, second, passes.logits(x, draws)[0]
