"""Bytes in and out of a store, through pyarrow's filesystems; every file appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import shutil
import tempfile
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar, cast

import pyarrow as pa
from pyarrow import fs

from rna_ray.errors import StoreError, UnreachableError, first_line
from rna_ray.store import layout
from rna_ray.store.remote import NoAnswerError, Remote, tuned

_CHUNK_BYTES = 1 << 20

THREADS = 24
"""How many requests to an object store are under way at once; pyarrow keeps 25 connections."""

LISTINGS = 10
"""How often a folder is listed in which others come and go meanwhile, until nothing disturbs that."""

Item = TypeVar("Item")
Result = TypeVar("Result")

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP)
"""How file systems without hard links answer: there, of two writers at the same instant the later one stays."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """The files under one root of a filesystem; paths are relative to that root."""

    uri: str
    filesystem: fs.LocalFileSystem | Remote
    root: PurePosixPath

    @property
    def local(self) -> bool:
        """Whether they lie on a disk of this machine, where writing means writing beside and renaming."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def full(self, path: PurePosixPath) -> str:
        """Return the path as the filesystem knows it."""
        name = str(path)
        return str(self.root) if name == "." else posixpath.join(str(self.root), name)  # many times a unit: no Path

    def kind(self, path: PurePosixPath) -> fs.FileType:
        """Return whether a file, a directory or nothing is there."""
        with _one_sentence("look at", self.full(path)):
            return self.filesystem.get_file_info(self.full(path)).type

    def exists(self, path: PurePosixPath) -> bool:
        """Return whether a file is there; StoreError where the store does not answer."""
        if self.local:
            return self.kind(path) == fs.FileType.File
        with _one_sentence("look at", self.full(path)):
            return self.filesystem.has(self.full(path))

    def names(self, folder: PurePosixPath) -> list[str]:
        """Return the sorted names in a folder, without those that start with a dot; none where it does not exist."""
        return sorted(i.base_name for i in self._listed(folder) if i.base_name[:1] != ".")

    def entries(self, folder: PurePosixPath) -> dict[str, tuple[int, int]]:
        """Return the size in bytes and the time in nanoseconds of each file in a folder, by its name, as of `names`."""
        found = (one for one in self._listed(folder) if one.type == fs.FileType.File and one.base_name[:1] != ".")
        return {one.base_name: (one.size, one.mtime_ns) for one in found}

    def each(self, do: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return what each item gives, in their order: on an object store many at once, as each waits for an answer."""
        if self.local:
            return [do(item) for item in items]
        with ThreadPoolExecutor(THREADS) as pool:
            try:
                return list(pool.map(do, items))
            except BaseException:
                pool.shutdown(cancel_futures=True)  # one that fails is enough to know
                raise

    def read(self, path: PurePosixPath) -> bytes:
        """Return the whole file."""
        with _one_sentence("read", self.full(path)), self.filesystem.open_input_stream(self.full(path)) as stream:
            return stream.read()

    def tail(self, path: PurePosixPath, length: int) -> tuple[int, bytes]:
        """Return the size of the file and its last bytes; FileNotFoundError where there is none."""
        with (
            _one_sentence("read", self.full(path), passing=FileNotFoundError),
            self.filesystem.open_input_file(self.full(path)) as file,
        ):
            size = file.size()
            return size, file.read_at(min(length, size), max(0, size - length))

    def find(self, path: PurePosixPath) -> bytes | None:
        """Return the whole file, None where there is none: one question, where looking first would be two."""
        try:
            return self.read(path)
        except UnreachableError:
            raise
        except StoreError as error:
            # What was not there is none, even if it is by now: another process may just have written it.
            if not isinstance(error.__cause__, FileNotFoundError) and self.exists(path):
                raise
            return None

    def write(self, path: PurePosixPath, data: bytes | pa.Buffer) -> None:
        """Write the file at once: by rename on a local disk, as one finished object elsewhere."""
        with _one_sentence("write", self.full(path)):
            if self.local:
                with _appearing(Path(self.full(path))) as stream:
                    stream.write(data)
            else:
                self.filesystem.write(self.full(path), data)

    def create_all(self, files: Sequence[tuple[PurePosixPath, bytes]]) -> list[bool]:
        """Write each file at once, unless one is there; return which were written. The disk is waited for once for all.

        On a local disk of two writers one alone succeeds. An object store cannot promise that: there the later one
        may take the place of the earlier.
        """
        if not self.local:
            return self.each(self._put, files)
        targets = [Path(self.full(path)) for path, _ in files]
        beside: list[Path] = []
        try:
            for target, (_, data) in zip(targets, files, strict=True):
                with _one_sentence("write", str(target)):
                    _make_folder(target.parent)
                    beside.append(target.with_name(layout.temporary(target.name)))
                    beside[-1].write_bytes(data)
            _sync_all(dict(zip(beside, targets, strict=True)))
            try:
                return [_link(temporary, target) for temporary, target in zip(beside, targets, strict=True)]
            finally:  # where one gets no name, those before it have theirs
                _sync_all({target.parent: target for target in targets})
        finally:
            for temporary in beside:
                temporary.unlink(missing_ok=True)

    def _put(self, file: tuple[PurePosixPath, bytes]) -> bool:
        path, data = file
        if self.exists(path):
            return False
        self.write(path, data)
        return True

    @contextmanager
    def appearing(self, path: PurePosixPath) -> Iterator[BinaryIO]:
        """Give a stream whose bytes become the file at once, when the block ends well; for more than memory holds."""
        if self.local:
            with _one_sentence("write", self.full(path)), _appearing(Path(self.full(path))) as stream:
                yield stream
            return
        with (
            _one_sentence("write", f"a temporary file in {tempfile.gettempdir()}"),
            tempfile.NamedTemporaryFile(prefix="rna-ray-") as file,
        ):
            yield cast(BinaryIO, file)
            file.flush()
            with _one_sentence("write", self.full(path)):
                self.filesystem.write(self.full(path), pa.memory_map(file.name).read_buffer())

    def touch(self, path: PurePosixPath) -> None:
        """Give a file on a local disk the time that it is now; an object keeps that of when it was written."""
        if self.local:
            with _one_sentence("touch", self.full(path)), contextlib.suppress(FileNotFoundError):
                os.utime(self.full(path))

    def remove(self, path: PurePosixPath) -> None:
        """Remove a file, or a folder that lies in its place; what is not there is left so."""
        with _one_sentence("remove", self.full(path)), contextlib.suppress(FileNotFoundError):
            if self.local and self.kind(path) == fs.FileType.Directory:
                self.filesystem.delete_dir(self.full(path))
            else:
                self.filesystem.delete_file(self.full(path))

    def move(self, path: PurePosixPath, target: Files) -> None:
        """Move a file to the same path below another root of this filesystem."""
        if not self.local:
            target.write(path, self.read(path))
            self.remove(path)
            return
        with _one_sentence("write", target.full(path)), contextlib.suppress(FileNotFoundError):
            _make_folder(Path(target.full(path)).parent)
            os.replace(self.full(path), target.full(path))

    def below(self, folder: PurePosixPath) -> list[fs.FileInfo]:
        """Return all that lies below a folder, at any depth; nothing where it does not exist.

        Raises StoreError at a link to a folder: whoever asks may be about to remove what is found, and what lies
        behind a link may be someone's thesis.
        """
        found = self._listed(folder, recursive=True)
        folders = (one.path for one in found if one.type == fs.FileType.Directory)
        if self.local and (link := next(filter(os.path.islink, folders), None)):
            raise StoreError(f"{link} is a link to {os.readlink(link)}, and a store holds none: remove the link first")
        return found

    def _listed(self, folder: PurePosixPath, recursive: bool = False) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self.full(folder), allow_not_found=True, recursive=recursive)
        for _ in range(LISTINGS - 1):
            # Arrow raises it all the same where a folder comes or goes while it is looking.
            with contextlib.suppress(FileNotFoundError), _one_sentence("list", self.full(folder), FileNotFoundError):
                return self.filesystem.get_file_info(selector)
        with _one_sentence("list", self.full(folder)):
            return self.filesystem.get_file_info(selector)

    def copy_in(self, source: Path, path: PurePosixPath) -> None:
        """Write the file at once, with the bytes of a local one."""
        if not self.local:
            self.write(path, source.read_bytes())
            return
        with (
            _one_sentence("write", self.full(path)),
            source.open("rb") as origin,
            _appearing(Path(self.full(path))) as stream,
        ):
            shutil.copyfileobj(origin, stream)

    def copy_out(self, path: PurePosixPath, target: Path) -> None:
        """Write a local file at once, with the bytes of this one; OSError where its disk does not take it."""

        def chunks() -> Iterator[bytes]:
            with _one_sentence("read", self.full(path)), self.filesystem.open_input_stream(self.full(path)) as origin:
                while chunk := origin.read(_CHUNK_BYTES):
                    yield chunk

        with _appearing(target) as stream:
            stream.writelines(chunks())


def open_files(uri: str | os.PathLike[str]) -> Files:
    """Return the files at a local path (`~` and relative ones too) or a URI; touches nothing on a local disk."""
    text = os.fspath(uri)
    if not text:
        raise StoreError("the store's address is empty: give a folder, or a URI such as s3://bucket/store")
    try:
        if "://" in text:
            filesystem, root = _from_uri(text)
        else:
            filesystem, root = fs.LocalFileSystem(), Path(text).expanduser().absolute().as_posix()
    except (pa.ArrowException, OSError, RuntimeError, ValueError) as error:
        raise StoreError(f"cannot open the store {text!r}: {first_line(error)}") from error
    return Files(uri=text, filesystem=filesystem, root=PurePosixPath(root))


def _from_uri(uri: str) -> tuple[fs.LocalFileSystem | Remote, str]:
    """Return the filesystem of a URI and the path in it; StoreError where the URI holds a secret."""
    if urllib.parse.urlsplit(uri).password is not None:
        scheme, _, rest = uri.partition("://")
        raise StoreError(
            f"{scheme}://…@{rest.rpartition('@')[2]} names a secret, which would be printed and stored: leave it out "
            "and give credentials in the environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    filesystem, root = fs.FileSystem.from_uri(uri)
    return (filesystem if isinstance(filesystem, fs.LocalFileSystem) else Remote(tuned(filesystem))), root


@contextmanager
def _appearing(target: Path) -> Iterator[BinaryIO]:
    """Give a stream whose bytes appear at the target all at once, on the disk, when the block ends well."""
    _make_folder(target.parent)
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
    _sync(target.parent)


def _link(temporary: Path, target: Path) -> bool:
    """Give a file its name, unless another file has it; return whether it got it."""
    with _one_sentence("write", str(target)):
        try:
            os.link(temporary, target)
        except FileExistsError:
            if target.is_file():
                return False
            raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if target.exists():
                return False
            os.replace(temporary, target)
        return True


def _make_folder(folder: Path) -> None:
    """Make a folder and those that it lies in, on the disk: a power cut must not take it with all that is in it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync_all(paths: Mapping[Path, Path]) -> None:
    """Put files and folders on the disk, which takes many at a time for little more than one.

    Each comes with the file that an error names.
    """

    def sync(path: Path) -> None:
        with _one_sentence("write", str(paths[path])):
            _sync(path)

    if len(paths) == 1:
        return sync(*paths)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(sync, paths))


def _sync(path: Path) -> None:
    """Put a file, or a folder's names, on the disk: no record may outlive in a power cut the rows it vouches for."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_OF_THE_SYSTEM = re.compile(r"Detail: \[errno \d+\] ([^;\n]+)")  # after Arrow's own words, which name the path again


@contextmanager
def _one_sentence(doing: str, path: str, passing: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    try:
        yield
    except passing:
        raise
    except NoAnswerError as error:
        raise UnreachableError(f"cannot {doing} {path}: {first_line(error)}") from error
    except (OSError, pa.ArrowException) as error:
        said = _OF_THE_SYSTEM.search(str(error))
        raise StoreError(f"cannot {doing} {path}: {said[1] if said else first_line(error)}") from error
