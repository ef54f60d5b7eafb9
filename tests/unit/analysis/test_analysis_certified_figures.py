"""Figures of certified accuracy: their points against counts worked out by hand, and what the pictures say."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rna_ray.analysis import figures
from rna_ray.analysis.figures import bounds, style
from rna_ray.analysis.figures import certified as curves
from rna_ray.analysis.figures.catalog import CERTIFIED, FIGURES
from rna_ray.analysis.figures.setting import setting
from rna_ray.analysis.statistics import wilson
from rna_ray.errors import FigureError
from rna_ray.evaluation.radii import METHODS, largest, pixeldp_radius, renyi_radius
from rna_ray.store import Store, connect, open_store

NET = {"network": "stn-mnist", "width": 64, "data": "mnist", "train_examples": 60_000, "epochs": 20,
       "precision": "fp32", "objective": "natural"}  # fmt: skip
L2 = {"threat": "l2", "data": "mnist", "called": "pgd", "eps_space": "pixel"}


def figure_1(book: Any, images: int = 60) -> Store:
    """Three noises, two trainings and a baseline under PGD; the more noise, the less sure are the counts."""
    generator = np.random.default_rng(0)
    for name, loss in (("STN", 0.0), ("without stability", 0.08)):
        for sigma in (0.3, 0.7, 1.2):
            label = f"{name}, noise_255={255 * sigma:g}"
            book.trained(label, **NET)
            sure = np.clip(generator.beta(8, 0.6 + sigma / 2, images) - loss, 0.02, 0.9999)
            counts = [generator.multinomial(100, [p, *[(1 - p) / 9] * 9]).tolist() for p in sure]
            chosen = [int(generator.random() > p) for p in sure]
            book.certified(label, counts, selection=chosen, noise_255=255 * sigma)
    book.trained("TRADES", **NET)
    book.cell("TRADES", "natural", "none", [[1] * (images - 2) + [0] * 2], data="mnist")
    for eps in (0.5, 1.0, 1.5, 2.0):
        right = round(images * (0.97 - 0.3 * eps**1.5))
        label = f"pgd-20 eps_255={255 * eps:g}"
        book.cell("TRADES", label, "fixed", [[1] * right + [0] * (images - right)], eps_255=255 * eps, **L2)
    return book.close()


def words(picture: Path) -> str:
    """Return the text of an SVG, its lines joined."""
    return " ".join(" ".join(ElementTree.parse(picture).getroot().itertext()).split())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, new_book: Any) -> tuple[Store, Path]:
    folder = tmp_path_factory.mktemp("certified")
    store = figure_1(new_book(open_store(folder / "store"), "stn-figure1"))
    figures.figure(connect(store), "stn-figure1", folder / "out")
    return store, folder / "out"


def test_a_curve_falls_from_the_certified_share_to_nothing_at_the_largest_radius(book) -> None:
    book.certified("STN", [[100, 0], [90, 10], [100, 0], [100, 0]], selection=[0, 0, 1, 0], labels=[0, 0, 0, 1])
    table = FIGURES["stn-figure1"].tabulate(connect(book.close()), "s").to_pylist()
    assert {row["method"] for row in table if row["kind"] == "certified"} == {"renyi", "pixeldp"}
    curve = [row for row in table if (row["kind"], row["method"]) == ("certified", "renyi")]
    most = largest(100, 0.5, "renyi")
    assert {row["largest"] for row in curve} == {most}
    assert (curve[0]["radius"], curve[0]["accuracy"], curve[0]["n"]) == (0, 0.5, 4)  # the other two are wrong
    assert (curve[0]["low"], curve[0]["high"]) == pytest.approx(wilson(2, 4))
    at = {row["radius"]: row["accuracy"] for row in curve}
    assert at[most] == 0.25 and all(share == 0 for radius, share in at.items() if radius > most)
    shares = [row["accuracy"] for row in curve]
    assert shares == sorted(shares, reverse=True) and set(shares) == {0.5, 0.25, 0}


def test_attacks_are_points_of_what_is_not_certified_and_printed_numbers_of_the_same_data(drawn) -> None:
    store, _ = drawn
    rows = FIGURES["stn-figure1"].tabulate(connect(store), "stn-figure1").to_pylist()
    points = [row for row in rows if row["kind"] == "empirical"]
    assert [(row["radius"], row["line"]) for row in points] == [
        (eps, "TRADES, pgd-20") for eps in (0, 0.5, 1, 1.5, 2)
    ]  # fmt: skip
    assert points[0]["accuracy"] == pytest.approx(58 / 60) and points[0]["n"] == 60
    assert [(row["radius"], row["accuracy"], row["sigma"]) for row in rows if row["kind"] == "printed"] == [
        (1.4, 0.51, 0.7)
    ]  # fmt: skip
    lines = {row["line"] for row in rows if row["kind"] == "certified"}
    assert lines == {"STN", "without stability"}


def test_printed_numbers_of_other_data_are_left_out(book) -> None:
    book.certified("STN", [[100, 0]], data="cifar10")
    rows = FIGURES["stn-figure1"].tabulate(connect(book.close()), "s").to_pylist()
    assert {row["kind"] for row in rows} == {"certified"}


@pytest.mark.parametrize(
    ("label", "sigma", "said"),
    [
        ("STN, noise_255=178.5", 0.7, "STN"), ("STN σ=0.7", 0.7, "STN"), ("STN 0.7", 0.7, "STN"), ("STN", 0.7, "STN"),
        ("noise_255=178.5", 0.7, "noise_255=178.5"), ("loss.gamma=2, noise_255=178.5, seed=1", 0.7,
                                                      "loss.gamma=2, seed=1"),
        ("STN, noise_255=100", 100 / 255, "STN"), ("100/255, STN", 100 / 255, "STN"), ("STN 0.75", 0.7, "STN 0.75"),
    ],
)  # fmt: skip
def test_a_line_is_a_label_without_its_noise(label: str, sigma: float, said: str) -> None:
    assert curves.line(label, sigma, 255 * sigma) == said


def test_the_picture_names_its_axes_units_n_and_intervals(drawn) -> None:
    _, folder = drawn
    text = words(folder / "stn-figure1.svg")
    for said in ("ℓ₂ radius ([0, 1] pixels)", "accuracy (%)", "(a) STN (Rényi), 100 draws", "(b) PixelDP, 100 draws",
                 "σ = 0.7", "without stability", "TRADES, pgd-20", "printed: 51 % at 1.4, σ = 0.7", "n = 60 images",
                 "largest radius that", "95 % Wilson", "MNIST", "Section 6.1"):  # fmt: skip
        assert said in text, said
    with Image.open(folder / "stn-figure1.png") as image:
        assert image.size == pytest.approx((150 * 9.2, 150 * 4.3), abs=1)
    assert pq.read_schema(folder / "stn-figure1.parquet").equals(curves.SCHEMA)


def test_words_stay_inside_the_picture_and_the_legend_off_the_panels(drawn) -> None:
    store, _ = drawn
    connection = connect(store)
    of_4 = setting(connection, "stn-figure1")
    for name in ("stn-figure1", "stn-figure4"):
        chosen = FIGURES[name]
        with style.applied():
            picture = chosen.draw(chosen.tabulate(connection, "stn-figure1").to_pylist(), of_4)
            picture.canvas.draw()
            width, height = picture.canvas.get_width_height()
            panels = [axes.get_tightbbox() for axes in picture.axes]
            others = [each.get_window_extent() for each in picture.legends]
            others += [picture._suptitle.get_window_extent(), picture._supxlabel.get_window_extent()]
        for box in (*panels, *others):
            assert box.x0 > -2 and box.y0 > -2 and box.x1 < width + 2 and box.y1 < height + 2
        assert not [box for above in others for box in panels if above.overlaps(box)]


def test_each_number_of_draws_has_its_panels(book) -> None:
    for draws in (100, 1000):
        book.certified("STN", [[draws, 0], [draws - 5, 5]])
    connection = connect(book.close())
    with style.applied():
        picture = CERTIFIED.draw(CERTIFIED.tabulate(connection, "s").to_pylist(), setting(connection, "s"))
        titles = [axes.get_title(loc="left") for axes in picture.axes]
    assert [title[4:] for title in titles] == [
        f"{METHODS[method].about}, {draws} draws" for draws in ("100", "1,000") for method in METHODS
    ]


def test_a_sweep_that_only_certifies_is_drawn_under_its_own_name(book, tmp_path: Path) -> None:
    book.trained("STN", **NET)
    book.certified("STN", [[100, 0]])
    book.certified("STN", [[100, 0]], first=1, missing=True)
    paths = figures.figure(connect(book.close()), "s", tmp_path)
    assert {row["method"] for row in pq.read_table(paths[2]).to_pylist() if row["kind"] == "certified"} == set(METHODS)
    assert "1 of the sweep's measurements are still missing" in words(paths[1])


# -- the bounds --------------------------------------------------------------------------------------------------------


def test_figure_4_needs_no_store_and_holds_the_bounds(tmp_path: Path) -> None:
    connection = connect(open_store(tmp_path / "none"))
    paths = figures.figure(connection, "stn-figure4", tmp_path / "out")
    rows = pq.read_table(paths[2]).to_pylist()
    assert not (tmp_path / "none").exists() and len(rows) > 2000
    assert all(row["p1"] > row["p2"] and 0.2 - 1e-12 <= row["p1"] + row["p2"] <= 1 + 1e-12 for row in rows)
    (row,) = [row for row in rows if (row["p1"], row["p2"]) == (0.9, 0.05)]
    assert row["renyi"] == renyi_radius(0.9, 0.05, 1) and row["pixeldp"] == pixeldp_radius(0.9, 0.05, 1)
    assert all(row["pixeldp"] < row["renyi"] <= row["cohen-two-sided"] for row in rows)  # STN's claim, and its limit
    apart = [row["renyi"] / row["pixeldp"] for row in rows if row["p1"] - row["p2"] >= 0.55]
    assert min(apart) > 2  # "more than twice as high" where they are far apart; at 0.5 not quite
    assert figures.draws_rows("stn-figure1") and not figures.draws_rows("stn-figure4")
    assert "no data, no intervals" in words(paths[1])
    assert pq.read_schema(paths[2]).metadata[b"about"].startswith(b"STN Figure 4")
    assert bounds.tabulate(None, "").num_rows == len(rows)


def test_an_unknown_sweep_is_refused_there_too(tmp_path: Path) -> None:
    with pytest.raises(FigureError, match="unknown sweep of this store: 't'"):
        figures.figure(connect(open_store(tmp_path / "none")), "stn-figure4", tmp_path / "out", "t")
