"""The loss over a plane of the input space: along the attack, and along a random direction (RNA, Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from rna_ray.attacks.expectation import IMAGES_A_PASS
from rna_ray.evaluation.batches import Batch
from rna_ray.networks.build import Network
from rna_ray.probes.derivatives import along, gradient
from rna_ray.probes.subject import Rows, Subject
from rna_ray.randomness import Randomness


def measure(settings: Mapping[str, Any], subjects: Sequence[Subject], batch: Batch) -> Rows:
    """Walk over the plane around each image along one draw of its paths, without the defence's noise."""
    (subject,), options = subjects, settings["options"]
    network, random = subject.network, subject.random
    path_NL = network.paths.draw(random, "surface/path", batch.examples)
    offsets, loss = surface(network, batch.x, batch.y, path_NL, batch.examples, random, **options)
    subject.native &= not network.paths.sizes
    rows = Rows()
    for i, first in enumerate(offsets.tolist()):
        for j, second in enumerate(offsets.tolist()):
            rows.measures += batch.rows(measure="loss", x=first, y=second, value=loss[:, i, j].double())
    rows.measures = [row for row in rows.measures if row["value"] == row["value"]]  # no plane, no row
    return rows


def surface(
    network: Network, x: torch.Tensor, y: torch.Tensor, path_NL: torch.Tensor, examples: torch.Tensor,
    random: Randomness, *, radius_255: float, points: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the offsets (P,) in 255ths, and the loss (N, P, P) where x moved by each pair of them.

    The first offset is along the sign of the loss's gradient at the image, one unit being 1/255 in every pixel; the
    second along a random direction, orthogonal to it and as long in ℓ2. Images that leave [0, 1] are not clipped: that
    would bend the plane. All points of an image are on its one path. Where the gradient is exactly zero there is no
    such plane, and the loss is NaN. The paper does not say how its plane is spanned, nor how far.
    """
    offsets = torch.linspace(-radius_255, radius_255, points, dtype=torch.float64)
    first, second = directions(network, x, y, path_NL, examples, random)
    n = len(x)
    steps = offsets.to(x.device, x.dtype)
    across, down, image = (index.flatten() for index in torch.meshgrid(
        torch.arange(points), torch.arange(points), torch.arange(n), indexing="ij"
    ))
    losses = []
    with torch.no_grad():
        for part in torch.arange(n * points**2).split(IMAGES_A_PASS[x.device.type]):
            of = image[part]
            along_first, along_second = (steps[index[part]].view(-1, 1, 1, 1) for index in (across, down))
            moved = x[of] + along_first * first[of] + along_second * second[of]
            logits = along(network, path_NL[of])(moved)
            losses.append(F.cross_entropy(logits, y[of], reduction="none"))
    loss = torch.cat(losses).view(points, points, n).permute(2, 0, 1)
    flat = first.flatten(1).abs().amax(1) == 0
    return offsets, loss.masked_fill(flat.view(-1, 1, 1), torch.nan)


def directions(
    network: Network, x: torch.Tensor, y: torch.Tensor, path_NL: torch.Tensor, examples: torch.Tensor,
    random: Randomness,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the plane's two directions (N, C, H, W): orthogonal, equally long, in [0, 1] pixels a 255th.

    The random one is drawn as ±1 in each pixel, then made orthogonal to the first by subtracting its part along it.
    """
    sign = gradient(along(network, path_NL), x, y).sign()
    coin = random.integers("surface/direction", examples, [2] * x[0].numel())
    other = (2 * coin - 1).view(x.shape).to(x)
    length = _dot(sign, sign)
    other = other - _dot(other, sign) / torch.where(length == 0, 1.0, length) * sign
    return sign / 255, other * (length / _dot(other, other)).sqrt() / 255


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum((1, 2, 3), keepdim=True)
