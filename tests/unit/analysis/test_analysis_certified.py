"""Certified accuracy: from counts in a store, against radii worked out one by one, and as the table of a sweep."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

from rna_ray.analysis import captions, certified, tables
from rna_ray.analysis.statistics import wilson
from rna_ray.errors import QueryError
from rna_ray.evaluation.radii import METHODS, certify, largest
from rna_ray.store import Store, connect

COUNTS = [[100, 0, 0], [95, 4, 1], [60, 30, 10], [45, 50, 5], [2, 98, 0]]
"""Sure and right, less so, hardly, an abstention, and sure but wrong."""
SIGMA = 0.5


def only(store: Store) -> certified.Certified:
    (found,) = certified.certified(connect(store), "s")
    return found


def small(book: Any) -> Store:
    book.certified("STN", COUNTS, selection=[0, 0, 0, 1, 1])
    return book.close()


def test_radii_are_those_of_the_counts_and_a_wrong_class_is_never_certified_right(book) -> None:
    found = only(small(book))
    assert (found.n, found.seeds, found.draws, found.selection, found.sigma) == (5, 1, 100, 10, SIGMA)
    chosen = np.eye(3, dtype=int)[[0, 0, 0, 1, 1]]
    for method in METHODS:
        alone = certify(chosen, COUNTS, SIGMA, method=method).radius
        assert found.radii[method].tolist() == alone.tolist()
        share = found.certified(method, alone[1])
        assert (share.value, share.low, share.high) == pytest.approx((0.4, *wilson(2, 5)))
        assert found.certified(method, np.nextafter(alone[1], 2)).value == 0.2
        beyond = found.certified(method, largest(100, SIGMA, method) * 1.001)
        assert (beyond.value, beyond.low, beyond.high) == (0, 0, 0)  # no image can be
        assert found.mean_radius(method) == pytest.approx(alone[:3].sum() / 5)
    assert found.natural.value == 0.6  # the classes that were chosen, right or not certified
    assert [found.abstained(method).value for method in METHODS] == [0.2] * 4
    assert found.certified("cohen", 0).value == 0.6  # of the fourth, 50 of 100 is no majority


def test_an_abstention_is_not_certified_at_radius_zero(book) -> None:
    book.certified("STN", [[45, 45, 10], [100, 0, 0]])
    found = only(book.close())
    assert (found.natural.value, found.certified("renyi", 0).value) == (1.0, 0.5)


def test_images_without_all_their_draws_are_abstentions(book) -> None:
    book.certified("STN", [[100, 0], [100, 0], [60, 0], [0, 0]], abandoned=[1, 3], abandon="misclassified")
    found = only(book.close())
    assert found.radii["renyi"].tolist() == [largest(100, SIGMA, "renyi"), 0, 0, 0]
    assert found.abstained("renyi").value == 0.75


def test_shards_make_one_certification_and_seeds_are_averaged_within_each_image(book) -> None:
    book.certified("STN", COUNTS[:2], position=0)
    book.certified("STN", COUNTS[2:], first=2, selection=[0, 1, 1], position=0)
    book.certified("STN", [[100, 0, 0]] * 5, seed=1, position=1)
    found = only(book.close())
    assert (found.n, found.seeds, len(found.right)) == (5, 2, 10)
    share = found.certified("renyi", 0.1)
    one, two = [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]
    assert certify([[1, 0, 0]], [COUNTS[2]], SIGMA).radius < 0.1
    assert share.value == pytest.approx(np.mean([one, two]))
    assert (share.low, share.high) == pytest.approx(wilson(3.5, 5))  # five images, not ten


def test_each_noise_and_each_number_of_draws_stands_apart(book) -> None:
    for noise, counts in ((127.5, COUNTS), (255.0, COUNTS), (127.5, [[1000, 0, 0]] * 5)):
        book.certified("STN", counts, noise_255=noise)
    book.certified("no noise in training", COUNTS)
    found = certified.certified(connect(book.close()), "s")
    assert [(one.variant, one.sigma, one.draws) for one in found] == [
        ("STN", 0.5, 100), ("STN", 1.0, 100), ("STN", 0.5, 1000), ("no noise in training", 0.5, 100),
    ]  # fmt: skip
    assert [one.largest("renyi") for one in found[:3]] == pytest.approx([0.7292, 1.4584, 1.1071], abs=1e-4)


def test_units_that_differ_in_what_they_measured_are_not_mixed(book) -> None:
    book.certified("STN", COUNTS, position=0)
    book.certified("STN", COUNTS, position=0, first=5, noise_255=255.0)
    with pytest.raises(QueryError, match=r"STN would mix noise_255 127.5 and 255.0: give them sweeps of their own"):
        certified.certified(connect(book.close()), "s")


def test_what_is_missing_is_counted_and_shown(book) -> None:
    book.certified("STN", COUNTS, position=0)
    book.certified("STN", COUNTS, position=0, missing=True)
    book.certified("later", COUNTS, missing=True)
    connection = connect(book.close())
    now, later = certified.certified(connection, "s")
    assert (now.missing, now.n, later.missing, later.n, later.natural) == (1, 5, 1, 0, None)
    text = tables.table(connection, "s")
    assert "Units still missing: 2 (\N{EN DASH} where a row has none)." in text
    assert sum(line.startswith("| later") for line in text.splitlines()) == 4


# -- the table ---------------------------------------------------------------------------------------------------------


def cell(text: str, row: str, column: str) -> str:
    lines = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    (found,) = [line for line in lines if " ".join(line).startswith(row)]
    return found[lines[0].index(column)]


def test_the_table_says_each_method_apart_with_intervals_and_the_papers_share(book) -> None:
    text = tables.table(connect(small(book)), "s", radii=["0.1", "0.5"])
    low, high = wilson(2, 5)
    half = 100 * max(0.4 - low, high - 0.4)
    assert cell(text, "STN 0.5 100 STN (Rényi)", "ℓ₂ 0.1") == f"40.0 ±{half:.1f} (38.0)"
    assert cell(text, "STN 0.5 100 Cohen 60.0", "ℓ₂ 0.5") == f"40.0 ±{half:.1f} (38.0)"
    assert cell(text, "STN 0.5 100 PixelDP", "largest") == f"{largest(100, SIGMA, 'pixeldp'):.3f}"
    for said in ("n = 5 images.", "10 selection draws", "Clopper-Pearson", "Methods stand apart", "× 0.95"):
        assert said in text


def test_each_row_says_its_n_where_they_differ(book) -> None:
    book.certified("STN", COUNTS)
    book.certified("STN", [[1000, 0, 0]] * 4)
    book.certified("later", COUNTS, missing=True)
    text = tables.table(connect(book.close()), "s")
    assert [cell(text, f"{row} STN (Rényi)", "n") for row in ("STN 5 0.5 100", "STN 4 0.5 1,000")] == ["5", "4"]
    assert cell(text, f"later {3 * (captions.MISSING + ' ')}STN (Rényi)", "n") == captions.MISSING


def test_programs_get_the_same_numbers_one_a_row(book) -> None:
    connection = connect(small(book))
    rows = json.loads(tables.table(connection, "s", "json"))
    assert len(rows) == len(METHODS) * len(certified.RADII)
    found = only(book.store)
    for row in rows:
        share = found.certified(row["method"], row["radius"])
        assert (row["certified"], row["low"], row["high"]) == (share.value, share.low, share.high)
        assert row["certified_as_printed"] == pytest.approx(0.95 * share.value)
        assert (row["n"], row["draws"], row["sigma"], row["source"]) == (5, 100, SIGMA, "measured")
    read = list(csv.DictReader(io.StringIO(tables.table(connection, "s", "csv"))))
    assert [row["radius"] for row in read[:4]] == ["0.25", "0.5", "1.0", "1.5"]


def test_evaluations_and_certificates_of_one_sweep(book) -> None:
    book.trained("STN")
    book.cell("STN", "natural", "none", [[1, 1, 0]])
    book.certified("STN", COUNTS)
    connection = connect(book.close())
    both, alone = tables.table(connection, "s"), tables.table(connection, "s", certificates=True)
    assert both.index("accuracy in % over fresh draws") < both.index("certified accuracy in %")
    assert both.endswith(alone) and "fresh draws" not in alone
    assert both.count("| variant") == 2
    assert {row["attack"] for row in json.loads(tables.table(connection, "s", "json"))} == {"natural"}
    assert "method" in json.loads(tables.table(connection, "s", "json", certificates=True))[0]
    latex = tables.table(connection, "s", "latex")
    assert latex.count(r"\begin{table}") == 2 and r"$\sigma$" in latex and "σ" not in latex and "×" not in latex


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"certificates": True, "against": "BN"}, "--answer, --against and --interval are for attacks"),
        ({"certificates": True, "interval": "seeds"}, "--answer, --against and --interval are for attacks"),
        ({"radii": ["1"], "format": "json"}, "--radius is for certified accuracies, of which json would show none"),
        ({"radii": ["1"], "against": "STN"}, "of which differences would show none; add --certified"),
    ],
)
def test_what_would_not_be_shown_is_refused(book, asked: dict[str, Any], problem: str) -> None:
    book.trained("STN")
    book.cell("STN", "natural", "none", [[1, 1, 0]])
    book.certified("STN", COUNTS)
    connection = connect(book.close())
    with pytest.raises(QueryError, match=problem):
        tables.table(connection, "s", **asked)


@pytest.mark.parametrize("name", ["stn-table1", "stn-table1-small"])
def test_printed_numbers_stand_beside_those_of_their_data(make_book, name: str) -> None:
    book = make_book("printed", name)
    book.certified("STN", COUNTS, noise_255=178.5)
    connection = connect(book.close())
    text = tables.table(connection, name)
    assert cell(text, "STN, printed", "ℓ₂ 1.58") == "(69.0)"
    assert cell(text, "STN, printed", "natural") == "98.9"
    assert cell(text, "Wong et al. 2018 (single), printed", "ℓ₂ 1.58") == "(43.5)"
    assert cell(text, "STN 0.7 100 STN (Rényi)", "ℓ₂ 1.58") == "0"
    assert "36/255" not in text and "STN (NeurIPS 2019) Table 1" in text
    rows = json.loads(tables.table(connection, name, "json"))
    given = [row for row in rows if row["source"] != "measured"]
    assert [(row["radius"], row["certified_as_printed"], row["certified"]) for row in given] == [
        (1.58, 0.435, None), (1.58, 0.746, None), (1.58, 0.69, None),
    ]  # fmt: skip


def test_every_printed_number_of_table_1_is_there() -> None:
    found = certified.printed("stn-table1", ["mnist", "cifar10"])
    assert [(one.data, one.radius, one.certified, one.natural) for one in found] == [
        ("mnist", "1.58", "43.5", "88.2"), ("mnist", "1.58", "74.6", "81.4"), ("mnist", "1.58", "69.0", "98.9"),
        ("cifar10", "36/255", "53.0", "61.2"), ("cifar10", "36/255", "58.7", "68.8"),
        ("cifar10", "36/255", "65.6", "80.5"),
    ]  # fmt: skip
    assert certified.printed("stn-table10", ["mnist"]) == certified.printed("stn-table1", ["digits"]) == []


@pytest.mark.parametrize(
    "text", ["-1", "far", "1/0", "nan", "", "inf", "1e400", "1e999999999", "9" * 400 + "/1"], ids=lambda text: text[:12]
)
def test_a_radius_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match=r"a radius is a number of \[0, 1\] pixels such as 0.5 or 36/255, not "):
        certified.radius(text)
    assert certified.radius("36/255") == 36 / 255


def test_a_sweep_without_certificates_has_none_to_show(book) -> None:
    book.cell("BN", "natural", "none", [[1, 0]])
    connection = connect(book.close())
    for asked in ({"certificates": True}, {"radii": ["1"]}):
        with pytest.raises(QueryError, match="sweep 's' asks for no certification"):
            tables.table(connection, "s", **asked)
    with pytest.raises(QueryError, match="--certified and --radius are for a sweep's table"):
        tables.table(connection, "distortion", certificates=True)
