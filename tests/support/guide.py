"""The texts of README and guide taken apart: blocks of code, links, headings; and the hooks of the site."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = [ROOT / "README.md", *sorted((ROOT / "examples" / "guide").glob("*.md"))]
CONFIG = ROOT / ".github" / "mkdocs.yml"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`(kansciml [^`\n]+)`")


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a text in one language."""
    return [code for kind, code in FENCE.findall(path.read_text(encoding="utf-8")) if kind == language]


def prose(path: Path) -> str:
    """A text without its blocks of code."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub and the site make of a text's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def shell_commands(code: str) -> list[list[str]]:
    """The commands of a block of shell, word by word, without comments."""
    lines = code.replace("\\\n", " ").splitlines()
    parts = [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]
    return [words for words in parts if words]


def hooks() -> ModuleType:
    """The module that makes the pages of the reference and of the notebooks."""
    path = CONFIG.with_name("mkdocs_hooks.py")
    if not path.exists():
        pytest.skip("the site's configuration is not in a source distribution")
    spec = importlib.util.spec_from_file_location("mkdocs_hooks", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
