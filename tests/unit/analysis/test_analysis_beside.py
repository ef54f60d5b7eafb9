"""The papers' printed rows beside ours, in the table of the sweep that has their name."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import duckdb
import pytest

from rna_ray.analysis import papers
from rna_ray.analysis.tables import table
from rna_ray.errors import QueryError
from rna_ray.store import connect, open_store

UNBOUNDED = {"eps_255": None, "threat": "none"}
NONE = "\N{EN DASH}"
INNER = {
    "attack": '{"eps_255": 8.0, "name": "pgd", "random_start": true, "step_255": 6.0, "steps": 2, "threat": "linf"}',
    "precision": "bf16",
}
"""How the networks of these books were trained."""


def grid(text: str) -> dict[str, dict[str, str]]:
    """Return a markdown table's cells by the labels of row and column, both without what is marked beside them."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    columns = [name.partition(" (")[0] for name in lines[0]]
    return {line[0].rstrip(" †‡"): dict(zip(columns, line, strict=True)) for line in lines[2:]}


def columns(book: Any, variant: str, **scores: int) -> None:
    """Plan and answer the columns of Table 4 for one variant, with this many of 100 images right in each."""
    network = book.trained(
        variant, network="resnet18", width=16, data="cifar10", train_examples=10_000, epochs=8, **INNER
    )
    right = {"natural": 60, "pgd": 30, "deepfool": 5, "autoattack": 25, "eot": 20} | scores
    for at, (attack, knowledge) in {
        "natural": ("natural", "none"),
        "pgd": ("pgd-20", "transfer"),
        "deepfool": ("deepfool-50", "transfer"),
        "autoattack": ("autoattack-standard", "transfer"),
        "eot": ("pgd-20", "eot-10"),
    }.items():
        settings = UNBOUNDED if at == "deepfool" else {"steps": 20} if at in ("pgd", "eot") else {}
        settings = settings | {"classes": 10, "data": "cifar10", "network_id": network}
        book.cell(variant, attack, knowledge, [[1] * right[at] + [0] * (100 - right[at])], **settings)


def four_rows(book: Any) -> Any:
    """Return a book of two of Table 4's methods under both protocols, BN far ahead."""
    for protocol in ("paper", "ours"):
        columns(book, f"BN, {protocol}", pgd=80 if protocol == "ours" else 30)
    for protocol in ("paper", "ours"):
        columns(book, f"IN+BN, {protocol}")
    book.close()
    return book


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory, new_book: Any) -> duckdb.DuckDBPyConnection:
    """The store of those four rows, asked and never written to."""
    return connect(four_rows(new_book(open_store(tmp_path_factory.mktemp("four") / "store"), "rna-table4")).store)


@pytest.fixture(scope="module")
def text(four: duckdb.DuckDBPyConnection) -> str:
    return table(four, "rna-table4")


def test_printed_rows_stand_before_the_variants_of_their_name_and_the_others_at_the_end(text: str) -> None:
    shown = grid(text)
    assert list(shown) == [
        "BN, printed", "BN, paper", "BN, ours", "IN+BN, printed", "IN+BN, paper", "IN+BN, ours",
        "GN+BGN, printed", "GN+LN, printed", "LN+BN, printed",
    ]  # fmt: skip


def test_printed_numbers_stand_as_printed_in_our_column_of_the_same_attack(text: str) -> None:
    shown = grid(text)
    assert {name: cell for name, cell in shown["BN, printed"].items() if name != "audit"} == {
        "variant": "BN, printed",
        "draws": NONE,
        "natural": NONE,  # Table 4 does not print it
        "pgd-20@transfer": "52.16",
        "deepfool-50@transfer": "0.35",
        "autoattack-standard@transfer": "47.69",
        "pgd-20@eot-10": NONE,
    }
    assert shown["BN, paper"]["pgd-20@transfer"].startswith("30.0 ±")
    assert shown["GN+LN, printed"]["deepfool-50@transfer"].startswith("62.85")


