"""Writes all of a page: HTML, Markdown, findings as JSON, and a folder with every picture and table as a file.

The HTML is one document: style, script and pictures are in it, and nothing is fetched from anywhere.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from kansciml._errors import KansciError
from kansciml._files import write_bytes, write_json, write_text
from kansciml.reproduce.page import words
from kansciml.reproduce.page.content import FINISHED, Entry, Page, slug
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from kansciml.runs.tables import save_tables
from kansciml.runs.typed import attributes

MARKS = {REPRODUCED: ("yes", "\u2713"), NOT_REPRODUCED: ("no", "\u2717"), UNDECIDED: ("open", "?")}
"""Class and sign of a verdict."""
PICTURE_KINDS = ("svg", "png", "pdf")
_ID = re.compile(r'(\sid=")([^"]+)"')
_REFERENCE = re.compile(r'((?:xlink:)?href="#)([^"]+)"')
_URL = re.compile(r"url\(#([^)]+)\)")
_SIZE = re.compile(r'\s(width|height)="([\d.]+)(pt|px)?"')
_BACKGROUND = re.compile(r'(<g id="[^"]*patch_\d+">\s*<path [^>]*?style="fill: )#ffffff(")')
PT_PER_PX = 0.75


@dataclass(frozen=True)
class Picture:
    """A picture within the page, or why it cannot be shown."""

    anchor: str
    caption: str
    svg: Markup | None = None
    problem: str = ""


def write_page(page: Page, folder: Path) -> list[Path]:
    """Write ``index.html``, ``report.md``, ``findings.json`` and ``figures/`` into `folder`; returns all paths."""
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
    """All findings, how each run stands, and what tells of each sentence of the paper, in JSON types."""
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
    sentences = [
        {
            "section": one.section, "text": one.text, "why": one.why,
            "experiments": [entry.name for entry, _ in page.checked(one)],
            "findings": [
                {"experiment": entry.name, "claim": finding.text, "verdict": finding.verdict}
                for entry, found in page.checked(one) for finding in found
            ],
        }
        for one in page.sentences
    ]  # fmt: skip
    return {
        "preset": page.preset, "answer": words.answer(page), "verdicts": page.counts, "runs": runs,
        "findings": findings, "sentences": sentences,
    }  # fmt: skip


def write_figures(page: Page, folder: Path) -> list[Path]:
    """Copy the pictures of all finished runs, in every kind of file there is of them, and write their tables.

    Returns:
        All files that belong to the page; those whose bytes are the same already are left as they are.
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
    named = "answer cost_facts findings_table markdown prose sentences_table settings_table table_view unbroken"
    environment.filters |= {"pictures": pictures, "slug": slug, **attributes(words, named)}
    environment.globals |= {"MARKS": MARKS} | {
        name: getattr(words, name) for name in ("PAPER", "TITLE", "STATUS_WORDS")
    }
    return environment


def _copy(source: Path, target: Path) -> Path:
    try:
        data = source.read_bytes()
        if target.is_file() and target.read_bytes() == data:
            return target
    except OSError as error:
        raise KansciError(f"cannot read {source}: {error.strerror}: check its permissions") from error
    return write_bytes(target, data)


def inline_svg(text: str, prefix: str, label: str) -> Markup:
    """The ``<svg>`` element of a file, to be put into HTML.

    Its ids and the references to them get `prefix`, so that pictures on one page do not take each other's clip paths;
    its style sheet, which would hold for the whole page, is left to the page's own; its size follows the page, up to
    the drawn one as the property ``--drawn``; white backgrounds are left to the box around it.

    Args:
        text: of the file, as `kansciml.reporting.style.save_figure` writes it.
        prefix: letters, digits and hyphens, different for every picture of a page.
        label: what a screen reader says in its place.

    Raises:
        KansciError: it holds no ``<svg>`` element.
    """
    start, end = text.find("<svg"), text.rfind("</svg>")
    if start < 0 or end < 0:
        raise KansciError("got a file without an <svg> element: expected a picture; remove it and render it anew")
    head, gap, body = text[start:end].partition(">")
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)
    body = _BACKGROUND.sub(r"\1none\2", body)
    body = _ID.sub(rf'\1{prefix}-\2"', body)
    body = _REFERENCE.sub(rf'\1{prefix}-\2"', body)
    body = _URL.sub(rf"url(#{prefix}-\1)", body)
    body = re.sub(r"\n\s*\n", "\n", body)
    units = {"pt": PT_PER_PX}
    sizes = {name: float(value) / units.get(unit, 1.0) for name, value, unit in _SIZE.findall(head)}
    head = re.sub(r'\s(?:xmlns(?::\w+)?|version|role)="[^"]*"', "", _SIZE.sub("", head))
    drawn = f' style="--drawn:{sizes["width"]:.0f}px"' if "width" in sizes else ""
    # no xmlns: the HTML parser knows svg, and an address in the page would look like a request to one
    return Markup(f'{head} role="img" aria-label="{escape(label)}"{drawn}{gap}{body}</svg>')
