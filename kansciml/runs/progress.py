"""Progress on standard error: live bars with time left in a terminal, an occasional plain line elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from kansciml._errors import printable

QUIET_S = 20.0
"""Seconds between plain lines where standard error is not a terminal."""


class Progress:
    """Any number of bars, and log lines that do not tear them. A context manager; nothing shows before `task`.

    Args:
        stream: where to write, default standard error.
        live: draw bars; default: whether `stream` is a terminal.
        interval_s: least seconds between two plain lines, of all tasks together, where no bars are drawn.
    """

    def __init__(self, stream: TextIO | None = None, live: bool | None = None, interval_s: float = QUIET_S) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty() if live is None else live
        self.interval_s = interval_s
        self._bars: Any = None
        self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def task(self, description: str, total: float) -> Task:
        """Start a bar that is full at `total`; `update` it through the handle."""
        return Task(self, description, total)

    def log(self, line: str) -> None:
        """One line above the bars."""
        if self._bars is None:
            print(printable(line), file=self.stream, flush=True)
        else:
            self._bars.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stop drawing; calling it twice is allowed."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _start(self) -> Any:
        if self._bars is None:
            # rich costs 0.1 s to import, and library users may never need it.
            from rich import progress
            from rich.console import Console

            self._bars = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(bar_width=24),
                progress.TaskProgressColumn(),
                progress.TextColumn("{task.fields[note]}", markup=False),
                progress.TimeElapsedColumn(),
                progress.TextColumn("left"),
                progress.TimeRemainingColumn(),
                console=Console(file=self.stream, force_terminal=True),
                transient=True,
            )
            self._bars.start()
        return self._bars


class Task:
    """One bar. A context manager that closes the bar at its end."""

    def __init__(self, progress: Progress, description: str, total: float) -> None:
        self.description = description
        self.total = total
        self.completed = 0.0
        self._progress = progress
        self._began = time.monotonic()
        self._began_at: float | None = None
        self._bars = progress._start() if progress.live else None
        self._id = None if self._bars is None else self._bars.add_task(description, total=total, note="")

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(
        self, advance: float | None = None, completed: float | None = None, total: float | None = None, **values: Any
    ) -> None:
        """Move the bar by `advance` or to `completed` (neither: by 0), and show `values`, e.g. ``loss=1.2e-5``."""
        if self._began_at is None:  # a resumed task jumps to where it was: not work done in this session
            self._began_at = completed or 0.0
        self.completed = self.completed + (advance or 0.0) if completed is None else completed
        self.total = self.total if total is None else total
        if self._bars is None:
            now, progress = time.monotonic(), self._progress
            if now - progress._last_line >= progress.interval_s:
                progress._last_line = now
                progress.log(self._plain(values))
        elif self._id is not None:
            self._bars.update(self._id, completed=self.completed, total=self.total, note=_note(values))

    def close(self) -> None:
        """Remove the bar; calling it twice is allowed."""
        if self._bars is not None and self._id is not None:
            self._bars.remove_task(self._id)
            self._id = None

    def _plain(self, values: dict[str, Any]) -> str:
        elapsed = time.monotonic() - self._began
        done = self.completed - (self._began_at or 0.0)
        left = f", about {duration(elapsed / done * (self.total - self.completed))} left" if done > 0 else ""
        note = f", {_note(values)}" if values else ""
        return f"{self.description}: {self.completed:g} of {self.total:g}{note}, {duration(elapsed)}{left}"


def _note(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def duration(seconds: float, digits: int = 0) -> str:
    """``2 h 05 min``, ``3 min 07 s``, or below a minute, with `digits` behind the point, ``8.2 s``."""
    if seconds < 59.5 or (digits and seconds < 60):
        return f"{seconds:.{digits}f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
