"""Certification counts: those of a slow loop, of draws that are independent, whatever the passes and the shards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_base import CPU, network, split
from scipy.stats import binom, norm
from torch import nn

from rna_ray.data import Split
from rna_ray.errors import NetworkError
from rna_ray.evaluation.certify import certify
from rna_ray.networks.build import Network
from rna_ray.networks.paths import PathSpace, following, random_layers
from rna_ray.randomness import Randomness

SIGMA = 0.25


def settings(**given: Any) -> dict[str, Any]:
    return {
        "noise_255": SIGMA * 255, "draws": 7, "selection": 5, "abandon": "none", "examples": [3, 8], "batch": 8,
        "precision": "fp32", "evaluation": "shared by the shards", **given,
    }  # fmt: skip


def certified(made: Network | None = None, images: Split | None = None, **given: Any) -> list[dict[str, Any]]:
    return certify(settings(**given), made or network(), images or split(), device=CPU)


def plain(body: nn.Module, *, own: bool = False) -> Network:
    return Network(body, PathSpace(()), mean=(0.0,), std=(1.0,), draws_globally=own)


class Brighter(nn.Module):
    """Class 1 where the first pixel is above a half, else class 0: what is left of it under noise is known."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.full_like(x[:, 0, 0, 0], 0.5), x[:, 0, 0, 0]], 1)


def grey(levels: list[int], labels: list[int]) -> Split:
    images = np.zeros((len(levels), 1, 4, 4), np.uint8)
    images[:, 0, 0, 0] = levels
    return Split(images=images, labels=np.array(labels, np.int64))


@pytest.mark.parametrize("space", ["BN", "BN+IN+LN"])
def test_counts_are_those_of_one_draw_after_the_other(space: str) -> None:
    made, images = network(space).eval(), split()
    rows, random = certified(made, images), Randomness("shared by the shards")
    assert [row["example"] for row in rows] == [3, 4, 5, 6, 7]
    for row in rows:
        example = torch.tensor([row["example"]])
        x = torch.from_numpy(images.images[example]).float() / 255
        answers = []
        for draw in range(5 + 7):
            noise = random.normal("smooth/noise", example, (1, 8, 8), draw=draw)
            path = made.paths.draw(random, "smooth", example, draw=draw)
            with following(made, path), torch.no_grad():
                answers.append(int(made(x + SIGMA * noise).argmax()))
        assert row["selection_counts"] == np.bincount(answers[:5], minlength=10).tolist()
        assert row["counts"] == np.bincount(answers[5:], minlength=10).tolist()
        assert (row["label"], row["abandoned"], row["sigma"]) == (images.labels[row["example"]], False, SIGMA)


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_neither_the_passes_nor_the_shards_change_a_row(batch: int) -> None:
    whole = certified()
    assert certified(batch=batch) == whole
    parts = [certified(batch=batch, examples=list(part)) for part in ((3, 4), (4, 7), (7, 8))]
    assert [row for part in parts for row in part] == whole


def test_every_pass_takes_exactly_a_batch() -> None:
    sizes: list[int] = []

    class Watched(Brighter):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return super().forward(x)

    certified(plain(Watched()))
    assert sizes == [8] * (4 + 5)  # 25 selection draws, 35 bounding ones


def test_counts_of_a_known_classifier_have_its_probabilities() -> None:
    """P(class 1) is Φ((x - ½) / σ), and the counts of 300 images are binomial with it, each on draws of its own."""
    images, n = grey([191] * 300, [1] * 300), 40
    rows = certified(plain(Brighter()), images, draws=n, selection=1, examples=[0, 300], batch=1000)
    p = norm.cdf((191 / 255 - 0.5) / SIGMA)
    found = np.array([row["counts"][1] for row in rows])
    assert set(np.sum([row["counts"] for row in rows], 1)) == {n}
    low, high = binom.interval(0.9999, 300 * n, p)
    assert low <= found.sum() <= high
    assert found.var(ddof=1) == pytest.approx(n * p * (1 - p), rel=0.35)  # 4 standard errors