def test_printed_numbers_carry_the_audit_and_are_never_bold(text: str) -> None:
    shown = grid(text)
    assert shown["IN+BN, printed"]["autoattack-standard@transfer"] == "65.61 ✗"  # above its own PGD-20
    assert shown["IN+BN, printed"]["audit"].split()[:4] == ["0", "✓", "1", "✗"]
    assert shown["BN, printed"]["audit"].split()[:4] == ["1", "✓", "0", "✗"]
    assert shown["BN, ours"]["pgd-20@transfer"].startswith("**80.0")
    assert not [cell for label, row in shown.items() if "printed" in label for cell in row.values() if "**" in cell]


def test_the_caption_says_where_they_come_from_and_what_compares(text: str) -> None:
    caption = text.splitlines()[-1]
    assert (
        "Printed rows: RNA (NeurIPS 2022) Table 4, without interval and never bold, checked by rna-ray audit "
        "--published. Of ours, only rows under protocol paper, trained at its scale, compare with them like with like. "
        "Trained for ours: "
        "resnet18 of width 16 on 10,000 images of cifar10 for 8 epochs under PGD-2 within \N{SCRIPT SMALL L}∞ "
        "ε = 8/255, steps of 6/255, in bf16. audit: "
    ) in caption


def test_a_network_of_another_scale_and_a_diverged_one(make_book: Callable[..., Any]) -> None:
    four = four_rows(make_book("four", "rna-table4"))
    full = {"network": "resnet18", "width": 64, "data": "cifar10", "precision": "fp32"}
    given = {"settings": '{"network": {"weights_sha256": "ab"}}'}
    four.trained("GN+LN, ours", **full, **given, train_examples=49_488, epochs=200)
    four.trained("GN+LN, paper", **full, train_examples=9, epochs=3, state="diverged")
    caption = table(connect(four.close()), "rna-table4").splitlines()[-1]
    said = (
        "in bf16; resnet18 of width 64 from given weights on 49,488 images of cifar10 for 200 epochs without an "
        "attack, in fp32. "
    )
    assert said in caption and "on 9 images" not in caption


def test_an_attack_at_another_radius_or_with_other_steps_gets_no_printed_number(make_book: Callable[..., Any]) -> None:
    book = make_book("other", "rna-table4")
    book.cell("BN, ours", "pgd-20", "transfer", [[1, 0]], eps_255=4.0, data="cifar10")
    book.cell("BN, ours", "pgd-200", "transfer", [[1, 0]], data="cifar10")
    book.cell("BN, ours", "autoattack-standard eps_255=4", "transfer", None, missing=1, data="cifar10")
    text = table(connect(book.close()), "rna-table4")
    row = grid(text)["BN, printed"]
    assert {cell for name, cell in row.items() if "@" in name} == {NONE}
    assert "Printed, but not asked for here: pgd-20, deepfool, autoattack-standard." in text
    assert "Trained for ours" not in text


def test_an_attack_in_another_space_or_norm_gets_no_printed_number(make_book: Callable[..., Any]) -> None:
    book = make_book("spaces", "rna-table4")
    book.cell("BN, ours", "pgd-20 eps_space=pixel", "transfer", [[1, 0]], eps_space="normalized", data="cifar10")
    book.cell("BN, ours", "pgd-20 threat=linf", "transfer", [[1, 0]], threat="l2", data="cifar10")
    text = table(connect(book.close()), "rna-table4")
    assert {cell for name, cell in grid(text)["BN, printed"].items() if "@" in name} == {NONE}


