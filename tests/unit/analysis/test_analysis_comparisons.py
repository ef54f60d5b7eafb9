"""Variants compared on the same examples: differences worked out by hand, and marks only where they are earned."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter

import numpy as np
import pytest

from rna_ray.analysis.cells import ablation
from rna_ray.analysis.comparisons import Comparison, best, compare
from rna_ray.analysis.statistics import Variance, batch_variance, mcnemar, paired
from rna_ray.analysis.tables import table
from rna_ray.errors import QueryError
from rna_ray.store import Store, connect


def compared(store: Store, against: str) -> dict[tuple[str, str], Comparison]:
    connection = connect(store)
    found = compare(connection, ablation(connection, "s"), against)
    assert all(comparison.against == against for comparison in found)
    return {(comparison.variant, comparison.knowledge): comparison for comparison in found}


def marks(store: Store) -> list[tuple[str, str]]:
    connection = connect(store)
    return [(cell.variant, cell.knowledge) for cell in best(connection, ablation(connection, "s"))]


def test_a_difference_is_over_the_examples_that_both_have(book) -> None:
    book.cell("a", "pgd", "fixed", [[1, 1, 1, 0, 1, 1]])
    book.cell("b", "pgd", "fixed", [[0, 1, 0, 0]], first=1)
    book.cell("c", "pgd", "fixed", [[1, 1]], first=50)
    found = compared(book.close(), "a")
    b, wanted = found["b", "fixed"], paired({-1.0: 2, 1.0: 0, 0.0: 2})  # a has 1 1 0 1 there
    assert (b.n, b.mean, b.low, b.high, b.p) == (4, -0.5, wanted.low, wanted.high, mcnemar(0, 2))
    assert (found["c", "fixed"].n, found["c", "fixed"].mean, found["c", "fixed"].p) == (0, None, None)


def test_seeds_are_averaged_within_an_example_first(book) -> None:
    book.cell("a", "pgd", "fixed", [[1, 0, 1]])
    for seed, scores in enumerate(([1, 1, 1], [0, 1, 1])):
        book.cell("b", "pgd", "fixed", [scores], seed=seed)
    found = compared(book.close(), "a")["b", "fixed"]
    wanted = paired(Counter([-0.5, 1.0, 0.0]))
    assert (found.n, found.mean) == (3, pytest.approx(1 / 6))
    assert (found.low, found.high, found.p) == (wanted.low, wanted.high, wanted.p)


def test_cells_of_other_data_or_radius_are_not_compared(book) -> None:
    book.cell("a", "pgd", "fixed", [[1] * 40])
    book.cell("b", "pgd", "fixed", [[0] * 40], eps_255=16.0)
    book.cell("c", "pgd", "fixed", [[0] * 40], data="another")
    book.cell("d", "pgd", "fixed", [[0] * 40], eps_space="normalized")
    book.cell("e", "pgd", "fixed", [[0] * 40], threat="l2")
    found = compared(book.close(), "a")
    assert [comparison.mean for comparison in found.values()] == [None] * 4
    assert marks(book.store) == []


def test_what_a_difference_lacks_is_said(book) -> None:
    book.cell("a", "pgd", "fixed", [[1] * 40])
    book.cell("b", "pgd", "fixed", [[0] * 40], eps_255=16.0)
    assert "\N{EN DASH}: no image, data or ε in common" in table(connect(book.close()), "s", against="a")


def test_shared_draws_widen_a_difference(book) -> None:
    rng = np.random.default_rng(2)
    right = rng.random((60, 4)) < 0.8
    book.answered("drawn", "pgd", "fixed", np.where(right, 0, 1).tolist(), path_sharing="batch", batch=20)
    plain = (rng.random(60) < 0.5).astype(int).tolist()
    book.cell("plain", "pgd", "fixed", [plain])
    book.cell("once", "pgd", "fixed", [right[:, 0].astype(int).tolist()], path_sharing="batch", batch=30)
    book.cell("alone", "pgd", "fixed", [plain], path_sharing="batch", batch=60)
    found = compared(book.close(), "plain")
    differences = np.round(right.mean(1) - plain, 9)
    batches = [right[at : at + 20] for at in (0, 20, 40)]
    variance = Variance(sum(b.mean(0).var(ddof=1) / 4 / 9 for b in batches), 9)
    drawn, wanted = found["drawn", "fixed"], paired(Counter(differences.tolist()), paths=variance)
    assert (drawn.low, drawn.high, drawn.p) == pytest.approx((wanted.low, wanted.high, wanted.p))
    assert drawn.high - drawn.mean > paired(Counter(differences.tolist())).high - drawn.mean
    once = right[:, 0].astype(float) - plain
    between = batch_variance([(once[:30].sum(), 30), (once[30:].sum(), 30)])
    wanted = paired(Counter(once.tolist()), batches=between)
    assert (found["once", "fixed"].low, found["once", "fixed"].p) == pytest.approx((wanted.low, wanted.p))
    assert found["alone", "fixed"].mean is None  # one batch on one draw: nothing says what another would do


def test_a_mark_is_earned_against_every_other_cell(book) -> None:
    high, middle, low = [1] * 90 + [0] * 10, [1] * 88 + [0] * 12, [1] * 40 + [0] * 60
    for knowledge, rows in {
        "clear": {"a": high, "b": low, "c": low},
        "a tie with the second": {"a": high, "b": middle, "c": low},
        "missing": {"a": None, "b": high, "c": low},
    }.items():
        for variant, scores in rows.items():
            book.cell(variant, "pgd", knowledge, scores and [scores], missing=not scores)
    store = book.close()
    assert marks(store) == [("a", "clear"), ("b", "missing")]
    lines = table(connect(store), "s").splitlines()
    assert [line.count("**") for line in lines[2:5]] == [2, 2, 0]
    assert "| **90.0 ±7.4** |" in lines[2]
    assert "Bonferroni-corrected)." in lines[-1]
    assert r"\textbf{90.0 $\pm$7.4} &" in table(connect(store), "s", "latex")
    rows = json.loads(table(connect(store), "s", "json"))
    assert [(row["variant"], row["knowledge"]) for row in rows if row["best"]] == [("a", "clear"), ("b", "missing")]


def test_the_correction_decides_where_one_comparison_would_do(make_book) -> None:
    """Eight examples against one are p = 0.039: enough for one comparison, not for three."""
    better, worse = [1] * 8 + [0] + [1] * 91, [0] * 8 + [1] + [1] * 91
    for others, earned in ((1, [("a", "fixed")]), (3, [])):
        book = make_book(f"{others}")
        book.cell("a", "pgd", "fixed", [better])
        for other in range(others):
            book.cell(f"other {other}", "pgd", "fixed", [worse])
        assert marks(book.close()) == earned


@pytest.mark.slow
def test_equals_are_seldom_marked(make_book) -> None:
    rng, book = np.random.default_rng(11), make_book("equals")
    for column in range(20):
        for variant in "abc":
            book.cell(variant, "pgd", f"eot-{column + 1}", [(rng.random(80) < 0.6).astype(int).tolist()])
    assert len(marks(book.close())) <= 1  # of twenty columns: at most 5 %


def test_the_table_of_differences(book) -> None:
    for variant, right in (("BN", 80), ("BN+IN", 60), ("IN", 80)):
        book.cell(variant, "pgd", "fixed", [[1] * right + [0] * (100 - right)])
        book.cell(variant, "pgd", "eot-10", [[1] * (right // 2) + [0] * (100 - right // 2)])
    store = book.close()
    text = table(connect(store), "s", against="BN")
    assert text.splitlines()[:4] == [
        "| variant | draws | pgd@fixed          | pgd@eot-10          | audit        |",
        "| ------- | ----- | ------------------ | ------------------- | ------------ |",
        "| BN+IN   | 1     | \N{MINUS SIGN}20.0 ±8.4, p 2e-6 | \N{MINUS SIGN}10.0 ±6.7, p 0.002 | 2 ✓ 0 ✗ 22 ? |",
        "| IN      | 1     | 0.0 ±2.9, p 1.000  | 0.0 ±2.9, p 1.000   | 2 ✓ 0 ✗ 22 ? |",
    ]
    assert "s: accuracy over fresh draws minus that of BN on the same images, in points, ±" in text
    rows = json.loads(table(connect(store), "s", "json", against="BN"))
    assert rows[0] == {
        "variant": "BN+IN", "against": "BN", "attack": "pgd", "knowledge": "fixed", "nth": 1, "answer": "expected",
        "n": 100, "mean": -0.2, "low": pytest.approx(-0.28, abs=0.01), "high": pytest.approx(-0.12, abs=0.01),
        "p": mcnemar(0, 20),
    }  # fmt: skip
    found = list(csv.DictReader(io.StringIO(table(connect(store), "s", "csv", against="BN"))))
    assert [float(row["p"]) for row in found] == [row["p"] for row in rows]
    assert "$-$20.0 $\\pm$" in table(connect(store), "s", "latex", against="BN")


def test_what_cannot_be_compared_or_answered_is_one_sentence(book) -> None:
    book.cell("BN", "pgd", "fixed", [[1, 0]])
    store = book.close()
    with pytest.raises(QueryError, match=r"unknown variant of sweep 's': 'bn'.* Known: BN"):
        table(connect(store), "s", against="bn")
    with pytest.raises(QueryError, match="sweep 's' has no variant but 'BN'"):
        table(connect(store), "s", against="BN")
    with pytest.raises(QueryError, match=r"unknown answer 'wurst'; did you mean 'worst'\? Known: all, expected"):
        table(connect(store), "s", answer="wurst")


def test_all_answers_are_rows_of_their_variant(book) -> None:
    for variant in ("BN", "BN+IN"):
        book.answered(variant, "pgd", "fixed", [[0, 0, 1], [0, 1, 1], [0, 0, 0], [0, 0, 1]])
    store = book.close()
    text = table(connect(store), "s", answer="all")
    assert [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines()[2:8]] == [
        [variant, answer, "3"] for variant in ("BN", "BN+IN") for answer in ("expected", "vote", "worst")
    ]
    assert [line.split("|")[4].split("±")[0].strip() for line in text.splitlines()[2:5]] == ["66.7", "75.0", "25.0"]
    assert "worst: % of images right on every draw" in text
    rows = json.loads(table(connect(store), "s", "json", answer="all"))
    assert [row["answer"] for row in rows] == ["expected", "vote", "worst"] * 2
    assert {"se_paths", "se_examples", "seed_sd", "low", "high", "answer", "best"} <= set(rows[0])
    differences = table(connect(store), "s", answer="all", against="BN")
    assert differences.count("0.0 ±") == 3


def test_answers_over_other_numbers_of_draws_are_not_held_against_each_other(book) -> None:
    book.cell("BN", "pgd", "fixed", [[1] * 200], draws=1)
    book.cell("BN+IN", "pgd", "fixed", [[0] * 200], draws=10)
    connection = connect(book.close())
    assert "**100.0" in table(connection, "s")  # over fresh draws, their number is only precision
    said = "over 1 draw is easier than over 10: compare columns of equal draws."
    for answer in ("vote", "worst", "all"):
        text = table(connection, "s", answer=answer)
        assert ("`worst` " + said in text) == (answer != "vote")
        assert text.count("**") == (2 if answer == "all" else 0)
    assert "`vote` over 1 draw is another answer than over 10: " in table(connection, "s", answer="vote")
    assert said not in table(connection, "s")


def test_the_answer_of_one_path_hangs_on_no_number_of_draws(book) -> None:
    book.cell("BN", "pgd", "fixed", [[1] * 200], draws=1, random_output=False)
    book.cell("BN+IN", "pgd", "fixed", [[0] * 200], draws=10)
    for answer in ("vote", "worst"):
        text = table(connect(book.close()), "s", answer=answer)
        assert text.count("**") == 2 and "compare columns" not in text


def test_answers_over_as_many_draws_have_a_best(book) -> None:
    for variant, scores in (("BN", [10] * 200), ("BN+IN", [0] * 200)):
        book.cell(variant, "pgd", "fixed", [scores], draws=10)
    text = table(connect(book.close()), "s", answer="worst")
    assert text.count("**") == 2 and "compare columns" not in text
