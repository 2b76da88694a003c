"""Writes all of a page: HTML, Markdown, findings as JSON, a folder of pictures and tables, and the records in one file.

The HTML is one document: style, script and pictures are in it, and nothing is fetched from anywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from kansciml._errors import KansciError
from kansciml._files import write_bytes, write_json, write_text
from kansciml.reproduce.answer_figure import draw
from kansciml.reproduce.page import words
from kansciml.reproduce.page.content import Entry, Page, slug
from kansciml.runs.archive import FIXED_TIME, packed, packed_name
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from kansciml.runs.records import DamagedRecord, Record
from kansciml.runs.registry import get_experiment
from kansciml.runs.tables import save_tables
from kansciml.runs.typed import attributes

MARKS = {REPRODUCED: ("yes", "\u2713"), NOT_REPRODUCED: ("no", "\u2717"), UNDECIDED: ("open", "?")}
"""Class and sign of a verdict."""
PICTURE_KINDS = ("svg", "png", "pdf")
RECORDS = "records.zip"
_ID = re.compile(r'(\sid=")([^"]+)"')
_REFERENCE = re.compile(r'((?:xlink:)?href="#)([^"]+)"')
_URL = re.compile(r"url\(#([^)]+)\)")
_SIZE = re.compile(r'\s(width|height)="([\d.]+)(pt|px)?"')
_BACKGROUND = re.compile(
    r'(<g id="[^"]*(?:figure|axes)_\d+">\s*<g id="[^"]*patch_\d+">\s*<path [^>]*?style="fill: )#ffffff(")'
)
_WHITE = re.compile(r"((?:fill|stroke): )#ffffff\b")
PT_PER_PX = 0.75


@dataclass(frozen=True)
class Picture:
    """A picture within the page, or why it cannot be shown."""

    anchor: str
    caption: str
    svg: Markup | None = None
    problem: str = ""


def write_page(page: Page, folder: Path) -> list[Path]:
    """Write ``index.html``, ``report.md``, ``findings.json``, ``figures/`` and ``records.zip`` into `folder`.

    Returns all paths.
    """
    drawn = draw(page.answer, folder / "figures") if page.answer else []
    return [
        write_text(folder / "index.html", html_page(page, *drawn[:1])),
        write_text(folder / "report.md", markdown_page(page)),
        write_json(folder / "findings.json", findings_document(page)),
        *drawn,
        *write_figures(page, folder / "figures"),
        *write_records(page, folder / RECORDS),
    ]


def html_page(page: Page, answer: Path | None = None) -> str:
    """The HTML document; the same `page` gives the same bytes. `answer`: picture of the page's answer, as SVG."""
    css, js = (
        Markup(resources.files(__package__).joinpath(f"page.{kind}").read_text("utf-8")) for kind in ("css", "js")
    )
    return templates().get_template("page.html").render(page=page, answer=answer, css=css, js=js)


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
        "preset": page.preset, "answer": list(page.answer.sentences) if page.answer else [],
        "details": list(page.answer.details) if page.answer else [],
        "limits": list(page.answer.limits) if page.answer else [], "verdicts": page.counts, "runs": runs,
        "findings": findings, "sentences": sentences,
    }  # fmt: skip


def write_figures(page: Page, folder: Path) -> list[Path]:
    """Copy the pictures of all finished runs, in every kind of file there is of them, and write their tables.

    Returns:
        All files that belong to the page; those whose bytes are the same already are left as they are.
    """
    drawn = [(path, entry.file_stem(path)) for entry in page.entries for path in entry.pictures]
    paths = [
        _copy(path.with_suffix(f".{kind}"), folder / f"{stem}.{kind}") for path, stem in drawn for kind in kinds(path)
    ]
    for entry in page.entries:
        if entry.tables:
            paths += save_tables(entry.tables, folder, f"{entry.slug}-tables")
    return paths


def write_records(page: Page, path: Path) -> list[Path]:
    """Write the records of all finished runs as one file, each packed as by ``kansciml results pack``.

    Returns:
        The path, or nothing if no run is finished. What a later file holds of a record already is not packed again.
    """
    if not page.records:
        return []
    there: dict[str, bytes] = {}
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        there = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for record in page.records:
            name = packed_name(record)
            known = name in there and path.stat().st_mtime > (record.folder / "record.json").stat().st_mtime
            archive.writestr(zipfile.ZipInfo(name, FIXED_TIME), there[name] if known else _packed(record))
    return [write_bytes(path, buffer.getvalue())]


def _packed(record: Record) -> bytes:
    try:
        return packed(record, get_experiment(record.experiment).unshown(record))
    except DamagedRecord:  # the page says so; the file is there to look into
        return packed(record)


def pictures(entry: Entry) -> list[Picture]:
    """The pictures of an entry, to be put into HTML."""
    return [picture(path, entry.anchor(path), entry.caption(path), entry.item) for path in entry.pictures]


def picture(path: Path, anchor: str, caption: str, item: str) -> Picture:
    """One picture, to be put into HTML."""
    try:
        svg = inline_svg(path.read_text(encoding="utf-8"), anchor, f"{item}: {caption}")
        return Picture(anchor, caption, svg)
    except (OSError, UnicodeDecodeError, KansciError) as error:
        return Picture(anchor, caption, problem=f"{path.name} cannot be shown: {error}")


def kinds(path: Path) -> list[str]:
    """Kinds of files that there are of a picture."""
    return [kind for kind in PICTURE_KINDS if path.with_suffix(f".{kind}").is_file()]


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
    named = "claims_table cost_facts counted markdown prose sentences_table settings_table standing table_view"
    environment.filters |= {"kinds": kinds, "pictures": pictures, "slug": slug, **attributes(words, named)}
    environment.globals |= {"MARKS": MARKS, "RECORDS": RECORDS, "picture": picture}
    environment.globals |= attributes(words, "PAPER SHORT_NOTES SHORT_TABLE STATUS_WORDS TITLE")
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
    the drawn one as the property ``--drawn``; white backgrounds are left to the box around it, whose colour all other
    white gets.

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
    body = _WHITE.sub(r"\1var(--plate)", _BACKGROUND.sub(r"\1none\2", body))
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
