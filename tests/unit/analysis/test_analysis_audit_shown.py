"""The audit as it is read: its own table, the papers' printed ones, beside a sweep's cells, and on the command line."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from audit_base import counted_by_cell, failed, lab
from typer.testing import CliRunner

from rna_ray.analysis import audit as audits
from rna_ray.analysis.audit import Counts, judge, show
from rna_ray.analysis.audit import findings as said_by
from rna_ray.analysis.audit.checks import CHECKS
from rna_ray.analysis.papers import Line
from rna_ray.analysis.tables import table
from rna_ray.cli import app
from rna_ray.errors import QueryError, UserError
from rna_ray.store import connect

# -- what is printed ---------------------------------------------------------------------------------------------------


def test_the_table_for_people() -> None:
    spoilt = lab(fgsm={"scores": 0.45}).audit()
    lines = show(spoilt).splitlines()
    assert lines[0] == "BN+IN"
    assert lines[1] == (
        "  ✗ pgd-20@eot-5, iterative ≤ single-step: 50.00 % is above the 45.00 % of fgsm@eot-5 "
        f"(+5.00 [+{100 * spoilt[2].low:.2f}, +{100 * spoilt[2].high:.2f}] on n = 400 images)"
    )
    assert lines[2:] == ["  15 passed, 1 failed, 0 not measured"]
    every = show(spoilt, every=True).splitlines()
    assert len(every) == len(lines) + 15 and sum(line.startswith("  ✓") for line in every) == 15
    assert show(lab(without=["fgsm"]).audit()).splitlines()[-1].startswith("--all lists every check")


def test_csv_and_json_hold_every_check_with_every_field() -> None:
    findings = lab().audit()
    from_json = json.loads(show(findings, "json"))
    from_csv = list(csv.DictReader(io.StringIO(show(findings, "csv"))))
    assert len(from_json) == len(from_csv) == len(findings) == 16
    assert list(from_json[0]) == list(from_csv[0])
    assert {"accuracy", "other_accuracy", "low", "high", "n", "units", "other_units"} <= set(from_json[0])
    assert json.loads(from_csv[1]["other_units"]) == from_json[1]["other_units"] == list(findings[1].other_units)
    with pytest.raises(QueryError, match="unknown format 'html'"):
        show(findings, "html")


def test_marks_count_each_cell_as_the_findings_do() -> None:
    two = lab(fgsm={"scores": 0.45}, larger_k={"sweep": "s"})
    counted = counted_by_cell(two.connect())
    assert set(counted) == {("BN+IN", "pgd-20", "eot-5"), ("BN+IN", "pgd-20", "eot-10")}
    assert counted["BN+IN", "pgd-20", "eot-5"] == Counts(passed=15, failed=1, not_measured=0)
    for cell, counts in counted.items():
        statuses = [
            found.status for found in two.audit() if (found.variant, found.attack, found.knowledge) == cell
        ]  # fmt: skip
        assert counts == Counts(*(statuses.count(status) for status in ("passed", "failed", "not measured")))


def test_a_cell_that_has_run_nothing_claims_nothing() -> None:
    waiting = lab()
    waiting.plan("not yet", "s", "BN+IN", "pgd-50", "eot-5")
    assert {found.attack for found in waiting.audit()} == {"pgd-20"}
    assert show([]) == "nothing to audit: no attack has rows yet\n"
    assert audits.waiting(waiting.connect(), "s") == []
    waiting.plan("nor this", "s", "GN", "pgd-50", "eot-5")
    assert audits.waiting(waiting.connect(), "s") == ["GN"]
    lines = show(waiting.audit(), waiting=audits.waiting(waiting.connect(), "s")).splitlines()
    assert lines[0] == "BN+IN" and lines[-2:] == ["GN", "  no rows yet"]


# -- printed tables ----------------------------------------------------------------------------------------------------


def printed(variant: str) -> dict[tuple[str, str], audits.Finding]:
    held = [found for found in audits.published() if found.variant == variant]
    assert held
    return {(found.attack, found.check): found for found in held}


def test_the_contradictions_of_the_rna_papers_table_1_are_named() -> None:
    found = printed("RNA (NeurIPS 2022) Table 1: ResNet-18 RNA")
    wrong = {key: finding for key, finding in found.items() if finding.status == "failed"}
    compared = {key: (finding.accuracy, finding.other_accuracy) for key, finding in wrong.items()}
    assert compared == {
        ("autoattack", "AutoAttack ≤ PGD"): (0.6561, 0.6069),
        ("autoattack", "iterative ≤ single-step"): (0.6561, 0.6310),
        ("deepfool", "unbounded ≈ 0 or its distortion stated"): (0.7673, None),
        ("cw", "attack ≤ natural"): (0.8445, 0.8429),
        ("cw", "unbounded ≈ 0 or its distortion stated"): (0.8445, None),
    }
    excess = wrong["cw", "attack ≤ natural"]
    assert (excess.low, excess.high, excess.n) == (None, None, 10_000)
    # 1.96 · sqrt((.8445 · .1555 + .8429 · .1571) / 10,000): the reader sees that 0.16 is within chance
    assert excess.half_width == pytest.approx(0.01007, abs=5e-5)
    assert excess.difference == pytest.approx(0.0016)
    text = show(audits.published())
    assert "65.61 % is above the 60.69 % of pgd-20@transfer (+4.92, unpaired ±1.34 at n = 10,000)" in text


def test_the_plain_rows_keep_their_orders() -> None:
    for number in (1, 2):
        for method in ("BN", "IN", "GN32", "LN"):
            found = printed(f"RNA (NeurIPS 2022) Table {number}: ResNet-18 {method}")
            wrong = [key for key, finding in found.items() if finding.status == "failed"]
            assert wrong == [("cw", "unbounded ≈ 0 or its distortion stated")]
            assert found["deepfool", "unbounded ≈ 0 or its distortion stated"].status == "passed"
            for check in ("iterative ≤ single-step", "AutoAttack ≤ PGD", "attack ≤ natural"):
                assert found["autoattack", check].status == "passed"
            assert found["pgd-20", "steps suffice"].status == "not measured"
            assert found["pgd-20", "steps suffice"].says == "the paper does not say"


def test_table_3_is_audited_row_by_row() -> None:
    source = "RNA (NeurIPS 2022) Table 3: WideResNet32"
    passed = {name: printed(f"{source} {name}")["autoattack", "AutoAttack ≤ PGD"] for name in ("AWP", "SAT", "RPI+RPT")}
    assert {name: (one.status, one.accuracy, one.other_accuracy) for name, one in passed.items()} == {
        "AWP": ("passed", 0.5404, 0.5814), "SAT": ("passed", 0.5183, 0.5601), "RPI+RPT": ("passed", 0.5330, 0.5396),
    }  # fmt: skip
    assert printed(f"{source} RNA")["autoattack", "AutoAttack ≤ PGD"].status == "failed"
    assert {attack for attack, _ in printed(f"{source} RobNet")} == {"pgd-20"}  # AutoAttack is not printed there
    imagenet = printed("RNA (NeurIPS 2022) Table 3: ResNet-50 RNA")
    assert {found.status for found in imagenet.values()} == {"not measured"}  # one number cannot contradict itself


def test_figure_5_keeps_the_orders_of_steps_and_radii() -> None:
    found = [one for one in audits.published() if one.variant.startswith("RNA (NeurIPS 2022) Figure 5")]
    judged = {(one.attack, one.check, one.accuracy, one.other_accuracy) for one in found if one.status == "passed"}
    assert ("pgd-100", "more steps ≤ fewer", 0.5994, 0.6070) in judged
    assert ("pgd-20", "larger ε ≤ smaller", 0.2490, 0.8006) in judged


def test_two_sources_of_one_method_are_not_compared_with_each_other() -> None:
    for number in ("10", "100"):
        found = printed(f"MindSpore model zoo, CIFAR-{number}: ResNet-18 RNA")
        assert {attack for attack, _ in found} == {"fgsm", "pgd-20", "mifgsm"}
        assert "failed" not in {finding.status for finding in found.values()}  # the zoo prints no AutoAttack, no CW


def test_nobody_is_told_to_run_a_paper_again_and_each_attack_has_one_name() -> None:
    findings = audits.published()
    unsaid = [found for found in findings if found.status == "not measured"]
    assert unsaid and {found.says for found in unsaid} == {"the paper does not say"}
    assert "mifgsm" in {found.attack for found in findings}
    assert "mi-fgsm" not in show(findings, every=True)


def test_equal_printed_numbers_are_no_excess() -> None:
    row = {"data": "cifar10", "model": "m", "method": "x", "source": "t", "eps_255": 8.0, "text": "65.61"}
    lines = [Line(**row, attack=attack) for attack in ("natural", "fgsm", "pgd-20", "autoattack-standard")]
    made, numbers = audits.printed.claims(lines)
    assert [found.check for found in said_by._findings(made, numbers) if found.status == "failed"] == []


# -- in the sweep's table ----------------------------------------------------------------------------------------------


def claimed(book: Any) -> Any:
    """Return the connection of two cells of a random network, of which `fixed` is above `transfer`."""
    network = book.trained("BN", log2_paths=20.0)
    for knowledge, scores in (("transfer", [0, 1] * 50), ("fixed", [1] * 100)):
        book.cell("BN", "pgd", knowledge, [scores], network_id=network)
    return connect(book.close())


def test_a_table_carries_the_audit_of_each_variant_and_marks_the_cells_that_fail(book: Any) -> None:
    header, _, line, _, caption = table(claimed(book), "s").splitlines()
    assert [cell.strip() for cell in header.split("|")[-2:-1]] == ["audit"]
    cells = [cell.strip() for cell in line.split("|")[3:-1]]
    assert cells[0].startswith("50.0 ") and not cells[0].endswith("✗")
    assert cells[1].startswith("100.0 ") and cells[1].endswith(" ✗")  # fixed ≤ transfer
    findings = audits.audit(connect(book.store), "s")
    assert failed(findings) == ["fixed ≤ transfer"]
    statuses = [found.status for found in findings]
    assert cells[2] == f"{statuses.count('passed')} ✓ 1 ✗ {statuses.count('not measured')} ?"
    assert caption.endswith("see rna-ray audit s.")
    always = ", always of the accuracy over fresh draws, whatever the answer here: see rna-ray audit s."
    assert always not in caption
    assert table(connect(book.store), "s", answer="worst").rstrip().endswith(always)
    assert table(connect(book.store), "s", answer="all").rstrip().endswith(always)


def test_a_table_of_differences_carries_the_audit_too(book: Any) -> None:
    claimed(book)
    other = book.trained("IN", log2_paths=20.0)
    book.cell("IN", "pgd", "transfer", [[0, 1] * 50], network_id=other)
    header, _, line, _, caption = table(connect(book.close()), "s", against="BN").splitlines()
    assert [cell.strip() for cell in header.split("|")[-2:-1]] == ["audit"]
    assert line.split("|")[-2].strip() == audits.total(audits.of_variant(judge(connect(book.store), "s"), "IN"))
    assert caption.endswith("see rna-ray audit s.")


def test_latex_has_the_marks_in_ascii_and_csv_the_counts(book: Any) -> None:
    connection = claimed(book)
    latex = table(connection, "s", "latex")
    assert r"2 $\surd$ 1 $\times$ " in latex and "✗" not in latex and "✓" not in latex
    rows = json.loads(table(connection, "s", "json"))
    assert [(row["audit_passed"], row["audit_failed"]) for row in rows] == [(1, 0), (1, 1)]
    assert list(rows[0])[-4:] == ["audit_passed", "audit_failed", "audit_not_measured", "source"]
    (first, _) = csv.DictReader(io.StringIO(table(connection, "s", "csv")))
    assert int(first["audit_not_measured"]) == rows[0]["audit_not_measured"] > 3


def test_a_table_without_claims_has_no_audit(book: Any) -> None:
    book.cell("BN", "natural", "none", [[1, 0]])
    assert "audit" not in table(connect(book.close()), "s")


# -- the command, and its page -----------------------------------------------------------------------------------------


def audited(*words: str) -> Any:
    return CliRunner().invoke(app, ["audit", *words])


def test_the_command_exits_by_what_it_found(book: Any) -> None:
    book.cell("BN", "fgsm", "fixed", [[1, 0] * 50])  # the Book's clean answers are all right
    store = ["--store", book.close().uri]
    clean = audited(*store)
    assert (clean.exit_code, clean.output.splitlines()[0]) == (0, "BN")
    assert audited("s", *store).output == clean.output
    assert len(json.loads(audited(*store, "--format", "json").output)) > len(clean.output.splitlines())
    assert audited("s", *store, "--all").output.count(" ? fgsm@fixed, ") > 3
    published = audited("--published")
    assert published.exit_code == 1 and "65.61 % is above the 60.69 % of pgd-20@transfer" in published.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "unknown sweep of .*'nothing'"),
        (["s", "--published"], "--published audits printed tables, 's' is a sweep"),
        (["--published", "--format", "html"], "unknown format 'html'"),
    ],
)
def test_a_mistake_is_one_sentence(book: Any, words: list[str], said: str) -> None:
    book.cell("BN", "fgsm", "fixed", [[1, 0]])
    with pytest.raises(UserError, match=said):
        CliRunner().invoke(app, ["audit", *words, "--store", book.close().uri], catch_exceptions=False)


def test_the_page_explains_every_check() -> None:
    page = (Path(__file__).parents[3] / "docs" / "audit.md").read_text(encoding="utf-8")
    explained = re.findall(r"\*\*([^*]+?)\.?\*\*", page.split("## The checks")[1])
    assert sorted(explained) == sorted(check.name for check in CHECKS)
