"""The store: Parquet files that appear atomically, one per unit and view, and SQL over them."""

from __future__ import annotations

from rna_ray.store.compare import differences
from rna_ray.store.parquet import Store, open_store
from rna_ray.store.views import connect

__all__ = ["Store", "connect", "differences", "open_store"]
