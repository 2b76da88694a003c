"""The table of the paper's sentences: each once, in order, with findings that exist; and what the page shows of it."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from support.page_samples import make_page

import kansciml
from kansciml.reproduce.page.content import Reference, Sentence
from kansciml.reproduce.page.write import findings_document, html_page, markdown_page
from kansciml.reproduce.sentences import sentences
from kansciml.runs.registry import get_experiment

ORDER = [
    "Abstract", "1", "2.1", "2.2", "3", "3.1", "3.2", "4", "Figure 2", "4.1", "Figure 3", "Figure 4", "4.2", "Table 1",
    "Footnote 3", "Footnote 4", "4.3", "Figure 5", "5", "5.1",
]  # fmt: skip
ALL = sentences()


@cache
def claims(experiment: str) -> set[str]:
    """All texts in the module that an experiment's findings come from, whose literals the parser has joined."""
    module = get_experiment(experiment).findings.__module__
    path = Path(kansciml.__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    return {node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)
            and isinstance(node.value, str)}  # fmt: skip


def test_every_sentence_is_in_the_table_once_and_in_the_papers_order():
    texts = [one.text for one in ALL]
    assert len(texts) == len(set(texts)) >= 55
    for text in texts:
        assert sum(text in other for other in texts) == 1, text
    places = [ORDER.index(one.section) for one in ALL]
    assert places == sorted(places)


@pytest.mark.parametrize("reference", sorted({(one.experiment, one.claim) for row in ALL for one in row.by}))
def test_every_reference_is_to_findings_that_an_experiment_of_the_page_makes(reference):
    experiment, claim = reference
    assert get_experiment(experiment).order is not None
    assert sum(claim in text for text in claims(experiment)) >= 1


def test_a_sentence_has_findings_or_a_reason():
    with pytest.raises(ValueError, match="expected some, or why"):
        Sentence("1", "KANs are better.")


def test_the_page_tells_of_each_sentence_what_was_found(tmp_path):
    told = [
        Sentence("Abstract", "MLPs converge lower & faster", [Reference("fig2", "converge lower")]),
        Sentence(
            "1", "It holds for all", [Reference("fig2", "It holds"), Reference("fig5", "anything")], "and a reason"
        ),
        Sentence("2", "Nobody can tell", why="a theorem"),
    ]
    page = replace(make_page(tmp_path), sentences=told)
    assert page.told(told[0]) == {"reproduced": 1, "not reproduced": 1}
    assert [(entry.name, len(found)) for entry, found in page.checked(told[1])] == [("fig2", 1), ("fig5", 0)]
    html, text = html_page(page), markdown_page(page)
    assert html.count('href="#sentences"') == 2 and "lower &amp; faster" in html
    assert "1 reproduced, 1 not reproduced" in text and "| a theorem | not checked |" in text
    assert "Figure 2; Figure 5; and a reason" in text
    row = json.loads(json.dumps(findings_document(page)["sentences"]))[1]
    assert row["experiments"] == ["fig2", "fig5"] and [one["claim"] for one in row["findings"]] == ["It holds"]
    assert 'id="sentences"' not in html_page(replace(page, sentences=()))
