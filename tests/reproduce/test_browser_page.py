"""The page in a real browser: nothing fetched, no complaint, legible on a phone and in the dark, sortable."""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest
from support.page_samples import make_page

from kansciml.reproduce.page.write import write_page

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

# For every element with text of its own outside of pictures: the contrast of its colour against what lies behind it
# (WCAG 2, section 1.4.3), and whether 3 is enough because it is large.
CONTRASTS = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3]));
  const background = (element) => {
    if (!element) return [255, 255, 255];
    const own = parse(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, background(element.parentElement));
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const element of document.body.querySelectorAll('*')) {
    if (element.closest('svg, script, .hidden')) continue;
    const text = Array.from(element.childNodes, (n) => (n.nodeType === 3 ? n.data.trim() : '')).join('');
    if (!text || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const behind = background(element);
    const [light, dark] = [luminance(over(parse(style.color), behind)), luminance(behind)].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    found.push([(light + 0.05) / (dark + 0.05), large, text.slice(0, 60)]);
  }
  return found;
}"""


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
    figures = page.locator("figure svg")
    assert figures.count() == 3
    for index in range(figures.count()):
        figure = figures.nth(index)
        assert figure.is_visible()
        box = figure.bounding_box()
        assert box["width"] > 300 and box["height"] > 80
        assert figure.get_by_text("iteration").count() == 1  # text is text


def test_no_horizontal_scrolling_on_a_phone(visit):
    page = visit(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    # wide tables and pictures scroll within their own box
    boxes = page.eval_on_selector_all(".scroll", "boxes => boxes.map(b => [b.scrollWidth, b.clientWidth])")
    assert any(inner > outer for inner, outer in boxes) and all(outer <= PHONE["width"] for _, outer in boxes)
    wide = "Object.assign(document.createElement('div'), {style: 'width:900px;height:9px'})"
    page.evaluate(f"document.querySelector('main').append({wide})")  # the check can fail
    assert page.evaluate("document.documentElement.scrollWidth") > PHONE["width"]


def test_tables_are_sorted_both_ways_by_click_numbers_as_numbers(visit):
    page, table = visit(), "#figure-2-table-1"
    header = page.locator(f"{table} th").nth(1)
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
    orders = page.eval_on_selector_all(f"{table} th", "h => h.map(x => x.getAttribute('aria-sort'))")
    assert orders == ["none", "none", "none", "ascending", "none"]
    others = column(page, "#fair-table-1", 0)
    page.locator(f"{table} th button").first.click()  # text as text, and other tables stay as they are
    assert column(page, table, 0) == ["KAN 2-6-2", "KAN 10-6-2", "MLP 2-50-2", "RSWAF"]
    assert column(page, "#fair-table-1", 0) == others


def test_the_claims_can_be_sorted_on_a_phone_too_and_all_cases_unfolded(visit):
    page, table = visit(PHONE), "#summary > .table table"
    button = page.locator(f"{table} th button").first
    button.click()
    items = column(page, table, 0)
    assert items == ["Beyond the paper", "Equation (1)", "Figure 2", "Figure 3", "Figure 4a", "Figure 5"]
    button.click()
    assert column(page, table, 0) == items[::-1]
    cases = page.locator("#summary details table")
    assert not cases.is_visible()
    page.locator("#summary summary").click()
    assert cases.is_visible() and cases.locator("tbody tr").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_dark_has_other_colours_and_both_have_contrast(visit):
    background = "getComputedStyle(document.body).backgroundColor"
    assert visit(scheme="light").evaluate(background) != visit(scheme="dark").evaluate(background)
    for scheme in ("light", "dark"):
        for viewport in (DESKTOP, PHONE):
            found = visit(viewport, scheme).evaluate(CONTRASTS)
            assert len(found) > 100
            assert [one for one in found if one[0] < (3 if one[1] else 4.5)] == []

    page = visit(scheme="dark")  # where pictures keep their black on a light plate
    plate = page.evaluate("getComputedStyle(document.querySelector('.plate')).backgroundColor")
    text = page.evaluate("getComputedStyle(document.querySelector('.plate svg text')).fill")
    assert text == "rgb(0, 0, 0)" and min(int(part) for part in plate[4:-1].split(",")) > 200


def test_lines_of_text_are_not_too_long(visit):
    page = visit()
    page.evaluate(
        "document.querySelector('p.answer').textContent = 'All of it is text of the usual kind, long enough. '"
        ".repeat(8)"
    )
    lines, size = page.evaluate(
        "(() => { const p = document.querySelector('p.answer'), range = document.createRange();"
        " range.selectNodeContents(p); const height = parseFloat(getComputedStyle(p).lineHeight);"
        " return [range.getBoundingClientRect().height / height, p.textContent.length] })()"
    )
    assert size / round(lines) <= 75


def test_on_paper_everything_is_unfolded_and_in_black_on_white(visit, tmp_path):
    page = visit(scheme="dark")
    folded = "document.querySelectorAll('main details:not([open], .folded)').length"
    assert page.evaluate(folded) > 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(folded) == 0
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(folded) > 0
    assert page.pdf(path=str(tmp_path / "page.pdf"), prefer_css_page_size=True).startswith(b"%PDF")
