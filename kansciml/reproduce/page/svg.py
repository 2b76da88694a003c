"""A picture of matplotlib's, made fit for a page with many others: ids of its own, no styles that leak, a name."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from kansciml._errors import KansciError

_ID = re.compile(r'(\sid=")([^"]+)"')
_REFERENCE = re.compile(r'((?:xlink:)?href="#)([^"]+)"')
_URL = re.compile(r"url\(#([^)]+)\)")
_SIZE = re.compile(r'\s(width|height)="([\d.]+)(pt|px)?"')
_BACKGROUND = re.compile(r'(<g id="[^"]*patch_\d+">\s*<path [^>]*?style="fill: )#ffffff(")')
PT_PER_PX = 0.75


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
    sizes = {name: _pixels(value, unit) for name, value, unit in _SIZE.findall(head)}
    head = re.sub(r'\s(?:xmlns(?::\w+)?|version|role)="[^"]*"', "", _SIZE.sub("", head))
    drawn = f' style="--drawn:{sizes["width"]:.0f}px"' if "width" in sizes else ""
    # no xmlns: the HTML parser knows svg, and an address in the page would look like a request to one
    return Markup(f'{head} role="img" aria-label="{escape(label)}"{drawn}{gap}{body}</svg>')


def _pixels(value: str, unit: str) -> float:
    return float(value) / PT_PER_PX if unit == "pt" else float(value)
