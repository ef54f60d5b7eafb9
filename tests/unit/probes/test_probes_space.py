"""Probes that attack do so in the space that their attack states, with the attacked network's deviation."""

from __future__ import annotations

from typing import Any

import pytest
from probes_base import CPU, PGD, network, role, split, unit

from rna_ray.probes.probe import probe

NORMALIZED = {**PGD, "eps_255": 16.0, "step_255": 4.0, "eps_space": "normalized"}
"""On networks whose deviation is 0.5 the very attack that PGD is in pixels: halving is exact."""
ASKED: dict[str, dict[str, Any]] = {
    "transfer": {"source": role("source"), "network": role("network")},
    "path-transfer": {"pairs": 2, "difference": 4},
    "statistics": {"images": "attacked"},
    "landscape": {"images": "attacked", "radius": 1.0, "points": 2},
}


@pytest.mark.parametrize("name", ASKED)
def test_the_space_is_that_of_the_attacked_network(name: str) -> None:
    networks = (network("BN+IN", seed=1), network("BN+IN")) if name == "transfer" else (network("BN+IN"),)
    if name == "transfer":
        networks[1].std.fill_(0.25)  # who only answers has no say
    settings = unit(name, **ASKED[name]).settings
    pixel, normalized, unlike = (  # of one unit, whose draws they share
        probe({**settings, "attack": attack}, networks, split(), device=CPU).rows
        for attack in (PGD, NORMALIZED, {**NORMALIZED, "eps_space": "pixel", "eps_255": 64.0})
    )
    assert (pixel.measures or pixel.transfers) and normalized == pixel and unlike != pixel
