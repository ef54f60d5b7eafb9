"""On a network that answers always the same, our AutoAttack and Square say what the authors' own code says."""

from __future__ import annotations

from collections import Counter

import pyautoattack
import pytest
import torch
from attacks_base import Linear, defence, images, shorten_libraries, trained
from pyautoattack.square import SquareAttack
from torch import nn

from rna_ray.attacks.base import Ball
from rna_ray.attacks.libraries import Apgd, Square, autoattack
from rna_ray.networks.build import Network
from rna_ray.networks.paths import PathSpace
from rna_ray.randomness import Randomness

N, QUERIES = 60, 200
SEED = Randomness("unit").seed("attack/library/0/0")  # of the batch that starts at 0, under the only draw
NORMS = {"linf": "Linf", "l2": "L2"}


def theirs(
    made: Network, ball: Ball, x: torch.Tensor, y: torch.Tensor, version: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the authors' images, and which of them their verdict is right on."""
    attack = pyautoattack.AutoAttack(made, norm=NORMS[ball.threat], eps=ball.eps, seed=SEED, version=version)
    attack.square.n_queries = QUERIES
    x_adv, predicted = attack.run_standard_evaluation(x, y, batch_size=len(x))
    return x_adv, predicted == y


@pytest.mark.slow
@pytest.mark.parametrize(("threat", "eps"), [("linf", 0.1), ("l2", 0.5)])
@pytest.mark.parametrize("version", ["standard", "rand"])
def test_the_verdict_on_each_example_is_that_of_the_authors_code(
    version: str, threat: str, eps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_libraries(monkeypatch, queries=QUERIES)  # so that later parts find something too
    made, x, y = trained()
    x, y, ball = x[:N], y[:N], Ball(threat, eps)
    victim = defence(made, N)
    found = autoattack(ball, version).perturb(victim, x, y)
    expected, stood = theirs(made, ball, x, y, version)
    clean, ours = victim.judge(x, y), victim.judge(found.x_adv, y)
    assert torch.equal(ours.right == 1, stood) and 10 <= stood.sum() <= N - 10
    assert [part == "" for part in found.parts or ()] == (clean.right == 0).tolist()
    # The images are theirs too, but where one of two that both fool does better.
    same = (found.x_adv - expected).flatten(1).abs().amax(1) <= (0 if threat == "linf" else 1e-6)
    margin = victim.judge(expected, y).margin
    assert same[clean.right == 0].all()
    assert ((ours.margin < margin) | same)[~stood].all()
    assert same[~stood].float().mean() > 0.7


def test_later_parts_attack_what_withstood_the_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Auto-PGD is cut to one step, so that it leaves something to all the others."""
    shorten_libraries(monkeypatch, steps=1, queries=QUERIES)
    made, x, y = trained()
    ball, victim = Ball("linf", 0.12), defence(made, 360)
    found = autoattack(ball, "standard").perturb(victim, x, y)
    expected, stood = theirs(made, ball, x, y, "standard")
    assert torch.equal(victim.judge(found.x_adv, y).right == 1, stood)
    broke = Counter(part for part, one in zip(found.parts or (), stood.tolist(), strict=True) if not one)
    assert {"apgd-ce", "apgd-t", "fab-t"} <= set(broke) and min(broke.values()) >= 2
    same = (found.x_adv == expected).flatten(1).all(1).tolist()
    assert all(one for one, part in zip(same, found.parts or (), strict=True) if part == "fab-t")


@pytest.mark.parametrize(("threat", "eps"), [("linf", 0.12), ("l2", 1.0)])
@pytest.mark.parametrize("queries", [3, QUERIES])
def test_square_is_the_authors(queries: int, threat: str, eps: float) -> None:
    made, x, y = trained()
    x, y, victim = x[:N], y[:N], defence(made, N)
    library = SquareAttack(
        made, norm=NORMS[threat], eps=eps, n_queries=queries, seed=SEED, resc_schedule=False
    )
    found, expected = Square(Ball(threat, eps), queries).perturb(victim, x, y).x_adv, library.perturb(x, y)
    stood = made(expected).argmax(1) == y
    assert torch.equal(made(found).argmax(1) == y, stood) and 2 < stood.sum() < N - 2
    torch.testing.assert_close(found[~stood], expected[~stood], rtol=0, atol=0 if threat == "linf" else 1e-6)
    # Theirs come back as they were where the attack failed; ours are as near to the border as it got.
    assert torch.equal(expected[stood], x[stood])
    assert (victim.judge(found, y).margin <= victim.judge(x, y).margin).all()


def test_an_image_that_is_wrong_is_not_put_right() -> None:
    """A start of stripes may take an image back over the border; a query or two does not find the way again."""
    victim = Linear(2, 200)
    away = (victim.weight[:, 0] - victim.weight[:, 1]).view(1, 1, 8, 8)
    x = (0.5 - 1e-4 * away).expand(200, 1, 8, 8).clone()
    y = torch.zeros(200, dtype=torch.int64)
    assert (victim.judge(x, y).right == 0).all()
    for attack in (Square(Ball("linf", 0.1), 1), Apgd(Ball("linf", 0.1), "ce", steps=1)):
        assert (victim.judge(attack.perturb(victim, x, y).x_adv, y).right == 0).all()


@pytest.mark.parametrize(("version", "classes", "note"), [
    ("standard", 10, ()),
    ("standard", 4, ()),
    ("standard", 3, ("apgd-targeted was left out: its loss needs 4 classes",)),
    ("standard", 2, ("apgd-targeted was left out: its loss needs 4 classes",)),
    ("rand", 3, ()),
    ("rand", 2, ("apgd-dlr was left out: its loss needs 3 classes",)),
])  # fmt: skip
@pytest.mark.parametrize("threat", ["linf", "l2"])
def test_few_classes_leave_out_the_losses_that_need_more(
    threat: str, version: str, classes: int, note: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is broken at this ε, so that every part of the ensemble is run."""
    shorten_libraries(monkeypatch)
    victim, x = Linear(classes), images(4, low=0.4, high=0.6)
    y = victim.logits(x).argmax(1)
    outcome = autoattack(Ball(threat, 1e-4), version)(victim, x, y)
    assert (outcome.logits[:, 0].argmax(1) == y).all() and outcome.notes == note
    assert outcome.zero_gradients is not None and not outcome.zero_gradients.any()


@pytest.mark.parametrize("classes", [10, 3, 2])
@pytest.mark.parametrize("version", ["standard", "rand"])
def test_what_can_be_broken_is(version: str, classes: int) -> None:
    victim, x = Linear(classes), images(4, low=0.4, high=0.6)
    y = victim.logits(x).argmax(1)
    outcome = autoattack(Ball("linf", 0.2), version)(victim, x, y)
    assert (outcome.logits[:, 0].argmax(1) != y).all() and set(outcome.parts or ()) == {"apgd-ce"}
    assert outcome.linf.max() <= 0.2 + 1e-6
    assert torch.equal(autoattack(Ball("linf", 0.2), version)(victim, x, y).x_adv, outcome.x_adv)


@pytest.mark.parametrize("stands", [0, 1])
@pytest.mark.parametrize("version", ["standard", "rand"])
def test_one_image_left_or_none(version: str, stands: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_libraries(monkeypatch)
    victim, x = Linear(10, 5), images(5, low=0.4, high=0.6)
    y = (victim.logits(x).argmax(1) + 1) % 10
    y[2:2 + stands] -= 1
    y %= 10
    outcome = autoattack(Ball("linf", 1e-4), version)(victim, x, y)
    assert [part == "" for part in outcome.parts or ()] == [True, True, stands == 0, True, True]
    untouched = torch.arange(5) != 2 if stands else torch.arange(5) >= 0
    assert torch.equal(outcome.x_adv[untouched], x[untouched])
    assert (outcome.logits[:, 0].argmax(1) == y).sum() == stands


def test_logits_that_tie_are_no_reason_to_fail() -> None:
    """Square takes a tie for a success and then has no image left to attack; by argmax the first class still wins."""

    class Flat(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :3] * 0

    made = Network(Flat(), PathSpace(()), mean=(0.5,), std=(0.5,))
    x, y, victim = images(4), torch.zeros(4, dtype=torch.int64), defence(made, 4)
    assert (victim.judge(x, y).right == 1).all()
    found = Square(Ball("linf", 0.1), 20).perturb(victim, x, y)
    assert (victim.judge(found.x_adv, y).right == 1).all()


def test_auto_pgd_counts_each_gradient_once_however_many_passes_its_mean_takes() -> None:
    class Flat(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0 * x.flatten(1)[:, :10] + torch.arange(10.0)

    made, x = Network(Flat(), PathSpace(()), mean=(0.5,), std=(0.5,)), images(3)
    victim = defence(made, 3, "resample")
    found = Apgd(Ball("linf", 0.1), "ce", steps=4, eot=3).perturb(victim, x, torch.full((3,), 9))
    assert found.zero_gradients is not None and found.zero_gradients.tolist() == [3 * 5] * 3  # of the start and 4 steps
    found = Apgd(Ball("linf", 0.1), "dlr", steps=4, eot=3).perturb(victim, x, torch.full((3,), 9))
    assert found.zero_gradients is None  # flat by itself where the true class is third
