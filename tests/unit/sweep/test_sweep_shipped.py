"""The sweep files that ship: each loads, plans, and has presets that do."""

from __future__ import annotations

from pathlib import Path

import pytest

from rna_ray.sweep.plan import plan
from rna_ray.sweep.spec import load

SWEEPS = Path(__file__).parents[3] / "sweeps"


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_sweep_plans_at_every_scale(path: Path) -> None:
    spec = load(path)
    assert spec.name == path.stem and spec.about
    full = plan(spec, digest=lambda data: data.name)
    for preset in spec.presets:
        small = plan(load(path, preset=preset), digest=lambda data: data.name)
        assert sum(small.costs.values()) < sum(full.costs.values()) / 4


def test_quickstart_is_what_the_readme_says() -> None:
    made = plan(load(SWEEPS / "quickstart.yaml"), digest=lambda data: data.name)
    assert sum(unit.kind == "train" for unit in made.units) == 6
    assert {cell.attack for cell in made.cells} == {"natural", "fgsm", "pgd-20", "autoattack-standard"}
    assert {cell.knowledge for cell in made.cells} == {"none", "transfer", "fixed", "eot-10"}
    assert [cell.variant for cell in made.cells if cell.attack == "autoattack-standard"] == ["BN", "BN+IN black-box"]
