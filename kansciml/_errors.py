"""Errors that end in one clear line instead of a traceback."""

from __future__ import annotations


class KansciError(Exception):
    """Something went wrong that the user can act on: the message says what was got, expected, and what to do."""

    exit_code = 1


class UsageError(KansciError, ValueError):
    """The request itself is wrong: an unknown name, a value out of range, a malformed file. Exit code 2."""

    exit_code = 2


class BackendUnavailable(KansciError):
    """A backend cannot be started on this machine. Exit code 1."""


class SolveError(KansciError, ArithmeticError):
    """The ODE solver could not reach the end of the time span with these parameters. Exit code 1."""


def unknown_name(kind: str, got: object, valid: object) -> UsageError:
    """The error for a name that is not one of the valid ones, which it lists."""
    return UsageError(f"unknown {kind} {got!r}: expected one of {', '.join(map(str, valid))}")
