"""Where an imported network's code lies, found without running it; what came from a folder is forgotten after."""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from rna_ray.errors import NetworkError
from rna_ray.networks import source

NOISY = "raise RuntimeError('this module was run')\n"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("text", ["mynet", "mynet:", ":build", "my net:build", "mynet.py:", "mynet:build()", "a..b:c"])
def test_what_names_no_function_of_a_module_is_refused(text: str) -> None:
    with pytest.raises(NetworkError, match="write module:function, such as mynet:build"):
        source.check(text)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "safetensors"])
def test_weights_that_would_be_unpickled_are_refused_with_how_to_convert_them(name: str) -> None:
    with pytest.raises(NetworkError, match=r"safetensors\.torch\.save_file\(model\.state_dict\(\), "):
        source.check_weights(name)
    source.check_weights("w.safetensors")


def test_a_module_is_found_without_it_or_a_package_around_it_being_run(tmp_path: Path) -> None:
    write(tmp_path, {
        "plain.py": NOISY, "package/__init__.py": NOISY, "package/inner/__init__.py": NOISY,
        "package/inner/net.py": NOISY, "spaced/deep/net.py": NOISY,
    })  # fmt: skip
    before = set(sys.modules)
    for module, file in {
        "plain": "plain.py", "package": "package/__init__.py", "package.inner": "package/inner/__init__.py",
        "package.inner.net": "package/inner/net.py", "spaced.deep.net": "spaced/deep/net.py",
    }.items():  # fmt: skip
        assert source.find(f"{module}:build", str(tmp_path)) == tmp_path / file
    assert set(sys.modules) == before and str(tmp_path) not in sys.path


def test_an_installed_module_is_found_and_torch_is_not_imported_for_it() -> None:
    code = (
        "import sys\nfrom rna_ray.networks import source\n"
        "print(source.find('torchvision.models.resnet:resnet18', '/nowhere').name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["resnet.py", "False"]


@pytest.mark.parametrize("module", ["nowhere_to_be_found", "plain.inner", "package.nothing"])
def test_a_module_that_is_not_there_is_named_with_where_it_was_looked_for(module: str, tmp_path: Path) -> None:
    write(tmp_path, {"plain.py": NOISY, "package/__init__.py": ""})
    with pytest.raises(NetworkError, match=rf"there is no module {module} in {tmp_path}, nor is it installed"):
        source.find(f"{module}:build", str(tmp_path))


def test_a_module_without_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for module in ("empty", "sys"):
        with pytest.raises(NetworkError, match=f"module {module} has no file"):
            source.find(f"{module}:build", str(tmp_path))


def test_two_folders_may_each_have_a_module_of_one_name(tmp_path: Path) -> None:
    for folder, value in (("a", 1), ("b", 2)):
        write(tmp_path / folder, {"twin.py": "from twin_parts import value\n", "twin_parts.py": f"value = {value}\n"})
    kept, path = set(sys.modules), list(sys.path)
    found = []
    for folder in ("a", "b", "a"):
        with source.importing(str(tmp_path / folder)):
            found.append(importlib.import_module("twin").value)
    assert found == [1, 2, 1]
    assert (set(sys.modules), sys.path) == (kept, path)


def test_what_lies_below_a_folder_but_was_not_imported_from_it_stays(tmp_path: Path) -> None:
    write(tmp_path, {"environment/lib/staying_module.py": "", "leaving_module.py": ""})
    below = str(tmp_path / "environment" / "lib")
    sys.path.append(below)
    try:
        with source.importing(str(tmp_path)):
            importlib.import_module("staying_module"), importlib.import_module("leaving_module")
        assert "staying_module" in sys.modules and "leaving_module" not in sys.modules
    finally:
        sys.path.remove(below)
        sys.modules.pop("staying_module", None)


def test_a_digest_is_of_the_content(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "same", "b/c.py": "same"})
    assert source.sha256(tmp_path / "a.py") == source.sha256(tmp_path / "b/c.py") == hashlib.sha256(b"same").hexdigest()
    with pytest.raises(NetworkError, match=f"{tmp_path}/none cannot be read: No such file"):
        source.sha256(tmp_path / "none")
