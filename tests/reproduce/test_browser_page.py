"""The page in a real browser: nothing fetched, no complaint, legible on a phone and in the dark, for all, sortable."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.page_samples import make_page

from kansciml.reproduce.page.write import write_page

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

UNFOLD = "document.querySelectorAll('details').forEach(one => { one.open = true })"


@pytest.fixture(scope="module")
def browser():
    unseen = "THE PAGE WAS NOT SEEN BY ANY BROWSER:"
    if importlib.util.find_spec("playwright") is None:
        pytest.skip(f"{unseen} playwright is not installed (pip install -e '.[test]')")
    path = os.environ.get("KANSCIML_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"{unseen} none of {', '.join(NAMES)} is on the path; name one in KANSCIML_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("THE PAGE WAS NOT SEEN BY AXE: axe-playwright-python is not installed (pip install -e '.[test]')")
    return Path(found.origin).with_name("axe.min.js").read_text("utf-8")


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("page")
    write_page(make_page(folder / "pictures"), folder / "page")
    return (folder / "page" / "index.html").as_uri()


@pytest.fixture
def visit(browser, address):
    """Opens the page; at the end nothing but the page may have been asked for, and nothing complained about."""
    opened, complaints, requests = [], [], []

    def open_page(viewport=DESKTOP, scheme="light"):
        page = browser.new_page(viewport=viewport, color_scheme=scheme)
        opened.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for page in opened:
        page.wait_for_timeout(50)
        page.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [address] * len(opened)


def column(page, table: str, index: int) -> list[str]:
    """The texts of one column, from top to bottom."""
    return page.eval_on_selector_all(f"{table} tbody tr", f"rows => rows.map(r => r.cells[{index}].textContent)")


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_complaint_and_every_figure_is_visible(visit, viewport, scheme):
    page = visit(viewport, scheme)
    page.evaluate(UNFOLD)
    figures = page.locator("figure svg")
    assert figures.count() == 4
    for index in range(figures.count()):
        figure = figures.nth(index)
        assert figure.is_visible()
        box = figure.bounding_box()
        assert box["width"] > 300 and box["height"] > 80
        assert figure.locator("text").count() > 5  # text is text


@pytest.mark.parametrize("viewport, scheme", [(PHONE, "light"), (DESKTOP, "dark")], ids=["phone-light", "desktop-dark"])
def test_axe_finds_no_violation(visit, axe, viewport, scheme):
    page = visit(viewport, scheme)
    page.evaluate(UNFOLD)
    page.evaluate(axe)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
    assert {"color-contrast", "heading-order", "svg-img-alt"} < {one["id"] for one in found["passes"]}
    page.evaluate("document.querySelector('figure svg').removeAttribute('aria-label')")  # the check can fail
    assert len(page.evaluate("axe.run('figure', {runOnly: ['svg-img-alt']})")["violations"]) == 1


def test_no_horizontal_scrolling_on_a_phone(visit):
    page = visit(PHONE)
    page.evaluate(UNFOLD)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    # wide tables and pictures scroll within their own box
    boxes = page.eval_on_selector_all(".scroll", "boxes => boxes.map(b => [b.scrollWidth, b.clientWidth])")
    assert any(inner > outer for inner, outer in boxes) and all(outer <= PHONE["width"] for _, outer in boxes)
    wide = "Object.assign(document.createElement('div'), {style: 'width:900px;height:9px'})"
    page.evaluate(f"document.querySelector('main').append({wide})")  # the check can fail
    assert page.evaluate("document.documentElement.scrollWidth") > PHONE["width"]


def test_the_first_column_of_a_table_stays_where_the_others_scroll(visit):
    page = visit(PHONE)
    table = page.locator("#figure-2-table-1 .scroll")
    cells = [page.locator(f"#figure-2-table-1 tbody tr:first-child > :nth-child({n})") for n in (1, 2)]
    before = [cell.bounding_box()["x"] for cell in cells]
    table.evaluate("box => box.scrollTo({left: 60, behavior: 'instant'})")
    after = [cell.bounding_box()["x"] for cell in cells]
    assert after[0] == before[0] and after[1] == before[1] - 60


def test_tables_are_sorted_both_ways_by_click_numbers_as_numbers(visit):
    page, table = visit(), "#figure-2-table-1"
    header = page.locator(f"{table} thead th").nth(1)
    before = column(page, table, 1)
    assert before == ["25,200", "240", "1000", "3000"] and header.get_attribute("aria-sort") == "none"
    header.locator("button").click()
    assert column(page, table, 1) == ["240", "1000", "3000", "25,200"]
    assert header.get_attribute("aria-sort") == "ascending"
    header.locator("button").click()
    assert column(page, table, 1) == ["25,200", "3000", "1000", "240"]
    assert header.get_attribute("aria-sort") == "descending"


def test_tables_are_sorted_by_the_keyboard_and_missing_values_stay_at_the_end(visit):
    page, table = visit(), "#figure-2-table-1"
    page.locator(f"{table} th button").nth(2).focus()  # 1.2e-5, 3e-7, nothing, 2
    page.keyboard.press("Enter")
    assert column(page, table, 0) == ["KAN 2-6-2", "MLP 2-50-2", "RSWAF", "KAN 10-6-2"]
    page.keyboard.press("Space")
    assert column(page, table, 0) == ["RSWAF", "MLP 2-50-2", "KAN 2-6-2", "KAN 10-6-2"]
    page.keyboard.press("Tab")  # to the next column, where text begins with a number: 73, 9.5, nothing, 100
    page.keyboard.press("Enter")
    assert column(page, table, 0) == ["KAN 2-6-2", "MLP 2-50-2", "RSWAF", "KAN 10-6-2"]
    orders = page.eval_on_selector_all(f"{table} thead th", "h => h.map(x => x.getAttribute('aria-sort'))")
    assert orders == ["none", "none", "none", "ascending", "none"]
    others = column(page, "#fair-table-1", 0)
    page.locator(f"{table} th button").first.click()  # text as text, and other tables stay as they are
    assert column(page, table, 0) == ["KAN 2-6-2", "KAN 10-6-2", "MLP 2-50-2", "RSWAF"]
    assert column(page, "#fair-table-1", 0) == others


def test_the_claims_can_be_sorted_on_a_phone_too(visit):
    page, table = visit(PHONE), "#claims table"
    assert column(page, table, 0) == ["Figure 2", "Equation (1)"]
    button = page.locator(f"{table} th button").first
    button.click()
    assert column(page, table, 0) == ["Equation (1)", "Figure 2"]
    button.click()
    assert column(page, table, 0) == ["Figure 2", "Equation (1)"]


def test_the_verdict_of_a_claim_leads_to_its_folded_evidence(visit):
    page = visit()
    evidence = page.locator("#figure-2-claim-2 .evidence")
    assert not evidence.is_visible()
    page.locator("#claims td.verdict a").nth(1).click()
    assert evidence.is_visible()
    page.wait_for_function("scrollY > 0 && document.querySelector('#figure-2-claim-2').getBoundingClientRect().y < 900")


def test_pictures_follow_the_dark(visit):
    """What is drawn in black on the screen's light is bright on the screen's dark, by the pixels that are seen."""
    from PIL import Image

    seen = {}
    for scheme in ("light", "dark"):
        figure = visit(scheme=scheme).locator("#answer svg")
        grey = np.asarray(Image.open(io.BytesIO(figure.screenshot())).convert("L"), float)
        seen[scheme] = np.median(grey), grey.min(), grey.max()
    assert seen["light"][0] > 240 and seen["light"][1] < 60
    assert seen["dark"][0] < 40 and seen["dark"][2] > 200


def test_lines_of_text_are_not_too_long(visit):
    page = visit()
    page.evaluate(
        "document.querySelector('.answer p').textContent = 'All of it is text of the usual kind, long enough. '"
        ".repeat(8)"
    )
    lines, size = page.evaluate(
        "(() => { const p = document.querySelector('.answer p'), range = document.createRange();"
        " range.selectNodeContents(p); const height = parseFloat(getComputedStyle(p).lineHeight);"
        " return [range.getBoundingClientRect().height / height, p.textContent.length] })()"
    )
    assert size / round(lines) <= 75


def test_paper_shows_what_the_screen_does_in_black_on_white(visit):
    page = visit(scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('figure svg')).filter") == "none"
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    folded = len(re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True)))
    page.evaluate(UNFOLD)
    unfolded = len(re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True)))
    assert folded < unfolded
