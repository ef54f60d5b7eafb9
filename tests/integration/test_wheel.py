"""What a user installs holds the sweeps and the queries, and adds one package to site-packages."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = (".py", ".typed", ".sql", ".csv", ".yaml", ".html", ".css", ".js")


# Metadata, not find_spec: to setuptools' import hook a look for pip means that pip runs, and it gives up its distutils.
INSTALLED = {distribution.name for distribution in importlib.metadata.distributions()}


@pytest.mark.skipif(not {"setuptools", "pip"} <= INSTALLED, reason="building offline needs setuptools and pip here")
def test_the_wheel_is_one_package_with_its_sweeps_and_queries(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in ("rna_ray", "analysis", "sweeps"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", tmp_path], cwd=source, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"rna_ray"}
    for folder, inside in {"analysis": "rna_ray/analysis", "sweeps": "rna_ray/sweeps", "rna_ray": "rna_ray"}.items():
        here = [path for path in (ROOT / folder).rglob("*") if path.suffix in SHIPPED]
        assert here, folder
        missing = {f"{inside}/{path.relative_to(ROOT / folder)}" for path in here} - names
        assert not missing, f"not in the wheel: {sorted(missing)}"
