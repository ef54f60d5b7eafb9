"""SQL over a store: every view of the schema, over exactly the files that count, and nothing else within reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import fs

from rna_ray.errors import StoreError, first_line
from rna_ray.store import packs
from rna_ray.store.parquet import Store
from rna_ray.store.records import DETAILS, RECORDS, SCHEMAS

if TYPE_CHECKING:
    import duckdb
    import pyarrow.dataset as datasets

_KEY = "unit_id"


def connect(store: Store) -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB connection with all views, as the store is now; SQL on it can reach no file.

    DuckDB reads the files through pyarrow, local or remote alike, so its own access to files, extensions and the
    program's variables is shut off altogether, and the configuration locked.
    """
    import duckdb  # here, because commands that ask no question should not wait for it

    connection = duckdb.connect(config={"python_enable_replacements": False})
    # One look for all views: they agree. All records are listed before any details, and on a remote store at once.
    records = list(dict.fromkeys(RECORDS.values()))
    done = dict(zip(records, store.files.each(store.done, records), strict=True))
    views, known = list(SCHEMAS), packs.known(store)
    found = store.files.each(lambda view: _rows(store, view, done.get(DETAILS.get(view, view)), known), views)
    for view, rows in zip(views, found, strict=True):
        connection.register(view, rows)
    for setting in (
        # How many rows lie behind a view DuckDB cannot see, and takes the least: so what a join holds in memory is the
        # side that is written on its right.
        "disabled_optimizers = 'build_side_probe_side'",
        "temp_directory = ''",  # else ./.tmp, which it may read and write whatever is shut off
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "enable_external_access = false",
        "enable_progress_bar = false",  # it would stand on stdout, among the answers, once one takes two seconds
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection


def ask(store: Store, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows that answer a statement; StoreError where a file of the store cannot be read."""
    import duckdb

    try:
        return connect(store).execute(sql).fetchall()
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        why = first_line(error)
        raise StoreError(f"the rows of {store.uri} cannot be read: {why}; rna-ray verify says which file") from error


def _rows(
    store: Store, view: str, done: set[str] | None, known: Sequence[packs.Pack]
) -> pa.Table | datasets.Dataset:
    """Return the view's rows, read when they are asked for."""
    import pyarrow.dataset as datasets  # brings pandas along, a second that only questions should cost

    paths = packs.sources(store, view, store.counted(view, done).values(), known)
    if not paths:
        return SCHEMAS[view].empty_table()
    verified = datasets.ParquetFragmentScanOptions(page_checksum_verification=True)
    form = datasets.ParquetFileFormat(
        # A unit's id once, and then its number: joins look at ids, of which a pack has as many as rows.
        read_options=datasets.ParquetReadOptions(dictionary_columns={_KEY}), default_fragment_scan_options=verified
    )  # fmt: skip
    schema = SCHEMAS[view]
    if (at := schema.get_field_index(_KEY)) >= 0:
        schema = schema.set(at, pa.field(_KEY, pa.dictionary(pa.int32(), pa.string())))

    def reads(names: Sequence[str], filesystem: fs.FileSystem) -> datasets.Dataset:
        return datasets.FileSystemDataset.from_paths(names, schema=schema, format=form, filesystem=filesystem)

    if store.files.local:
        return reads([store.files.full(path) for path in paths], store.files.filesystem)
    from rna_ray.store.fetched import Fetched

    return Fetched.of(store.files, paths, reads)
