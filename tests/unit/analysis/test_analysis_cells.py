"""Answers, variances and intervals of cells, against a slow reading of the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
import pytest

from rna_ray.analysis.cells import ANSWERS, Cell, ablation
from rna_ray.analysis.statistics import Variance, batch_variance, mean_interval
from rna_ray.store import Store, connect


def cells(store: Store, answers: Sequence[str] = ("expected",)) -> dict[tuple[str, str], Cell]:
    return {(cell.variant, cell.answer): cell for cell in ablation(connect(store), "s", answers)}


def slow(answer: str, row: Sequence[int]) -> float:
    """Score one example's predictions, of which class 0 is right."""
    counts = Counter(row)
    most = [label for label, held in counts.items() if held == max(counts.values())]
    return {
        "expected": counts[0] / len(row),
        "vote": 1 / len(most) if 0 in most else 0.0,
        "worst": float(all(label == 0 for label in row)),
    }[answer]


@pytest.mark.parametrize("seed", range(3))
def test_the_three_answers_are_those_of_a_slow_reading(book, seed: int) -> None:
    rng, given = np.random.default_rng(seed), {}
    for variant in map(str, range(12)):
        rows = rng.integers(0, rng.integers(1, 5), (int(rng.integers(1, 30)), int(rng.integers(1, 8)))).tolist()
        given[variant] = rows
        attack = str(rng.choice(["natural", "pgd"]))  # the clean image answers in the same ways
        book.answered(variant, attack, "none" if attack == "natural" else "transfer", rows)
    found = cells(book.close(), ANSWERS)
    assert len(found) == 36
    for (variant, answer), cell in found.items():
        scores = [slow(answer, row) for row in given[variant]]
        assert cell.accuracy == pytest.approx(np.mean(scores))
        assert (cell.low, cell.high) == pytest.approx(mean_interval(cell.accuracy, len(scores)))
        assert cell.natural_accuracy == (pytest.approx(cell.accuracy) if cell.attack == "natural" else 1.0)


def test_ties_of_a_vote_share_the_point(book) -> None:
    rows = [[0, 0, 1, 1], [0, 1, 2, 3], [0, 1, 1, 2], [0, 0, 1, 2], [1, 1, 2, 2], [1, 2, 3, 0]]
    book.answered("a", "pgd", "transfer", rows)
    assert cells(book.close(), ["vote"])["a", "vote"].accuracy == pytest.approx((1 / 2 + 1 / 4 + 0 + 1 + 0 + 1 / 4) / 6)


def test_paths_and_examples_are_kept_apart(book) -> None:
    rows = [[0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]]
    book.answered("random", "pgd", "transfer", rows)
    book.answered("one draw", "pgd", "transfer", [[0], [1]])
    book.answered("one path", "pgd", "transfer", [[0], [1]], random_output=False)
    plain = book.trained("described", log2_paths=0.0)
    book.answered("described", "pgd", "transfer", [[0], [1]], network_id=plain)
    noisy = book.trained("noisy", log2_paths=0.0)
    book.answered("noisy", "pgd", "transfer", [[0], [1]], network_id=noisy, noise_255=20.0)
    # An imported network describes no paths, however many it has: what was seen of it decides.
    imported = book.trained("imported", log2_paths=0.0, state="imported")
    book.answered("imported", "pgd", "transfer", [[0, 1], [1, 1]], network_id=imported, random_output=True)
    book.answered("imported, one draw", "pgd", "transfer", [[0], [1]], network_id=imported, random_output=True)
    found = cells(book.close(), ANSWERS)
    cell = found["random", "expected"]
    paths = 2 * (3 / 4 * 1 / 4) / 3 / 3**2
    assert cell.se_paths == pytest.approx(sqrt(paths))
    assert cell.se_examples == pytest.approx(sqrt(np.var([0.75, 0.25, 1], ddof=1) / 3 - paths))
    known = {
        variant: (found[variant, "expected"].se_paths, found[variant, "expected"].se_examples) for variant, _ in found
    }
    assert known["one draw"] == known["noisy"] == known["imported, one draw"] == (None, None)
    assert known["imported"] == (pytest.approx(sqrt(1 / 4 / 2**2)), 0.0)
    assert known["one path"] == known["described"] == (0.0, pytest.approx(0.5))
    assert found["random", "vote"].se_paths is None  # there is one vote, however many draws


def test_seeds_halve_what_paths_leave(book) -> None:
    for seed in (0, 1):
        book.answered("a", "pgd", "transfer", [[0, 1], [0, 1], [1, 0]], seed=seed)
    cell = cells(book.close())["a", "expected"]
    assert cell.se_paths == pytest.approx(sqrt(3 * (1 / 4) / 1 / 2 / 3**2))
    assert (cell.n, cell.seed_sd, cell.se_examples) == (3, 0.0, 0.0)


