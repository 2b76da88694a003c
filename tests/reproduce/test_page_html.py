"""The page as HTML: everything is on it, text arrives as text, anchors lead somewhere, nothing is fetched."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from support.page_samples import HOSTILE, TABLE, draw, make_page

from kansciml import KansciError
from kansciml.reproduce import answer_figure
from kansciml.reproduce.page.content import Entry, Page
from kansciml.reproduce.page.words import sort_value, sorts_as_numbers
from kansciml.reproduce.page.write import html_page, inline_svg, templates
from kansciml.runs.findings import VERDICTS
from kansciml.runs.tables import Table

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Reader(HTMLParser):
    """Collects what a browser would see; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.open[-3:])

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    return make_page(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def picture(page, tmp_path_factory):
    """Of the answer."""
    return answer_figure.draw(page.answer, tmp_path_factory.mktemp("answer"))[0]


@pytest.fixture(scope="module")
def html(page, picture) -> str:
    return html_page(page, picture)


@pytest.fixture(scope="module")
def reader(html) -> Reader:
    return Reader(html)


def test_the_reader_sees_tags_that_do_not_match():
    with pytest.raises(AssertionError):
        Reader("<div><p></div>")


def test_every_claim_verdict_setting_and_command_is_on_it(page, reader):
    text = " ".join(reader.text.split())
    for entry in page.entries:
        assert entry.title in text and entry.command in text and entry.message in text
        for finding in entry.findings:
            assert finding.claim in text and finding.measured in text and finding.case in text
            assert text.count(finding.evidence.replace("`", "")) == 1
    for shown in (
        *VERDICTS, "training.adam_steps", "5000", "1 h 06 min in 2 sessions", "512 MB", "torch 2.13.0", "f" * 40,
        "0, 1", "failed", "not run yet", "unfinished", "Its findings cannot be shown: a reason",
    ):  # fmt: skip
        assert shown in text
    assert "juliacall" not in text  # not installed, so no version


def test_text_arrives_as_text(html, reader):
    assert "<script>alert" not in html and HOSTILE in reader.text
    assert len(reader.all("script")) == 1
    assert "<code>kansciml cost</code>" in html  # but backticks are code


def test_ids_are_unique_and_links_lead_to_one(page, html, reader, picture):
    assert html_page(page, picture) == html
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"] for attributes in reader.all("a")}
    assert targets > {"records.zip", "report.md", "findings.json"}
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)
    assert "records.zip" not in html_page(replace(page, entries=page.entries[1:2]))


def test_nothing_is_fetched(html, reader):
    # the only addresses are names of things within the document, and data
    assert "http://" not in html and "https://" not in html and "@import" not in html
    for tag, attributes in reader.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            fetched = tag != "a" and name in attributes
            assert not fetched or str(attributes[name]).startswith(("#", "data:")), attributes
    assert set(re.findall(r"url\((.)", html)) <= {"#"}


def test_pictures_are_named_for_screen_readers(reader):
    pictures = reader.all("svg")
    assert len(pictures) == 4 and all(one["role"] == "img" and len(one["aria-label"]) > 20 for one in pictures)
    assert "orbits of the bodies of the pleiades system" in pictures[2]["aria-label"].lower()


def test_the_contents_name_every_section_and_mark_what_went_wrong(html):
    contents = html[html.index("<nav") : html.index("</nav>")]
    marks = re.findall(r'href="#([a-z0-9-]+)">[^<]*(<span class="mark">!)?', contents)
    assert [(name, bool(mark)) for name, mark in marks] == [
        ("main", False), ("claims", False), ("figure-2", False), ("fair", True), ("lacking", True), ("errors", False),
        ("figures", False),
    ]  # fmt: skip


def test_the_answer_comes_first_then_its_picture_then_what_would_change_it_then_the_claims(html, page):
    said = [page.answer.sentences[1], 'id="answer"', "More seeds &lt;than 3&gt;", "2 of 5 runs are finished",
            'id="claims"', 'id="figure-2"', 'id="fair"', 'id="lacking"']  # fmt: skip
    places = [html.index(one) for one in said]
    assert places == sorted(places)
    assert "decide anything about accuracy" in html  # preset smoke
    assert "decide anything about accuracy" not in html_page(replace(page, preset="paper"))
    silent = html_page(replace(page, answer=None, problems=["No answer can be shown: <why>"]))
    assert "These runs do not tell" in silent and 'id="answer"' not in silent and "shown: &lt;why&gt;" in silent


def test_each_item_shows_its_first_figure_before_all_else_and_folds_evidence_and_the_rest(html):
    section = html[html.index('<section class="entry" id="figure-2"') : html.index('<section id="beyond"')]
    said = ['id="figure-2-loss-curves"', 'id="figure-2-table-1"', "<summary>Evidence", "More: 1 figure<",
            'id="figure-2-orbits-pleiades"', "How it was run"]  # fmt: skip
    places = [section.index(one) for one in said]
    assert places == sorted(places) and section.count("<details>") == 3


def test_a_claim_is_one_row_with_its_cases_by_verdict(page, html):
    rows = re.findall(r'<th scope="row" class="item".*?</tr>', html)
    assert len(rows) == len(page.entries[0].claims) == 2
    assert "Reproduced: &lt;script&gt;" in rows[0] and "Not reproduced: Spiral, equal width." in rows[0]
    assert "36800 parameters" in rows[1] and "<mi>O</mi><mo>+</mo><mn>1</mn>" in rows[1]


