"""The sections of the page: one per experiment, and one per error of the paper. Each function returns HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from kansciml._errors import KansciError
from kansciml.reproduce.page.answer import count_by_verdict, duration
from kansciml.reproduce.page.captions import caption
from kansciml.reproduce.page.claims import Claim, claims_of
from kansciml.reproduce.page.content import FAILED, FINISHED, MISSING, UNFINISHED, Entry, PaperError, Setting, slug
from kansciml.reproduce.page.svg import inline_svg
from kansciml.reproduce.page.table_html import prose, scroll_box, table_html
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import format_number

MARKS = {REPRODUCED: ("yes", "\u2713"), NOT_REPRODUCED: ("no", "\u2717"), UNDECIDED: ("open", "?")}
"""Class and sign of a verdict: a chip says it by sign and words too, not by colour alone."""
STATUS_WORDS = {FAILED: "failed", UNFINISHED: "unfinished", MISSING: "not run yet"}


def verdict_chip(verdict: str, count: int = 1) -> str:
    """A verdict as a small label, with the number of cases where there are several."""
    kind, mark = MARKS[verdict]
    times = f" ({count})" if count > 1 else ""
    return f'<span class="chip {kind}"><span aria-hidden="true">{mark}</span> {escape(verdict)}{times}</span>'


def status_chip(status: str) -> str:
    """The state of a run that is not finished, as a small label; empty for a finished one."""
    if status == FINISHED:
        return ""
    return f'<span class="chip lacking"><span aria-hidden="true">!</span> {STATUS_WORDS[status]}</span>'


def entry_section(entry: Entry) -> str:
    """Everything about one experiment."""
    counts = count_by_verdict([entry])
    chips = status_chip(entry.status) + "".join(verdict_chip(verdict, n) for verdict, n in counts.items() if n)
    parts = [
        f'<section class="entry" id="{entry.slug}">',
        f'<h3><a class="anchor" href="#{entry.slug}">{escape(entry.title if entry.beyond else entry.item)}</a></h3>',
        "" if entry.beyond else f'<p class="lead">{escape(_sentence(entry.title))}</p>',
        f'<p class="chips">{chips}</p>' if chips else "",
        _state(entry),
        *map(claim_card, claims_of(entry)),
        _pictures(entry),
        *(table_html(table, f"{entry.slug}-table-{k}") for k, table in enumerate(entry.tables, 1)),
        settings_block(entry.settings, entry.slug) if entry.settings else "",
        cost_block(entry.record) if entry.record is not None else "",
        command_block(entry.command),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def claim_card(claim: Claim) -> str:
    """The paper's claim beside what was found, in every case in which it was tried."""
    entry, single = claim.entry, len(claim.cases) == 1
    numbered = f"{escape(claim.item)}: " if claim.item != entry.item else ""
    chip = verdict_chip(claim.cases[0][1].verdict) if single else ""
    paper = f"<dl><div><dt>The paper</dt><dd>{prose(claim.printed)}</dd></div></dl>" if claim.printed else ""
    body = "".join(_case(name, finding, claim.printed) for name, finding in claim.cases)
    if single:
        body, paper = _sides(claim.cases[0][1]) + _evidence(claim.cases[0][1], "Evidence"), ""
    return (
        f'<article class="finding"><header><h4>{numbered}{prose(claim.text)}</h4>{chip}</header>{paper}{body}'
        f"{_shown_in(claim)}</article>"
    )


def _case(name: str, finding: Finding, printed: str) -> str:
    """One of several cases of a claim."""
    own = f'<p><span class="label">The paper</span> {prose(finding.printed)}</p>' if not printed else ""
    return (
        f'<div class="case"><p class="name">{prose(name)}</p><div>{own}<p>{prose(finding.measured) or "-"}</p>'
        f"<details><summary>Evidence</summary>{_evidence(finding)}</details></div>{verdict_chip(finding.verdict)}</div>"
    )


def _sides(finding: Finding) -> str:
    return (
        f"<dl><div><dt>The paper</dt><dd>{prose(finding.printed) or 'prints no number'}</dd></div>"
        f"<div><dt>Here</dt><dd>{prose(finding.measured) or '-'}</dd></div></dl>"
    )


def _evidence(finding: Finding, label: str = "") -> str:
    name = f'<span class="label">{label}</span> ' if label else ""
    return f'<p class="evidence">{name}{prose(finding.evidence)}</p>'


def _shown_in(claim: Claim) -> str:
    """Links to the pictures that show a claim."""
    wanted = {stem for _, finding in claim.cases for stem in finding.figures}
    links = ", ".join(
        f'<a href="#{_picture_anchor(claim.entry, path)}">{escape(path.stem.replace("_", " "))}</a>'
        for path in claim.entry.pictures
        if path.stem in wanted
    )
    return f'<p class="evidence"><span class="label">Shown in</span> {links}</p>' if links else ""


