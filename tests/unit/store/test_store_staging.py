"""Data sets on an object store are copied to the machine once; weights too."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import image_folders
import pytest
import torch
from object_store import ObjectStore

from rna_ray import data
from rna_ray.data import mnist
from rna_ray.errors import CheckpointError, DataError, SweepError
from rna_ray.running import doctor
from rna_ray.store import open_store, staging
from rna_ray.store.files import Files, open_files
from rna_ray.sweep.sections import Data
from rna_ray.training.checkpoint import Checkpoints

_names = itertools.count()
_LABELS = PurePosixPath("MNIST/raw/t10k-labels-idx1-ubyte.gz")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RNA_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images(object_store: ObjectStore) -> Files:
    """A folder of the bucket with files of MNIST's names where torchvision keeps them, and another data set's."""
    files = open_files(object_store.uri(f"data-{next(_names)}"))
    for name in mnist.NAMES:
        files.write(PurePosixPath(f"MNIST/raw/{name}.gz"), name.encode())
    files.write(PurePosixPath("cifar-10-batches-bin/test_batch.bin"), b"another's")
    return files


def test_a_folder_of_this_machine_stays_where_it_is(tmp_path: Path) -> None:
    assert staging.folder("mnist", str(tmp_path)) == str(tmp_path)
    assert staging.folder("mnist", f"file://{tmp_path}") == str(tmp_path)
    assert staging.folder("digits", None) is None and not staging.remote(f"file://{tmp_path}")


def test_a_remote_root_stays_as_it_is_written_and_nothing_is_fetched_into_it() -> None:
    assert Data(name="mnist", root="s3://bucket/mnist").root == "s3://bucket/mnist"
    with pytest.raises((SweepError, ValueError), match="nothing is fetched into s3://bucket/mnist; leave it out"):
        Data(name="mnist", root="s3://bucket/mnist", download=True)


@pytest.mark.slow
def test_doctor_looks_into_a_bucket(images: Files, own_cache: Path) -> None:
    found = doctor._images("mnist", images.uri, needed=True)
    assert found.ok and found.found == f"found in {images.uri}" and not own_cache.exists()
    lacking = doctor._images("cifar10", images.uri, needed=True)
    assert not lacking.ok and lacking.next.startswith(f"no complete CIFAR-10 under {images.uri}")


@pytest.mark.slow
def test_what_a_data_set_is_read_from_is_copied_once(object_store: ObjectStore, images: Files, own_cache: Path) -> None:
    assert staging.remote(images.uri)
    found = staging.folder("mnist", images.uri)
    assert found is not None and Path(found).is_relative_to(own_cache)
    copied = {path.relative_to(found).as_posix(): path.read_text() for path in Path(found).rglob("*.*")}
    assert copied == {f"MNIST/raw/{name}.gz": name for name in mnist.NAMES}
    with object_store.counted() as requests:
        assert staging.folder("mnist", images.uri) == found
    assert [request.split()[0] for request in requests] == ["GET"]  # a look at what is there

    images.write(_LABELS, b"other labels")
    anew = staging.folder("mnist", images.uri)
    assert anew is not None and anew != found and Path(anew, _LABELS).read_bytes() == b"other labels"


@pytest.mark.slow
def test_processes_that_start_together_copy_once(object_store: ObjectStore, images: Files) -> None:
    code = "import sys; from rna_ray.store import staging; print(staging.folder('mnist', sys.argv[1]))"
    words = [sys.executable, "-c", code, images.uri]
    with object_store.counted() as requests, object_store.faults(seconds=0.05):
        processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        found = {process.communicate(timeout=200)[0] for process in processes}
    assert len(found) == 1 and Path(found.pop().strip()).is_dir()
    read = [request for request in requests if request.startswith("GET") and "MNIST" in request.split("?")[0]]
    assert len(read) == len(set(read)) == 4


@pytest.mark.slow
def test_an_incomplete_data_set_is_said_by_its_address(images: Files) -> None:
    images.remove(_LABELS)
    with pytest.raises(DataError, match="no complete MNIST under s3://") as told:
        staging.folder("mnist", images.uri)
    assert "lacks t10k-labels-idx1-ubyte" in str(told.value)
    assert "tmp" not in str(told.value) and "download" not in str(told.value)


@pytest.mark.slow
def test_a_folder_of_ones_own_images_is_copied_too(object_store: ObjectStore, tmp_path: Path) -> None:
    root, files = image_folders.write_own(tmp_path / "own"), open_files(object_store.uri(f"data-{next(_names)}"))
    for path in root.rglob("*.*"):
        files.write(PurePosixPath(path.relative_to(root)), path.read_bytes())
    files.write(PurePosixPath("notes/read.me"), b"another's")
    copy = Path(staging.folder("folder", files.uri) or "")
    assert data.described("folder", copy) == data.described("folder", root) and not (copy / "notes").exists()
    files.write(PurePosixPath("test/emu/0.png"), b"")
    with pytest.raises(DataError, match=re.escape(f"{files.uri}/test has a class emu, and {files.uri}/train has no")):
        staging.folder("folder", files.uri)


@pytest.mark.slow
def test_a_damaged_copy_is_made_again(images: Files) -> None:
    copy = Path(staging.folder("mnist", images.uri) or "", _LABELS)
    copy.write_text("damaged")
    staging.forget("mnist", images.uri)
    assert not copy.exists()
    again = Path(staging.folder("mnist", images.uri) or "", _LABELS)
    assert again == copy and again.read_text() == "t10k-labels-idx1-ubyte"


@pytest.mark.slow
def test_remote_weights_are_copied_once_and_a_damaged_copy_is_replaced(
    object_store: ObjectStore, own_cache: Path
) -> None:
    checkpoints = Checkpoints(open_store(object_store.uri(f"store-{next(_names)}")), "unit")
    digest = checkpoints.write("last", {"w": torch.arange(1000.0)}, {"epoch": 3})
    with object_store.counted() as requests:
        for _ in range(3):
            tensors, about = checkpoints.read("last", digest)
            assert torch.equal(tensors["w"], torch.arange(1000.0)) and about == {"epoch": 3}
    assert [request.split()[0] for request in requests] == ["HEAD", "GET"]

    copy = own_cache / "weights" / f"{digest}.safetensors"
    copy.write_bytes(copy.read_bytes()[:-4] + b"oops")
    assert torch.equal(checkpoints.read("last", digest)[0]["w"], torch.arange(1000.0))

    there = checkpoints.store.files
    copy.unlink()
    there.write(checkpoints.path("last", digest), there.read(checkpoints.path("last", digest))[:-4] + b"oops")
    with pytest.raises(CheckpointError, match=f"{there.full(checkpoints.path('last', digest))} is damaged"):
        checkpoints.read("last", digest)
    assert not copy.exists()
