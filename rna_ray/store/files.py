"""Bytes in and out of a store, through pyarrow's filesystems; every file appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pyarrow as pa
from pyarrow import fs

from rna_ray.errors import StoreError
from rna_ray.store import layout


@dataclass(frozen=True, kw_only=True)
class Files:
    """The files under one root of a filesystem; paths are relative to that root."""

    uri: str
    filesystem: fs.FileSystem
    root: PurePosixPath

    @property
    def local(self) -> bool:
        """Whether they lie on a disk of this machine, where writing means writing beside and renaming."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def full(self, path: PurePosixPath) -> str:
        """Return the path as the filesystem knows it."""
        return str(self.root / path)

    def kind(self, path: PurePosixPath) -> fs.FileType:
        """Return whether a file, a directory or nothing is there."""
        with _one_sentence("look at", self.full(path)):
            return self.filesystem.get_file_info(self.full(path)).type

    def exists(self, path: PurePosixPath) -> bool:
        """Return whether a file is there; StoreError where the store does not answer."""
        return self.kind(path) == fs.FileType.File

    def names(self, folder: PurePosixPath) -> list[str]:
        """Return the sorted names in a folder, without those that start with a dot; none where it does not exist."""
        selector = fs.FileSelector(self.full(folder), allow_not_found=True)
        with _one_sentence("list", self.full(folder)):
            return sorted(i.base_name for i in self.filesystem.get_file_info(selector) if i.base_name[:1] != ".")

    def read(self, path: PurePosixPath) -> bytes:
        """Return the whole file."""
        with _one_sentence("read", self.full(path)), self.filesystem.open_input_stream(self.full(path)) as stream:
            return stream.read()

    def write(self, path: PurePosixPath, data: bytes | pa.Buffer) -> None:
        """Write the file at once: by rename on a local disk, as one finished object elsewhere."""
        with _one_sentence("write", self.full(path)):
            if self.local:
                with _appearing(Path(self.full(path))) as stream:
                    stream.write(data)
            else:
                with self.filesystem.open_output_stream(self.full(path)) as stream:
                    stream.write(data)

    def remove(self, path: PurePosixPath) -> None:
        """Remove a file; one that is not there is left so."""
        with _one_sentence("remove", self.full(path)), contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.full(path))

    def copy_in(self, source: Path, path: PurePosixPath) -> None:
        """Write the file at once, with the bytes of a local one."""
        if not self.local:
            # One write of finished bytes: closing a half-filled stream after an error would publish half a file.
            self.write(path, source.read_bytes())
            return
        with (
            _one_sentence("write", self.full(path)),
            source.open("rb") as origin,
            _appearing(Path(self.full(path))) as stream,
        ):
            shutil.copyfileobj(origin, stream)

    def copy_out(self, path: PurePosixPath, target: Path) -> None:
        """Write a local file at once, with the bytes of this one."""
        with (
            _one_sentence("read", self.full(path)),
            self.filesystem.open_input_stream(self.full(path)) as origin,
            _appearing(target) as stream,
        ):
            shutil.copyfileobj(origin, stream)


def open_files(uri: str | os.PathLike[str]) -> Files:
    """Return the files at a local path (`~` and relative ones too) or a URI; touches nothing on a local disk."""
    text = os.fspath(uri)
    if not text:
        raise StoreError("the store's address is empty: give a folder, or a URI such as s3://bucket/store")
    try:
        if "://" in text:
            filesystem, root = fs.FileSystem.from_uri(text)
        else:
            filesystem, root = fs.LocalFileSystem(), Path(text).expanduser().absolute().as_posix()
    except (pa.ArrowException, OSError, RuntimeError, ValueError) as error:
        raise StoreError(f"cannot open the store {text!r}: {_first_line(error)}") from error
    return Files(uri=text, filesystem=filesystem, root=PurePosixPath(root))


@contextmanager
def _appearing(target: Path) -> Iterator[BinaryIO]:
    """Give a stream whose bytes appear at the target all at once, on the disk, when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(layout.temporary(target.name))
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Put the rename itself on the disk: after a power cut a record must not outlive the rows it vouches for."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _one_sentence(doing: str, path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"cannot {doing} {path}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
