"""Gradients masked by rounding: counted as zero, and an attack that needs none gets below one that does."""

from __future__ import annotations

import pytest
import torch
from evaluation_base import CPU, settings
from torch import nn

from rna_ray.data import digits
from rna_ray.data.records import Split
from rna_ray.evaluation.evaluate import Evaluated, evaluate
from rna_ray.networks.build import Network
from rna_ray.networks.paths import PathSpace

EXAMPLES, STEPS, QUERIES = 100, 10, 200


class Rounding(nn.Module):
    """The nearest class mean, of images rounded to a few levels: where rounding is flat, so is the loss."""

    def __init__(self, levels: int | None) -> None:
        super().__init__()
        data = digits.load().train
        x = torch.from_numpy(data.images).float().flatten(1) / 255
        means = torch.stack([x[torch.from_numpy(data.labels) == digit].mean(0) for digit in range(10)])
        self.levels = levels
        self.weight, self.bias = nn.Parameter(2 * means.T), nn.Parameter(-means.square().sum(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.levels:
            x = (x * self.levels).round() / self.levels
        return x.flatten(1) @ self.weight + self.bias


@pytest.fixture(scope="module")
def images() -> Split:
    return digits.load().test


def attacked(levels: int | None, images: Split, attack: str, **options: object) -> Evaluated:
    given = {f"attack_{name}": value for name, value in ({"eps_255": 60.0} | options).items()}
    asked = settings(attack, (0, EXAMPLES), knowledge="fixed", draws=1, batch=50, **given)
    made = Network(Rounding(levels), PathSpace(()), mean=(0.0,), std=(1.0,))
    return evaluate(asked, "unit", made, images, device=CPU)


def right(found: Evaluated) -> float:
    return sum(found.columns["adversarial_correct"]) / EXAMPLES


PGD = {"steps": STEPS, "step_255": 15.0}


def test_masked_gradients_are_counted_and_square_gets_below_pgd(images: Split) -> None:
    pgd = attacked(3, images, "pgd", **PGD)
    square = attacked(3, images, "square", queries=QUERIES)
    natural = sum(pgd.columns["natural_correct"]) / EXAMPLES
    assert natural > 0.8 and right(pgd) > natural - 0.15
    assert right(square) < right(pgd) - 0.2
    assert set(pgd.columns["zero_gradients"]) == {STEPS}
    assert "zero_gradients" not in square.columns  # it looks at none


def test_the_cascade_says_which_part_broke_them_and_counts_the_zeros_of_all(images: Split) -> None:
    columns = attacked(3, images, "cascade", **PGD, queries=QUERIES).columns
    broken = [
        part
        for part, before, after in zip(
            columns["part"], columns["natural_correct"], columns["adversarial_correct"], strict=True
        )
        if before and not after
    ]
    assert broken.count("square") > 10 and "" not in broken
    # FGSM's one, the steps of PGD, of aggregated momentum and of Auto-PGD, which looks at its start too.
    most = 1 + STEPS + STEPS + STEPS + 1
    assert max(count for count in columns["zero_gradients"] if count is not None) == most
    assert columns["zero_gradients"].count(most) > EXAMPLES / 2


def test_the_same_network_without_rounding_has_no_zero_gradients_and_falls_to_pgd(images: Split) -> None:
    plain = attacked(None, images, "pgd", **PGD)
    assert not any(plain.columns["zero_gradients"])
    assert right(plain) < right(attacked(3, images, "pgd", **PGD)) - 0.4
