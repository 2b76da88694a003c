"""``kansciml reproduce [all|fig1 ...] --preset smoke|small|paper``: the paper in one command, and on one page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from kansciml.commands._experiments import use_workers
from kansciml.commands._output import JsonFlag, Output, parse

SUMMARY = "the whole paper: run what is missing, and write one page of claims beside findings"


def _arguments() -> type:
    """The flags. Made when called: positional arguments are tyro's, which is slow to import."""
    import tyro

    fields: list[Any] = [
        (
            "names", tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(
                metavar="[ITEM ...]", help="all, or some of fig1 fig2 fig3 fig4a fig4b table1 fig5 fair."
            )]], dataclasses.field(default=()),
        ),
        ("preset", Annotated[str, tyro.conf.arg(help=(
            "smoke (minutes; shows that all runs), small (hours on two cores), paper (for GPUs)."
        ))], dataclasses.field(default="small")),
        ("results", Annotated[Path, tyro.conf.arg(help="Folder of all results.")],
         dataclasses.field(default=Path("results"))),
        ("output", Annotated[Path | None, tyro.conf.arg(help=(
            "Folder of the page (default: reproduce/PRESET in the results folder)."
        ))], dataclasses.field(default=None)),
        ("workers", Annotated[int | None, tyro.conf.arg(help="Worker processes (default: the processors).")],
         dataclasses.field(default=None)),
        ("page_only", Annotated[bool, tyro.conf.arg(help="Run nothing: the page of what there is.")],
         dataclasses.field(default=False)),
    ]  # fmt: skip
    made = dataclasses.make_dataclass("Arguments", fields, bases=(JsonFlag,), frozen=True)
    made.__doc__ = "Run what is missing of the paper, resume what is unfinished, and write one page of all of it."
    return made


def main(arguments: Sequence[str], out: Output) -> int:
    options = parse(_arguments(), arguments, "reproduce")
    use_workers(options.workers)
    from kansciml.reproduce import paper as _reproduce
    from kansciml.reproduce.page.write import findings_document, write_page
    from kansciml.runs.tables import Table

    names = _reproduce.chosen_names(options.names)
    folder = options.output or options.results / "reproduce" / options.preset
    run = {"run": None} if options.page_only else {}
    page = _reproduce.reproduce(
        names, options.preset, options.results, log=out.log, show=lambda page: write_page(page, folder), **run
    )
    files = write_page(page, folder)
    asked = [entry for entry in page.entries if entry.name in names]
    failed = [entry.name for entry in asked if entry.went_wrong]
    rows = [
        [entry.item, entry.status, len(entry.findings), entry.record.wall_s if entry.record else None]
        for entry in asked
    ]
    runs = Table(f"Reproduction, preset {options.preset}", ["item", "run", "findings", "wall [s]"], rows)
    document = {**findings_document(page), "page": str(folder / "index.html"), "files": [str(path) for path in files]}
    out.result(document, [runs], [f"page: {folder / 'index.html'}", f"also there: {_beside(files, folder)}"])
    if failed:
        out.log(f"failed: {', '.join(failed)}; the page says why, and the same command tries again")
    return 1 if failed else 0


def _beside(files: Sequence[Path], folder: Path) -> str:
    own = [path.name for path in files if path.parent == folder and path.name != "index.html"]
    return ", ".join([*own, f"figures/ ({len(files) - len(own) - 1} files)"])
