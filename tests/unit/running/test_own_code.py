"""A folder of the user's modules on its way to another machine: what goes, and where it is found."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from rna_ray.errors import NetworkError
from rna_ray.networks.source import Source
from rna_ray.running import own_code


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "mynet.py": "from parts import width\n", "parts.py": "width = 8\n", "deep/er/part.py": "", "data.bin": "",
        ".git/hook.py": "", "env/pyvenv.cfg": "", "env/lib/inside.py": "", "__pycache__/mynet.py": "",
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "project"


def test_python_files_go_and_nothing_else(project: Path, tmp_path: Path) -> None:
    (folder,) = own_code.gather([str(project), str(project)], tmp_path / "gathered")
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == ["deep/er/part.py", "mynet.py", "parts.py"]
    assert (folder / "mynet.py").read_bytes() == (project / "mynet.py").read_bytes()


def test_a_machine_finds_what_was_brought_in_place_of_the_folder_that_it_lacks(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {"u": Source(root=str(project), weights="/w.safetensors"), "v": Source(root=None, weights="/v.pth")}
    assert own_code.arrived(sources) == sources  # nothing was brought
    (folder,) = own_code.gather([str(project)], tmp_path / "gathered")
    shutil.rmtree(project)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder.parent)])
    assert own_code.arrived(sources) == {**sources, "u": Source(root=str(folder), weights="/w.safetensors")}


def test_two_folders_of_one_name_stay_apart(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other/project"
    shutil.copytree(project, other)
    folders = own_code.gather([str(project), str(other)], tmp_path / "gathered")
    assert len({folder.name for folder in folders}) == 2


def test_a_folder_with_too_much_code_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_code, "MOST_BYTES", 20)
    with pytest.raises(NetworkError, match=r"network\.root: .*project holds more than .* Python files"):
        own_code.gather([str(project)], tmp_path / "gathered")
