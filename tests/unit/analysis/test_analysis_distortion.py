"""The table of unbounded attacks: how far they went, and the accuracy that they leave within a radius."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from rna_ray.analysis.statistics import mean_interval
from rna_ray.analysis.tables import table
from rna_ray.errors import QueryError
from rna_ray.store import connect

UNBOUNDED = {"eps_255": None, "threat": "none"}
LINF = ("linf_1", "linf_2", "linf_4", "linf_8", "linf_16", "linf_32")
L2 = ("l2_0_25", "l2_0_5", "l2_1", "l2_2")


def rows(book: Any) -> list[dict[str, Any]]:
    return json.loads(table(connect(book.close()), "distortion", "json"))


def test_the_curve_is_what_an_attacker_within_the_radius_leaves(book) -> None:
    # Broken at 2/255, still right after 10/255, broken at 20/255, and wrong from the start.
    linf, l2 = [2 / 255, 10 / 255, 20 / 255, 0.0], [0.25, 0.75, 3.0, 0.0]
    book.cell("BN", "cw-1000", "fixed", [[0, 1, 0, 0]], natural=[1, 1, 1, 0], l2=l2, linf=linf, **UNBOUNDED)
    book.cell("BN", "pgd-20", "fixed", [[0, 1, 0, 0]])
    book.cell("BN", "natural", "none", [[1, 1, 1, 0]])
    (row,) = rows(book)
    assert [row[key] for key in ("sweep", "variant", "attack", "knowledge", "n", "draws")] == [
        "s", "BN", "cw-1000", "fixed", 4, 1,
    ]  # fmt: skip
    assert (row["natural_accuracy"], row["accuracy"]) == (0.75, 0.25)
    assert (row["low"], row["high"]) == pytest.approx(mean_interval(0.25, 4))
    assert (row["median_l2"], row["median_linf"]) == pytest.approx((0.75, 10 / 255))  # of the three
    assert [row[name] for name in LINF] == [0.75, 0.5, 0.5, 0.5, 0.5, 0.25]
    assert [row[name] for name in L2] == [0.5, 0.5, 0.5, 0.5]


def test_draws_and_seeds_are_means(book) -> None:
    for seed, linf in ((0, [0.5, 0.01]), (1, [0.01, 0.01])):
        scores, natural = [[1, 2]], [3, 4]
        book.cell(
            "BN+IN", "deepfool-50", "transfer", scores, draws=4, natural=natural, linf=linf, seed=seed, **UNBOUNDED
        )
        book.plan[-1]["position"] = 0
    (row,) = rows(book)
    assert (row["n"], row["draws"], row["accuracy"], row["natural_accuracy"]) == (2, 4, 0.375, 0.875)
    assert row["linf_1"] == 0.875  # nothing is within 1/255
    assert row["linf_4"] == ((0.75 + 0.25) / 2 + 0.5) / 2  # the first image is within 4/255 for one seed
    assert row["linf_32"] == row["linf_4"] and row["l2_2"] == 0.375


def test_every_form_has_the_same_columns_and_says_what_they_are(book) -> None:
    book.cell("BN", "cw-1000", "fixed", [[0, 1]], **UNBOUNDED)
    connection = connect(book.close())
    (from_csv,) = csv.DictReader(io.StringIO(table(connection, "distortion", "csv")))
    (from_json,) = json.loads(table(connection, "distortion", "json"))
    header, _, _, _, caption = table(connection, "distortion").splitlines()
    assert list(from_csv) == list(from_json) == [name.strip() for name in header.split("|")[1:-1]]
    assert caption.startswith("distortion: Attacks without a radius, of every sweep")
    assert "within a radius (linf in 255ths)" in caption
    with pytest.raises(QueryError, match="'distortion' is a query of its own"):
        table(connection, "distortion", against="BN")


def test_a_store_without_such_attacks_says_so(book) -> None:
    book.cell("BN", "pgd-20", "fixed", [[0, 1]])
    connection = connect(book.close())
    assert table(connection, "distortion") == "no evaluation without a bound is in this store yet\n"
    assert table(connection, "distortion", "latex").startswith("% no evaluation without a bound")
    assert table(connection, "distortion", "csv").startswith("sweep,variant,attack,knowledge,eps_space,n,draws,")
    assert json.loads(table(connection, "distortion", "json")) == []
