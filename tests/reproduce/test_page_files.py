"""What is written beside the page: Markdown, findings as JSON, and a folder of figures named by item."""

from __future__ import annotations

import json
import re

import pytest
from support.page_samples import make_page

from kansciml.reproduce.page.answer import duration
from kansciml.reproduce.page.captions import CAPTIONS, caption, importance
from kansciml.reproduce.page.claims import claims_of, split_claim
from kansciml.reproduce.page.markdown import markdown_page
from kansciml.reproduce.page.write import write_page


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder of a page, the paths that `write_page` returned, and the page."""
    folder = tmp_path_factory.mktemp("page")
    page = make_page(tmp_path_factory.mktemp("pictures"))
    return folder, write_page(page, folder), page


def test_every_file_is_named_once_and_is_there(written):
    folder, paths, _ = written
    assert len(paths) == len(set(paths)) and all(path.stat().st_size > 0 for path in paths)
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(paths)


def test_figures_are_named_by_item_in_every_kind_there_is(written):
    folder, _, page = written
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {
        *(f"figure-2-{what}.{kind}" for what in ("loss-curves", "orbits-pleiades") for kind in ("svg", "png", "pdf")),
        *(f"fair-loss-curves.{kind}" for kind in ("svg", "png", "pdf")),
        "figure-2-tables.md", "figure-2-tables.json", "fair-tables.md", "fair-tables.json",
    }  # fmt: skip
    source = page.entries[0].pictures[0]
    assert (folder / "figures" / "figure-2-loss-curves.svg").read_bytes() == source.read_bytes()


def test_a_second_time_leaves_the_same_figures_alone(written):
    folder, paths, page = written
    picture = folder / "figures" / "figure-2-loss-curves.svg"
    before = picture.stat().st_mtime_ns
    assert write_page(page, folder) == paths and picture.stat().st_mtime_ns == before


def test_a_pdf_beside_a_picture_comes_along(tmp_path):
    page = make_page(tmp_path / "results")
    page.entries[0].pictures[0].with_suffix(".pdf").write_bytes(b"%PDF-1.4 made up")
    paths = write_page(page, tmp_path / "page")
    assert tmp_path / "page" / "figures" / "figure-2-loss-curves.pdf" in paths


def test_findings_as_json(written):
    folder, _, page = written
    document = json.loads((folder / "findings.json").read_text())
    assert document["verdicts"] == {"reproduced": 1, "not reproduced": 1, "not decidable at this budget": 1}
    assert [one["claim"] for one in document["findings"]] == [finding.claim for _, finding in page.findings()]
    assert [run["status"] for run in document["runs"]] == [entry.status for entry in page.entries]
    assert document["runs"][0]["config_hash"] == "0123456789ab" and document["runs"][1]["config_hash"] is None


def test_markdown_holds_the_same(written):
    folder, _, page = written
    text = (folder / "report.md").read_text()
    for entry in page.entries:
        assert entry.title in text and entry.command in text and entry.message in text
    for _, finding in page.findings():
        assert finding.claim in text and f"**{finding.verdict}**" in text
    for shown in (
        "| seeds | 2 | 10 |",
        "As in the preset paper: systems lotka.",
        "### 1. A misprint",
        "wall time: 1 h",
    ):
        assert shown in text
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(pictures) == 3 and all((folder / name).is_file() for name in pictures)


def test_a_table_of_markdown_has_as_many_cells_in_every_row(written):
    block = re.search(r"## All findings\n\n((?:\|.*\n)+)", markdown_page(written[2]))
    assert block is not None
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in block[1].splitlines()} == {6}


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.24, "8.2 s"), (59.96, "60.0 s"), (187, "3 min 07 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_captions_name_what_the_file_is_about():
    assert "pleiades" in caption("fig2", "orbits_pleiades")
    assert caption("table1", "curves_digits-deit-tiny").endswith("(digits-deit-tiny).")
    assert caption("unknown", "some_picture") == "Some picture."
    assert "{" not in "".join(caption(owner, stem.replace("*", "a")) for owner, stem in CAPTIONS)


def test_pictures_of_the_item_itself_come_before_general_ones():
    assert importance("table1", "table1") < importance("table1", "a_new_one") < importance("table1", "curves")


@pytest.mark.parametrize(
    ("text", "claim", "case"),
    [
        ('"It is so" (Figure 2): Spiral, equal width', '"It is so" (Figure 2)', "Spiral, equal width"),
        ('"It is" (Figure 3), as a share: a (width 2), G=5', '"It is" (Figure 3), as a share', "a (width 2), G=5"),
        ('"Number of Params", DeiT-Tiny, KAN (G=5)', '"Number of Params"', "DeiT-Tiny, KAN (G=5)"),
        ("Equation (2) is the sum of terms", "Equation (2) is the sum of terms", ""),
    ],
)  # fmt: skip
def test_a_claim_and_its_case_are_told_apart(text, claim, case):
    assert split_claim(text) == (claim, case)


def test_cases_of_one_claim_come_together_and_none_is_lost(written):
    entry = written[2].entries[0]
    first, second = claims_of(entry)
    assert first.text == '"MLPs converge lower" (Figure 2)' and first.cases[0][0] == "Spiral, equal width"
    assert first.counts() == {"reproduced": 1, "not reproduced": 1}
    assert first.printed == ""  # not the same for both
    assert second.text == "It holds" and second.printed == "36800"
    assert [finding for claim in (first, second) for _, finding in claim.cases] == entry.findings
