"""A store of the test's own, and a process that has done no unit before."""

from __future__ import annotations

from pathlib import Path

import pytest

from rna_ray.running import inputs
from rna_ray.store import Store, open_store


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """What a process keeps for its next unit is forgotten between tests."""
    inputs.trained.cache_clear()
    inputs.dataset.cache_clear()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")
