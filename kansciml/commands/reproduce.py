"""``kansciml reproduce [all|fig1 ...] --preset smoke|small|paper``: the paper in one command, and on one page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from kansciml.commands._experiments import use_workers
from kansciml.commands._output import JsonFlag, Output, parse

SUMMARY = "the whole paper: run what is missing, and write one page of claims beside findings"
EXAMPLES = (
    "kansciml reproduce all --preset smoke  # shows that all of it runs: minutes",
    "kansciml reproduce fig2 fig5 --preset small",
    "kansciml reproduce all --page-only  # runs nothing: the page of what there is",
    "kansciml reproduce all --from examples/results  # of packed records",
)

FROM = (
    "Folder of packed records (kansciml results pack), which are put into --results where they are not; runs nothing."
)


@dataclass(frozen=True)
class Options(JsonFlag):
    """Run what is missing of the paper, resume what is unfinished, and write one page of all of it."""

    names: tuple[str, ...] = ()
    """all, or some of the experiments that kansciml list names, such as fig1 table1 fair."""
    preset: str = "small"
    """smoke (minutes; shows that all runs), small (hours on two cores), paper (for GPUs)."""
    backend: str = "auto"
    """Of neural ODEs: auto (Julia if it starts, else torch), torch, julia, or both."""
    results: Path = Path("results")
    """Folder of all results."""
    output: Path | None = None
    """Folder of the page (default: reproduce/PRESET in the results folder)."""
    workers: int | None = None
    """Worker processes (default: the processors)."""
    packed: Path | None = None
    """See `FROM`."""
    page_only: bool = False
    """Run nothing: the page of what there is."""


def _arguments() -> type[Options]:
    """`Options` with its names as positional arguments. Made when called: tyro is slow to import."""
    import tyro

    names = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[ITEM ...]")]
    packed = Annotated[Path | None, tyro.conf.arg(name="from", help=FROM)]
    fields: list[tuple[str, Any, Any]] = [
        ("names", names, dataclasses.field(default=())),
        ("packed", packed, dataclasses.field(default=None)),
    ]
    made = dataclasses.make_dataclass("Arguments", fields, bases=(Options,), frozen=True)
    made.__doc__ = Options.__doc__
    return made


def main(arguments: Sequence[str], out: Output) -> int:
    options = parse(_arguments(), arguments, "reproduce")
    use_workers(options.workers)
    from kansciml.reproduce.page.write import findings_document, write_page
    from kansciml.reproduce.paper import chosen_names, reproduce, run_in_own_process
    from kansciml.runs.archive import unpack
    from kansciml.runs.tables import Table

    beside = unpack(options.packed, options.results) if options.packed is not None else []
    names = chosen_names(options.names)
    folder = options.output or options.results / "reproduce" / options.preset
    page = reproduce(
        names,
        options.preset,
        options.results,
        backend=options.backend,
        log=out.log,
        beside=beside,
        run=None if options.page_only or options.packed else run_in_own_process,
        show=lambda page: write_page(page, folder),
    )
    files = write_page(page, folder)
    asked = [entry for entry in page.entries if entry.name in names]
    failed = [entry.name for entry in asked if entry.went_wrong]
    rows = [
        [entry.name, entry.item, entry.status, len(entry.findings), entry.record.wall_s if entry.record else None]
        for entry in asked
    ]
    runs = Table(f"Reproduction, preset {options.preset}", ["experiment", "item", "run", "findings", "wall [s]"], rows)
    document = {**findings_document(page), "page": str(folder / "index.html"), "files": [str(path) for path in files]}
    out.result(document, [runs], [f"page: {folder / 'index.html'}", f"also there: {_beside(files, folder)}"])
    if failed:
        out.log(f"failed: {', '.join(failed)}; the page says why, and the same command tries again")
    return 1 if failed else 0


def _beside(files: Sequence[Path], folder: Path) -> str:
    own = [path.name for path in files if path.parent == folder and path.name != "index.html"]
    return ", ".join([*own, f"figures/ ({len(files) - len(own) - 1} files)"])
