"""``kansciml predict RUN --u0 1 1 --t 0 10 0.1``: trajectories of a trained model, as CSV, JSON or a picture."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kansciml._errors import UsageError, unknown_name
from kansciml._files import to_jsonable, write_json, write_text
from kansciml.commands._output import JsonFlag, Output, named_first, parse

if TYPE_CHECKING:
    import numpy as np

    from kansciml.models.inputs import Inputs
    from kansciml.tasks.ode.trained.model import OdeModel

SUMMARY = "states of a trained model from any initial state: kansciml predict RUN --u0 1 1 --t 0 10 0.1"
EXAMPLES = (
    "kansciml predict ode --u0 1 1 --t 0 10 0.1  # the best model of the latest run of kansciml ode",
    "kansciml predict ode-00476e --model kan-params --output forecast.png",
)
OUTPUTS = (".csv", ".json", ".png", ".svg", ".pdf")
POINTS = 101
MOST = 1_000_000


@dataclass(frozen=True)
class Arguments(JsonFlag):
    """Solve a trained neural ODE. RUN: a folder that a model was saved in, or a run of kansciml ode: its folder, or its
    name in the folder of all results: ode (its latest finished run), ode-00476e, or 00476e alone."""

    series: str | None = None
    """Trajectory of the training data, by its name, that gives initial state, times and inputs where they are not given
    here (default: the first); all: each of them."""
    u0: tuple[float, ...] = ()
    """Initial state (default: that of the training data, or the learned one)."""
    t0: float | None = None
    """Its time (default: the first time asked for with --u0, else that of the training data)."""
    t: tuple[float, ...] = ()
    """Times: start, stop and step (default: 101 over the span of the training data)."""
    times: tuple[str, ...] = ()
    """Or times one by one, or a file with one at the start of each line; dates, for a model that was trained on them
    (all other times of such a model are seconds since the first date it was trained on)."""
    inputs: Path | None = None
    """Table of the inputs over time, for a model that has some (default: those of the training data)."""
    time_column: str | None = None
    """Name or number of the column of times in --inputs, where it is not named as that of the data trained on."""
    model: str | None = None
    """Which model of a run, by id, group or system (default: of all, the one with the lowest training error)."""
    backend: str = "torch"
    """torch, julia, or auto."""
    tolerance: float = 1e-10
    """Relative and absolute tolerance of the solver."""
    output: Path | None = None
    """File to write: .csv, .json, .png, .svg or .pdf (default: CSV on standard output)."""
    results: Path = Path("results")
    """Folder of all results."""


def main(arguments: Sequence[str], out: Output) -> int:
    name, rest = named_first(
        arguments, "predict wants a trained model or a finished run first: its folder, or its name"
    )
    options = parse(Arguments, rest, "predict RUN")
    if options.output is not None and options.output.suffix not in OUTPUTS:
        raise UsageError(f"got output {options.output}: expected a name that ends in {', '.join(OUTPUTS)}")
    if options.t and options.times:
        raise UsageError("got both --t and --times: give one of them")
    import numpy as np

    from kansciml import ode

    folder = _folder(name, options, out)
    model = ode.load(folder, backend=options.backend, log=out.log)
    picked = _picked(options, model, out)
    u0 = np.array(options.u0) if options.u0 else None
    if u0 is not None and len(u0) != len(model.labels):
        raise UsageError(f"got {len(u0)} numbers for u0: expected {len(model.labels)}, {', '.join(model.labels)}")
    inputs, found = _inputs(options, model, out), []
    for k in picked:
        t, t0 = _times(options, model, k)
        found.append((t, model.trajectory(t, options.tolerance, u0=u0, t0=t0, inputs=inputs, series=k)))
    names = [model.series_names[k] for k in picked] if options.series == "all" else []
    _write(options.output, found, names, model.problem.series[picked[0]].saveat[-1], model, folder, out)
    return 0


def _picked(options: Arguments, model: OdeModel, out: Output) -> list[int]:
    """Indices of the trajectories that are asked for."""
    names = model.series_names
    if options.series == "all":
        if options.u0:
            raise UsageError("got --u0 with --series all: expected the initial state of one trajectory")
        return list(range(len(names)))
    if options.series is not None:
        if options.series not in names:
            raise unknown_name("series", options.series, (*names, "all"))
        return [names.index(options.series)]
    first = f"those of trajectory {names[0]}, the first of {len(names)}"
    if len(names) > 1 and not options.u0:
        out.log(f"initial state: {first.replace('those', 'that')} (--series or --u0 gives another)")
    elif len(names) > 1 and model.input_labels and options.inputs is None:
        out.log(f"inputs: {first} (--series or --inputs gives others)")
    return [0]


def _folder(name: str, options: Arguments, out: Output) -> Path:
    """The folder of the model that is asked for."""
    from kansciml.commands._named import run_named
    from kansciml.experiments.ode.trained import model_folder, models_named
    from kansciml.runs.records import reading
    from kansciml.tasks.ode.trained.saved import DESCRIPTION

    places = [Path(name), options.results / name, *sorted(options.results.glob(f"*/{name}"))]
    if Path(name).is_absolute() or ".." in Path(name).parts:
        places = places[:1]
    for place in places:
        if (place / DESCRIPTION).is_file():
            if options.model is not None:
                raise UsageError(f"got --model {options.model} for {place}, which holds one model: leave it out")
            return place
    record = run_named(name, options.results, out.log)
    with reading(record):
        runs = models_named(record, options.model)
        best = min(runs, key=lambda run: run.error)
    if len(runs) > 1:
        told = f"of {len(runs)} the one with the lowest training error (--model takes another)"
        out.log(f"model: {best.id}, {told}")
    return model_folder(record.folder, best.id)


def _times(options: Arguments, model: OdeModel, series: int) -> tuple[np.ndarray, float | None]:
    """The times, and that of the initial state; None: that of the trajectory."""
    import numpy as np

    if options.t:
        if len(options.t) != 3:
            raise UsageError(f"got {len(options.t)} numbers for --t: expected three, start, stop and step")
        start, stop, step = options.t
        steps = (stop - start) / step if step > 0 else -1.0
        if not 0 <= steps < MOST:
            rule = f"stop not before start, a positive step, and at most {MOST} times"
            raise UsageError(f"got --t {start:g} {stop:g} {step:g}: expected {rule}")
        count = int(steps * (1 + 1e-12) + 1e-9) + 1
        t = np.array([float(f"{start + step * i:.15g}") for i in range(count)])  # 0.3, not 0.30000000000000004
    elif options.times:
        t = np.array(_listed(options.times, model.clock.since if model.clock else ""))
    else:
        own = model.problem.series[series]
        t = np.linspace(own.t0 if options.t0 is None else options.t0, own.saveat[-1], POINTS)
    return t, float(t.min()) if options.u0 and options.t0 is None else options.t0


def _listed(given: Sequence[str], since: str) -> list[float]:
    """The numbers, or dates in seconds since one, or those at the start of each line of the file that is named; its
    first line may be a header."""
    from kansciml._files import file_failure

    path, cells = None, list(given)
    if since and (found := _seconds(cells, since)) is not None:
        return found
    if len(given) == 1 and not _is_number(given[0]):
        path = Path(given[0])
        try:
            lines = path.read_text().splitlines()
        except (FileNotFoundError, UnicodeDecodeError) as error:
            what = "is not there" if isinstance(error, OSError) else "is no text file"
            raise UsageError(
                f"{path} {what}: expected numbers, or a file with one at the start of each line"
            ) from error
        except OSError as error:
            raise file_failure("read", path, error) from error
        lines = [line.replace(";", ",").replace("\t", ",") for line in lines if line.strip(" ,;\t")]
        dates = [line.split(",")[0].strip() for line in lines]
        for rows in (dates, dates[1:]) if since else ():
            if rows and (found := _seconds(rows, since)) is not None:
                return found
        cells = [line.replace(",", " ").split()[0] for line in lines]
        cells = cells[1:] if cells and not _is_number(cells[0]) else cells
    wrong = next((cell for cell in cells if not _is_number(cell)), None)
    if wrong is not None or not cells:
        what = f"got {wrong!r}" if cells else "got no times"
        raise UsageError(f"{what}{f' in {path}' if path else ' for --times'}: expected finite numbers")
    return [float(cell) for cell in cells]


def _seconds(cells: Sequence[str], since: str) -> list[float] | None:
    """Dates or times of day in seconds since one; None if they are none."""
    import pandas as pd

    from kansciml.tasks.ode._table_times import seconds_of

    if all(map(_is_number, cells)) and not all(re.fullmatch(r"(?:19|20)\d{6}", cell) for cell in cells):
        return None
    found = seconds_of(pd.Series(list(cells), dtype=str), since)
    return None if found is None else found[0].tolist()


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False


def _inputs(options: Arguments, model: OdeModel, out: Output) -> Inputs | None:
    """The inputs in the file that is named, in the order of the model's."""
    if options.inputs is None:
        return None
    from kansciml.tasks.ode.table import read_inputs

    if not model.input_labels:
        raise UsageError(f"got --inputs {options.inputs} for a model without inputs: leave it out")
    own = model.problem.series[0].inputs
    kind = own.kind if own else "linear"
    return read_inputs(options.inputs, model.input_labels, options.time_column, kind, out.log, model.clock)


