"""The rows do not depend on who makes them: one process, or Ray with one, two or four evaluators."""

from __future__ import annotations

from pathlib import Path

import pytest
from integration_base import UNITS, Run

from rna_ray.store import Store, differences, open_store


@pytest.mark.parametrize(("actors", "cpu"), [(1, 1), (2, 1), (4, 0.5)])
def test_a_sweep_on_ray_gives_the_rows_of_one_process(
    actors: int, cpu: float, run: Run, sweep: Path, store: Path, reference: Store
) -> None:
    resources = ["--set", f"resources.evaluate.actors={actors}", "--set", f"resources.evaluate.cpu={cpu}"]
    ended = run("run", sweep, "--store", store, "--json", *resources)
    assert ended.code == 0, ended.err
    assert ended.document["ran"] == sum(UNITS.values()) and not ended.document["failures"]
    rows = open_store(store)
    assert {view: rows.read(view).num_rows for view in UNITS} == UNITS
    assert differences(reference, rows) == []
    if actors == 1:
        again = run("run", sweep, "--store", store)
        assert (again.code, again.out) == (0, "")
        assert again.err.startswith("small: nothing to do, nothing was trained or attacked again\n")
