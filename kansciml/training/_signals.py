"""Turns Ctrl-C and SIGTERM into a request to stop, which the training loop meets after the current step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, NoReturn

from kansciml._errors import Terminated


class StopSignals:
    """Within, the first SIGINT or SIGTERM sets `wanted`; the second, or one while `at_once`, raises at once.

    What is raised, here and by `stop`, is `Terminated` after a SIGTERM and KeyboardInterrupt else.

    Only the main thread may handle signals: in another one nothing changes.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.at_once = False
        self._terminated = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._terminated |= number == signal.SIGTERM
        if self.wanted or self.at_once:
            self.stop()
        self.wanted = True

    def stop(self) -> NoReturn:
        """Raise `Terminated` after a SIGTERM, else KeyboardInterrupt."""
        raise Terminated if self._terminated else KeyboardInterrupt
