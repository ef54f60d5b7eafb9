"""Row files of an object store as a data set for DuckDB: all of a view are fetched at once, as it is first asked for.

Asked one by one, ten thousand small objects take as long as twenty thousand answers, and a table asks for them more
than once. They are fetched by Python before pyarrow's own threads start, and read by these from memory: threads that
wait for Python, while Python waits for them, would wait for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow.dataset as datasets
from pyarrow import fs

from rna_ray.store.files import Files

Reads = Callable[[Sequence[str], fs.FileSystem], datasets.Dataset]
"""Makes a data set of files at paths of a filesystem."""


class Fetched(datasets.FileSystemDataset):
    """A data set that holds nothing until it is scanned: DuckDB asks it for its schema, and then for scanners."""

    @classmethod
    def of(cls, files: Files, paths: Sequence[PurePosixPath], reads: Reads) -> Fetched:
        """Return the data set of these files; scanning it raises StoreError where the store does not answer."""
        empty = reads([], fs.LocalFileSystem())
        made = cls([], empty.schema, empty.format)
        made._files, made._paths, made._reads, made._found = files, paths, reads, None
        return made

    def scanner(self, *words: Any, **options: Any) -> datasets.Scanner:
        if self._found is None:
            self._found = self._reads(*self._fetch())
        return self._found.scanner(*words, **options)

    def _fetch(self) -> tuple[list[str], fs.FileSystem]:
        """Return the names of the files, and a filesystem in memory that has them under the same names."""
        contents = self._files.each(self._files.read, self._paths)
        memory, _ = fs.FileSystem.from_uri("mock:///")  # pyarrow's, with none of Python in it
        names = [self._files.full(path) for path in self._paths]
        for folder in {PurePosixPath(name).parent for name in names}:
            memory.create_dir(str(folder))
        for name, content in zip(names, contents, strict=True):
            with memory.open_output_stream(name, compression=None) as stream:
                stream.write(content)
        return names, memory
