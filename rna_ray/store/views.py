"""SQL over a store: every view of the schema, over exactly the files that count, and nothing else within reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from rna_ray.store import layout
from rna_ray.store.parquet import Store
from rna_ray.store.records import DETAILS, RECORDS, SCHEMAS

if TYPE_CHECKING:
    import duckdb
    import pyarrow.dataset as datasets


def connect(store: Store) -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB connection with all views, as the store is now; SQL on it can reach no file.

    DuckDB reads the files through pyarrow, local or remote alike, so its own access to files, extensions and the
    program's variables is shut off altogether, and the configuration locked.
    """
    import duckdb  # here, because commands that ask no question should not wait for it

    connection = duckdb.connect(config={"python_enable_replacements": False})
    done = {record: store.done(record) for record in RECORDS.values()}  # one look for all views: they agree
    for view in SCHEMAS:
        connection.register(view, _rows(store, view, done.get(DETAILS.get(view, view))))
    for setting in (
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection


def _rows(store: Store, view: str, done: set[str] | None) -> pa.Table | datasets.Dataset:
    """Return the view's rows, read when they are asked for."""
    import pyarrow.dataset as datasets  # brings pandas along, a second that only questions should cost

    paths = [store.files.full(layout.rows_file(view, stem)) for stem in store.counted(view, done)]
    if not paths:
        return SCHEMAS[view].empty_table()
    verified = datasets.ParquetFragmentScanOptions(page_checksum_verification=True)
    return datasets.FileSystemDataset.from_paths(
        paths,
        schema=SCHEMAS[view],
        format=datasets.ParquetFileFormat(default_fragment_scan_options=verified),
        filesystem=store.files.filesystem,
    )
