"""The papers' printed numbers, as they shipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from rna_ray.analysis import papers

SWEEPS = Path(__file__).parents[3] / "sweeps"
TABLES = {
    "rna-table1": 92, "rna-table2": 92, "rna-table3": 11, "rna-table3-imagenet": 5, "rna-table4": 15, "rna-table5": 50,
}  # fmt: skip
FIGURES = {"rna-figure5": 4}
ROBUST_NORM = {
    "robustnorm-table2": 30, "robustnorm-table3": 8, "robustnorm-table3-cifar100": 8, "robustnorm-table4": 160,
    "robustnorm-table5": 160,
}  # fmt: skip


@pytest.mark.parametrize(("name", "count"), [*TABLES.items(), *FIGURES.items()])
def test_every_printed_number_is_there_once(name: str, count: int) -> None:
    found = papers.read(name)
    assert len(found) == count
    assert len({(line.row, line.attack, line.eps_255, line.eps_space, line.threat) for line in found}) == count
    for line in found:
        assert line.data in papers.TEST_IMAGES and 0 <= line.accuracy <= 1
        assert (line.eps_255 is None) == (line.attack in ("natural", "cw", "deepfool"))
        where = name.removeprefix("rna-").removesuffix("-imagenet")
        here = f"RNA (NeurIPS 2022) {where[:-1].title()} {where[-1]}"
        assert line.source == here or line.source.startswith("MindSpore model zoo, CIFAR-")


def test_all_that_ships_is_counted_here() -> None:
    assert len(papers.read()) == sum(TABLES.values()) + sum(FIGURES.values()) + sum(ROBUST_NORM.values())


@pytest.mark.parametrize(("name", "count"), ROBUST_NORM.items())
def test_robust_norms_radii_are_of_normalised_images(name: str, count: int) -> None:
    found = papers.read(name)
    assert len(found) == count == len({(line.row, line.attack) for line in found})
    assert {line.eps_255 for line in found} <= {None, 7.65}  # 0.03
    assert {line.eps_space for line in found if line.eps_255} <= {"normalized"}
    assert all((line.eps_255 is None) == (line.attack in ("natural", "gaussian")) for line in found)
    assert {line.source for line in found} == {f"RobustNorm (2020) Table {name[16]}"}
    assert {bool(line.interval) for line in found} == {name[16] in "23"}


@pytest.mark.parametrize(
    ("name", "row", "attack", "text"),
    [
        ("rna-table1", "RNA (NeurIPS 2022) Table 1: ResNet-18 RNA", "autoattack-standard", "65.61"),
        ("rna-table1", "RNA (NeurIPS 2022) Table 1: ResNet-18 RNA", "cw", "84.45"),
        ("rna-table1", "RNA (NeurIPS 2022) Table 1: WideResNet32 IN", "deepfool", "1.62"),
        ("rna-table1", "MindSpore model zoo, CIFAR-10: WideResNet32 RNA", "mifgsm", "63.03"),
        ("rna-table2", "RNA (NeurIPS 2022) Table 2: WideResNet32 RNA", "autoattack-standard", "42.43"),
        ("rna-table2", "MindSpore model zoo, CIFAR-100: ResNet-18 RNA", "pgd-20", "34.34"),
        ("rna-table3", "RNA (NeurIPS 2022) Table 3: WideResNet32 RPI+RPT", "autoattack-standard", "53.30"),
        ("rna-table3-imagenet", "RNA (NeurIPS 2022) Table 3: ResNet-50 SAT", "pgd-50", "42.30"),
        ("rna-table4", "RNA (NeurIPS 2022) Table 4: ResNet-18 GN+LN", "deepfool", "62.85"),
        ("rna-table5", "RNA (NeurIPS 2022) Table 5: ResNet-18 BN+IN+GN+LN white-box layer-based", "natural", "10.45"),
        ("rna-table5", "RNA (NeurIPS 2022) Table 5: ResNet-18 BGN+GN[1-4] black-box layer-free", "pgd-20", "56.29"),
        ("rna-figure5", "RNA (NeurIPS 2022) Figure 5: ResNet-18 BN+IN", "pgd-100", "59.94"),
        ("robustnorm-table2", "RobustNorm (2020) Table 2: ResNet-20 BN(track=false) adversarial", "bim-20", "68.60"),
        ("robustnorm-table3", "RobustNorm (2020) Table 3: ResNet-20 RN(track=true) adversarial", "natural", "85.15"),
        ("robustnorm-table4", "RobustNorm (2020) Table 4: VGG-16 RN(track=true) adversarial", "bim-20", "65.28"),
        ("robustnorm-table4", "RobustNorm (2020) Table 4: ResNet-50 BN(track=false) adversarial", "fgsm", "78.17"),
        ("robustnorm-table5", "RobustNorm (2020) Table 5: VGG-11 RN natural", "gaussian", "61.35"),
    ],
)
def test_numbers_are_the_printed_ones(name: str, row: str, attack: str, text: str) -> None:
    assert [line.text for line in papers.read(name) if (line.row, line.attack) == (row, attack)] == [text]


def shipped() -> Iterator[tuple[str, set[str], set[str]]]:
    """Yield each shipped sweep that has printed numbers: its name, its variants' names and its printed methods."""
    for path in sorted(SWEEPS.glob("*.yaml")):
        if methods := {row.method for row in papers.rows(path.stem)}:
            yield path.stem, set(yaml.safe_load(path.read_text(encoding="utf-8"))["variants"]), methods


def test_sweeps_and_printed_tables_spell_their_rows_alike() -> None:
    found = {name: (variants, methods) for name, variants, methods in shipped()}
    for name in ("rna-table1", "rna-table2", "rna-table4", "rna-table5"):
        variants, methods = found[name]
        assert variants == methods, name
