"""Pickles of numpy arrays: opened only if their checksum is the published one, and even then nothing else is built."""

from __future__ import annotations

import codecs
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rna_ray.data.fetch import md5_hex
from rna_ray.data.files import read
from rna_ray.errors import DataError

# Asked of numpy instead of imported: the function's module was renamed in numpy 2, and pickles carry either name.
_RECONSTRUCT: Callable[..., object] = np.empty(0).__reduce__()[0]  # type: ignore[assignment,index]

_ALLOWED: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,  # how Python 3 writes bytes in the old protocols
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds plain containers, numbers, text, bytes and numpy arrays; refuses every other name."""

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def read_pickle(path: Path, md5: str) -> object:
    """Return the content of a pickle whose md5 is `md5` (the text of Python 2 read as latin-1), or raise DataError.

    The very bytes that were checked are the ones unpickled.
    """
    content = read(path)
    found = md5_hex(content)
    if found != md5:
        raise DataError(f"{path} is not the published file: its md5 is {found}, {md5} was expected")
    try:
        return _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{path} is not a pickle of numpy arrays: {error}") from error
