"""Measures candidates side by side: calls in turns on one thread, medians and ratios, targets, tables, pictures.

On a machine that others use too, only ratios from one run can be trusted: the candidates take turns, round by round.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kansciml._errors import UsageError
from kansciml.layers._kernels import cpp_library
from kansciml.runs.progress import Progress, Task
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Report = Callable[[str], None]
"""Told what is being measured."""


def silent(text: str) -> None:
    """A `Report` that says nothing."""


class Bar:
    """A `Report` on a progress bar."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self, text: str) -> None:
        self._task.update(advance=0, now=text)

    def done(self, parts: int = 1) -> None:
        """So many parts of the benchmark are done."""
        self._task.update(advance=parts)


@contextlib.contextmanager
def one_thread(name: str, parts: int) -> Iterator[Bar]:
    """Keeps torch on one thread, and shows a bar, while a benchmark of so many parts runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with Progress() as progress, progress.task(name, parts) as task:
            yield Bar(task)
    finally:
        torch.set_num_threads(threads)


def facts(cpp: bool = False, packages: Iterable[str] = ()) -> dict[str, Any]:
    """What the numbers depend on: versions, threads of torch, the processor's vector instructions.

    Args:
        cpp: tell whether our C++ kernels were built. packages: distributions whose versions count where they are there.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    found = {"torch": str(torch.__version__), "threads": torch.get_num_threads(), "cpu_capability": capability}
    found |= {"cpp": cpp_available()} if cpp else {}
    versions = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return found | {"versions": versions}


def versions_of(machine: Row) -> str:
    """``PyTorch 2.13.0, diffrax 0.7.2``."""
    return ", ".join(
        f"{name} {number}" for name, number in {"PyTorch": machine["torch"], **machine["versions"]}.items()
    )


def cpp_available() -> bool:
    """Whether our C++ kernels were built."""
    return bool(cpp_library.available())


def check_least(options: object, **least: int) -> None:
    """Refuses options below their least values, too few rounds for a median, and a plot without a name."""
    for name, value in {**least, "rounds": 3}.items():
        if getattr(options, name) < value:
            what = " for a median" if name == "rounds" else ""
            raise UsageError(f"got {name} {getattr(options, name)}: expected at least {value}{what}")
    plot = getattr(options, "plot", None)
    if plot is not None and not plot.name:
        raise UsageError(f"got plot {str(plot)!r}: expected a file name without its ending, such as picture")


def in_turns(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    report: Report = silent,
    *,
    clock: Callable[[], Any] = time.process_time,
    warm: bool = True,
    shortest_s: float = 0.0,
    slow_s: float = math.inf,
    budget_s: float = math.inf,
) -> dict[str, np.ndarray]:
    """Seconds of every call in every round, (rounds,) per name; (rounds, clocks) if the clock gives several times.

    Args:
        calls: what to time, by name. They run in turn, round by round, so that all see the same drift.
        rounds: wanted rounds; fewer (at least 3) once `budget_s` seconds of wall time are spent.
        report: told the name before each call.
        clock: processor time of this process (default), or other times: a number or an array of them.
        warm: each is called once before, uncounted.
        shortest_s: shorter calls are repeated in a round until they take as long, at most 100 times, so that the
            clock's own cost does not count.
        slow_s: a call that takes longer when it is warmed up is not repeated: that is its only time.
    """
    repeats = dict.fromkeys(calls, 1)

    def timed(name: str) -> Any:
        report(name)
        began = clock()
        for _ in range(repeats[name]):
            calls[name]()
        return (clock() - began) / repeats[name]

    seconds: dict[str, list[Any]] = {name: [] for name in calls}
    repeated = list(calls)
    for name in calls if warm else ():
        taken = timed(name)
        if np.max(taken) > slow_s:
            seconds[name].append(taken)
            repeated.remove(name)
        elif shortest_s:  # by a second call: what is compiled or allocated once must not set the repeats
            repeats[name] = max(1, min(100, math.ceil(shortest_s / max(np.max(timed(name)), 1e-7))))
    start = time.monotonic()
    for done in range(rounds):
        if done >= 3 and time.monotonic() - start > budget_s:
            break
        for name in repeated:
            seconds[name].append(timed(name))
    return {name: np.array(values) for name, values in seconds.items()}


def quartiles(prefix: str, values: np.ndarray, unit: str = "ms", scale: float = 1e3) -> dict[str, float]:
    """Median and quartiles as ``<prefix><unit>``, ``<prefix>low_<unit>``, ``<prefix>high_<unit>``."""
    shares = {"": 0.5, "low_": 0.25, "high_": 0.75}
    return {f"{prefix}{name}{unit}": scale * float(np.quantile(values, share)) for name, share in shares.items()}


def ratio(values: np.ndarray, base: np.ndarray) -> float:
    """Median of the ratios round by round, which drift does not move; ratio of the medians if one was timed once."""
    if len(values) != len(base):
        return float(np.median(values) / np.median(base))
    return float(np.median(values / base))


def at_most(what: str, wanted: float, reached: float | None) -> dict[str, Any]:
    """A target: what, the number wanted, the number reached, and whether it is met (None: not measured)."""
    met = None if reached is None else reached <= wanted
    return {"target": what, "wanted": f"<= {wanted:g}", "reached": reached, "met": met}


def targets_table(rows: Iterable[Row], *notes: str) -> Table:
    """What was wanted, what was reached."""
    return table_of("Targets", rows, {key: key for key in ("target", "wanted", "reached", "met")}, notes)


def table_of(title: str, rows: Iterable[Row], columns: Mapping[str, str], notes: Iterable[str] = ()) -> Table:
    """A table of rows by their keys.

    Args:
        title, notes: the table's.
        rows: of one with an ``error``, that and the first column alone are shown.
        columns: keys of a row and their headings; bytes are shown in MB where the heading says so.
    """
    first, *rest = columns
    shown = []
    for row in rows:
        if "error" in row:
            shown.append([row[first], row["error"], *[None] * (len(rest) - 1)])
        else:
            shown.append([row[key] / 1e6 if columns[key].endswith("[MB]") else row[key] for key in columns])
    return Table(title, list(columns.values()), shown, list(notes))


def draw(
    document: dict[str, Any], stem: Path | None, picture: Callable[[Mapping[str, Any]], Figure], log: Report
) -> None:
    """Draw a document to pictures named `stem`, if asked for, and name them in it."""
    if stem is None:
        return
    from kansciml.reporting.style import publication_style, save_figure

    with publication_style():
        figure = picture(document)
    document["plots"] = [str(path) for path in save_figure(figure, stem.parent, stem.name)]
    log(f"drawn: {', '.join(document['plots'])}")
