"""The report: the tables' own numbers, each with what it rests on, in a page that runs and fetches nothing foreign."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rna_ray import show
from rna_ray.analysis import report, tables
from rna_ray.analysis.query import answer
from rna_ray.analysis.report import contents
from rna_ray.analysis.report.page import hours
from rna_ray.errors import ReportError
from rna_ray.store import Store, connect

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{7*7}} $x$"
VOID = {"meta", "link", "img", "br", "wbr", "hr", "input"}


class Page(HTMLParser):
    """What a browser sees: every tag with its attributes, the text of tables, and that all tags close."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self.boxes: dict[str, str] = {}
        self._open: list[tuple[str, str | None]] = []
        self.feed(text)
        assert not self._open
        self.tables = [[[" ".join(cell.split()) for cell in row] for row in table] for table in self.tables]
        self.boxes = {at: " ".join(box.split()) for at, box in self.boxes.items()}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag not in VOID:
            self._open.append((tag, given.get("id") if "popover" in given else None))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")
        if tag == "dd":
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        assert tag == self._open[-1][0], f"</{tag}> closes <{self._open[-1][0]}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        names = [name for name, _ in self._open]
        box = next((box for _, box in self._open if box), None)
        if box:
            self.boxes[box] = self.boxes.get(box, "") + data
        elif {"th", "td"} & set(names):
            self.tables[-1][-1][-1] += data
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(store: Store, *sweeps: str) -> str:
    names = list(sweeps) or store.sweeps()
    return report.page(connect(store), show.account(names, store), show.NAMES, "my store", "today")


