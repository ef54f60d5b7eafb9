"""Several attacks in turn: the best image of each example counts, and what is broken is left alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from attacks_base import Linear, defence, images, network

from rna_ray.attacks.base import Attack, Ball, Judgement, Proposal, Victim
from rna_ray.attacks.ensemble import Ensemble
from rna_ray.attacks.gradient import GradientAttack
from rna_ray.attacks.libraries import Apgd, Square
from rna_ray.networks.paths import PathSpace
from rna_ray.randomness import Randomness

BALL = Ball("linf", 1.0)
Y = torch.zeros(5, dtype=torch.int64)


class Bright(Linear):
    """Is right on as many tenths of its draws as an image is bright; its second pixel is the margin."""

    def judge(self, x: torch.Tensor, y: torch.Tensor) -> Judgement:
        return Judgement((x[:, 0, 0, 0] * 10).round() / 10, x[:, 0, 0, 1])


class Scripted(Attack):
    """Proposes what it was told for each example, and keeps which examples it was given."""

    def __init__(self, brightness: Sequence[float], margins: Sequence[float] = (0.5,) * 5, *, zero: int = 0) -> None:
        super().__init__(BALL)
        self.pixels = torch.tensor([list(brightness), list(margins)]).T
        self.zero, self.seen = zero, []

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        self.seen.append(victim.examples.tolist())
        x_adv = x.clone()
        x_adv[:, 0, 0, :2] = self.pixels[victim.examples]
        return Proposal(x_adv, torch.full_like(y, self.zero), notes=(f"saw {len(x)}",) if self.zero else ())


def start() -> torch.Tensor:
    x = images(5)
    x[:, 0, 0, 0], x[:, 0, 0, 1] = torch.tensor([1.0, 1.0, 0.5, 0.0, 1.0]), 0.5
    return x


def test_each_example_keeps_its_best_image_until_it_is_broken() -> None:
    one = Scripted([0.6, 0.0, 0.9, 0.3, 1.0], zero=1)
    two = Scripted([0.7, 0.2, 0.5, 0.3, 1.0], [0.5, 0.5, 0.4, 0.5, 0.6], zero=2)
    three = Scripted([0.6, 0.2, 0.4, 0.3, 1.0], [0.4, 0.5, 0.9, 0.5, 0.4])
    found = Ensemble(BALL, [("one", one), ("two", two), ("three", three)]).perturb(Bright(2, 5), start(), Y)
    # Example 3 was wrong from the start, and 1 is broken by the first: neither is attacked again.
    assert [one.seen, two.seen, three.seen] == [[[0, 1, 2, 4]], [[0, 2, 4]], [[0, 2, 4]]]
    assert found.x_adv[:, 0, 0, :2].tolist() == torch.tensor(
        [[0.6, 0.4], [0.0, 0.5], [0.4, 0.9], [0.0, 0.5], [1.0, 0.4]]
    ).tolist()
    assert found.parts == ("three", "one", "three", "", "three")
    assert found.zero_gradients is not None and found.zero_gradients.tolist() == [3, 1, 3, -1, 3]
    assert found.notes == ("saw 4", "saw 3")
    assert torch.equal(found.x_adv[3], start()[3])


def test_an_equal_image_changes_nothing() -> None:
    same = Scripted([1.0, 1.0, 0.5, 0.0, 1.0])
    found = Ensemble(BALL, [("same", same)]).perturb(Bright(2, 5), start(), Y)
    assert found.parts == ("",) * 5 and torch.equal(found.x_adv, start())


def test_all_broken_stops() -> None:
    one, two = Scripted([0.0] * 5), Scripted([0.0] * 5)
    found = Ensemble(BALL, [("one", one), ("two", two)]).perturb(Bright(2, 5), start(), Y)
    assert (one.seen, two.seen) == ([[0, 1, 2, 4]], [])
    assert found.parts == ("one", "one", "one", "", "one")


def test_images_wrong_from_the_start_are_not_attacked_at_all() -> None:
    x, one = start(), Scripted([0.0] * 5)
    x[:, 0, 0, 0] = 0
    found = Ensemble(BALL, [("one", one)]).perturb(Bright(2, 5), x, Y)
    assert not one.seen and torch.equal(found.x_adv, x) and found.parts == ("",) * 5
    assert found.zero_gradients is not None and (found.zero_gradients == -1).all()


@pytest.mark.parametrize("knowledge", ["transfer", "fixed", "resample", "eot-2", "enumerate"])
def test_what_judges_is_neither_the_defenders_nor_what_a_gradient_came_from(
    knowledge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Save where the attacker has but one draw, or the defender's, or all of them: then that is what it judges on."""
    drawn: list[tuple[str, int, int]] = []
    plain = PathSpace.draw

    def draw(
        self: PathSpace, random: Randomness, name: str, examples: torch.Tensor, *, step: int = 0, draw: int = 0
    ) -> torch.Tensor:
        drawn.append((name, step, draw))
        return plain(self, random, name, examples, step=step, draw=draw)

    monkeypatch.setattr(PathSpace, "draw", draw)
    ball = Ball("linf", 0.05)
    parts = [
        ("fgsm", GradientAttack(ball, step=0.05, steps=1)),
        ("pgd", GradientAttack(ball, step=0.02, steps=2, random_start=True, restarts=2)),
        ("apgd", Apgd(ball, "ce", steps=1)),
        ("square", Square(ball, 2)),
    ]
    built = network(layer_based=True)
    victim = defence(built, 5, knowledge, draws=3, shared=True)
    Ensemble(ball, parts)(victim, images(5), victim.answer(images(5)).mean(1).argmax(1))
    names = {name for name, *_ in drawn} - {"defend/adversarial"}
    judging = {(step, draw) for name, step, draw in drawn if name == "judge"}
    assert {draw for name, _, draw in drawn if name == "defend/adversarial"} == {0, 1, 2}
    if knowledge in ("transfer", "fixed", "enumerate"):
        assert not judging and names == ({"attack/path"} if knowledge == "transfer" else set())
        assert {(step, draw) for name, step, draw in drawn if name == "attack/path"} <= {(0, 0)}
        return
    assert judging == {(0, number) for number in range(10)}
    own = {f"attack/{part}/path" for part in ("fgsm", "pgd", "pgd/start-1", "apgd", "square")}
    assert names == own | {"judge"}
    draws = {(name, step, draw) for name, step, draw in drawn if name in own}
    assert min(step for _, step, _ in draws) >= 1  # step 0 is transfer's
    assert {draw for *_, draw in draws} == set(range(2 if knowledge == "eot-2" else 1))
