"""Which code ran is that of the package, not of the folder that a user happens to stand in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import rna_ray
from rna_ray.running.provenance import code
from rna_ray.running.tasks import Code


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty package in the place of rna-ray, in a git repository that does not know it yet."""
    if shutil.which("git") is None:
        pytest.skip("there is no git on this machine")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "repository" / "rna_ray"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    git(folder.parent, "init", "--quiet")
    monkeypatch.setattr(rna_ray, "__file__", str(folder / "__init__.py"))
    return folder


def git(folder: Path, *command: str) -> str:
    """Return what a git command says."""
    who = ["-c", "user.name=n", "-c", "user.email=e@x.invalid", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *command], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_and_whether_the_tree_differs(package: Path) -> None:
    git(package, "add", "__init__.py")
    git(package, "commit", "--quiet", "-m", "m")
    assert code() == Code(commit=git(package, "rev-parse", "HEAD"), dirty=False)
    (package / "__init__.py").write_text("changed = True\n")
    assert code() == Code(commit=git(package, "rev-parse", "HEAD"), dirty=True)


def test_a_package_installed_inside_another_repository_has_no_commit(package: Path) -> None:
    (package.parent / "notes").touch()
    git(package.parent, "add", "notes")
    git(package, "commit", "--quiet", "-m", "another project")
    assert code() == Code(commit=None, dirty=None)


@pytest.mark.parametrize("error", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", 10)])
def test_without_git_there_is_no_commit(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*given: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    assert code() == Code()
