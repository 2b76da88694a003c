"""Errors that end in one clear line instead of a traceback."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Sequence


class KansciError(Exception):
    """Something went wrong that the user can act on: the message says what was got, expected, and what to do."""

    exit_code = 1


class UsageError(KansciError, ValueError):
    """The request itself is wrong: an unknown name, a value out of range, a malformed file. Exit code 2."""

    exit_code = 2


class BackendUnavailable(KansciError):
    """A backend cannot be started on this machine. Exit code 1."""


class WorkerDied(KansciError):
    """The process that does the work ended, or did not answer in time and was ended. Exit code 1."""


class SolveError(KansciError, ArithmeticError):
    """The ODE solver could not reach the end of the time span with these parameters. Exit code 1."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, from a batch system say: state is saved and workers are ended as after Ctrl-C. Exit code 143."""


def unknown_name(kind: str, got: object, valid: Iterable[object]) -> UsageError:
    """The error for a name that is not one of the valid ones, which it lists."""
    return UsageError(f"unknown {kind} {got!r}: expected one of {', '.join(map(str, valid))}")


def check_name(kind: str, got: object, valid: Collection[object]) -> None:
    """Raise UsageError if `got` is not one of the valid names of `kind`."""
    if got not in valid:
        raise unknown_name(kind, got, valid)


def check_names(kind: str, given: Sequence[object], valid: Collection[object] | None = None) -> None:
    """Return if `given` are one or more different names of `kind`, all of them valid where it is known which are.

    Raises:
        UsageError: otherwise.
    """
    if not given or len(set(given)) < len(given):
        raise UsageError(f"got {kind}s {', '.join(map(str, given)) or '(none)'}: expected one or more different ones")
    for name in given:
        check_name(kind, name, given if valid is None else valid)


def printable(text: str) -> str:
    """`text` in one line that every terminal and file takes: control characters and lone surrogates, as file names may
    hold them, become escapes such as ``\\n``."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def check_seed(seed: object, name: str = "seed") -> int:
    """`seed`, if every generator of random numbers takes it.

    Raises:
        UsageError: no integer, a negative one, or one of more than 63 bits.
    """
    if not hasattr(seed, "__index__") or isinstance(seed, bool) or not 0 <= operator.index(seed) < 2**63:
        raise UsageError(f"got {name} {seed!r}: expected an integer from 0 on and below 2^63")
    return operator.index(seed)
