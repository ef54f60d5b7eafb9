"""Draws put into one batch, whole or in parts, give the same numbers."""

from __future__ import annotations

import pytest
import torch
from attacks_base import defence, images, network

from rna_ray.attacks import expectation
from rna_ray.attacks.expectation import Passes


@pytest.mark.parametrize(
    ("at_most", "parts"), [(80, [80]), (79, [72, 8]), (24, [24, 24, 24, 8]), (8, [8] * 10), (1, [8] * 10)]
)
def test_draws_in_parts_equal_draws_at_once(at_most: int, parts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    made, x, y, seen = network("BN+IN+LN"), images(8), torch.arange(8), []
    draws = defence(made, knowledge="eot-10").attacker_draws(x, 0)
    assert draws.paths.shape == (10, 8, 9)

    def forward(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return made(x)

    whole = Passes(made).logits(x, draws), Passes(made).gradient(x, y, draws)
    monkeypatch.setattr(expectation, "IMAGES_A_PASS", {"cpu": at_most})
    passes = Passes(made, forward=forward)
    found = passes.logits(x, draws), passes.gradient(x, y, draws)
    assert seen == parts * 2  # images a pass: of the answers, then of the gradients
    for part, expected in zip(found, whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-6)
        assert expected.abs().max() > 1e-3


def test_a_compiled_network_only_sees_whole_batches() -> None:
    """Ensembles ask about what still stands: as many sizes as there are images, and each would be compiled for."""
    made, x, seen = network(), images(8), []

    def forward(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return made(x)

    victim = defence(made, knowledge="eot-10")
    passes = Passes(made, forward=forward, batch=8)
    passes.logits(x, victim.attacker_draws(x, 0))
    some = victim.rows(torch.arange(5))
    found = passes.logits(x[:5], some.attacker_draws(x[:5], 0))
    assert seen == [80] and found.shape == (10, 5, 10)