def test_each_draw_of_each_image_has_noise_and_a_path_of_its_own() -> None:
    noises: list[torch.Tensor] = []

    class Watched(Brighter):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            noises.append(x.flatten(1))
            return super().forward(x)

    black = Split(images=np.zeros((3, 1, 8, 8), np.uint8), labels=np.zeros(3, np.int64))
    certified(plain(Watched()), black, examples=[0, 3], draws=20, selection=20, batch=60)
    drawn = torch.cat(noises)
    assert drawn.shape == (120, 64) and drawn.min() < 0  # not clipped
    assert drawn.std().item() == pytest.approx(SIGMA, rel=0.03)
    assert (torch.corrcoef(drawn) - torch.eye(120)).abs().max() < 0.75

    taken: list[torch.Tensor] = []
    made = network("BN+IN").eval()
    random_layers(made)[0].register_forward_pre_hook(lambda module, inputs: taken.append(module.path.clone()))
    certified(made, examples=[0, 10], draws=20, selection=20, batch=200)
    paths = torch.cat(taken)
    assert paths.shape == (400,) and 150 < int(paths.sum()) < 250
    assert all(0 < int(one.sum()) < 20 for one in paths.view(20, 20))  # no image shares one path over its draws


def test_more_draws_are_fresh_ones_where_the_digest_says_so() -> None:
    few, same, other = certified(draws=100), certified(draws=100), certified(draws=100, evaluation="of another n")
    assert few == same and few != other


def test_selection_draws_and_bounding_draws_are_apart() -> None:
    one = certified(draws=60, selection=40)
    more = certified(draws=40, selection=60)
    assert one[0]["selection_counts"] != one[0]["counts"]
    both = [np.add(row["selection_counts"], row["counts"]).tolist() for row in one]
    assert both == [np.add(row["selection_counts"], row["counts"]).tolist() for row in more]  # draws 0 … 99, cut apart


def test_an_image_that_is_misclassified_may_be_abandoned_and_changes_no_other() -> None:
    images = grey([250, 5, 250, 5], [1, 1, 0, 0])
    given = {"examples": [0, 4], "draws": 30, "selection": 20}
    every = certified(plain(Brighter()), images, **given)
    some = certified(plain(Brighter()), images, **given, abandon="misclassified")
    assert [row["abandoned"] for row in every] == [False] * 4
    assert [row["abandoned"] for row in some] == [False, True, True, False]
    assert [row["selection_counts"] for row in some] == [row["selection_counts"] for row in every]
    assert [row["counts"] for row in some] == [every[0]["counts"], [0, 0], [0, 0], every[3]["counts"]]
    none = certified(plain(Brighter()), grey([250, 250], [0, 0]), examples=[0, 2], abandon="misclassified")
    assert [(row["abandoned"], row["counts"]) for row in none] == [(True, [0, 0])] * 2


class Guessing(nn.Module):
    """Adds noise of torch's own generator, or of a private one."""

    def __init__(self, generator: torch.Generator | None) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, :2, 0] + torch.randn(len(x), 2, generator=self.generator)


@pytest.mark.parametrize(
    ("make", "said"),
    [(lambda: None, "draws from a global generator"), (torch.Generator, "a generator or a state of its own")],
)
def test_an_imported_network_that_draws_by_itself_is_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(NetworkError, match=said):
        certified(plain(Guessing(make()), own=True))
    steady = certified(plain(Brighter(), own=True))
    assert steady == certified(plain(Brighter()))


def test_bf16_and_a_compiled_network_answer_in_whole_batches() -> None:
    made, sizes = network("BN+IN"), []

    def forward(x: torch.Tensor) -> torch.Tensor:
        sizes.append((len(x), torch.is_autocast_enabled("cpu")))
        return made(x)

    certify(settings(precision="bf16"), made, split(), device=CPU, forward=forward)
    assert sizes == [(8, True)] * 9
