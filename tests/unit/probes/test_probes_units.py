"""What every probe promises: rows that no cut into units changes, and networks left as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from probes_base import PGD, network, probed, role, unit

from rna_ray.probes.catalog import PROBES
from rna_ray.probes.probe import MEASURES
from rna_ray.sweep import units

PAIR = {"source": role("source"), "network": role("network")}
ASKED: dict[str, dict[str, Any]] = {
    "transfer": PAIR,
    "path-transfer": {"difference": 5, "pairs": 2},
    "similarity": {"between": "networks", "attack": None, **PAIR},
    "surface": {"radius_255": 8.0, "points": 3, "attack": None},
    "smoothness": {"attack": None},
    "landscape": {"radius": 1.0, "points": 3, "images": "attacked"},
    "statistics": {"images": "attacked"},
    "bound": {"between": "networks", "attack": {**PGD, "threat": "l2", "eps_255": 128.0, "step_255": 16.0}, **PAIR},
}


def test_every_probe_of_the_catalog_can_be_measured() -> None:
    assert set(MEASURES) == set(PROBES) == set(ASKED)


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="example"),
        pytest.param({"paths": "batch"}, id="batch"),
        pytest.param({"noise_255": 16.0}, id="noise", marks=pytest.mark.slow),
    ],
)
def test_cutting_the_examples_otherwise_changes_no_row(name: str, given: dict[str, Any]) -> None:
    options = {**ASKED[name]}
    options |= {key: role(key, **given) for key in ("source", "network") if key in options or key == "network"}
    networks = [network("BN+IN", seed=seed) for seed in range(1 + ("source" in options))]
    torch.manual_seed(1)
    whole = probed(unit(name, (0, 10), **options), *networks).rows
    torch.manual_seed(2)
    parts = [probed(unit(name, cut, **options), *networks).rows for cut in ((0, 4), (4, 10))]
    assert whole.measures == [row for part in parts for row in part.measures]
    assert whole.transfers == [row for part in parts for row in part.transfers]
    assert whole.measures or whole.transfers


def test_the_networks_and_the_settings_key_the_draws() -> None:
    made = network("BN+IN")
    rows = [
        probed(unit("path-transfer", difference=9, pairs=4, network=role(name), attack={**PGD, **attack}), made).rows
        for name, attack in (("a", {}), ("a", {}), ("b", {}), ("a", {"steps": 1}))
    ]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2] and rows[0] != rows[3]


def test_examples_of_a_batch_share_their_draw_where_the_network_says_so() -> None:
    made, shared = network("BN+IN"), {key: role(key, paths="batch") for key in PAIR}
    assert probed(unit("transfer", **shared), made, made).native
    assert not probed(unit("transfer", **PAIR), made, made).native
    assert probed(unit("path-transfer", difference=1, pairs=1), made).native
    noisy = unit("path-transfer", difference=1, pairs=1, network=role(noise_255=8.0))
    assert not probed(noisy, made).native  # each example's noise is its own


def test_networks_are_left_in_their_mode() -> None:
    made = network("BN+IN").train()
    before = {name: buffer.clone() for name, buffer in made.named_buffers()}
    probed(unit("transfer", **PAIR), made, made)
    assert made.training
    assert all(torch.equal(buffer, before[name]) for name, buffer in made.named_buffers())


def test_the_units_of_one_probe_share_its_digest() -> None:
    first, second = unit("transfer", (0, 8), **PAIR), unit("transfer", (8, 16), **PAIR)
    assert first.settings["evaluation"] == second.settings["evaluation"] and first.id != second.id
    assert first.needs == ("source", "network") and units.checkpoints(first) == {"source": "last", "network": "last"}
