"""A store in a notebook: rows for pandas, Arrow and DuckDB, tables, figures, and networks that can be called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rna_ray.errors import StoreError
from rna_ray.store import Store, connect
from rna_ray.store import open_store as open_for_writing
from rna_ray.store.records import SCHEMAS

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    from matplotlib.figure import Figure

    from rna_ray.networks.build import Network
    from rna_ray.running.stored import Checkpoint


def open_store(uri: str | os.PathLike[str]) -> ReadOnlyStore:
    """Return the store at a folder or URI, for reading; StoreError where there is none."""
    store = open_for_writing(uri)
    if not store.exists:
        raise StoreError(f"there is no store at {store.uri}: give the folder or URI that rna-ray run was given")
    return ReadOnlyStore(store)


class ReadOnlyStore:
    """What a store holds, each time as it is then: a sweep may be running meanwhile. Nothing here writes to it.

    Rows come as DuckDB's relations: `.df()` is a pandas DataFrame, `.to_arrow_table()` Arrow's, `.filter(…)` another
    relation. Whatever cannot be answered is a `rna_ray.errors.UserError` of one sentence; what shows only once a
    relation is computed, such as a text that is no number, DuckDB raises.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"<rna-ray store {self.uri}: {', '.join(self.sweeps) or 'no sweep yet'}>"

    @property
    def uri(self) -> str:
        """Where it is."""
        return self._store.uri

    @property
    def sweeps(self) -> list[str]:
        """The names of the sweeps that were planned into it."""
        return self._store.sweeps()

    @property
    def views(self) -> list[str]:
        """The names of what can be asked of it in SQL: trials, epochs, evaluations, examples and so on."""
        return list(SCHEMAS)

    # -- rows --------------------------------------------------------------------------------------------------------

    def query(self, sql: str, /, **parameters: Any) -> duckdb.DuckDBPyRelation:
        """Return the rows that answer one reading SQL statement; `$name` in it is the parameter of that name."""
        from rna_ray.analysis.query import relation

        return relation(self.connect(), sql, parameters)

    def view(self, name: str) -> duckdb.DuckDBPyRelation:
        """Return all rows of one of the `views`."""
        return self.query(f'FROM "{name}"')

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return a DuckDB connection with all views as they are now; what else is made in it stays in it."""
        return connect(self._store)

    # -- tables and figures ------------------------------------------------------------------------------------------

    def table(
        self, name: str, *, answer: str = "expected", against: str | None = None, interval: str = "images",
        certified: bool = False, radii: Sequence[str] = (),
    ) -> pd.DataFrame:
        """Return the table of a sweep, or one that ships, one row a cell: what `rna-ray table --format csv` prints.

        Accuracies and the ends of their 95 % intervals are in [0, 1], null where nothing is known yet.
        """
        from rna_ray.analysis import tables

        rows = tables.rows(
            self.connect(), name, answer=answer, against=against, interval=interval, certificates=certified, radii=radii
        )
        return rows.to_pandas()

    def figure(self, name: str, *, sweep: str | None = None) -> Figure:
        """Return a figure that ships, or the dots of any sweep, as `rna-ray figure NAME` draws it: Matplotlib's own.

        Its panels are its `axes`; `sweep` is whose rows are drawn, if not those of the sweep of that name.
        """
        from rna_ray.analysis import figures

        return figures.picture(self.connect(), name, sweep)

    # -- networks ----------------------------------------------------------------------------------------------------

    def network(
        self, which: str, *, sweep: str | None = None, seed: int | None = None, checkpoint: Checkpoint | None = None,
        device: str = "cpu", path_seed: int = 0,
    ) -> Network:
        """Return a trained or imported network, in eval mode: images (N, C, H, W) in [0, 1] → logits (N, classes).

        `which` is a variant's label, or a unit's id of which 8 characters are enough; `sweep` and `seed` say which,
        where that is more than one. `checkpoint` is `best` or `last`, by default the best where there is one.

        A network with random norms draws a path for each example at each call, as one of `rna_ray.randomize` does:
        `path_source.call = 0` replays the draws of `path_seed`, and `rna_ray.networks.paths.following(network, path)`
        takes a path of one's own. Noise that a defence adds to what it answers (`noise_255`) is not part of it.
        """
        from rna_ray.networks.randomize import draw_paths
        from rna_ray.running import stored

        found = stored.find(self._store, which, sweep=sweep, seed=seed, checkpoint=checkpoint)
        network = stored.load(self._store, found).to(device)
        return draw_paths(network, network.paths, path_seed) if network.paths.sizes else network
