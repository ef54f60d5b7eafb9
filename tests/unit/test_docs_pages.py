"""The pages that a reader works through do what they say, block by block, and the reference is what the code says."""

from __future__ import annotations

import csv
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import rna

from rna_ray.sweep import bundled, plan, spec

ROOT = Path(__file__).parents[2]
PICTURES = sorted((ROOT / "docs/gallery").iterdir())
SMALL = (
    "data.train_examples=64", "data.held_out=32", "network.width=4", "training.epochs=1", "training.attack.steps=1",
    "evaluation.*.examples=10", "evaluation.*.steps=1", "probes.*.examples=4", "probes.1.points=3",
    "certification.0.examples=5", "certification.0.draws=20",
)  # fmt: skip
FILE = re.compile(r"(?:#|--) (\S+\.(?:yaml|py|sql))(?:, (above|below|instead of): (.*))?\n")
"""The first line of a block that is a file, or stands in one: above, below or instead of the line that begins so."""


def shown(page: str) -> list[tuple[str, str]]:
    """Return a page's blocks of code in their order, each with its language."""
    return re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL | re.M)


def commands(block: str) -> list[list[str]]:
    return [words for line in block.splitlines() if (words := shlex.split(line, comments=True))]


def follow(block: str, *sets: str) -> str:
    """Do what a block of commands says, here and in this process where it is ours; return what they printed.

    `sets` make a sweep smaller.
    """
    printed = []
    for words in commands(block):
        if words[0] == "rna-ray":
            smaller = [word for text in sets for word in ("--set", text)]
            ended = rna(*words[1:], *(("--address", "inline", *smaller) if words[1] == "run" else ()))
            assert ended.code == 0, f"{words}: {ended.err}"
            printed.append(ended.out)
        else:
            assert words[0] == "python"
            subprocess.run([sys.executable, *words[1:]], check=True)
    return "".join(printed)


def put(block: str, folder: Path) -> None:
    """Put a block where its first line says, below a folder."""
    rest = block.partition("\n")[2]
    name, where, line = FILE.match(block).groups()  # type: ignore[union-attr]
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if where is None:
        assert not path.exists(), f"{name} is there already"
        path.write_text(block, encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    (at,) = [number for number, text in enumerate(lines) if text.strip().startswith(line)]
    lines[at : at + 1] = {"above": [rest, lines[at]], "below": [lines[at], rest], "instead of": [rest]}[where]
    path.write_text("".join(lines), encoding="utf-8")


def accuracies(sweep: str, attack: str) -> dict[str, float]:
    cells = json.loads(rna("table", sweep, "--format", "json").out)
    return {cell["variant"]: cell["accuracy"] for cell in cells if cell["attack"] == attack}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorial_leads_to_tables_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _, *blocks = shown("tutorial.md")  # what comes before installs
    printed = ""
    for language, block in blocks:
        if language == "sh":
            printed += follow(block)
        else:
            put(block, tmp_path)
    assert "trials: 1 done; imports: 2 to do" in printed
    assert "images: 180 to train, 90 to test, of 16×16 pixels, in 3 classes: columns, diagonals, rows\n" in printed
    for sweep in ("norms", "own", "images"):
        found = accuracies(sweep, "natural")
        assert len(found) >= 2 and min(found.values()) > 0.8, (sweep, found)
    assert Path("figures/own.png").stat().st_size


@pytest.mark.slow
def test_the_page_on_extending_adds_a_table_an_attack_and_a_norm(tmp_path: Path) -> None:
    code = tmp_path / "rna_ray"
    shutil.copytree(ROOT / "rna_ray", code, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("analysis", "sweeps"):  # as the wheel has them
        shutil.copytree(ROOT / part, code / part, ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / part).symlink_to(code / part)
    *blocks, (_, asked) = shown("extending.md")
    for _, block in blocks:
        put(block, tmp_path)
    printed = ""
    for words in commands(asked):
        main = [sys.executable, "-c", "from rna_ray.cli import main; main()", *words[1:]]
        ended = subprocess.run(main, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."})
        assert ended.returncode == 0, ended.stderr
        printed += ended.stdout
    assert "corner" in printed and re.search(r"\| extended +\| BN\+RMS ", printed)
    checked = subprocess.run([sys.executable, "-m", "ruff", "check", "--config", ROOT / "pyproject.toml", code])
    assert checked.returncode == 0


@pytest.mark.slow
def test_the_gallery_draws_what_it_shows(quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(quickstart, "rna-store")
    (_, sweep), (_, ran), *figures = shown("gallery.md")
    put(sweep, tmp_path)
    follow(ran, *SMALL)
    for _, figure in figures:
        follow(figure)
    assert {path.name for path in Path("figures").glob("*.svg")} == {path.name for path in PICTURES}


def test_the_gallery_trains_nothing_that_quickstart_does_not(tmp_path: Path) -> None:
    put(next(block for language, block in shown("gallery.md") if language == "yaml"), tmp_path)
    files = (bundled.find("quickstart"), tmp_path / "gallery.yaml")
    quickstart, gallery = (plan.plan(spec.load(file), digest=lambda data: data.name) for file in files)
    trained, asked = ({trial.network for trial in one.trials} for one in (quickstart, gallery))
    assert len(asked) == 3 and asked <= trained


def test_the_gallery_shows_each_picture_below_its_command_and_none_is_large() -> None:
    text = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
    pairs = re.findall(r"^rna-ray figure (\S+).*\n```\n\n!\[.+\]\(gallery/(\S+)\.svg\)$", text, re.MULTILINE)
    assert pairs and all(named == picture for named, picture in pairs)
    assert sorted(f"{picture}.svg" for _, picture in pairs) == [path.name for path in PICTURES]
    assert [path.name for path in PICTURES if path.stat().st_size > 100_000] == []


def test_the_reference_is_what_the_settings_say() -> None:
    page = runpy.run_path(str(ROOT / "docs/reference.py"))["page"]()
    assert (ROOT / "docs/reference.md").read_text(encoding="utf-8") == page, "make reference writes it anew"
    assert len(re.findall(r"^\| `\w+`°? \| ", page, re.MULTILINE)) > 200


@pytest.mark.parametrize(("table", "variants", "cells"), [(4, 5, 5 * 13 + 2), (5, 8, 8 * 15)])
def test_the_numbers_of_rna_s_tables_are_those_that_were_measured(table: int, variants: int, cells: int) -> None:
    measured: dict[str, set[str]] = {}
    with (ROOT / f"docs/measured/rna-table{table}.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["source"] == "measured" and row["accuracy"]:
                accuracy, low, high = (100 * float(row[name]) for name in ("accuracy", "low", "high"))
                text = f"{accuracy:.1f} ±{max(accuracy - low, high - accuracy):.1f}"
                measured.setdefault(row["variant"].rpartition(", ")[0], set()).add(text)
    assert len(measured) == variants
    page = (ROOT / "docs/rna.md").read_text(encoding="utf-8")
    section = page.partition(f"## Table {table}: ")[2].partition("\n## ")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    shown = [(name, cell) for name, *cells in lines for cell in cells if "±" in cell]
    ours = [(name, cell.partition(",")[0].removesuffix(" ✗").strip("*")) for name, cell in shown]
    assert len(ours) == cells and all(text in measured[name] for name, text in ours)


def test_the_links_of_the_reference_lead_to_its_headings() -> None:
    text = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    headings = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
    assert len(set(headings)) == len(headings)
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert links and links <= set(headings)
