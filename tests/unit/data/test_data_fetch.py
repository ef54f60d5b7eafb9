"""Downloads from a server of our own: checked, safe, whole or not at all."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from rna_ray.data import cifar, mnist
from rna_ray.data.fetch import Remote, extract, fetch, md5_hex, new_folder
from rna_ray.errors import DataError


def _tar(path: Path, members: dict[str, bytes]) -> str:
    """Write a gzipped tar archive, and return its md5."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return md5_hex(path.read_bytes())


@pytest.fixture
def cifar_site(site, tiny_cifar, tmp_path: Path) -> cifar.Release:
    """Serve the tiny CIFAR-10, in an archive that also tries to write outside its folder."""
    folder, url = site
    release = tiny_cifar.write_binary(tmp_path / "source")
    members = {f"cifar-10-batches-bin/{name}": (tmp_path / "source" / name).read_bytes() for name in release.binaries}
    members |= {"../escaped": b"x", "/tmp/../escaped": b"x", "cifar-10-batches-bin/readme.html": b"x"}
    md5 = _tar(folder / "cifar.tar.gz", members)
    return replace(release, archive=Remote(urls=(url("cifar.tar.gz"),), md5=md5))


@pytest.fixture
def mnist_site(site, tiny_mnist) -> mnist.Release:
    """Serve the tiny MNIST; the first mirror of every file is missing."""
    folder, url = site
    remotes = []
    for name, content in tiny_mnist.contents().items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        urls = (url(f"gone/{name}.gz"), url(f"{name}.gz"))
        remotes.append(Remote(urls=urls, md5=md5_hex((folder / f"{name}.gz").read_bytes())))
    return replace(tiny_mnist.release, gzipped=tuple(remotes))


def _everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_cifar10_arrives_whole_and_nothing_escapes(cifar_site, tmp_path: Path, capfd) -> None:
    root = tmp_path / "new" / "root"
    loaded = cifar.load(root, True, release=cifar_site)
    assert loaded.train.images.shape == (20, 3, 32, 32)
    names = [f"cifar-10-batches-bin/{name}" for name in sorted(cifar_site.binaries)]
    assert _everything(root) == ["cifar-10-batches-bin", *names]
    assert not list(tmp_path.rglob("escaped")) and not list(tmp_path.glob(".rna-ray*"))
    out, err = capfd.readouterr()
    assert out == "" and err.startswith(f"downloading {cifar_site.archive.urls[0]} (0.")


def test_what_is_there_is_not_fetched_again(cifar_site, tmp_path: Path, capfd) -> None:
    for _ in range(2):
        cifar.load(tmp_path / "root", True, release=cifar_site)
    assert capfd.readouterr().err.count("downloading") == 1


def test_mnist_arrives_from_the_second_mirror(mnist_site, tiny_mnist, tmp_path: Path) -> None:
    loaded = mnist.load(tmp_path / "root", True, mnist_site)
    assert (loaded.test.images[:, 0] == tiny_mnist.test).all()
    assert _everything(tmp_path / "root" / "MNIST" / "raw") == sorted(f"{name}.gz" for name in mnist.NAMES)


def test_another_checksum_leaves_nothing(cifar_site, tmp_path: Path) -> None:
    release = replace(cifar_site, archive=replace(cifar_site.archive, md5="0" * 32))
    with pytest.raises(DataError, match=f"md5 {cifar_site.archive.md5} where {'0' * 32} is published"):
        cifar.load(tmp_path / "new" / "root", True, release=release)
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".rna-ray*"))


def test_one_bad_file_of_four_leaves_nothing(mnist_site, tmp_path: Path) -> None:
    bad = replace(mnist_site.gzipped[3], md5="0" * 32)
    with pytest.raises(DataError, match=r"cannot download t10k-labels-idx1-ubyte\.gz"):
        mnist.load(tmp_path / "root", True, replace(mnist_site, gzipped=(*mnist_site.gzipped[:3], bad)))
    assert not (tmp_path / "root").exists()


def test_a_folder_that_holds_something_is_never_touched(cifar_site, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "data_batch_1.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match=f"cannot download into {folder}, which is not an empty folder"):
        cifar.load(tmp_path, True, release=cifar_site)
    assert (folder / "data_batch_1.bin").read_bytes() == b"mine" and len(_everything(folder)) == 1


def test_network_errors_are_one_sentence_with_every_address(site, tmp_path: Path) -> None:
    folder, url = site
    (folder / "cut").write_bytes(b"half")
    closed = "http://127.0.0.1:9/file"
    with pytest.raises(DataError) as caught:
        fetch(Remote(urls=(url("gone"), url("cut"), closed), md5="0" * 32), tmp_path / "file")
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"cannot download file ({url('gone')}: HTTP Error 404: ")
    assert f"{url('cut')}: the connection closed after 4 of 13 bytes; " in message
    assert re.search(re.escape(closed) + r": \[Errno \d+\] Connection refused\)$", message)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_only_regular_members_are_extracted(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("a/file")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"a\.tar lacks a/file"):
        extract(tmp_path / "a.tar", ["a/file"], tmp_path / "out")
    assert _everything(tmp_path / "out") == []


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"cannot unpack a\.tar\.gz"):
        extract(tmp_path / "a.tar.gz", ["a"], tmp_path)


def test_a_folder_that_another_process_placed_meanwhile_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with new_folder(folder) as ours:
        (ours / "file").write_text("ours")
        folder.mkdir()
        (folder / "file").write_text("theirs")
    assert (folder / "file").read_text() == "theirs" and _everything(tmp_path) == ["data", "data/file"]


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(DataError, match="cannot"), new_folder(tmp_path / "file" / "data"):
        pass