def settings_block(settings: Sequence[Setting], anchor: str) -> str:
    """What differs from the preset ``paper`` in a table, and all other settings below it, folded away."""
    different = [one for one in settings if one.differs]
    same = [one for one in settings if not one.differs]
    rows = "".join(
        f'<tr><th scope="row">{escape(one.name)}</th><td>{escape(one.here)}</td><td>{escape(one.paper)}</td></tr>'
        for one in different
    )
    first = (
        f"{scroll_box('Settings that differ')}<table class='settings'><thead><tr><th scope='col'>setting</th>"
        f"<th scope='col'>here</th><th scope='col'>preset paper</th></tr></thead><tbody>{rows}</tbody></table></div>"
        if different
        else "<p>All settings are those of the preset paper.</p>"
    )
    rest = "".join(f"<div><dt>{escape(one.name)}</dt><dd>{escape(one.here)}</dd></div>" for one in same)
    folded = (
        f"<details><summary>{len(same)} settings as in the preset paper</summary><dl class='facts'>{rest}</dl>"
        "</details>"
        if same
        else ""
    )
    return f'<div class="block" id="{anchor}-settings"><h4>Settings</h4>{first}{folded}</div>'


def cost_block(record: Record) -> str:
    """What a run took, and on what: time, memory, machine, versions, commit, seeds."""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in cost_facts(record))
    return f'<div class="block"><h4>Cost and provenance</h4><dl class="facts">{rows}</dl></div>'


def cost_facts(record: Record) -> list[tuple[str, str]]:
    """Name and text of what is known about a run's cost and origin."""
    machine = record.machine
    sessions = f" in {record.sessions} sessions" if record.sessions > 1 else ""
    facts = [("wall time", duration(record.wall_s) + sessions)]
    for name, megabytes in (
        ("peak memory", record.peak_memory_mb), ("largest child process", record.peak_memory_workers_mb)
    ):  # fmt: skip
        if megabytes is not None:
            facts.append((name, f"{format_number(megabytes)} MB"))
    hardware = [machine.get("processor"), machine.get("device") if machine.get("device") != "cpu" else "no GPU"]
    if machine.get("cores"):
        hardware.append(f"{machine['cores']} cores")
    if machine.get("threads"):
        hardware.append(f"{machine['threads']} thread" + ("s" if machine["threads"] != 1 else ""))
    facts += [
        ("machine", ", ".join(str(part) for part in hardware if part)),
        ("system", str(machine.get("platform", ""))),
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items() if version)),
        ("commit", record.commit or "installed package"),
        ("seeds", ", ".join(map(str, record.seeds)) or "none used"),
        ("finished", record.finished or "no"),
        ("record", f"{record.experiment}/{record.config_hash}"),
    ]
    return [(name, text) for name, text in facts if text]


def command_block(command: str) -> str:
    """The exact command."""
    return f'<div class="block"><h4>Command</h4><pre tabindex="0"><code>{escape(command)}</code></pre></div>'


def error_section(number: int, error: PaperError) -> str:
    """One error of the paper with its numbers."""
    anchor = f"error-{number}-{slug(error.title)[:40].rstrip('-')}"
    parts = [
        f'<section class="error" id="{anchor}"><h3><a class="anchor" href="#{anchor}">{number}. '
        f"{prose(error.title)}</a></h3>",
        *(f"<p>{prose(paragraph)}</p>" for paragraph in error.paragraphs),
        *(table_html(table, f"{anchor}-table-{k}") for k, table in enumerate(error.tables, 1)),
        command_block(error.command) if error.command else "",
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _state(entry: Entry) -> str:
    lines = [entry.message] if entry.status != FINISHED and entry.message else []
    lines += entry.problems
    if not lines:
        return ""
    kind = "alert bad" if entry.went_wrong else "alert"
    return f'<div class="{kind}">' + "".join(f"<p>{prose(line)}</p>" for line in lines) + "</div>"


def _pictures(entry: Entry) -> str:
    shown = []
    for path in entry.pictures:
        anchor, text = _picture_anchor(entry, path), caption(entry.name, path.stem)
        try:
            picture = inline_svg(path.read_text(encoding="utf-8"), anchor, f"{entry.item}: {text}")
        except (OSError, UnicodeDecodeError, KansciError) as error:
            shown.append(f'<div class="alert bad"><p>{escape(f"{path.name} cannot be shown: {error}")}</p></div>')
            continue
        shown.append(
            f'<figure id="{anchor}">{scroll_box(text).replace("scroll", "scroll plate", 1)}{picture}</div>'
            f"<figcaption>{escape(text)}</figcaption></figure>"
        )
    return "\n".join(shown)


def _picture_anchor(entry: Entry, path: Path) -> str:
    return f"{entry.slug}-{slug(path.stem)}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else text + "."
