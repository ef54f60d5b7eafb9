"""The report in a real Chromium: it opens, sorts, explains its numbers, asks for nothing, fits a phone and the dark.

`make browser` runs these; chromium and chromedriver are Debian's packages chromium and chromium-driver.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver on the path"),
]

SWEEP = """\
name: small
about: Two networks, one of them with a name that would rather be code.
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4}
training: {objective: natural, epochs: 2, batch: 32, schedule: {name: cosine}}
variants:
  BN+IN: {network.norm: BN+IN}
  "<img src=x onerror=alert(1)> BN": {network.norm: BN}
evaluation:
  - {attack: natural, examples: 20}
  - {attack: pgd, eps_255: 25.5, step_255: 12.8, steps: [1, 2, 3], knowledge: [transfer, fixed, eot-2], examples: 20}
"""
WIDE, PHONE = (1280, 900), (390, 844)
AA = 4.5
"""WCAG 2.2, 1.4.3: the least contrast of text."""

_CONTRASTS = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = (colour) => {
  const [r, g, b] = channels(colour).map((c) => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (one) => {
  const own = getComputedStyle(one).backgroundColor;
  return channels(own)[3] === 0 ? (one.parentElement ? behind(one.parentElement) : "rgb(255, 255, 255)") : own;
};
return [...document.querySelectorAll("body *")]
  .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
  .filter((one) => !["SCRIPT", "STYLE"].includes(one.tagName))
  .map((one) => {
    const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), one.tagName, one.className, one.textContent.trim().slice(0, 40)];
  });
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "small.yaml").write_text(SWEEP, encoding="utf-8")
    for words in (["run", "small.yaml", "--address", "inline"], ["report", "-o", "report.html"]):
        command = [sys.executable, "-c", "from rna_ray.cli import main; main()", *words, "--store", "store"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    if os.geteuid() == 0:  # Chromium's sandbox needs a user who is not root
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


class Browser:
    """Chromium with the page open, of some size, in the light or in the dark."""

    def __init__(self, driver: webdriver.Chrome, page: Path) -> None:
        self.driver, self.page = driver, page

    def open(self, size: tuple[int, int] = WIDE, scheme: str = "light") -> None:
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(self.page.as_uri())

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def asks(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {script}", *arguments)

    def until(self, script: str, *arguments: Any) -> None:
        WebDriverWait(self.driver, 20, poll_frequency=0.05).until(lambda _: self.asks(script, *arguments))


@pytest.fixture
def browser(chromium: webdriver.Chrome, page: Path) -> Browser:
    found = Browser(chromium, page)
    found.open()
    return found


def test_it_opens_without_an_error_and_without_a_request(browser: Browser) -> None:
    for kind in ("browser", "performance"):
        browser.driver.get_log(kind)  # of earlier pages
    browser.open()
    browser.until("document.readyState === 'complete' && [...document.images].every((one) => one.naturalWidth > 0)")
    assert browser.driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.driver.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    assert browser.page.as_uri() in asked
    assert [url[:80] for url in asked if not url.startswith("data:") and url != browser.page.as_uri()] == []
    assert len(browser.all("table")) >= 2 and len(browser.all("figure img")) >= 2


def test_a_click_on_a_heading_sorts_up_then_down_then_as_planned(browser: Browser) -> None:
    table = browser.all("section.sweep table")[0]
    heading = next(one for one in table.find_elements(By.CSS_SELECTOR, "thead th") if "audit" not in one.text and
                   one.text.startswith("natural"))  # fmt: skip

    def shown() -> list[float]:
        at = browser.asks("arguments[0].cellIndex", heading)
        return browser.asks(
            "[...arguments[0].tBodies[0].rows].map((row) => Number(row.cells[arguments[1]].dataset.number))", table, at
        )

    def variants() -> list[str]:
        return [one.text for one in table.find_elements(By.CSS_SELECTOR, "tbody th")]

    planned, names = shown(), variants()
    assert len(planned) == 2 and heading.get_attribute("aria-sort") == "none"
    for order, expected in (("ascending", sorted(planned)), ("descending", sorted(planned)[::-1])):
        heading.find_element(By.TAG_NAME, "button").click()
        assert (heading.get_attribute("aria-sort"), shown()) == (order, expected)
    heading.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)  # by keyboard too
    assert heading.get_attribute("aria-sort") == "none" and variants() == names
    first = table.find_element(By.CSS_SELECTOR, "thead th")
    first.find_element(By.TAG_NAME, "button").click()
    assert variants() == sorted(names) and heading.get_attribute("aria-sort") == "none"


def test_a_number_explains_itself_to_a_click_to_a_mouse_that_rests_and_to_the_keyboard(browser: Browser) -> None:
    button = browser.all("section.sweep td .number")[1]
    box = browser.driver.find_element(By.ID, str(button.get_attribute("popovertarget")))
    opened = "arguments[0].matches(':popover-open')"
    assert not browser.asks(opened, box)
    button.click()
    browser.until(opened, box)
    assert "interval, 95 %" in box.text and "rna-ray query" in box.text and "unit" in box.text
    ActionChains(browser.driver).send_keys(Keys.ESCAPE).perform()
    browser.until(f"!{opened}", box)
    browser.asks("arguments[0].focus()", button)
    ActionChains(browser.driver).send_keys(Keys.ENTER).perform()
    browser.until(opened, box)
    browser.open()  # the mouse is elsewhere, and nothing is open
    button = browser.all("section.sweep td .number")[2]
    box = browser.driver.find_element(By.ID, str(button.get_attribute("popovertarget")))
    ActionChains(browser.driver).move_to_element(button).perform()
    browser.until(opened, box)
    button.click()  # stays, wherever the mouse goes
    ActionChains(browser.driver).move_by_offset(0, -200).perform()
    assert not browser.asks("'hovered' in arguments[0].dataset", box) and browser.asks(opened, box)


def test_the_mark_of_an_audited_row_says_what_was_not_measured(browser: Browser) -> None:
    row = browser.all("section.sweep table tbody tr")[0]
    button = row.find_elements(By.CSS_SELECTOR, "td:last-of-type .number")[-1]
    assert "✓" in button.text and "?" in button.text
    button.click()
    box = browser.driver.find_element(By.ID, str(button.get_attribute("popovertarget")))
    browser.until("arguments[0].matches(':popover-open')", box)
    assert "were not measured" in box.text and "rna-ray audit small --all" in box.text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_of_good_contrast(browser: Browser, scheme: str) -> None:
    browser.open(scheme=scheme)
    behind = browser.asks("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, behind.strip("rgb()").split(","))) < 150) == (scheme == "dark")
    measured = browser.driver.execute_script(_CONTRASTS)
    assert len(measured) > 50 and [one for one in measured if one[0] < AA] == []


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_the_page_does_not_scroll_sideways_but_its_tables_do_under_a_first_column_that_stays(
    browser: Browser, size: tuple[int, int]
) -> None:
    browser.open(size)
    assert browser.asks("document.documentElement.scrollWidth") == size[0]
    place = browser.all("section.sweep .scroll")[0]
    assert browser.asks("arguments[0].scrollWidth > arguments[0].clientWidth", place)
    first = place.find_element(By.CSS_SELECTOR, "tbody th")
    left = "arguments[0].getBoundingClientRect().left"
    before = browser.asks(left, first)
    browser.asks("arguments[0].scrollTo(200, 0)", place)
    assert browser.asks("arguments[0].scrollLeft", place) == 200 and browser.asks(left, first) == before


def test_on_a_phone_a_tap_opens_the_box_within_the_screen(browser: Browser) -> None:
    browser.open(PHONE)
    button = browser.all("section.sweep td .number")[0]
    browser.asks("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", button)
    at = browser.asks("(({x, y, width, height}) => ({x: x + width / 2, y: y + height / 2}))"
                      "(arguments[0].getBoundingClientRect())", button)  # fmt: skip
    for kind, points in (("touchStart", [at]), ("touchEnd", [])):
        browser.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    box = browser.driver.find_element(By.ID, str(button.get_attribute("popovertarget")))
    browser.until("arguments[0].matches(':popover-open')", box)
    edges = browser.asks("(({left, right, top, bottom}) => [left, right, top, bottom])"
                         "(arguments[0].getBoundingClientRect())", box)  # fmt: skip
    assert edges[0] >= 0 and edges[1] <= PHONE[0] and edges[2] >= 0 and edges[3] <= PHONE[1]


def test_on_paper_nothing_scrolls_and_nothing_is_dark(browser: Browser) -> None:
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
    assert browser.asks("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert browser.asks("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
