"""Planted cheats, from a sweep file to the audit: each is caught by the check that is meant for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console
from running_base import learned
from safetensors.torch import save_file

from rna_ray.analysis.audit import Finding, audit
from rna_ray.running.run import run
from rna_ray.store import connect, open_store
from rna_ray.sweep.plan import plan
from rna_ray.sweep.spec import load

pytestmark = pytest.mark.slow  # trains, attacks and audits whole sweeps

MODULE = """\
import torch
from torch import nn


class Honest(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(128, 10),
        )

    def forward(self, x):
        return self.body(x)


class Rounding(Honest):  # its gradients are masked: zero almost everywhere
    def forward(self, x):
        return self.body((8 * x).round() / 8)


class Tossing(Honest):  # its path, which of the channels it hears, comes from the global generator
    def forward(self, x):
        heard = (torch.rand(8) < 0.9).float().view(-1, 1, 1)
        return self.body[2:](self.body[:2](x) * heard)
"""
SWEEP = """\
name: cheats
data: {name: digits}
network: {import: "cheats_networks:Honest", weights: weights.safetensors}
variants:
  honest: {network.random: false}
  rounding: {network.import: "cheats_networks:Rounding", network.random: false}
  tossing: {network.import: "cheats_networks:Tossing"}
evaluation:
  - {attack: natural, examples: 200}
  - {attack: fgsm, eps_255: 25.5, knowledge: [resample, eot-5], examples: 200}
  - {attack: pgd, eps_255: 25.5, step_255: 3, steps: 4, knowledge: eot-5, examples: 200}
  - {attack: pgd, eps_255: 25.5, step_255: 3, steps: 20, knowledge: eot-5, examples: 200}
  - {attack: pgd, eps_255: 25.5, step_255: 3, steps: 40, knowledge: eot-5, examples: 200}
  - {attack: square, eps_255: 25.5, queries: 150, knowledge: resample, examples: 200}
"""


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Finding]]:
    """Train a network for a moment, attack it and its two cheating twins, and audit what came out."""
    folder = tmp_path_factory.mktemp("cheats")
    (folder / "cheats_networks.py").write_text(MODULE, encoding="utf-8")
    space: dict[str, Any] = {"__name__": "cheats"}
    exec(MODULE, space)
    network = learned(space["Honest"])
    save_file(network.state_dict(), folder / "weights.safetensors")
    (folder / "cheats.yaml").write_text(SWEEP, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = open_store(folder / "store")
        summary = run(plan(load("cheats.yaml")), store, address="inline", console=Console(quiet=True))
        assert not summary.failures
        yield audit(connect(store), "cheats")


def failed(findings: list[Finding], variant: str, attack: str | None = None) -> set[str]:
    return {
        one.check for one in findings
        if one.variant == variant and one.status == "failed" and attack in (None, one.attack)
    }  # fmt: skip


def test_the_honest_twin_fails_nothing_but_where_its_attack_is_short(findings: list[Finding]) -> None:
    assert {one.attack for one in findings if one.variant == "honest" and one.status == "failed"} == {"pgd-4"}
    assert sum(one.variant == "honest" and one.status == "passed" for one in findings) > 10


def test_too_few_steps_are_caught_by_the_check_of_steps(findings: list[Finding]) -> None:
    (found,) = [one for one in findings if one.variant == "honest" and one.check == "steps suffice"
                and one.attack == "pgd-4"]  # fmt: skip
    assert found.status == "failed" and found.accuracy is not None and found.other_accuracy is not None
    assert found.accuracy > found.other_accuracy + 0.05
    assert "steps suffice" not in failed(findings, "honest", "pgd-20") | failed(findings, "honest", "pgd-40")


def test_masked_gradients_are_caught_as_zero_and_as_weaker_than_no_gradient(findings: list[Finding]) -> None:
    assert "gradients are not zero" in failed(findings, "rounding", "pgd-20")
    assert "white-box ≤ gradient-free" in failed(findings, "rounding", "pgd-20")
    assert "gradients are not zero" not in failed(findings, "honest") | failed(findings, "tossing")


def test_a_path_from_the_global_generator_is_caught_by_its_own_check(findings: list[Finding]) -> None:
    own = "the path's generator is its own"
    attacks = {one.attack for one in findings if one.variant == "tossing"}
    assert {one.attack for one in findings if one.check == own and one.status == "failed"} == attacks
    assert own not in failed(findings, "honest") | failed(findings, "rounding")