def test_a_small_scales_column_says_what_ours_is(make_book: Callable[..., Any]) -> None:
    book = make_book("five", "rna-table5")
    variant = "BGN+GN[1-1] black-box layer-free, ours"
    book.cell(variant, "cw-100", "transfer", [[1, 0]], **UNBOUNDED, data="cifar10")
    book.cell(variant, "mifgsm-5", "transfer", [[1, 0]], data="cifar10")
    text = table(connect(book.close()), "rna-table5")
    shown = grid(text)
    assert "Printed under cw-100: the numbers of cw-1000." in text and "Printed under mifgsm" not in text
    printed = shown["BGN+GN[1-1] black-box layer-free, printed"]
    assert (printed["cw-100@transfer"], printed["mifgsm-5@transfer"]) == ("84.45 ✗", "60.70")
    assert len(shown) == 9  # the eight printed rows, and ours


def test_printed_numbers_stand_beside_the_same_images_alone(make_book: Callable[..., Any]) -> None:
    book = make_book("digits", "rna-table4")
    book.cell("BN, ours", "pgd-20", "transfer", [[1, 0]], data="digits")
    assert "printed" not in table(connect(book.close()), "rna-table4")


def test_several_networks_and_a_second_source(make_book: Callable[..., Any]) -> None:
    book = make_book("one", "rna-table1")
    for variant in ("ResNet-18 RNA, paper", "WideResNet32 RNA, paper"):
        book.cell(variant, "pgd-20", "transfer", [[1, 0]], data="cifar10")
    text = table(connect(book.close()), "rna-table1")
    shown = grid(text)
    assert list(shown)[:3] == [
        "ResNet-18 RNA, printed", "ResNet-18 RNA, printed (MindSpore model zoo, CIFAR-10)", "ResNet-18 RNA, paper",
    ]  # fmt: skip
    assert [row["pgd-20@transfer"] for row in list(shown.values())[:2]] == ["60.69", "60.94"]
    assert shown["WideResNet32 RNA, printed"]["pgd-20@transfer"] == "63.34"
    assert "Printed rows: RNA (NeurIPS 2022) Table 1; MindSpore model zoo, CIFAR-10, without" in text


def test_csv_and_json_tell_printed_from_measured(four: duckdb.DuckDBPyConnection) -> None:
    rows = json.loads(table(four, "rna-table4", "json"))
    assert [row["variant"] for row in rows[:4]] == ["BN, printed"] * 3 + ["BN, paper"]
    first = {name: value for name, value in rows[0].items() if value is not None}
    counts = {name: first.pop(name) for name in ("audit_passed", "audit_failed", "audit_not_measured")}
    assert counts["audit_failed"] == 0 < counts["audit_not_measured"]
    assert first == {
        "variant": "BN, printed", "attack": "pgd-20", "knowledge": "transfer", "nth": 1, "state": "printed",
        "accuracy": 0.5216, "eps_255": 8.0, "eps_space": "pixel", "threat": "linf", "data": "cifar10", "best": False,
        "source": "printed",
    }  # fmt: skip
    assert {row["source"] for row in rows if ", printed" not in row["variant"]} == {"measured"}
    assert sum(row["source"] == "printed" for row in rows) == 15
    flat = list(csv.DictReader(io.StringIO(table(four, "rna-table4", "csv"))))
    assert [row["source"] for row in flat] == [row["source"] for row in rows]
    assert (flat[0]["accuracy"], flat[0]["n"], flat[0]["attack"]) == ("0.5216", "", "pgd-20")


def test_a_printed_number_without_a_column_is_still_in_csv(make_book: Callable[..., Any]) -> None:
    book = make_book("few", "rna-table4")
    book.cell("BN, ours", "natural", "none", [[1, 0]], data="cifar10")
    rows = json.loads(table(connect(book.close()), "rna-table4", "json"))
    assert ("GN+LN, printed", "deepfool", "transfer", 0.6285) in {
        (row["variant"], row["attack"], row["knowledge"], row["accuracy"]) for row in rows
    }


def test_a_sweep_that_no_paper_printed_has_measured_rows_alone(make_book: Callable[..., Any]) -> None:
    connection = connect(four_rows(make_book("mine", "mine")).store)
    assert "rinted" not in table(connection, "mine")
    assert {row["source"] for row in json.loads(table(connection, "mine", "json"))} == {"measured"}


