"""A network that ignores its input and errs with probability 0.05, under attacks that look at it again and again.

AutoAttack's `rand` keeps a success that it saw on one draw: clean, and after APGD on either loss, so it reports
0.95^3 = 0.857. Images answered on fresh draws come out at 0.95.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyautoattack
import pytest
import torch
from evaluation_base import CPU, settings
from pyautoattack.autopgd_base import APGDAttack
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import nn

from rna_ray.attacks.expectation import Passes
from rna_ray.attacks.libraries import View
from rna_ray.data import Split
from rna_ray.evaluation.evaluate import evaluate
from rna_ray.evaluation.knowledge import Defence, Knowledge
from rna_ray.networks.build import Network
from rna_ray.networks.norms import Norm
from rna_ray.networks.paths import PathSpace
from rna_ray.networks.spaces import LayerMember
from rna_ray.randomness import Randomness

EXAMPLES, DRAWS, MEMBERS = 250, 20, 20


class Erring(nn.Module):
    """A random layer of 20 members, of which one says the wrong class, whatever the image is."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = Norm(1, [LayerMember("example", 1, True)] * MEMBERS)
        with torch.no_grad():
            for index, member in enumerate(self.norm.members):
                member.weight.zero_()
                member.bias.fill_(float(index == 7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wrong = self.norm(x).mean((1, 2, 3))
        return torch.stack([1 - 2 * wrong, torch.zeros_like(wrong), wrong - 2], 1)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries' parts make 1 step instead of 100, of 2 draws instead of 20: neither matters here."""
    for part in (APGDAttack, FABAttack_PT):
        monkeypatch.setattr(part, "__init__", shortened(part.__init__, n_iter=1, **EOT[part]))
    monkeypatch.setattr(SquareAttack, "__init__", shortened(SquareAttack.__init__, n_queries=5))


EOT = {APGDAttack: {"eot_iter": 2}, FABAttack_PT: {}}


def shortened(plain: Any, **short: int) -> Any:
    return lambda self, *arguments, **options: plain(self, *arguments, **options | short)


def interval(p: float, n: int) -> float:
    """Return half the 99.9 % interval of a mean of n draws."""
    return 3.29 * math.sqrt(p * (1 - p) / n)


def erring() -> Network:
    return Network(Erring(), PathSpace((MEMBERS,)), mean=(0.5,), std=(0.5,))


def split() -> Split:
    generator = np.random.RandomState(0)
    return Split(
        images=generator.randint(0, 256, (EXAMPLES, 1, 8, 8)).astype(np.uint8), labels=np.zeros(EXAMPLES, np.int64)
    )


@pytest.mark.slow
@pytest.mark.parametrize("knowledge", ["transfer", pytest.param("resample", marks=pytest.mark.slow), "eot-3"])
@pytest.mark.parametrize(
    ("attack", "options"),
    [
        ("autoattack", {"version": "rand"}),
        ("autoattack", {"version": "standard"}),
        ("square", {"queries": 5}),
        ("cascade", {"steps": 2, "queries": 5}),
        ("pgd", {"steps": 2, "restarts": 5}),
    ],
    ids=["rand", "standard", "square", "cascade", "pgd"],
)
def test_a_network_that_errs_by_chance_is_scored_at_its_chance(
    attack: str, options: dict[str, Any], knowledge: str
) -> None:
    """However often the attacker looks: only its image is kept, and answered on fresh draws."""
    given = {f"attack_{name}": value for name, value in options.items()}
    asked = settings(attack, (0, EXAMPLES), knowledge=knowledge, draws=DRAWS, batch=50, **given)
    columns = evaluate(asked, "unit", erring(), split(), device=CPU).columns
    answered = sum(columns["adversarial_correct"]) / (EXAMPLES * DRAWS)
    assert answered == pytest.approx(0.95, abs=interval(0.95, EXAMPLES * DRAWS))
    natural = sum(columns["natural_correct"]) / (EXAMPLES * DRAWS)
    assert natural == pytest.approx(0.95, abs=interval(0.95, EXAMPLES * DRAWS))


@pytest.mark.slow
def test_autoattacks_own_verdict_on_it_is_far_lower() -> None:
    """Three looks: clean, and after either loss. An image at a time, as its batches would share their fate."""
    made, images = erring(), torch.from_numpy(split().images).float() / 255
    victim = Defence(
        Passes(made, shared=True), made.paths, Randomness("unit"), torch.arange(1), Knowledge("resample"), draws=1
    )  # fmt: skip
    y, stood = torch.zeros(1, dtype=torch.int64), 0
    for image in images.split(1):
        attack = pyautoattack.AutoAttack(View(victim, CPU), eps=0.03, seed=0, version="rand")
        attack.apgd.eot_iter = 2
        stood += int((attack.run_standard_evaluation(image, y)[1] == y).sum())
    verdict = stood / EXAMPLES
    assert verdict == pytest.approx(0.95**3, abs=interval(0.95**3, EXAMPLES))
    assert verdict < 0.95 - interval(0.95, EXAMPLES)
