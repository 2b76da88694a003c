"""``kansciml rerun RUN``: run a record again from itself, and compare every number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kansciml._errors import UsageError
from kansciml.commands._output import JsonFlag, Output, named_first, parse

if TYPE_CHECKING:
    from kansciml.runs.records import Record

SUMMARY = "run a record again from itself and compare every number: kansciml rerun results/ode/..."
EXAMPLES = (
    "kansciml rerun fig1  # the latest finished run of fig1",
    "kansciml rerun ode-00476e --moved data=/new/place/my.csv",
)


@dataclass(frozen=True)
class Arguments(JsonFlag):
    """Run the experiment of a record again, in a fresh folder. Exit code 0 if every number is the same, else 1.

    RUN: its folder, or its name in the folder results: fig2 (its latest finished run), fig2-cf9c65, or cf9c65 alone.
    """

    results: Path | None = None
    """Results folder of the new run (default: rerun-HASH here, with a number where there is one)."""
    rtol: float = 0.0
    """Relative difference up to which numbers count as equal."""
    moved: tuple[str, ...] = ()
    """Where data of the record lie now: NAME=PATH, such as data=/new/place/file.csv."""


def main(arguments: Sequence[str], out: Output) -> int:
    name, rest = named_first(arguments, "rerun wants a finished run first: its folder, or its name, such as fig2")
    options = parse(Arguments, rest, "rerun RUN")
    if not 0 <= options.rtol < 1:
        raise UsageError(f"got --rtol {options.rtol}: expected a number from 0 on and below 1")
    from kansciml.commands._named import RESULTS, run_named

    return rerun(run_named(name, RESULTS, out.log), options, out)


def rerun(recorded: Record, options: Arguments, out: Output, package: str = "kansciml.experiments") -> int:
    """Run a record again and print what differs; the exit code.

    Args:
        package: where the experiment is found.
    """
    from kansciml.reporting.compare_records import compare_records, differences_table, provenance_differences
    from kansciml.runs.registry import get_experiment
    from kansciml.runs.runner import result_folder, run_experiment

    if recorded.status != "finished":
        raise UsageError(f"the run in {recorded.folder} is not finished ({recorded.status}): resume it first")
    experiment = get_experiment(recorded.experiment, package)
    config = configuration(experiment, recorded, options.moved, out.log)
    results = options.results or _fresh(recorded.config_hash, experiment, config)
    folder = result_folder(experiment, config, results)
    if folder.resolve() == recorded.folder.resolve() or _finished(folder):
        raise UsageError(f"{folder} holds a finished run: choose another folder with --results")
    _use_threads(recorded.machine.get("threads"))
    again = run_experiment(experiment, config, results=results, log=out.log)
    comparison = compare_records(recorded, again, options.rtol)
    elsewhere = provenance_differences(recorded, again)
    lines = [f"{name}: {left} in the record, {right} now" for name, left, right in elsewhere]
    if not elsewhere:
        lines.append("versions, machine, threads and commit are the same as in the record")
    if not comparison.identical:
        lines.append(f"{len(comparison.differences)} of the numbers differ by more than rtol {options.rtol:g}")
    lines.append(f"new run: {again.folder}")
    document = {
        "identical": comparison.identical,
        "rtol": options.rtol,
        "recorded": recorded.folder,
        "again": again.folder,
        "values": comparison.values,
        "elements": comparison.elements,
        "not_compared": comparison.left_out,
        "differences": comparison.differences,
        "provenance": [{"name": name, "recorded": left, "again": right} for name, left, right in elsewhere],
    }
    out.result(document, [differences_table(comparison)], lines)
    return 0 if comparison.identical else 1


def configuration(experiment: Any, recorded: Any, moved: Sequence[str], log: Callable[[str], None]) -> Any:
    """The configuration of a record, with data where they lie now.

    Raises:
        UsageError: settings that this version does not know, or data that are not there.
    """
    from kansciml.runs.config_json import config_from_json, path_settings, with_settings
    from kansciml.runs.settings import config_hash, flat_items

    try:
        config = config_from_json(experiment.config, recorded.config)
    except UsageError as error:
        raise UsageError(f"{recorded.folder / 'record.json'}: {error}; another version may have written it") from error
    places = path_settings(config)
    config = with_settings(config, dict(_moved(experiment.config, text, places) for text in moved))
    counting = {item.name for item, _, _ in flat_items(config) if item.compare}
    for name, paths in path_settings(config).items():
        for path in paths:
            if name.split(".")[0] in counting and not path.exists():
                raise UsageError(
                    f"{name}: {path} of the record is not there (from {Path.cwd()}): "
                    f"put it back, or say where it lies with --moved {name}=PATH"
                )
    if config_hash(experiment.name, config) != recorded.config_hash:
        log(
            f"settings or data are not those of the record (hash {recorded.config_hash}, now "
            f"{config_hash(experiment.name, config)}): data were edited, or another version wrote it"
        )
    return config


def _moved(kind: type, text: str, places: dict[str, Any]) -> tuple[str, Any]:
    from kansciml.runs.config_json import parse_setting, setting_name

    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"got --moved {text!r}: expected NAME=PATH")
    name = setting_name(kind, name)
    if name not in places:
        raise UsageError(f"got --moved {text!r}: the record's settings with paths are {', '.join(places) or 'none'}")
    return name, parse_setting(kind, name, value)


def _fresh(hash: str, experiment: Any, config: Any) -> Path:
    """``rerun-HASH``, or with the first number whose run is not finished: one that was interrupted resumes."""
    from kansciml.runs.runner import result_folder

    number = 1
    while True:
        results = Path(f"rerun-{hash}" if number == 1 else f"rerun-{hash}-{number}")
        if not _finished(result_folder(experiment, config, results)):
            return results
        number += 1


def _finished(folder: Path) -> bool:
    from kansciml.runs.records import DamagedRecord, find_record

    try:
        found = find_record(folder)
        return found is not None and found.status == "finished"
    except DamagedRecord:
        return True  # damaged: not to be overwritten all the same


def _use_threads(recorded: int | None) -> None:
    """As many threads as the record had: sums of floats depend on how they are divided."""
    if recorded:
        import torch

        torch.set_num_threads(recorded)