def test_what_a_comparison_beyond_the_paper_found_leads_its_section_and_is_said_once(page):
    table = Table("When?", ["task"], [["spiral"]], ["Of 4 comparisons the KAN is better in 3."])
    fair = replace(page.entries[-1], tables=[table], findings=[])
    assert html_page(replace(page, entries=[fair])).count("Of 4 comparisons the KAN is better in 3.") == 1


def test_every_figure_is_in_the_index_with_its_files(page, html):
    index = html[html.index('<ul class="index">') :]
    for entry in page.entries:
        for path in entry.pictures:
            assert f'href="#{entry.anchor(path)}"' in index and entry.caption(path) in index
            assert f'href="figures/{entry.file_stem(path)}.svg"' in index
    assert ".pdf" not in index  # where there is none


def test_a_page_without_any_run_says_so():
    html = html_page(Page("small", [Entry("fig1", "Figure 1", "Memory", "kansciml run fig1", "missing", "None.")]))
    assert "0 of 1 runs are finished" in html and 'id="errors"' not in html and 'id="beyond"' not in html
    assert "No finished run says anything about a claim" in html
    assert Reader(html).all("svg") == []


def test_a_picture_that_cannot_be_read_is_said_and_the_others_are_shown(page, tmp_path):
    broken = tmp_path / "loss_curves.svg"
    broken.write_text("not a picture")
    entry = page.entries[0]
    html = html_page(replace(page, entries=[replace(entry, pictures=[broken, entry.pictures[1]])]))
    assert "loss_curves.svg cannot be shown" in html and html.count("<svg") == 1


class TestSvg:
    def test_ids_are_prefixed_no_style_leaks_and_backgrounds_are_left_to_the_page(self, tmp_path):
        text = draw(tmp_path, "curve").read_text()
        picture = inline_svg(text, "a", "A curve")
        ids = set(re.findall(r'\sid="([^"]+)"', picture))
        used = set(re.findall(r"url\(#([^)]+)\)", picture)) | set(re.findall(r'href="#([^"]+)"', picture))
        assert len(ids) == len(re.findall(r'\sid="', text)) and all(name.startswith("a-") for name in ids)
        assert used and used <= ids
        assert "<style" in text and "<style" not in picture and "metadata" not in picture
        assert "fill: #ffffff" in text and "fill: #ffffff" not in picture and "fill: none" in picture
        label = '<g id="text_1"><g id="patch_9"><path d="M 0 0" style="fill: #ffffff"/></g></g>'
        assert 'style="fill: var(--plate)"' in inline_svg(f"<svg>{label}</svg>", "a", "A label over a line")
        assert "iteration</text>" in picture  # text stays text

    def test_scripts_are_left_out_and_labels_are_quoted(self):
        picture = inline_svg('<svg width="10pt"><script>x</script><g id="b"/></svg>', "a", 'say "hi"')
        assert "script" not in picture and "say &#34;hi&#34;" in picture and 'id="a-b"' in picture

    def test_a_file_without_a_picture_is_one_clear_line(self):
        with pytest.raises(KansciError, match="without an <svg> element"):
            inline_svg("<p>", "a", "b")


class TestTables:
    @staticmethod
    def html(table):
        return templates().get_template("macros.html").module.table(table, "t")

    def test_text_that_begins_with_a_number_is_sorted_by_it_and_other_text_is_not(self):
        texts = ("0.3 +- 0.1", "-12 %", "1.2e-5 (252)", "8 / 9", "1,024 MB", "+.5")
        assert [sort_value(text) for text in texts] == [0.3, -12, 1.2e-5, 8, 1024, 0.5]
        others = ("MLP", "2-50-2", "64 -> 64, batch 128", "10 to 12: yes", "", True, None)
        assert [sort_value(other) for other in others] == [None] * len(others)

    def test_missing_values_do_not_make_a_column_text(self):
        assert sorts_as_numbers([1, None, float("nan"), "-", "2 %"])
        assert not sorts_as_numbers([1, "two"]) and not sorts_as_numbers([None])

    def test_cells_carry_what_they_are_sorted_by(self):
        html = self.html(TABLE)
        assert re.findall(r'data-sort="(\w+)"', html) == ["text", "number", "number", "number", "text"]
        assert '<td class="num" data-value="25200">25,200</td>' in html
        assert 'data-value="3.0000000000000' in html or 'data-value="2.9999999999999' in html  # 3e-7, in full
        assert html.count('data-value=""') == 3

    def test_infinity_is_what_the_script_reads_as_such(self):
        html = self.html(Table("A", ["x"], [[float("inf")], [-float("inf")], [1.5]]))
        assert 'data-value="Infinity">inf<' in html and 'data-value="-Infinity">-inf<' in html

    def test_it_is_in_a_box_of_its_own_that_the_keyboard_can_scroll(self):
        html = self.html(Table("A & B", ["x"], [[1]]))
        assert '<div class="scroll" role="group" tabindex="0" aria-label="A &amp; B">' in html
        assert 'aria-labelledby="t-title"' in html and 'id="t-title">A &amp; B<' in html
