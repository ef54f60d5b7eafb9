"""Robust accuracy against perturbation size: where each cell stands, and what searches leave within a size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from figures_base import NET, only, rows_of

from rna_ray.analysis import figures
from rna_ray.analysis.statistics import mean_interval
from rna_ray.errors import FigureError
from rna_ray.store import Store, connect

MNIST = {"data": "mnist"}
SIZES = {"l2": (127.5, 255.0, 510.0), "linf": (25.5, 51.0, 76.5)}
"""In 255ths."""


def within(book: Any, variant: str, net: str, right: int, *, source: tuple[str, str] | None = None, **row: Any) -> None:
    """A PGD of ten images at three radii in each norm: `right` images at the first, one less at each other."""
    for threat, radii in SIZES.items():
        for at, eps in enumerate(radii):
            attack = f"pgd-40 from {source[0]}" if source else "pgd-40"
            label = f"{attack} threat={threat} eps_255={eps:g} step_255={eps / 10:g}"
            scores = [int(image < right - at) for image in range(10)]
            where = {"network_id": net, "eps_255": eps, "threat": threat, "called": "pgd", "source": source}
            where |= {"steps": 40, **MNIST}
            knowledge = "fixed" if source else "eot-10"
            book.cell(variant, label, knowledge, [scores], natural=[1] * 9 + [0], **where | row)


def two(book: Any) -> Store:
    """Figure 2's: two defences, attacked directly and through a third network."""
    names = ("A", "TRADES", "STN")
    nets = {name: book.trained(name, norm="none", objective="whitebox", **NET | MNIST) for name in names}
    for right, variant in ((7, "TRADES"), (8, "STN")):
        within(book, variant, nets[variant], right, random_output=variant == "STN")
        within(book, variant, nets[variant], right + 1, source=("A", nets["A"]), random_output=variant == "STN")
    return book.close()


def smallest(book: Any, **row: Any) -> None:
    """A search for the smallest perturbation: it breaks all of ten images, the i-th at i / 5 of a pixel in l2."""
    where = {"called": "boundary", "eps_255": None, "threat": "none", "natural": [1] * 9 + [0], **MNIST}
    ways = {"l2": [image / 5 for image in range(10)], "linf": [image / 50 for image in range(10)]}
    book.cell("STN", "boundary-1000", "resample", [[0] * 10], **where | ways | row)


def one(book: Any) -> Store:
    """Figure 6's: one defence under attacks with and without a radius."""
    net = book.trained("STN", norm="none", objective="natural", **NET | MNIST)
    within(book, "STN", net, 8, random_output=True)
    smallest(book, network_id=net, random_output=True)
    return book.close()


def test_a_point_is_an_accuracy_at_a_size_in_pixels_of_its_norm(book: Any) -> None:
    rows = rows_of(two(book), "stn-figure2")
    assert len(rows) == 2 * 2 * 2 * 4  # variants, attacks, norms; at 0 the images as they are
    point = only(rows, variant="STN", attack="pgd-40", threat="l2", x=1.0)
    assert (point["accuracy"], point["n"], point["source"], point["knowledge"]) == (0.7, 10, None, "eot-10")
    assert (point["low"], point["high"]) == pytest.approx(mean_interval(0.7, 10))
    assert only(rows, variant="TRADES", attack="pgd-40 from A", threat="linf", x=0.1)["accuracy"] == 0.8
    assert {row["source"] for row in rows if row["attack"] == "pgd-40 from A"} == {"A"}
    natural = [row for row in rows if row["x"] == 0]
    assert len(natural) == 8 and {row["accuracy"] for row in natural} == {0.9}


def test_a_search_for_the_smallest_counts_what_it_needs_no_more_for(book: Any) -> None:
    rows = [row for row in rows_of(one(book), "stn-figure6") if row["smallest"]]
    found = {(row["threat"], row["x"]): row["accuracy"] for row in rows}
    # Of nine images right, those at 0, 0.2, 0.4 are lost at 0.5; in the other norm those at 0, 0.02 … 0.1 at 0.1.
    assert found == pytest.approx({
        ("l2", 0.0): 0.8, ("l2", 0.5): 0.6, ("l2", 1.0): 0.3, ("l2", 2.0): 0.0,
        ("linf", 0.0): 0.8, ("linf", 0.1): 0.3, ("linf", 0.2): 0.0, ("linf", 0.3): 0.0,
    })  # fmt: skip
    point = only(rows, threat="l2", x=0.5)
    assert (point["low"], point["high"]) == pytest.approx(mean_interval(0.6, 10))


