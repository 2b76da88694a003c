"""Writes the log of a training: ``metrics.csv``, and TensorBoard events where wanted."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kansciml._errors import KansciError
from kansciml._files import make_folder, write_failure, write_text

Row = Mapping[str, "float | int | str"]


class MetricsLog:
    """Rows of numbers, each a line of ``metrics.csv``; every row has a ``step``.

    A row is appended by one write of a whole line. A row with a column not met before has the file rewritten in one
    step with a wider head; missing values are empty.

    Args:
        folder: where the file, and the folder ``tensorboard``, lie.
        step, epochs: rows of later steps, and of the ends of later epochs, were written by a session that was killed
            after its last checkpoint: they are dropped.
        tensorboard: also write TensorBoard events.

    Raises:
        KansciError: the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int = 0, epochs: int = 0, tensorboard: bool = False) -> None:
        self.path = make_folder(folder) / "metrics.csv"
        rows = [row for row in read_rows(self.path) if int(row["step"]) <= step]
        self._rows = [row for row in rows if row.get("kind") != "epoch" or int(row["epoch"]) <= epochs]
        self._columns = list(dict.fromkeys(name for row in self._rows for name in row))
        if self.path.exists():
            self._rewrite()
        self._board = _board(folder / "tensorboard", step) if tensorboard else None

    def write(self, row: Row) -> None:
        """Append a row; its numbers go to TensorBoard under ``kind/name``.

        Raises:
            KansciError: the file cannot be written.
        """
        text = {name: _text(value) for name, value in row.items()}
        self._rows.append(text)
        new = [name for name in text if name not in self._columns]
        if new:
            self._columns += new
            self._rewrite()
        else:
            self._append(_csv([[text.get(name, "") for name in self._columns]]))
        if self._board:
            step = int(row["step"])
            for name, value in row.items():
                if name != "step" and not isinstance(value, str) and math.isfinite(value):
                    self._board.add_scalar(f"{row.get('kind', 'train')}/{name}", value, step)

    def close(self) -> None:
        """Flush and close TensorBoard's file; calling it twice is allowed."""
        if self._board:
            self._board.close()
            self._board = None

    def _rewrite(self) -> None:
        lines = [self._columns, *([row.get(name, "") for name in self._columns] for row in self._rows)]
        write_text(self.path, _csv(lines) if self._columns else "")

    def _append(self, line: str) -> None:
        try:
            with open(self.path, "ab") as file:  # a short line: one write, when the file is closed
                file.write(line.encode())
        except OSError as error:
            raise write_failure(self.path, error) from error


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a ``metrics.csv`` without their empty values; a last line that was cut short is left out.

    Raises:
        KansciError: the file cannot be read.
    """
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise KansciError(f"cannot read {path} ({error}): delete it to start a new log") from error
    whole = text[: text.rfind("\n") + 1]
    found = csv.reader(io.StringIO(whole))
    head = next(found, [])
    rows = [{name: value for name, value in zip(head, line) if value} for line in found if len(line) == len(head)]
    return [row for row in rows if row.get("step", "").isdigit()]


def _text(value: float | int | str) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _csv(lines: list[list[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue()


def _board(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    try:
        # events of a killed session after the checkpoint are hidden by TensorBoard
        return SummaryWriter(str(folder), purge_step=step + 1)
    except OSError as error:
        raise write_failure(folder, error) from error
