"""A file of rows that carries its own SHA-256, so that no changed byte of it passes for what was written.

Page checksums, which every reader verifies, cover the pages alone; the footer names columns and counts rows. So the
file's key-value metadata holds the digest of the whole file, computed while 64 zeros stood in its place.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_SHA256 = "rna_ray.sha256"
_DETAILS = "rna_ray.details"
_VALUE = b"\x18\x40"  # in Thrift's compact protocol: the next field, a binary one of 64 bytes
_BLANK = b"0" * 64


def sealed(table: pa.Table, details: dict[str, dict[str, str]] | None = None) -> tuple[bytes, str]:
    """Return the table as a Parquet file that carries its digest, and that digest (64 hex characters).

    `details` is what a record says of its detail files: view → the file's stem and digest.
    """
    sink, several = pa.BufferOutputStream(), table.num_rows > 1
    # A single row is written plainly: there is nothing to compress, to look up or to skip. And without Arrow's schema,
    # which says what Parquet's does: the descriptions of its columns would be most of a record.
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd" if several else "none", use_dictionary=several,
        write_statistics=several, store_schema=False, write_page_checksum=True,
    ) as writer:
        writer.write_table(table)
        said = {} if details is None else {_DETAILS: json.dumps(details, sort_keys=True)}
        writer.add_key_value_metadata({**said, _SHA256: _BLANK.decode()})
    data = bytearray(sink.getvalue())
    at = _place(data)
    assert at is not None and data[at : at + 64] == _BLANK
    digest = hashlib.sha256(data).hexdigest()
    data[at : at + 64] = digest.encode()
    return bytes(data), digest


def digest(data: bytes) -> str | None:
    """Return the digest that a file carries, None where it is of an older release; ValueError where it is not its."""
    at = _place(data)
    if at is None:
        return None
    said = bytes(data[at : at + 64])
    whole = hashlib.sha256(data[:at])
    whole.update(_BLANK)
    whole.update(data[at + 64 :])
    if whole.hexdigest().encode() != said:
        raise ValueError("its SHA-256 is not the one that was written into it")
    return said.decode()


def details(metadata: pq.FileMetaData) -> dict[str, dict[str, str]] | None:
    """Return what a record says of its detail files, None where it is of an older release."""
    said: Any = (metadata.metadata or {}).get(_DETAILS.encode())
    return None if said is None else json.loads(said)


def _place(data: bytes | bytearray) -> int | None:
    """Return where the digest stands, which is in the footer."""
    footer = max(0, len(data) - 8 - int.from_bytes(data[-8:-4], "little"))
    at = data.rfind(_SHA256.encode() + _VALUE, footer)
    return None if at < 0 else at + len(_SHA256) + len(_VALUE)