@pytest.mark.parametrize(("draws", "seeds"), [(3, 1), (2, 2)])
def test_shared_draws_are_the_clusters_of_their_batch(book, draws: int, seeds: int) -> None:
    """The variance is Σ_b (n_b/n)² S²_d(acc_bd)/m, over seeds too; each shard has batches of its own."""
    rng = np.random.default_rng(5)
    right = rng.random((seeds, 25, draws)) < 0.6
    expected = 0.0
    for seed in range(seeds):
        for first, stop in ((100, 120), (120, 125)):
            held = right[seed, first - 100 : stop - 100]
            rows, shared = np.where(held, 0, 1).tolist(), {"path_sharing": "batch", "batch": 8}
            book.answered("a", "pgd", "fixed", rows, seed=seed, first=first, **shared)
            book.plan[-1]["position"] = seed  # the second shard is of the same cell
            batches = [held[at : at + 8] for at in range(0, len(held), 8)]
            expected += sum((len(b) / 25 / seeds) ** 2 * b.mean(0).var(ddof=1) / draws for b in batches)
    cell = cells(book.close())["a", "expected"]
    degrees = seeds * 4 * (draws - 1)  # batches of 8, 8, 4 and 5
    assert cell.n == 25
    assert cell.se_paths == pytest.approx(sqrt(expected))
    wanted = mean_interval(right.mean(), 25, paths=Variance(expected, degrees))
    assert (cell.low, cell.high) == pytest.approx(wanted)
    assert cell.high - cell.low > np.diff(mean_interval(right.mean(), 25))[0]
    assert cell.se_examples is not None


def test_one_shared_draw_leaves_what_batches_show(book) -> None:
    right = [1] * 10 + [0] * 10 + [1] * 9 + [0] * 1
    book.cell("several", "pgd", "fixed", [right], path_sharing="batch", batch=10)
    book.cell("one", "pgd", "fixed", [right], path_sharing="batch", batch=30)
    book.cell("each", "pgd", "fixed", [right])
    book.answered(
        "voted", "pgd", "fixed", [[0, 0, 1] if score else [1, 1, 0] for score in right], path_sharing="batch", batch=10
    )
    found = cells(book.close(), ANSWERS)
    interval = {key: (cell.low, cell.high) for key, cell in found.items()}
    batches = batch_variance([(10, 10), (0, 10), (9, 10)])
    assert interval["several", "expected"] == pytest.approx(mean_interval(19 / 30, 30, batches=batches))
    assert interval["several", "expected"] == (0.0, 1.0)  # three draws of a path: two degrees of freedom
    assert interval["one", "expected"] == pytest.approx(mean_interval(19 / 30, 1))
    assert interval["each", "expected"] == pytest.approx(mean_interval(19 / 30, 30))
    assert interval["voted", "vote"] == interval["several", "expected"]
    assert found["several", "expected"].se_paths is found["several", "expected"].se_examples is None


def test_answers_of_batch_statistics_are_the_clusters_of_their_batch(book) -> None:
    right = [1] * 10 + [0] * 10 + [1] * 9 + [0] * 1
    book.cell("together", "pgd", "fixed", [right], batch_statistics=True, batch=10)
    book.cell("one", "pgd", "fixed", [right], batch_statistics=True, batch=30)
    book.cell("alone", "pgd", "fixed", [right], batch_statistics=False, batch=10)
    found = cells(book.close())
    interval = {key[0]: (cell.low, cell.high, cell.batch_statistics) for key, cell in found.items()}
    batches = batch_variance([(10, 10), (0, 10), (9, 10)])
    assert interval["together"] == pytest.approx((*mean_interval(19 / 30, 30, batches=batches), 10))
    assert interval["one"] == pytest.approx((*mean_interval(19 / 30, 1), 30))
    assert interval["alone"] == pytest.approx((*mean_interval(19 / 30, 30), None))


@pytest.mark.parametrize("of_batch", [{"batch_statistics": True}, {"attack_mode": "train_frozen"}])
def test_draws_do_not_tell_how_batches_differ_whose_statistics_are_taken(book, of_batch: dict[str, Any]) -> None:
    right = [4] * 10 + [0] * 10 + [3] * 10
    book.cell("RN+BN", "pgd", "eot-10", [right], draws=4, batch=10, **of_batch)
    (cell,) = cells(book.close()).values()
    batches = batch_variance([(10, 10), (0, 10), (7.5, 10)])
    assert (cell.low, cell.high) == pytest.approx(mean_interval(17.5 / 30, 30, batches=batches))
    assert cell.se_paths is cell.se_examples is None


def test_an_attack_along_one_draw_is_shared_only_where_its_draw_answers(book) -> None:
    for knowledge in ("transfer", "fixed"):
        book.cell(knowledge, "autoattack", knowledge, [[1, 0, 1, 1]], path_sharing="attack")
    found = cells(book.close())
    assert (found["transfer", "expected"].shared, found["fixed", "expected"].shared) == (False, True)
