"""Networks that draw from torch's own generators: noticed, and where they are known to, their draws repeat."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_base import evaluated, network
from pyautoattack.autopgd_base import APGDAttack
from torch import nn
from torch.nn import functional as F

from rna_ray.attacks.expectation import Passes
from rna_ray.evaluation.knowledge import Defence, Knowledge
from rna_ray.networks.build import Network
from rna_ray.networks.paths import PathSpace
from rna_ray.randomness import Randomness, seeded_generators

X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6)


class Dropping(nn.Module):
    """Drops half of its pixels while it answers: a mask for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 10, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x.flatten(1), 0.5, training=True) @ self.weight


class Choosing(Dropping):
    """Takes one of 1,000 paths for the whole batch, as RNA's authors do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight + torch.randint(1000, (1,))


class Numpy(Dropping):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight + np.random.rand()


class Python(Dropping):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight + random.random()


SUBJECTS = (Dropping, Choosing, Numpy, Python)


def made(body: type[nn.Module], *, known: bool = True) -> Network:
    return Network(body(), PathSpace(()), mean=(0.5,), std=(0.5,), draws_globally=known).requires_grad_(False)


def defence(built: Network, knowledge: str, *, draws: int = 1, draw: int = 0) -> Defence:
    return Defence(
        Passes(built), built.paths, Randomness("unit"), torch.arange(6), Knowledge.parse(knowledge), draws=draws,
        draw=draw,
    )  # fmt: skip


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("body", SUBJECTS)
def test_drawing_from_a_global_generator_is_noticed(body: type[nn.Module], known: bool) -> None:
    found = evaluated(made(body, known=known), attack="pgd", knowledge="transfer").behaviour
    assert found.global_generator and found.random_output
    assert not evaluated(network(), attack="pgd", knowledge="resample").behaviour.global_generator


@pytest.mark.parametrize(
    "asked",
    [
        {"attack": "natural"},
        {"attack": "pgd", "knowledge": "transfer"},
        {"attack": "pgd", "knowledge": "fixed"},
        {"attack": "pgd", "knowledge": "eot-3"},
        {"attack": "square", "knowledge": "resample", "attack_queries": 10},
    ],
    ids=lambda asked: "-".join(map(str, asked.values())),
)
@pytest.mark.parametrize("body", SUBJECTS)
def test_a_units_rows_repeat_whatever_was_drawn_before(body: type[nn.Module], asked: dict[str, Any]) -> None:
    rows = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = torch.get_rng_state()
        rows.append(evaluated(made(body), **asked))
        assert torch.equal(torch.get_rng_state(), before)
    assert rows[0] == rows[1]


def test_a_network_not_known_to_draw_there_does_not_repeat() -> None:
    """What the column is for: such a network's rows are anything."""
    margins = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        margins.append(evaluated(made(Dropping, known=False), attack="natural").columns["margin"])
    assert max(abs(one - other) for one, other in zip(*margins, strict=True)) > 0.1


def gradients(victim: Defence, steps: int = 4) -> list[torch.Tensor]:
    return [victim.gradient(X, Y, step=step) for step in range(steps)]


def test_transfer_sees_one_and_the_same_draw_at_all_steps_and_resample_never() -> None:
    first, *others = gradients(defence(made(Dropping), "transfer"))
    assert all(torch.equal(first, other) for other in others)
    fresh = gradients(defence(made(Dropping), "resample"))
    assert all((fresh[one] - fresh[other]).abs().max() > 1e-2 for one in range(4) for other in range(one))


@pytest.mark.parametrize("draw", [0, 3])
@pytest.mark.parametrize("body", [Dropping, Choosing])
def test_a_fixed_attacker_sees_exactly_the_draw_that_answers(body: type[nn.Module], draw: int) -> None:
    victim = defence(made(body), "fixed", draw=draw)
    answered = victim.answer(X)[:, 0]
    assert all(torch.equal(victim.logits(X), answered) for _ in range(3))
    assert not torch.equal(defence(made(body), "fixed", draw=draw + 1).answer(X)[:, 0], answered)
    assert not torch.equal(defence(made(body), "transfer", draw=draw).logits(X), answered)


@pytest.mark.parametrize("body", [Dropping, Choosing])
def test_k_draws_are_k_fresh_ones_on_either_side(body: type[nn.Module]) -> None:
    """Also of a network that draws once a batch: k draws in one larger batch would be one."""
    victim = defence(made(body), "eot-3", draws=5)
    attacking = victim.attack_passes.logits(X, victim.attacker_draws(X, 2))
    answering = victim.answer(X).transpose(0, 1)
    every = [*attacking, *answering]
    assert attacking.shape == (3, 6, 10) and answering.shape == (5, 6, 10)
    assert all((every[one] - every[other]).abs().max() > 1e-2 for one in range(8) for other in range(one))


def state() -> tuple[Any, ...]:
    numpy = np.random.get_state()
    return torch.get_rng_state().tolist(), numpy[1].tolist(), numpy[2:], random.getstate()


def test_seeding_leaves_the_generators_as_they_were_also_when_it_fails() -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    np.random.standard_normal()  # numpy keeps the second of a pair
    random.gauss(0, 1)  # and so does Python
    before = state()
    drawn = []
    for _ in range(2):
        with pytest.raises(KeyError), seeded_generators(3):
            drawn.append((torch.rand(2).tolist(), np.random.standard_normal(3).tolist(), random.gauss(0, 1)))
            raise KeyError
        assert state() == before
    assert drawn[0] == drawn[1]


UNITS = [
    {"attack": "autoattack", "attack_version": "rand", "knowledge": "resample"},
    {"attack": "square", "attack_queries": 20, "knowledge": "fixed", "draws": 2},
    {"attack": "cascade", "attack_steps": 3, "attack_queries": 20, "knowledge": "eot-2"},
    {"attack": "cw", "attack_steps": 3, "knowledge": "transfer"},
    {"attack": "deepfool", "attack_steps": 2, "knowledge": "resample"},
]


@pytest.mark.parametrize("other", [0, 1, 2, 3, 4])
def test_nothing_leaks_from_one_unit_into_the_next(other: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, short = APGDAttack.__init__, {"n_iter": 3, "eot_iter": 2}
    monkeypatch.setattr(APGDAttack, "__init__", lambda self, *given, **options: plain(self, *given, **options | short))
    one = UNITS[other - 1]
    built = network()
    first = evaluated(built, **one)
    evaluated(made(Dropping), unit="another", **UNITS[other])
    assert evaluated(built, **one) == first
