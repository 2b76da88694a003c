"""Standard streams that are closed, full, cut off by ``| head``, or unable to hold a character: in one place for all.

What cannot be written is dropped and remembered; the work goes on, and the command says in the end that it was lost.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any


class Stream:
    """A text stream that never raises: its first failure is kept, and what is written after it goes nowhere.

    Args:
        stream: written to, characters that its encoding lacks as escapes; None: closed, as by ``>&-`` in a shell.
    """

    def __init__(self, stream: Any) -> None:
        self.failure: OSError | None = None
        self._closed = stream is None
        self._stream = open(os.devnull, "w") if stream is None else stream
        with contextlib.suppress(AttributeError, ValueError):  # a stream of a notebook or of a test
            self._stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        if self._closed and self.failure is None:
            self.failure = OSError(errno.EBADF, "it is closed")
        self._guarded(self._stream.write, text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        self._guarded(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def lost(self) -> str:
        """Why something is missing from the output; empty if nothing is, or if its reader had enough of it."""
        return "" if self.failure is None or self.failure.errno == errno.EPIPE else str(self.failure.strerror)

    def _guarded(self, do: Callable[..., Any], *arguments: Any) -> None:
        try:
            do(*arguments)
        except OSError as error:
            self.failure = self.failure or error
            with contextlib.suppress(OSError):  # what its buffer still holds must not fail again when Python ends
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def guarded_streams() -> Iterator[tuple[Stream, Stream]]:
    """Within, standard output and standard error are such streams, and no file that is opened takes the number of one
    that was closed: what others print would go into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
    before = sys.stdout, sys.stderr
    guarded = Stream(sys.stdout), Stream(sys.stderr)
    sys.stdout, sys.stderr = guarded  # type: ignore[assignment]
    try:
        yield guarded
    finally:
        sys.stdout, sys.stderr = before
        for stream, own in zip(guarded, before):
            stream.flush() if own is not None else stream.close()
