"""How well an attack on one network works on another (RNA, Figure 1c and d)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rna_ray.attacks.make import make
from rna_ray.evaluation.batches import Batch
from rna_ray.probes.subject import Rows, Subject, predicted, seen


def measure(settings: Mapping[str, Any], subjects: Sequence[Subject], batch: Batch) -> Rows:
    """Attack the source along one draw of its paths; the network answers the result on one draw of its own."""
    source, target = (subject.drawn(batch) for subject in subjects)
    x_adv = make(settings["attack"], std=subjects[0].network.std).perturb(source, batch.x, batch.y).x_adv
    rows = batch.rows(
        label=batch.y, natural_prediction=predicted(target, batch.x, "natural"), source_prediction=seen(source, x_adv),
        prediction=predicted(target, x_adv),
    )
    return Rows(transfers=rows)