def _write(
    path: Path | None,
    found: Sequence[tuple[np.ndarray, np.ndarray]],
    names: Sequence[str],
    trained_until: float,
    model: OdeModel,
    folder: Path,
    out: Output,
) -> None:
    """Times and states of one trajectory, or (`names`) of several."""
    time_label = str(model.about.get("time_label", "t"))
    parts = [{"t": t, "u": states} for t, states in found]
    document: dict[str, Any] = {
        "model": str(folder),
        "system": model.about.get("system"),
        "field": model.field.label(),
        "time_label": time_label,
        "labels": model.labels,
        **({"trajectories": [{"name": name, **part} for name, part in zip(names, parts)]} if names else parts[0]),
    }
    rows: list[list[Any]] = [["trajectory"] * bool(names) + [time_label, *model.labels]]
    for k, (t, states) in enumerate(found):
        rows += [[*names[k : k + 1], float(at), *map(float, u)] for at, u in zip(t, states)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    if path is None:
        out.result(document, lines=text.getvalue().splitlines())
        return
    if path.suffix == ".csv":
        write_text(path, text.getvalue())
    elif path.suffix == ".json":
        write_json(path, document)
    else:
        from kansciml.reporting.style import publication_style, save_figure
        from kansciml.reporting.trajectory_plot import draw_trajectories

        with publication_style():
            figure = draw_trajectories(found, model.labels, time_label, None if names else trained_until, names)
        save_figure(figure, path.parent, path.stem, only=path.suffix[1:])
    count = f"{len(names)} trajectories" if names else f"{len(found[0][0])} times"
    out.result({**to_jsonable(document), "output": str(path)}, lines=[f"{count} in {path}"])
