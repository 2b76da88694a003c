"""Tables and pictures of README and guide, made from the packed records in ``examples/results``.

A table of these texts that stands below a line such as

    <!-- from fig2-0123456789ab: Final loss; System, Model, Train MSE -->

is that table of this record, with these columns (``*``: with all); of several records, parted by blanks, the rows
follow each other. ``; rows A | B`` behind the columns takes only the rows of which a cell is A or B, in this order.
``bench-layers`` names what ``kansciml bench layers --json`` wrote to ``examples/results/bench-layers.json``.
``examples/pictures/sources.json`` says of which record, and of which of its files, a picture is made; ``answer.png``
is of all.
``PYTHONPATH=tests python -m support.evidence`` writes both anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from kansciml.reproduce.answer import answer
from kansciml.reproduce.answer_figure import draw
from kansciml.runs.archive import unpack
from kansciml.runs.records import Record, load_record
from kansciml.runs.registry import get_experiment
from kansciml.runs.tables import Table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "examples" / "results"
PICTURES = ROOT / "examples" / "pictures"
SOURCES = PICTURES / "sources.json"
TEXTS = [ROOT / "README.md", *sorted((ROOT / "examples" / "guide").glob("*.md"))]
ANSWER = "answer.png"
BENCH = "bench-"
MARK = re.compile(r"^<!-- from ([^:]+): ([^;]+); ([^;]+?)(?:; rows ([^;]+?))? -->\n((?:\|.*\n)*)", re.MULTILINE)


@cache
def records() -> dict[str, Record]:
    """The packed records by the name of their file, in the order of the page, unpacked into a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="kansciml-evidence-"))
    orders = {one: get_experiment(one.parent.name).order for one in unpack(RESULTS, folder)}
    found = sorted(orders, key=lambda one: math.inf if orders[one] is None else orders[one])
    return {f"{one.parent.name}-{one.name}": load_record(one) for one in found}


@cache
def tables(name: str) -> dict[str, Table]:
    """The tables of a packed record, or of a benchmark's document, by their titles."""
    if name.startswith(BENCH):
        benchmark = import_module(f"kansciml.benchmarks.{name.removeprefix(BENCH)}")
        found = benchmark.tables(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))
    else:
        found = get_experiment(records()[name].experiment).tables(records()[name])
    return {table.title: table for table in found}


def excerpt(names: str, title: str, columns: str, kept: str | None = None) -> str:
    """Some columns, and of those some rows, of a table of one record or several, in Markdown."""
    found = [tables(name)[title.strip()] for name in names.split()]
    wanted = list(found[0].columns) if columns == "*" else [column.strip() for column in columns.split(",")]
    rows = [wanted, ["---"] * len(wanted)]
    for table in found:
        places = [list(table.columns).index(column) for column in wanted]
        cells = table.cells()
        if kept:
            chosen = kept.split(" | ")
            missing = set(chosen) - {cell for row in cells for cell in row}
            assert not missing, f"{names}: {title} has no rows {sorted(missing)}"
            cells = [row for cell in chosen for row in cells if cell in row]
        rows += [[row[place].replace("|", r"\|") for place in places] for row in cells]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def marked(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Every marked table of a text, and what it should be."""
    for match in MARK.finditer(text):
        yield match, excerpt(*match.groups()[:4])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def written(text: str) -> str:
    """The text with its marked tables made anew."""
    for match, table in reversed(list(marked(text))):
        text = text[: match.start(5)] + table + text[match.end(5) :]
    return text


def archive(name: str) -> Path:
    return RESULTS / f"{name}.zip"


def sources_of(source: dict[str, Any]) -> list[str]:
    """Names of the records that a picture is made of; the answer, of all."""
    return list(records()) if source["file"] == ANSWER else list(source["records"])


def drawn(source: dict[str, Any]) -> list[Path]:
    """The pictures of an experiment, or that of the answer, drawn anew."""
    of = [records()[name] for name in sources_of(source)]
    if source["file"] != ANSWER:
        return get_experiment(of[0].experiment).draw(of[0])
    found = answer(of)
    assert found
    return draw(found, Path(tempfile.mkdtemp(prefix="kansciml-answer-")))


def main() -> None:
    for path in TEXTS:
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
    sources = json.loads(SOURCES.read_text())
    for name, source in sources.items():
        (path,) = [path for path in drawn(source) if path.name == source["file"]]
        shutil.copyfile(path, PICTURES / name)
        source |= {
            "sha256": digest(PICTURES / name),
            "records": {one: digest(archive(one)) for one in sources_of(source)},
        }
    SOURCES.write_text(json.dumps(sources, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