def test_without_attacks_in_a_radius_a_search_has_sizes_of_its_own_in_its_norm(book: Any) -> None:
    net = book.trained("STN", norm="none", objective="natural", **NET | MNIST)
    smallest(book, network_id=net)
    rows = rows_of(book.close(), "stn-figure7")
    assert {row["threat"] for row in rows} == {"l2"} and len(rows) == 21
    assert max(row["x"] for row in rows) == pytest.approx(1.6)  # twice the median of those that were right


def test_on_one_path_a_knowledge_is_drawn_once(book: Any) -> None:
    net = book.trained("BN", norm="BN", objective="natural", **NET | MNIST)
    for knowledge in ("transfer", "eot-10"):
        where = {"network_id": net, "eps_255": 8.0, "threat": "l2", "called": "pgd", "random_output": False, **MNIST}
        book.cell("BN", "pgd-40", knowledge, [[1, 0]], **where)
    assert [row["knowledge"] for row in rows_of(book.close(), "stn-figure2")] == ["transfer", "transfer"]


def test_where_images_of_a_batch_hang_together_a_point_that_is_no_cell_s_has_no_bar(book: Any, tmp_path: Path) -> None:
    net = book.trained("RN", norm="RN", objective="natural", **NET | MNIST)
    where = {"network_id": net, "eps_255": 51.0, "threat": "l2", "called": "pgd", "batch_statistics": True, **MNIST}
    book.cell("RN", "pgd-40", "fixed", [[1, 0] * 10], batch=10, **where)
    store = book.close()
    clean, attacked = rows_of(store, "stn-figure3")
    assert (clean["x"], clean["low"], clean["high"]) == (0.0, None, None)
    assert attacked["low"] is not None
    _, svg, _ = figures.figure(connect(store), "stn-figure3", tmp_path, "s")
    assert "no bar: images of a batch hang together" in svg.read_text(encoding="utf-8")


def test_two_accuracies_at_one_size_of_a_line_are_refused(book: Any) -> None:
    net = book.trained("BN", norm="BN", objective="natural", **NET | MNIST)
    for step in (1, 2):
        where = {"network_id": net, "eps_255": 51.0, "threat": "l2", "called": "pgd", **MNIST}
        book.cell("BN", f"pgd-40 step_255={step}", "fixed", [[1, 0]], **where)
    with pytest.raises(FigureError, match=r"pgd-40@fixed of BN \(.*\) has 2 accuracies at 0.2; a line can show one"):
        rows_of(book.close(), "stn-figure3")


def test_an_attack_from_elsewhere_shares_no_line_of_other_figures(book: Any) -> None:
    store = two(book)
    names = {row["attack"] for row in rows_of(store, "robustnorm-figure4")}
    assert {name.removesuffix(f" ({chr(0x2113)}₂)") for name in names} == {
        "pgd-40", "pgd-40 from A", "pgd-40@eot-10", "pgd-40 from A@fixed"
    }  # fmt: skip
    strength = rows_of(store, "rna-figure5")
    assert {(row["variant"], row["knowledge"]) for row in strength} == {("TRADES", "eot-10"), ("STN", "eot-10")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("stn-figure2", two, ["(a) MNIST, ℓ₂", "(b) MNIST, ℓ∞", "pgd-40 from A@fixed", "dashed: crafted on another"]),
        ("stn-figure6", one, ["perturbation size: STN", "boundary-1000@resample", "searches for the smallest ℓ₂"]),
    ],
)
def test_the_pictures_say_what_they_show(book: Any, tmp_path: Path, name: str, make: Any, says: list[str]) -> None:
    png, svg, parquet = figures.figure(connect(make(book)), name, tmp_path, "s")
    text = svg.read_text(encoding="utf-8")
    assert all(word in text for word in says), [word for word in says if word not in text]
    assert png.stat().st_size > 20_000 and parquet.exists()
