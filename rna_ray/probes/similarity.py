"""How alike two networks, or two norms of one network, are in their gradients (RNA, Figure 3).

The gradients are those of the cross-entropy with respect to the natural image; the paper does not say at which image
it takes them, this is our choice. An example of which one of the two gradients is exactly zero, or not finite, has no
angle and no row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from rna_ray.evaluation.batches import Batch
from rna_ray.evaluation.knowledge import Defence
from rna_ray.probes.subject import Rows, Subject


def measure(settings: Mapping[str, Any], subjects: Sequence[Subject], batch: Batch) -> Rows:
    """Compare two networks along one draw each, or every two members of one network, each taken at every layer.

    Two random networks of the same space take the same draw, so that what differs is the weights alone.
    """
    if len(subjects) == 2:
        source, target = (_gradient(subject.drawn(batch), batch) for subject in subjects)
        return Rows(measures=_rows(source, target, batch))
    (subject,), rows = subjects, Rows()
    gradients = {
        member: _gradient(subject.along(torch.tensor(path), batch), batch)
        for member, path in subject.network.members.items()
    }
    for member, other in itertools.combinations(gradients, 2):
        rows.measures += _rows(gradients[member], gradients[other], batch, member=member, other=other)
    return rows


def _gradient(defence: Defence, batch: Batch) -> torch.Tensor:
    """Return each example's gradient as a row (N, C·H·W) of doubles."""
    return defence.gradient(batch.x, batch.y, step=0).flatten(1).double()


def _rows(a: torch.Tensor, b: torch.Tensor, batch: Batch, **of: str) -> list[dict[str, Any]]:
    cosine = F.cosine_similarity(a, b, eps=0.0)  # NaN where there is no direction
    return [row for row in batch.rows(measure="cosine", value=cosine, **of) if not math.isnan(row["value"])]
