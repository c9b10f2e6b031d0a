"""The page in a real browser: Chromium without a window, through playwright.

It needs ``pip install playwright``, and the path of a Chromium in PRUNELIB_CHROMIUM unless
playwright has its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parsed import report
from report_folder import HOSTILE

from jobs.view import RunView, serve
from prunelib.results.query import query

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        try:
            found = driver.chromium.launch(executable_path=os.environ.get("PRUNELIB_CHROMIUM"),
                                           args=["--headless=old", "--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}; see PRUNELIB_CHROMIUM")
        yield found
        found.close()


class Window:
    """A page, and what went wrong in it."""

    def __init__(self, browser: Any, address: str, width: int, theme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.problems: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("article")


@pytest.fixture(scope="module")
def file(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report(hostile).html, "utf-8")
    return path.as_uri()


@pytest.mark.parametrize(("width", "theme"), [(1200, "light"), (1200, "dark"), (400, "light"),
                                              (400, "dark")])
def test_it_is_rendered_without_an_error(browser: Any, file: str, width: int, theme: str) -> None:
    window = Window(browser, file, width, theme)
    page = window.page
    assert window.problems == [] and page.title() == "demo-0123abcd - prunelib"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 100)")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 25, 29)"
    assert dark == (theme == "dark")
    # Everything that can be operated has a name that is read out.
    nameless = page.evaluate("""
        [...document.querySelectorAll('button, select, img, a, [tabindex]')]
        .filter(e => !(e.getAttribute('aria-label') || e.alt || e.textContent.trim())).length""")
    assert nameless == 0


def test_a_column_is_sorted_from_the_keyboard(browser: Any, file: str, hostile: Path) -> None:
    page = Window(browser, file, 1200).page
    page.locator("#leaderboard th", has_text="accuracy").first.focus()
    expected = [f"{row['accuracy']:.4g}" for row in query(
        hostile, "SELECT accuracy FROM leaderboard ORDER BY accuracy DESC").to_pylist()]
    for wanted, order in ((expected, "descending"), (expected[::-1], "ascending")):
        page.keyboard.press("Enter")
        page.wait_for_selector(f"#leaderboard th[aria-sort={order}]")
        page.wait_for_timeout(100)
        place = page.evaluate("document.activeElement.cellIndex")
        cells = page.locator(f"#leaderboard tbody td:nth-child({place + 1})").all_inner_texts()
        assert [cell.partition(" (")[0] for cell in cells] == wanted


def test_examples_are_filtered_and_turned(browser: Any, file: str, hostile: Path) -> None:
    window = Window(browser, file, 400)
    page = window.page
    sql = report(hostile).examples.sql
    rows = query(hostile, sql).to_pylist()
    assert page.locator("article").count() == 20
    assert f"page 1 of {-(-len(rows) // 20)}, {len(rows)} examples" in page.inner_text("#viewer")
    page.click("#viewer button:text-is('Next')")
    page.wait_for_selector("text=page 2 of")
    page.select_option("select[name=flipped]", "gained")
    page.select_option("select[name=method]", "ig")
    gained = [row for row in rows if row["flipped"] == "gained" and row["method"] == "ig"]
    page.wait_for_selector(f"text={len(gained)} examples")
    copies = sum(row["baseline_copied"] is not None for row in gained[:20])
    page.select_option("select[name=flipped]", "")
    page.select_option("select[name=method]", "none")
    page.click("#viewer button:text-is('Last')")
    page.wait_for_selector("mark")
    assert "copied by baseline" in page.inner_text("mark >> nth=0") and copies >= 0
    # Hostile texts are seen, and nothing in them has happened.
    assert HOSTILE in page.inner_text("article >> nth=0") and "prunelib" in page.title()
    assert window.problems == []


def test_sql_is_copied(browser: Any, file: str) -> None:
    page = Window(browser, file, 1200).page
    page.click("#leaderboard summary:has-text('SQL')")
    page.click("#leaderboard button[data-copy]")
    page.wait_for_selector("#leaderboard button:text-matches('Copied|Selected')")
    assert page.evaluate("getSelection().toString()").startswith("SELECT model")


def test_the_served_page_asks_for_its_examples(browser: Any, hostile: Path) -> None:
    server, address = serve(RunView(str(hostile)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        window = Window(browser, address, 1200)
        assert window.page.url == f"http://127.0.0.1:{server.server_port}/"
        window.page.click("#viewer button:text-is('Last')")
        window.page.wait_for_selector("mark")
        window.page.wait_for_selector("#state:has-text('done')")
        assert window.problems == []
    finally:
        server.shutdown()
        server.server_close()
