"""evaluation.md's example: a network that ignores its input and errs with probability 0.05, under AutoAttack's `rand`.

AutoAttack keeps a success that it saw on one draw: clean, after APGD on either loss, so it reports 0.95^3 = 0.857. Its
images, answered on fresh draws, come out at 0.95.
"""

from __future__ import annotations

import math

import numpy as np
import pyautoattack
import pytest
import torch
from evaluation_base import CPU, settings
from torch import nn

from rna_ray.data import Split
from rna_ray.evaluation.evaluate import evaluate
from rna_ray.networks.build import Network
from rna_ray.networks.norms import Norm
from rna_ray.networks.paths import PathSpace
from rna_ray.networks.spaces import LayerMember

EXAMPLES, DRAWS, MEMBERS = 150, 20, 20


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


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """AutoAttack's own verdicts; it makes 1 step instead of 100, of 2 draws instead of 20: neither matters here."""
    found: list[bool] = []

    class Short(pyautoattack.AutoAttack):
        def run_standard_evaluation(
            self, x: torch.Tensor, y: torch.Tensor, /, **options: int
        ) -> tuple[torch.Tensor, torch.Tensor]:
            self.apgd.n_iter, self.apgd.eot_iter = 1, 2
            x_adv, predicted = super().run_standard_evaluation(x, y, **options)
            found.extend((predicted == y).tolist())
            return x_adv, predicted

    monkeypatch.setattr(pyautoattack, "AutoAttack", Short)
    return found


def interval(p: float, n: int) -> float:
    """Return half the 99.9 % interval of a mean of n draws."""
    return 3.29 * math.sqrt(p * (1 - p) / n)


def test_a_network_that_errs_by_chance_is_scored_at_its_chance(verdicts: list[bool]) -> None:
    generator = np.random.RandomState(0)
    images = Split(
        images=generator.randint(0, 256, (EXAMPLES, 1, 8, 8)).astype(np.uint8), labels=np.zeros(EXAMPLES, np.int64)
    )
    erring = Network(Erring(), PathSpace((MEMBERS,)), mean=(0.5,), std=(0.5,))
    asked = settings(
        "autoattack", (0, EXAMPLES), attack_version="rand", knowledge="resample", draws=DRAWS, batch=1
    )
    found = evaluate(asked, "unit", erring, images, device=CPU)
    answered = sum(found.columns["adversarial_correct"]) / (EXAMPLES * DRAWS)
    assert answered == pytest.approx(0.95, abs=interval(0.95, EXAMPLES * DRAWS))
    assert len(verdicts) == EXAMPLES
    verdict = sum(verdicts) / EXAMPLES
    assert verdict == pytest.approx(0.95**3, abs=interval(0.95**3, EXAMPLES))
    assert answered - verdict > 0.05
    assert "zero gradient" in " ".join(found.flags["autoattack"])
