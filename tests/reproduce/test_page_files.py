"""What is written beside the page: Markdown, findings as JSON, and a folder of figures named by item."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest
from support.page_samples import make_page

from kansciml.reproduce.page.write import write_page


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder of a page, the paths that `write_page` returned, and the page."""
    folder = tmp_path_factory.mktemp("page")
    page = make_page(tmp_path_factory.mktemp("pictures"))
    page.entries[-1].pictures[0].with_suffix(".pdf").write_bytes(b"%PDF-1.4 made up")
    return folder, write_page(page, folder), page


def test_every_file_is_named_once_and_is_there(written):
    folder, paths, _ = written
    assert len(paths) == len(set(paths)) and all(path.stat().st_size > 0 for path in paths)
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(paths)


def test_figures_are_named_by_item_in_every_kind_there_is(written):
    folder, _, page = written
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {
        "answer.svg", "figure-2-loss-curves.svg", "figure-2-orbits-pleiades.svg", "fair-loss-curves.svg",
        "fair-loss-curves.pdf", "figure-2-tables.md", "figure-2-tables.json", "fair-tables.md", "fair-tables.json",
    }  # fmt: skip
    source = page.entries[0].pictures[0]
    assert (folder / "figures" / "figure-2-loss-curves.svg").read_bytes() == source.read_bytes()


def test_a_second_time_leaves_the_same_figures_alone(written):
    folder, paths, page = written
    picture = folder / "figures" / "figure-2-loss-curves.svg"
    before = picture.stat().st_mtime_ns
    assert write_page(page, folder) == paths and picture.stat().st_mtime_ns == before


def test_the_records_are_in_one_file_of_packed_ones(written):
    folder, _, page = written
    with zipfile.ZipFile(folder / "records.zip") as archive:
        archive.extractall(folder.parent / "packed")
        assert archive.namelist() == ["fig2-0123456789ab.zip", "fair-0123456789ab.zip"]
    with zipfile.ZipFile(folder.parent / "packed" / "fig2-0123456789ab.zip") as archive:
        assert json.loads(archive.read("record.json"))["wall_s"] == 4000
    before = (folder / "records.zip").read_bytes()
    (page.entries[0].record.folder / "config.json").unlink()  # nor is it needed: what is packed is kept
    write_page(page, folder)
    assert (folder / "records.zip").read_bytes() == before
    (page.entries[0].record.folder / "config.json").write_text("{}")


def test_findings_as_json(written):
    folder, _, page = written
    document = json.loads((folder / "findings.json").read_text())
    assert document["answer"] == list(page.answer.sentences) and document["limits"] == list(page.answer.limits)
    assert document["verdicts"] == {"reproduced": 1, "not reproduced": 1, "not decidable at this budget": 1}
    assert [one["claim"] for one in document["findings"]] == [finding.text for _, finding in page.findings]
    assert [run["status"] for run in document["runs"]] == [entry.status for entry in page.entries]
    assert document["runs"][0]["config_hash"] == "0123456789ab" and document["runs"][1]["config_hash"] is None


def test_markdown_holds_the_same(written):
    folder, _, page = written
    text = (folder / "report.md").read_text()
    for entry in page.entries:
        assert entry.title in text and entry.command in text and entry.message in text
    for _, finding in page.findings:
        assert finding.text in text and text.count(finding.evidence) == 1
    assert text.index(page.answer.sentences[0]) < text.index("(figures/answer.svg)") < text.index("## Claims and")
    for shown in (
        "| seeds | 2 | 10 |",
        "As in the preset paper: systems lotka.",
        "### A misprint",
        "wall time: 1 h",
    ):
        assert shown in text
    block = re.search(r"## Claims and verdicts\n\n((?:\|.*\n)+)", text)
    assert block is not None and {len(re.findall(r"(?<!\\)\|", line)) for line in block[1].splitlines()} == {6}
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(pictures) == 4 and all((folder / name).is_file() for name in pictures)


def test_captions_name_what_the_file_is_about(written):
    entry = written[2].entries[0]
    assert entry.caption(Path("orbits_the_sun.svg")) == "Orbits of the bodies of the the sun system."
    assert entry.caption(Path("some_picture.svg")) == "Some picture."


def test_pictures_stand_in_the_order_of_the_findings_then_of_the_captions(written):
    places = [written[2].entries[0].place(Path(stem)) for stem in ("loss_curves", "orbits_sun", "a_new_one")]
    assert places == sorted(places)


def test_cases_of_one_claim_come_together_and_none_is_lost(written):
    entry = written[2].entries[0]
    first, second = entry.claims
    assert first.text == '"MLPs converge lower" (Figure 2)' and first.cases[0].case == "Spiral, equal width"
    assert first.counts == {"reproduced": 1, "not reproduced": 1}
    assert "Not reproduced: Spiral, equal width." in first.measured
    assert first.printed == ""  # not the same for both
    assert second.text == "It holds" and second.printed == "I (O + 1)"
    assert [finding for claim in (first, second) for finding in claim.cases] == entry.findings