def cells_of(text: str) -> list[list[str]]:
    """Return the cells of a markdown table, without what is bold."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in lines[:1] + lines[2:]]


def test_the_page_shows_the_very_cells_of_the_tables_and_what_they_say_below(small: Store) -> None:
    page = Page(page_of(small))
    expected = tables.table(connect(small), "s")
    overview, accuracies = page.tables
    assert accuracies == cells_of(expected)
    assert "".join(expected.split("\n\n")[1].split()) in "".join(page.text.split())
    assert overview[1][:3] == ["s", "2 damaged 3 to do", "0 of 2"]  # trainings without epochs, and one that is missing


def test_every_number_names_its_units_and_the_command_that_gives_their_rows(small: Store) -> None:
    page = Page(page_of(small))
    openers = [one["popovertarget"] for one in page.named("button") if "popovertarget" in one]
    assert len(openers) == len(set(openers)) and set(openers) == set(page.boxes)
    first = [box for at, box in page.boxes.items() if at.startswith("sweep-1-table-1")]
    (box,) = [box for box in first if box.startswith("BN, pgd-20@transfer ")]
    assert "images 10 draws an image 2 " in box and "2 units pgd-20-2-0 pgd-20-2-1" in box
    (line,) = re.findall(r'rna-ray query "SELECT.*', box)
    program, query, sql, option, where = shlex.split(line)
    assert (program, query, option, where) == ("rna-ray", "query", "--store", "my store")
    assert answer(connect(small), sql).num_rows == 10


def test_a_cell_that_fails_a_check_says_which_and_so_does_the_section(book: Any) -> None:
    book.trained("IN")
    book.cell("IN", "natural", "none", [[1] * 50 + [0] * 50])
    book.cell("IN", "pgd-20", "transfer", [[1] * 90 + [0] * 10], natural=[1] * 50 + [0] * 50)
    page = Page(page_of(book.close()))
    (box,) = [box for at, box in page.boxes.items() if "IN, pgd-20@transfer" in box and "-table-1-" in at]
    assert "✗ does not pass every check" in box
    assert "attack ≤ natural: 90.00 % is above the 50.00 % of the clean images" in box
    assert "IN: pgd-20@transfer, attack ≤ natural: 90.00 % is above" in page.text
    (signs,) = [line[-2] for line in page.tables[1][1:]]
    assert signs.startswith("90.0 ±") and signs.endswith(" ✗")


def test_names_from_a_store_are_text_and_nothing_else(make_book: Callable[..., Any]) -> None:
    book = make_book("store", "s")
    book.trained(HOSTILE, course=[{"loss": 1.0, "natural_correct": 1, "held_out": 2}] * 3)
    book.cell(HOSTILE, "<i>", "'\"&", [[1, 0]], data=HOSTILE, checkpoint=HOSTILE)
    store = book.close()
    store.fail("train-0", kind="train", attempt=2, error="OSError", message=HOSTILE, traceback="", host="here")
    text = page_of(store)
    page = Page(text)
    assert f"2 attempts, done since: OSError: {HOSTILE}" in page.text and page.tables[1][1][0] == HOSTILE
    assert len(page.named("script")) == 1
    assert not [(tag, name) for tag, given in page.tags for name in given if name.startswith("on")]
    assert all(str(one["src"]).startswith("data:image/svg+xml;base64,") for one in page.named("img"))
    drawn = base64.b64decode(str(page.named("img")[0]["src"]).partition(",")[2]).decode()
    assert "<img" not in drawn and "onerror" in drawn  # escaped there too, and its dollars are no mathematics


def test_the_page_asks_for_nothing_and_runs_its_own_script_alone(small: Store) -> None:
    text = page_of(small)
    page = Page(text)
    (policy,) = [one["content"] for one in page.named("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in str(policy)
    assert str(policy).startswith("default-src 'none'; img-src data:;")
    addresses = [value for _, given in page.tags for name, value in given.items() if name in ("src", "href")]
    assert addresses and all(str(value).startswith(("data:", "#")) for value in addresses)
    assert not [given for _, given in page.tags if "style" in given]  # the policy would not apply them


def test_tables_have_captions_scopes_and_headings_that_are_buttons(small: Store) -> None:
    page = Page(page_of(small))
    assert len(page.named("caption")) == len(page.named("table")) == 2
    headings = page.named("th")
    assert {one["scope"] for one in headings} == {"col", "row"}
    assert {one.get("aria-sort") for one in headings if one["scope"] == "col"} == {"none"}
    assert all(one["type"] == "button" for one in page.named("button"))
    assert all(one["alt"] for one in page.named("img"))
    ids = [given["id"] for _, given in page.tags if "id" in given]
    assert len(ids) == len(set(ids))
    pointing = ("aria-labelledby", "aria-describedby")
    assert {given[name] for _, given in page.tags for name in pointing if name in given} <= set(ids)


@pytest.mark.slow
def test_a_figure_that_is_large_as_svg_is_a_png(small: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (vector,) = Page(page_of(small)).named("img")
    monkeypatch.setattr(contents, "LARGE", 1_000)
    (pixels,) = Page(page_of(small)).named("img")
    assert str(vector["src"]).startswith("data:image/svg+xml") and str(pixels["src"]).startswith("data:image/png")
    assert pixels["width"] == vector["width"]


@pytest.mark.slow
def test_what_goes_into_no_table_is_said_beside_what_does(make_book: Callable[..., Any]) -> None:
    mixed = make_book("store", "mixed")
    for variant, space in (("BN", "pixel"), ("IN", "normalized")):
        mixed.trained(variant)
        mixed.cell(variant, "pgd-20", "transfer", [[1, 0]], eps_space=space)
    mixed.close()
    other = make_book("store", "other")
    other.trained("LN")
    other.cell("LN", "natural", "none", [[1, 0]])
    page = Page(page_of(other.close()))
    assert "A table is not here: column pgd-20@transfer would mix eps_space" in page.text
    assert [table[1][0] for table in page.tables[1:]] == ["LN"]


@pytest.mark.slow
def test_certified_accuracies_and_tables_across_sweeps_are_there(make_book: Callable[..., Any]) -> None:
    book = make_book("store", "certified")
    book.certified("BN", [[100, 0], [90, 10], [0, 100]])
    store = book.close()
    page = Page(page_of(store))
    assert page.tables[1] == cells_of(tables.table(connect(store), "certified"))
    (box,) = [box for at, box in page.boxes.items() if at == "sweep-1-table-1-1-5"]
    assert "certificates WHERE unit_id IN" in box and "noise 127.5/255" in box
    seeks = make_book("other", "seeks")
    seeks.trained("BN")
    seeks.cell("BN", "cw", "transfer", [[1, 0]], eps_255=None, threat="none", l2=[0.1, 0.2], linf=[0.1, 0.2])
    seeking = Page(page_of(seeks.close()))
    assert seeking.tables[-1][0][:3] == ["sweep", "variant", "attack"] and seeking.tables[-1][1][2] == "cw"


def test_only_the_sweeps_that_are_named_are_told_of(make_book: Callable[..., Any]) -> None:
    for name in ("one", "two"):
        book = make_book("store", name)
        book.trained(f"of {name}")
        book.cell(f"of {name}", "cw", "transfer", [[1, 0]], eps_255=None, threat="none", l2=[0.1, 0.2], linf=[0.1, 0.2])
        store = book.close()
    text = page_of(store, "two")
    assert "of two" in text and "of one" not in text


def test_hours_are_said_briefly() -> None:
    assert [hours(one) for one in (None, 0.0, 0.0123, 3.25, 1234.5)] == ["", "", "0.012", "3.2", "1,234.5"]


def test_a_page_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    report.write(path, "one")
    report.write(path, "two")
    assert path.read_text(encoding="utf-8") == "two" and list(path.parent.iterdir()) == [path]
    with pytest.raises(ReportError, match="which is a folder: give a file"):
        report.write(path.parent, "three")
    with pytest.raises(ReportError, match=r"cannot write the report to .*report.html/x: "):
        report.write(path / "x", "three")
    assert path.read_text(encoding="utf-8") == "two" and list(path.parent.iterdir()) == [path]


def test_the_states_are_the_documents_of_status_and_what_was_spent(small: Store) -> None:
    (state,) = show.account(["s"], small)
    assert json.loads(json.dumps(state)) == state and state["about"] == ""
    assert {name: state[name] for name in ("sweep", "units", "damaged", "drivers")} == show.status("s", small)
    assert state["gpu_hours"] is None  # a plan whose sweep nobody can read
