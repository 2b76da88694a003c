"""Writes all of a page: HTML, Markdown, findings as JSON, and the folder of figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kansciml._files import write_json, write_text
from kansciml.reproduce.page.answer import answer, count_by_verdict
from kansciml.reproduce.page.content import Page
from kansciml.reproduce.page.document import html_page
from kansciml.reproduce.page.figures import write_figures
from kansciml.reproduce.page.markdown import markdown_page


def write_page(page: Page, folder: Path) -> list[Path]:
    """Write ``index.html``, ``report.md``, ``findings.json`` and ``figures/`` into `folder`; returns all paths.

    Raises:
        KansciError: the folder cannot be written, or a picture not be read.
    """
    return [
        write_text(folder / "index.html", html_page(page)),
        write_text(folder / "report.md", markdown_page(page)),
        write_json(folder / "findings.json", findings_document(page)),
        *write_figures(page, folder / "figures"),
    ]


def findings_document(page: Page) -> dict[str, Any]:
    """All findings, and how each run stands, in JSON types."""
    return {
        "preset": page.preset,
        "answer": answer(page),
        "verdicts": count_by_verdict(page.of_paper),
        "runs": [
            {
                "experiment": entry.name,
                "item": entry.item,
                "status": entry.status,
                "message": entry.message,
                "problems": list(entry.problems),
                "command": entry.command,
                "config_hash": entry.record.config_hash if entry.record else None,
                "wall_s": entry.record.wall_s if entry.record else None,
            }
            for entry in page.entries
        ],
        "findings": [
            {
                "experiment": entry.name, "item": finding.item, "claim": finding.claim, "printed": finding.printed,
                "measured": finding.measured, "verdict": finding.verdict, "evidence": finding.evidence,
                "figures": list(finding.figures),
            }
            for entry, finding in page.findings()
        ],
    }  # fmt: skip