def test_each_answer_shows_the_printed_rows_once(four: duckdb.DuckDBPyConnection) -> None:
    worst = grid(table(four, "rna-table4", answer="worst"))
    assert worst["BN, printed"]["pgd-20@transfer"] == "52.16"
    lines = table(four, "rna-table4", answer="all").splitlines()
    printed = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if ", printed" in line]
    assert [line[:3] for line in printed[:2]] == [["BN, printed", NONE, NONE], ["IN+BN, printed", NONE, NONE]]
    assert len(printed) == 5 and printed[0][4] == "52.16"


def test_differences_are_of_measured_rows_alone(four: duckdb.DuckDBPyConnection) -> None:
    assert ", printed" not in table(four, "rna-table4", against="BN, paper")
    with pytest.raises(QueryError, match="unknown variant of sweep 'rna-table4': 'BN, printed'"):
        table(four, "rna-table4", against="BN, printed")


def test_a_table_without_a_measured_attack_has_no_audit_of_the_printed_ones(make_book: Callable[..., Any]) -> None:
    book = make_book("none", "rna-table4")
    book.cell("BN, ours", "natural", "none", [[1, 0]], data="cifar10")
    book.cell("BN, ours", "autoattack-standard", "transfer", None, missing=1, data="cifar10")
    text = table(connect(book.close()), "rna-table4")
    assert "audit" not in text and grid(text)["IN+BN, printed"]["autoattack-standard@transfer"] == "65.61"


# -- networks that did not learn ---------------------------------------------------------------------------------------


def guessing(book: Any, right: int) -> str:
    settings = {"classes": 10, "data": "cifar10"}
    variant = "BN+IN+GN+LN white-box layer-based, ours"
    book.cell(variant, "natural", "none", [[1] * right + [0] * (1000 - right)], **settings)
    book.cell(variant, "pgd-20", "transfer", [[1] * 900 + [0] * 100], **settings)
    return table(connect(book.close()), "rna-table5")


def test_a_row_that_cannot_be_trained_shows_as_such_printed_or_ours(make_book: Callable[..., Any]) -> None:
    text = guessing(make_book("chance", "rna-table5"), 104)
    assert "| BN+IN+GN+LN white-box layer-based, printed ‡ |" in text
    assert "| BN+IN+GN+LN white-box layer-based, ours ‡ " in text
    assert text.count(" ‡ ") == 2 and "| GN[1-64] white-box layer-based, printed " in text
    assert "‡: natural accuracy not above chance (1/10), or by no more than its interval." in text
    row = grid(text)["BN+IN+GN+LN white-box layer-based, printed"]
    assert (row["natural"], row["pgd-20@transfer"]) == ("10.45", NONE)


def test_a_network_just_above_chance_has_learned(make_book: Callable[..., Any]) -> None:
    text = guessing(make_book("above", "rna-table5"), 130)  # 95 % Wilson: 11.1 to 15.2
    assert "layer-based, ours ‡" not in text and "layer-based, printed ‡" in text


def test_a_diverged_network_is_said_to_have_diverged(make_book: Callable[..., Any]) -> None:
    book = make_book("diverged", "rna-table5")
    book.trained("BN+IN+GN+LN white-box layer-based, ours", state="diverged")
    assert "layer-based, ours † " in guessing(book, 100)


def test_few_right_on_every_draw_are_no_guesses(make_book: Callable[..., Any]) -> None:
    book = make_book("worst", "other")
    book.cell("BN+IN", "natural", "none", [[4, 5, 6, 5] * 25], draws=10, classes=10)
    connection = connect(book.close())
    assert "| BN+IN   | 10    | 0.0 ±" in table(connection, "other", answer="worst")
    assert "‡" not in table(connection, "other", answer="worst")
    chance = make_book("draws", "other")
    chance.cell("BN+IN", "natural", "none", [[1, 2, 0, 1] * 25], draws=10, classes=10)
    assert "| BN+IN ‡ |" in table(connect(chance.close()), "other", answer="worst")
    assert r"BN+IN \ddag{} &" in table(connect(chance.store), "other", "latex")


