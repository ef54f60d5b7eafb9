"""Tiny data sets in every layout, a web server of our own, and a cache folder that each test has to itself."""

from __future__ import annotations

import gzip
import http.server
import importlib.util
import os
import pickle
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from rna_ray.data import cifar, cifar10, cifar100, digest, mnist
from rna_ray.data.fetch import md5_hex

IMAGES_PER_FILE = 4


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test an empty cache folder, and a process that remembers no digest."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digest, "_known", {})
    return tmp_path / "cache" / "rna-ray" / "digests"


@pytest.fixture(scope="session")
def torchvision_source() -> Callable[[str], str]:
    """Return the function from a data set to its module's text in torchvision, whose import would take seconds."""
    package = importlib.util.find_spec("torchvision")
    if package is None or not package.submodule_search_locations:
        pytest.skip("torchvision is not installed")
    return lambda name: (Path(package.submodule_search_locations[0]) / "datasets" / f"{name}.py").read_text()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of the real images, or skip."""
    folder = os.environ.get("RNA_RAY_TEST_DATA")
    if not folder:
        pytest.skip("RNA_RAY_TEST_DATA does not name a folder with cifar-10-batches-bin/ and MNIST/raw/")
    return Path(folder)


class _Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote, as in the published files: text and bytes are both byte strings without encoding."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_str(self, text: str | bytes) -> None:
        raw = text if isinstance(text, bytes) else text.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)

    dispatch[str] = dispatch[bytes] = save_str


def python2_pickle(path: Path, content: object) -> str:
    """Write a pickle as numpy 1 under Python 2 did, and return its md5."""
    with path.open("wb") as file:
        _Python2Pickler(file, protocol=2).dump(content)
    raw = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path.write_bytes(raw)
    return md5_hex(raw)


@dataclass
class TinyCifar:
    """A few images in each file of CIFAR-10 or CIFAR-100, to be written in either layout."""

    release: cifar.Release

    def __post_init__(self) -> None:
        files, classes = len(self.release.images), len(self.release.classes)
        self.release = replace(self.release, images=(IMAGES_PER_FILE,) * files)
        count = files * IMAGES_PER_FILE
        self.rows = np.random.RandomState(1).randint(0, 256, (files, IMAGES_PER_FILE, 3072), np.uint8)
        self.labels = (np.arange(count) * 7 % classes).reshape(files, IMAGES_PER_FILE)

    def write_binary(self, folder: Path) -> cifar.Release:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows, labels in zip(self.release.binaries, self.rows, self.labels, strict=True):
            coarse = [(labels[:, None] % 20).astype(np.uint8)] * (self.release.label_bytes - 1)
            (folder / name).write_bytes(np.hstack([*coarse, labels[:, None].astype(np.uint8), rows]).tobytes())
        return self.release

    def write_pickles(self, folder: Path) -> cifar.Release:
        folder.mkdir(parents=True, exist_ok=True)
        md5 = {}
        for name, rows, labels in zip(self.release.pickles_md5, self.rows, self.labels, strict=True):
            more = {"coarse_labels": (labels % 20).tolist()} if self.release.label_bytes == 2 else {}
            entry = {"data": rows, self.release.label_key: labels.tolist(), "batch_label": "tiny", **more}
            md5[name] = python2_pickle(folder / name, entry)
        return replace(self.release, pickles_md5=md5)


@pytest.fixture
def tiny_cifar() -> TinyCifar:
    return TinyCifar(cifar10.PUBLISHED)


@pytest.fixture(params=[cifar10, cifar100], ids=["cifar10", "cifar100"])
def either_cifar(request: pytest.FixtureRequest) -> TinyCifar:
    return TinyCifar(request.param.PUBLISHED)


def idx(array: np.ndarray) -> bytes:
    """Return the array as an idx file of unsigned bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@dataclass
class TinyMnist:
    """Six training and three test images, to be written gzipped or not."""

    release: mnist.Release = field(default_factory=lambda: mnist.Release(train_images=6, test_images=3))
    train: np.ndarray = field(default_factory=lambda: np.random.RandomState(2).randint(0, 256, (6, 28, 28), np.uint8))
    test: np.ndarray = field(default_factory=lambda: np.random.RandomState(3).randint(0, 256, (3, 28, 28), np.uint8))

    def contents(self) -> dict[str, bytes]:
        arrays = (self.train, np.arange(6), self.test, np.arange(3) + 7)
        return {name: idx(array) for name, array in zip(mnist.NAMES, arrays, strict=True)}

    def write(self, folder: Path, gzipped: bool = False) -> mnist.Release:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.contents().items():
            path = folder / (f"{name}.gz" if gzipped else name)
            path.write_bytes(gzip.compress(content) if gzipped else content)
        return self.release


@pytest.fixture
def tiny_mnist() -> TinyMnist:
    return TinyMnist()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; promises more bytes than it gives of any file called cut*."""

    def log_message(self, *args: object) -> None:
        pass

    def send_header(self, keyword: str, value: str) -> None:
        cut = keyword == "Content-Length" and "/cut" in self.path
        super().send_header(keyword, str(int(value) + 9) if cut else value)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Callable[[str], str]]]:
    """Yield a folder served on the loopback, and the function from a file name to its address."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, lambda name: f"http://127.0.0.1:{server.server_port}/{name}"
        server.shutdown()
        thread.join()
