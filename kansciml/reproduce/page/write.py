"""Writes all of a page: HTML, Markdown, findings as JSON, and a folder with every picture and table as a file.

The HTML is one document: style, script and pictures are in it, and nothing is fetched from anywhere.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kansciml._errors import KansciError
from kansciml._files import write_bytes, write_json, write_text
from kansciml.reproduce.page import text
from kansciml.reproduce.page.content import FINISHED, Entry, Page, slug
from kansciml.reproduce.page.svg import inline_svg
from kansciml.reproduce.page.table_view import table_view
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from kansciml.runs.tables import save_tables

MARKS = {REPRODUCED: ("yes", "\u2713"), NOT_REPRODUCED: ("no", "\u2717"), UNDECIDED: ("open", "?")}
"""Class and sign of a verdict."""
PICTURE_KINDS = ("svg", "png", "pdf")


@dataclass(frozen=True)
class Picture:
    """A picture within the page, or why it cannot be shown."""

    anchor: str
    caption: str
    svg: Markup | None = None
    problem: str = ""


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


def html_page(page: Page) -> str:
    """The HTML document; the same `page` gives the same bytes."""
    css, js = (
        Markup(resources.files(__package__).joinpath(f"page.{kind}").read_text("utf-8")) for kind in ("css", "js")
    )
    return templates().get_template("page.html").render(page=page, css=css, js=js)


def markdown_page(page: Page) -> str:
    """The Markdown document, for places that show no HTML; its pictures are those of ``figures/``."""
    return templates().get_template("report.md").render(page=page).rstrip("\n") + "\n"


def findings_document(page: Page) -> dict[str, Any]:
    """All findings, and how each run stands, in JSON types."""
    runs = [
        {
            "experiment": entry.name, "item": entry.item, "status": entry.status, "message": entry.message,
            "problems": list(entry.problems), "command": entry.command,
            "config_hash": entry.record.config_hash if entry.record else None,
            "wall_s": entry.record.wall_s if entry.record else None,
        }
        for entry in page.entries
    ]  # fmt: skip
    findings = [
        {"experiment": entry.name, **dataclasses.asdict(one), "claim": one.text, "figures": list(one.figures)}
        for entry, one in page.findings
    ]
    return {
        "preset": page.preset, "answer": text.answer(page), "verdicts": page.counts, "runs": runs, "findings": findings,
    }  # fmt: skip


def write_figures(page: Page, folder: Path) -> list[Path]:
    """Copy the pictures of all finished runs, in every kind of file there is of them, and write their tables.

    Returns:
        All files that belong to the page; those whose bytes are the same already are left as they are.

    Raises:
        KansciError: a picture cannot be read, or the folder not be written.
    """
    paths = []
    for entry in page.entries:
        if entry.status != FINISHED:
            continue
        for picture in entry.pictures:
            for kind in PICTURE_KINDS:
                source = picture.with_suffix(f".{kind}")
                if source.is_file():
                    paths.append(_copy(source, folder / f"{entry.file_stem(picture)}.{kind}"))
        if entry.tables:
            paths += save_tables(entry.tables, folder, f"{entry.slug}-tables")
    return paths


def pictures(entry: Entry) -> list[Picture]:
    """The pictures of an entry, to be put into HTML."""
    found = []
    for path in entry.pictures:
        anchor, caption = entry.anchor(path), entry.caption(path)
        try:
            svg = inline_svg(path.read_text(encoding="utf-8"), anchor, f"{entry.item}: {caption}")
            found.append(Picture(anchor, caption, svg))
        except (OSError, UnicodeDecodeError, KansciError) as error:
            found.append(Picture(anchor, caption, problem=f"{path.name} cannot be shown: {error}"))
    return found


@cache
def templates() -> Environment:
    """The templates, with the filters and words that they use; text arrives as text in HTML."""
    environment = Environment(
        loader=PackageLoader("kansciml.reproduce.page"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    named = ("answer", "cost_facts", "findings_table", "markdown", "prose", "settings_table", "unbroken")
    environment.filters |= {name: getattr(text, name) for name in named}
    environment.filters |= {"pictures": pictures, "slug": slug, "table_view": table_view}
    environment.globals |= {"MARKS": MARKS, "PAPER": text.PAPER, "TITLE": text.TITLE, "STATUS_WORDS": text.STATUS_WORDS}
    return environment


def _copy(source: Path, target: Path) -> Path:
    try:
        data = source.read_bytes()
        if target.is_file() and target.read_bytes() == data:
            return target
    except OSError as error:
        raise KansciError(f"cannot read {source}: {error.strerror}: check its permissions") from error
    return write_bytes(target, data)
