"""Figures of accuracy against one quantity: where each cell stands, on which line, and with which interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from figures_base import NET, only, rows_of

from rna_ray.analysis import figures
from rna_ray.analysis.statistics import mean_interval
from rna_ray.errors import FigureError
from rna_ray.store import Store, connect

NORMALIZED = {"eps_space": "normalized", "threat": "linf"}


def networks(book: Any, norms: dict[str, str], seeds: int = 1) -> dict[tuple[str, str, int], str]:
    """Each norm by its variant's name, naturally and adversarially trained."""
    return {
        (name, objective, seed): book.trained(f"{name} {objective}", seed, norm=norm, objective=objective, **NET)
        for name, norm in norms.items() for objective in ("natural", "whitebox") for seed in range(seeds)
    }  # fmt: skip


def radii(book: Any, **space: Any) -> Store:
    for (name, objective, seed), net in networks(book, {"BN": "BN", "RN": "RN"}, seeds=3).items():
        for attack in ("fgsm", "pgd-20"):
            for at, eps in enumerate((7.65, 25.5, 229.5)):
                right = [int(image >= at + seed) for image in range(6)]
                label = f"{attack} eps_255={eps}"
                where = {"network_id": net, "seed": seed, "eps_255": eps, "called": attack.partition("-")[0]}
                book.cell(f"{name} {objective}", label, "fixed", [right], **(where | NORMALIZED | space))
    return book.close()


def batches(book: Any) -> Store:
    for (name, objective, _), net in networks(book, {"tracked": "BN", "not": "BN(track=false)"}).items():
        for batch in (1, 10, 100):
            where = {"network_id": net, "batch": batch, "batch_statistics": name == "not"}
            right = [int(image < 50 + (name == "tracked" or batch > 1) * 40) for image in range(100)]
            book.cell(f"{name} {objective}", f"natural batch={batch}", "none", [right], called="natural", **where)
    return book.close()


def powers(book: Any) -> Store:
    norms = ("RN", "RN(p=0.5)", "RN(p=0.5,track=true)", "RN(affine=false,p=1)", "BN")
    for (name, objective, _), net in networks(book, dict(zip(norms, norms, strict=True))).items():
        for attack, right in (("natural", [1, 1, 1, 0]), ("pgd-20", [1, 0, 0, 0])):
            book.cell(f"{name} {objective}", attack, "fixed", [right], network_id=net, called=attack, **NORMALIZED)
    return book.close()


@pytest.mark.slow
def test_radii_are_in_the_space_that_they_are_measured_in(make_book) -> None:
    rows = rows_of(radii(make_book("normalized")), "robustnorm-figure4")
    assert len(rows) == 2 * 2 * 2 * 3 and {row["line"] for row in rows} == {"BN", "RN"}
    assert sorted({round(row["x"], 12) for row in rows}) == [0.03, 0.1, 0.9]
    assert {row["x"] for row in rows_of(radii(make_book("p"), eps_space="pixel"), "robustnorm-figure4")} == {
        7.65, 25.5, 229.5
    }  # fmt: skip
    point = only(rows, variant="RN natural", attack="pgd-20", x=pytest.approx(0.03))
    assert (point["accuracy"], point["training"], point["n"], point["seeds"]) == (pytest.approx(5 / 6), "natural", 6, 3)
    half = 4.302652729911275 / 6 / 3**0.5  # of 6/6, 5/6 and 4/6, whose standard deviation is 1/6
    assert (point["over"], point["low"], point["high"]) == ("seeds", pytest.approx(5 / 6 - half), 1.0)


def test_batches_are_told_apart_and_intervals_are_over_images_where_there_is_one_seed(book) -> None:
    rows = rows_of(batches(book), "robustnorm-figure5")
    point = only(rows, line="BN(track=false)", training="adversarial", x=1.0)
    assert (point["accuracy"], point["over"], point["attack"]) == (0.5, "images", "natural")
    assert (point["low"], point["high"]) == pytest.approx(mean_interval(0.5, 100), abs=0.01)
    assert only(rows, line="BN", training="natural", x=100.0)["accuracy"] == 0.9


def test_a_power_is_read_off_the_norm_and_the_rest_is_the_line(book) -> None:
    rows = rows_of(powers(book), "robustnorm-figure11")
    found = {(row["line"], row["x"]) for row in rows}
    assert found == {("RN", 0.2), ("RN", 0.5), ("RN(track=true)", 0.5), ("RN(affine=false)", 1.0)}  # BN has none
    assert len(rows) == 4 * 2 * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("robustnorm-figure4", radii, ["ε (in normalised pixels)", "(c) fgsm, adversarial training", "over seeds"]),
        ("robustnorm-figure5", batches, ["images in a batch", "over the images", "BN(track=false): the intervals are"]),
        ("robustnorm-figure11", powers, ["power p", "RN(affine=false)", "(d) pgd-20, adversarial training"]),
    ],
)
def test_the_pictures_say_what_they_show(book, tmp_path: Path, name: str, make: Any, says: list[str]) -> None:
    png, svg, parquet = figures.figure(connect(make(book)), name, tmp_path, "s")
    text = svg.read_text(encoding="utf-8")
    assert all(word in text for word in says), [word for word in says if word not in text]
    assert png.stat().st_size > 20_000 and parquet.exists()


def test_a_panel_holds_one_space_and_one_way_of_crafting(make_book: Any) -> None:
    crafted = make_book("crafted")
    net = crafted.trained("a", norm="RN(p=0.5)", objective="natural", **NET)
    for mode in (None, "train_frozen"):
        label = "pgd-20" + (f" attack_mode={mode}" if mode else "")
        where = {"network_id": net, "called": "pgd", "attack_mode": mode, **NORMALIZED}
        crafted.cell("a", label, "fixed", [[1, 0], [1, 1]], **where)
    rows = rows_of(crafted.close(), "robustnorm-figure11")
    assert [(row["attack"], row["x"]) for row in rows] == [("pgd-20", 0.5), ("pgd-20 (train_frozen)", 0.5)]
    mixed = make_book("mixed")
    net = mixed.trained("a", norm="RN(p=0.5)", objective="natural", **NET)
    for space in ("pixel", "normalized"):
        mixed.cell("a", f"pgd-20 eps_space={space}", "fixed", [[1, 0]], network_id=net, eps_space=space, called="pgd")
    with pytest.raises(FigureError, match="pgd-20 in normalized and pixel space would share a panel; give them"):
        rows_of(mixed.close(), "robustnorm-figure11")


def test_radii_of_two_spaces_have_no_axis_in_common(book, tmp_path: Path) -> None:
    for at, space in enumerate(("pixel", "normalized")):
        net = book.trained(space, norm="BN", objective="natural", **NET)
        book.cell(space, f"pgd-{at}", "fixed", [[1, 0]], network_id=net, eps_space=space, called="pgd")
    with pytest.raises(FigureError, match="radii in normalized and pixel space have no axis in common"):
        figures.figure(connect(book.close()), "robustnorm-figure4", tmp_path, "s")
    assert list(tmp_path.glob("robust*")) == []
