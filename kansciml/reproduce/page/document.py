"""The whole page as one HTML document: style, script and pictures are in it, and nothing is fetched from anywhere."""

from __future__ import annotations

import re
from html import escape
from importlib import resources

from kansciml.reproduce.page.answer import PAPER, answer, count_by_verdict, headline
from kansciml.reproduce.page.claims import claims_of
from kansciml.reproduce.page.content import Entry, Page
from kansciml.reproduce.page.sections import entry_section, error_section, status_chip, verdict_chip
from kansciml.reproduce.page.table_html import prose, scroll_box

TITLE = "When is a KAN worth its cost against an MLP?"
COLUMNS = (("item", "Item"), ("claim", "Claim"), ("printed", "The paper"), ("measured", "Here"), ("verdict", "Verdict"))


def html_page(page: Page) -> str:
    """The document; the same `page` gives the same bytes."""
    parts = [
        _header(page),
        '<section id="summary"><h2><a class="anchor" href="#summary">Claims and verdicts</a></h2>',
        summary_table(page),
        findings_table(page),
        "</section>",
        '<section id="items"><h2><a class="anchor" href="#items">The paper, item by item</a></h2>',
        *(entry_section(entry) for entry in page.of_paper),
        "</section>",
    ]
    if page.beyond:
        parts += [
            '<section id="beyond"><h2><a class="anchor" href="#beyond">Beyond the paper: fair comparisons</a></h2>',
            *(entry_section(entry) for entry in page.beyond),
            "</section>",
        ]
    if page.errors or page.errors_problem:
        parts += [
            '<section id="errors"><h2><a class="anchor" href="#errors">Errors in the paper</a></h2>',
            "<p>Found while reproducing it. Numbers that the paper does not print are computed with the page.</p>",
            f'<div class="alert bad"><p>{escape(page.errors_problem)}</p></div>' if page.errors_problem else "",
            *(error_section(number, error) for number, error in enumerate(page.errors, 1)),
            "</section>",
        ]
    body = "\n".join(part for part in parts if part)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(TITLE)} ({escape(page.preset)})</title>
<style>
{_data("page.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the results</a>
<div class="frame">
{_contents(page)}
<main id="main">
{body}
{_footer(page)}
</main>
</div>
<script>
{_data("page.js")}</script>
</body>
</html>
"""


def summary_table(page: Page) -> str:
    """All claims in one table with their verdicts, and a line for every run that has none."""
    rows = []
    for entry in page.entries:
        for claim in claims_of(entry):
            counts = claim.counts()
            here = claim.cases[0][1].measured if len(claim.cases) == 1 else f"{len(claim.cases)} cases"
            chips = " ".join(verdict_chip(verdict, count) for verdict, count in counts.items())
            cells = _cells(entry, claim.item, claim.text, claim.printed, prose(here), chips)
            rows.append(_summary_row(cells, {"item": claim.item, "verdict": ", ".join(counts)}))
        if not entry.findings:
            chip = status_chip(entry.status) or '<span class="none">no verdict</span>'
            keys = {"item": entry.item, "printed": "", "measured": "", "verdict": ""}
            cells = _cells(entry, entry.item, entry.title, "", prose(headline(entry)), chip)
            rows.append(_summary_row(cells, keys, "bare"))
    return _summary(rows, "Claims and verdicts")


def findings_table(page: Page) -> str:
    """Every case of every claim in one table; empty where no claim has several."""
    found = page.findings()
    if len(found) == sum(len(claims_of(entry)) for entry in page.entries):
        return ""
    rows = []
    for entry, one in found:
        chip = verdict_chip(one.verdict)
        cells = _cells(entry, one.item, one.claim, one.printed, prose(one.measured), chip)
        rows.append(_summary_row(cells, {"item": one.item, "verdict": one.verdict}))
    table = _summary(rows, "All cases")
    return f'<details class="folded"><summary>All {len(found)} cases in one table</summary>{table}</details>'


def _cells(entry: Entry, item: str, claim: str, printed: str, measured: str, verdict: str) -> dict[str, str]:
    empty = '<span class="none">-</span>'
    return {
        "item": f'<a href="#{entry.slug}">{escape(item)}</a>', "claim": prose(claim),
        "printed": prose(printed) or empty, "measured": measured or empty, "verdict": verdict,
    }  # fmt: skip


def _summary(rows: list[str], name: str) -> str:
    head = "".join(f'<th scope="col" data-sort="text">{title}</th>' for _, title in COLUMNS)
    lines = "\n".join(rows)
    return (
        f'<div class="table">{scroll_box(name)}<table class="sortable findings"><caption class="hidden">{name}'
        f"</caption><thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div></div>"
    )


def _summary_row(cells: dict[str, str], keys: dict[str, str], kind: str = "") -> str:
    row = []
    for name, title in COLUMNS:
        key = f' data-value="{escape(keys[name])}"' if name in keys else ""
        row.append(f'<td class="{name}" data-label="{title}"{key}>{cells[name]}</td>')
    return f"<tr{f' class={kind!r}' if kind else ''}>{''.join(row)}</tr>"


def _header(page: Page) -> str:
    counts = count_by_verdict(page.of_paper)
    tally = "".join(
        f"<li>{verdict_chip(verdict)} <strong>{count}</strong></li>" for verdict, count in counts.items() if count
    )
    return (
        f'<header class="top"><p class="kicker">kansciml, preset {escape(page.preset)}</p><h1>{escape(TITLE)}</h1>'
        f'<p class="source">The experiments of <cite>{escape(PAPER)}</cite>, run again.</p>'
        f'<p class="answer">{_unbroken(escape(answer(page)))}</p>'
        + (f'<ul class="tally" aria-label="Verdicts on the paper\'s claims">{tally}</ul>' if tally else "")
        + "</header>"
    )


def _unbroken(text: str) -> str:
    """`text` with every ``Figure 2`` on one line."""
    return re.sub(r"\b(Figure|Table|Equation) (?=[\d(])", "\\1\u00a0", text)


def _contents(page: Page) -> str:
    def link(entry: Entry) -> str:
        mark = ' <span class="mark">!</span>' if entry.went_wrong or entry.status != "finished" else ""
        return f'<li><a href="#{entry.slug}">{escape(entry.item)}{mark}</a></li>'

    lines = ['<li><a href="#summary">Claims and verdicts</a></li>', *map(link, page.of_paper)]
    lines += ['<li><a href="#beyond">Fair comparisons</a></li>'] if page.beyond else []
    lines += ['<li><a href="#errors">Errors in the paper</a></li>'] if page.errors or page.errors_problem else []
    return (
        '<nav class="contents" aria-label="Contents"><details open><summary>Contents</summary><ul>'
        + "".join(lines)
        + "</ul></details></nav>"
    )


def _footer(page: Page) -> str:
    made = f" on {escape(page.made)}" if page.made else ""
    return (
        f"<footer><p>Made{made} by kansciml {escape(page.version)} with <code>kansciml reproduce --preset "
        f"{escape(page.preset)}</code>. The same findings are in <code>findings.json</code>, the same text in "
        "<code>report.md</code>, and every picture as a file in <code>figures/</code>, beside this page.</p></footer>"
    )


def _data(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
