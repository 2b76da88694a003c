"""The paper sentence by sentence: which findings tell whether a sentence holds, or why nothing here can.

The sentences are in ``sentences.json``: all of the paper's text that is true or false. Definitions, what is cited for
them, and what a section is going to do are not among them.
"""

from __future__ import annotations

import json
from importlib import resources

from kansciml.reproduce.page.content import Reference, Sentence


def sentences() -> list[Sentence]:
    """All of them, in the paper's order."""
    text = resources.files(__package__).joinpath("sentences.json").read_text("utf-8")
    return [
        Sentence(one["section"], one["text"], [Reference(*by) for by in one.get("by", ())], one.get("why", ""))
        for one in json.loads(text)
    ]