def test_one_path_for_all_images_leaves_a_network_that_learned_unmarked(make_book: Callable[..., Any]) -> None:
    book = make_book("alone", "other")
    book.cell("BN+IN", "natural", "none", [[1] * 60 + [0] * 40], classes=10, path_sharing="batch")
    text = table(connect(book.close()), "other")
    assert "| BN+IN   | 1     | 60.0 ±52." in text and "‡" not in text  # as one example, down to 7.8 %


# -- which column, which variant ---------------------------------------------------------------------------------------


def test_a_variants_name_is_matched_whole() -> None:
    (row,) = [row for row in papers.rows("rna-table4") if row.method == "BN"]
    assert papers.first(row, ["BN natural", "GN+BN, ours", "BN", "BN, ours"]) == "BN"
    assert papers.first(row, ["BN+IN, ours", "BN, fp32, ours"]) == "BN, fp32, ours"
    assert papers.first(row, ["BN+IN"]) is None


def test_a_printed_row_stands_beside_the_variant_that_it_names() -> None:
    rows = {row.method: row for row in papers.rows("rna-table3")}
    ours = ["AT, BN, paper", "AT, BN+IN, paper", "AWP, BN, paper", "AWP, BN+IN, paper"]
    assert (rows["RNA"].label, papers.first(rows["RNA"], ours)) == ("RNA, printed", "AT, BN+IN, paper")
    assert papers.first(rows["AWP"], ours) == "AWP, BN, paper" and papers.first(rows["RobNet"], ours) is None


def test_columns_of_several_radii_are_told_apart_before_and_after_there_are_rows() -> None:
    lines = {line.eps_255: line for line in papers.read("rna-figure5") if line.attack == "pgd-20"}
    labels = [f"pgd-20 eps_255={eps}" for eps in ("2", "8.0", "20.0")]
    planned = {(label, knowledge, 1): [] for label in labels for knowledge in ("eot-5", "transfer")}
    assert papers.column(lines[20.0], planned) == ("pgd-20 eps_255=20.0", "transfer", 1)
    assert papers.column(lines[2.0], planned) == ("pgd-20 eps_255=2", "transfer", 1)


def test_a_csv_may_state_space_and_norm_and_its_columns_are_found_by_them() -> None:
    text = """\
data,model,method,attack,eps_255,eps_space,threat,accuracy,source
cifar10,ResNet-20,BN,natural,,,,91.2,A paper
cifar10,ResNet-20,BN,gaussian,,normalized,,80.1,A paper
cifar10,ResNet-20,BN,fgsm,7.65,normalized,l2,50.5,A paper
cifar10,ResNet-20,BN,fgsm,7.65,normalized,,40.5,A paper
cifar10,ResNet-20,BN,cw,,,,10.5,A paper
"""
    lines = list(papers._lines(text))
    assert [(line.eps_space, line.threat) for line in lines] == [
        ("pixel", "none"), ("normalized", "none"), ("normalized", "l2"), ("normalized", "linf"), ("pixel", "none"),
    ]  # fmt: skip
    natural, gaussian, grad, sign, cw = lines
    names = ["natural", "gaussian-25.5", "fgsm", "fgsm threat=l2", "fgsm eps_space=pixel", "cw-20"]
    planned = {(name, "none" if name[0] in "ng" else "transfer", 1): [] for name in names}

    def found(line: papers.Line) -> str | None:
        column = papers.column(line, planned)
        return column and column[0]

    assert [found(line) for line in (natural, gaussian, grad, cw)] == ["natural", "gaussian-25.5", names[3], "cw-20"]
    assert found(sign) == "fgsm"
    without = {column: held for column, held in planned.items() if column[0] in ("fgsm threat=l2", names[4])}
    assert papers.column(sign, without) is None
