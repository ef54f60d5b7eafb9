"""Schedules against closed forms; augmentation against a slow reference."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rna_ray.randomness import Randomness
from rna_ray.training.augment import PADDING, augment
from rna_ray.training.schedule import learning_rate

STEP = {"name": "step", "milestones": [0.5, 0.75], "gamma": 0.1}
ONE_CYCLE = {"name": "one-cycle", "warmup": 0.25}


@pytest.mark.parametrize(
    ("progress", "factor"), [(0, 1), (0.4999, 1), (0.5, 0.1), (0.7499, 0.1), (0.75, 0.01), (0.999, 0.01)]
)
def test_the_step_schedule_falls_at_its_milestones(progress: float, factor: float) -> None:
    assert learning_rate(0.2, STEP, progress) == pytest.approx(0.2 * factor)


def test_the_papers_schedule_falls_at_epochs_100_and_150_of_200() -> None:
    paper = {"name": "step", "milestones": [100 / 200, 150 / 200], "gamma": 0.1}
    rates = [learning_rate(0.1, paper, epoch / 200) for epoch in range(200)]
    assert Counter(round(rate, 6) for rate in rates) == {0.1: 100, 0.01: 50, 0.001: 50}
    assert rates[99] > rates[100] and rates[149] > rates[150]


@settings(max_examples=50)
@given(st.floats(0, 1, exclude_max=True), st.floats(1e-4, 10))
def test_the_cosine_is_half_a_cosine(progress: float, peak: float) -> None:
    found = learning_rate(peak, {"name": "cosine"}, progress)
    assert found == pytest.approx(peak * math.cos(math.pi * progress / 2) ** 2, abs=1e-9 * peak)


@settings(max_examples=50)
@given(st.floats(0, 1, exclude_max=True))
def test_one_cycle_is_torchs_own(progress: float) -> None:
    steps = 1001
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.3, total_steps=steps, pct_start=0.25, final_div_factor=1e12, cycle_momentum=False
    )
    step = math.floor(progress * (steps - 1))
    low, peak_at = 0.3 / 25, 0.25 * steps - 1
    expected = (
        low + (0.3 - low) * (1 - math.cos(math.pi * step / peak_at)) / 2
        if step <= peak_at
        else 0.3 * (1 + math.cos(math.pi * (step - peak_at) / (steps - 1 - peak_at))) / 2
    )
    assert reference.get_last_lr()[0] == pytest.approx(low)
    assert learning_rate(0.3, ONE_CYCLE, step / (steps - 1)) == pytest.approx(expected, abs=0.003)


def test_one_cycle_starts_at_a_25th_peaks_after_the_warmup_and_ends_at_zero() -> None:
    assert learning_rate(0.5, ONE_CYCLE, 0) == pytest.approx(0.5 / 25)
    assert learning_rate(0.5, ONE_CYCLE, 0.25) == pytest.approx(0.5)
    assert learning_rate(0.5, ONE_CYCLE, 1 - 1e-9) == pytest.approx(0, abs=1e-9)


def images(n: int) -> torch.Tensor:
    return torch.arange(1, n * 2 * 5 * 6 + 1).float().view(n, 2, 5, 6)


@pytest.mark.parametrize("kind", ["crop", "crop-flip"])
def test_augmentation_is_a_shift_and_a_flip_of_each_image_by_itself(kind: str) -> None:
    x, random, examples = images(60), Randomness("unit"), torch.arange(200, 260)
    found = augment(x, kind, random, examples)
    draws = random.integers("augment", examples, [9, 9, 2]).tolist()
    for image, (row, column, flip) in enumerate(draws):
        padded = torch.zeros(2, 5 + 2 * PADDING, 6 + 2 * PADDING)
        padded[:, PADDING : PADDING + 5, PADDING : PADDING + 6] = x[image]
        expected = padded[:, row : row + 5, column : column + 6]
        if flip and kind == "crop-flip":
            expected = expected.flip(2)
        assert torch.equal(found[image], expected)


def test_every_shift_is_as_likely_and_half_are_flipped() -> None:
    x = torch.zeros(4050, 1, 9, 9)
    x[:, 0, 4, 4] = 1.0
    found = augment(x, "crop", Randomness("unit"), torch.arange(4050)).flatten(1)
    assert (found.sum(1) == 1).all()
    counts = torch.bincount(found.argmax(1), minlength=81)
    assert (counts - 50).abs().max() < 5 * math.sqrt(50)
    x = torch.zeros(2000, 1, 1, 31)
    x[:, 0, 0, 8] = 1.0
    seen = augment(torch.cat([x] * 9, 2), "crop-flip", Randomness("unit"), torch.arange(2000)).amax(2)[:, 0]
    assert (seen.argmax(1) > 15).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_augmentation_belongs_to_the_example_and_the_epoch() -> None:
    x, examples = images(20), torch.arange(20)
    whole = augment(x, "crop-flip", Randomness("unit/epoch-1"), examples)
    some = torch.tensor([7, 3, 19])
    assert torch.equal(augment(x[some], "crop-flip", Randomness("unit/epoch-1"), some), whole[some])
    assert not torch.equal(augment(x, "crop-flip", Randomness("unit/epoch-2"), examples), whole)
    assert augment(x, "none", Randomness("unit"), examples) is x
