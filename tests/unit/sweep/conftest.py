"""Load and plan the tests' sweep."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweep_base import BASE, Load, Planned

from rna_ray.sweep.experiment import SweepSpec
from rna_ray.sweep.plan import Plan, plan
from rna_ray.sweep.spec import load


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    """Load a sweep from a text, with `--set`s and a preset."""

    def loaded(text: str = BASE, *sets: str, preset: str | None = None) -> SweepSpec:
        path = tmp_path / "sweep.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path, sets, preset)

    return loaded


@pytest.fixture
def planned(load_text: Load) -> Planned:
    """Plan a sweep from a text, its data sets' contents standing for themselves by name."""

    def made(text: str = BASE, *sets: str, preset: str | None = None) -> Plan:
        return plan(load_text(text, *sets, preset=preset), digest=lambda data: f"digest of {data.name}")

    return made
