"""``kansciml hessian RUN ...``: how sharp the minima of a run's models are, KAN against MLP, by many measures.

With several processes: ``torchrun --nproc-per-node 4 -m kansciml hessian RUN --exact never`` splits the probes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from kansciml._errors import UsageError
from kansciml.commands._output import JsonFlag, Output, parse, wants_help
from kansciml.runs import ranks as _ranks

SUMMARY = "sharpness of a run's minima: Hessian spectra, KAN against MLP: kansciml hessian results/ode/..."


def _arguments() -> type:
    """The flags. Made when called: tyro is slow to import, and the settings load torch."""
    import tyro

    from kansciml.experiments.hessian.runs import HessianSettings

    @dataclasses.dataclass(frozen=True)
    class Where(JsonFlag):
        """Which models, and where the results go."""

        models: tuple[str, ...] = ()
        """Only models of these names, groups (mlp, kan-width ...) or tasks; default: all."""
        out: Path | None = None
        """Folder of the results (default: the folder hessian in each run's own)."""
        force: bool = False
        """Measure again what has been measured."""

    runs = Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help="Folders of finished runs.")
    ]
    fields = [
        ("runs", runs, dataclasses.field(default=())),
        ("settings", HessianSettings, dataclasses.field(default=HessianSettings())),
        ("where", Where, dataclasses.field(default=Where())),
    ]
    made = dataclasses.make_dataclass("Arguments", fields, frozen=True)
    made.__doc__ = "Hessian spectra and sharpness of the trained models of finished runs."
    return made


def main(arguments: Sequence[str], out: Output) -> int:
    """Under torchrun the first process reads the flags, writes and prints; the others measure with it."""
    if _ranks.size() == 1:
        return _lead(arguments, out)
    from kansciml.experiments.hessian import ranks as _hessian_ranks

    _hessian_ranks.join()
    if _ranks.rank() > 0:
        from kansciml.experiments.hessian.runs import follow

        _ranks.end(follow())
    try:
        code = _lead(arguments, out)
    finally:
        _hessian_ranks.send_home()
    _ranks.end(code)


def _lead(arguments: Sequence[str], out: Output) -> int:
    if not arguments or (arguments[0].startswith("-") and not wants_help(arguments)):
        raise UsageError("hessian wants the folder of a finished run first, such as results/ode/1a2b3c4d5e6f")
    from kansciml.experiments.hessian import report as hessian
    from kansciml.experiments.hessian.runs import measure_run, merged
    from kansciml.runs.progress import Progress
    from kansciml.runs.records import save_record

    options = parse(_arguments(), arguments, "hessian")
    where = options.where
    if len(set(options.runs)) != len(options.runs):
        raise UsageError("got a run twice: expected each folder once")
    records = []
    for run in options.runs:
        progress = Progress()
        records.append(
            measure_run(
                run,
                options.settings,
                models=where.models,
                out=where.out,
                force=where.force,
                log=progress.log,
                progress=progress,
            )
        )
        hessian.render(records[-1], records[-1].folder)
    record = records[0]
    if len(records) > 1:
        record = merged(records, where.out)
        save_record(record)
        hessian.render(record, record.folder)
    files = sorted(path for path in record.folder.iterdir() if path.suffix in (".svg", ".png", ".pdf", ".md"))
    document = record.to_json()
    document["files"] = [str(path) for path in files]
    names = ", ".join(path.name for path in files if path.suffix != ".png")
    out.result(document, hessian.tables(record), [f"results: {record.folder}", f"pictures and tables there: {names}"])
    return 0
