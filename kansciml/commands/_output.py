"""What a command prints: results on standard output, everything else on standard error; with --json one document."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kansciml._errors import UsageError, printable
from kansciml._files import to_jsonable
from kansciml.runs.tables import Table

T = TypeVar("T")


class Output:
    """The only place that writes to standard output. With `as_json` nothing but one JSON document goes there."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    def log(self, line: str) -> None:
        """A line for the user, on standard error."""
        print(printable(line), file=sys.stderr, flush=True)

    def result(self, document: dict[str, Any], tables: Sequence[Table] = (), lines: Sequence[str] = ()) -> None:
        """The command's result: `document` with --json, else `tables` and then `lines`."""
        if self.as_json:
            print(json.dumps(to_jsonable(document), indent=1, allow_nan=False), flush=True)
            return
        for table in tables:
            table.print()
            print()
        for line in lines:
            print(printable(line), flush=True)


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether -h or --help is among the arguments."""
    return "-h" in arguments or "--help" in arguments


def named_first(arguments: Sequence[str], wanted: str) -> tuple[str, Sequence[str]]:
    """The first argument and the rest; an empty one where help is asked for. Raises UsageError, `wanted`, without."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    if wants_help(arguments):
        return "", arguments
    raise UsageError(wanted)


def flags_of(doc: str | None, **parts: object) -> type:
    """A dataclass of the flags of all `parts`, which are dataclasses with their defaults."""
    fields = [(name, type(part), dataclasses.field(default=part)) for name, part in parts.items()]
    made = dataclasses.make_dataclass("Arguments", fields, frozen=True)
    made.__doc__ = doc
    return made


def take_option(arguments: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """Take ``--name VALUE`` or ``--name=VALUE`` out of the arguments: it decides the defaults of the others.

    Raises:
        UsageError: the value is missing.
    """
    rest, value = [], None
    remaining = iter(arguments)
    for argument in remaining:
        if argument == name:
            value = next(remaining, None)
        elif argument.startswith(f"{name}="):
            value = argument.partition("=")[2]
        else:
            rest.append(argument)
            continue
        if not value or value.startswith("--"):
            raise UsageError(f"{name} wants a value")
    return value, rest


def parse(kind: Callable[..., T], arguments: Sequence[str], command: str, *, repeated: bool = False) -> T:
    """Make a dataclass from command-line flags.

    Args:
        repeated: a flag of several values takes one, and may be repeated.

    Raises:
        UsageError: unknown or malformed flags, or a number that means nothing, in one line.
        SystemExit: after ``--help``, with code 0.
    """
    import tyro

    from kansciml.runs.settings import check_numbers

    config = [tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes]
    config += [tyro.conf.UseAppendAction] if repeated else []
    captured, told = io.StringIO(), _Captured()
    try:
        with contextlib.redirect_stderr(captured), contextlib.redirect_stdout(told):
            parsed = tyro.cli(kind, prog=f"kansciml {command}", args=list(arguments), config=config)
    except SystemExit as stop:
        if not stop.code:
            print(_without_markup(told.getvalue()), end="")
            raise
        raise UsageError(f"{_one_line(captured.getvalue())}; see kansciml {command} --help") from None
    check_numbers(parsed)
    return parsed


class _Captured(io.StringIO):
    """What would be printed, with the frames and colours that standard output takes."""

    def __init__(self) -> None:
        super().__init__()
        self._terminal = sys.stdout

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute in the stubs
        return self._terminal.encoding or "ascii"

    def isatty(self) -> bool:
        return self._terminal.isatty()


def _without_markup(text: str) -> str:
    """tyro's help as it is meant: a flag that may be left out is of its own kind alone, and rich's tags are none.

    A line stays as long as it was, so that frames close.
    """
    text = re.sub(r"\{None\}\|(\S+)|(\S+)\|\{None\}", lambda found: f"{found[1] or found[2]}{' ' * 7}", text)
    return re.sub(r"\[/?(?:bold|italic|dim|red|green|blue|cyan|magenta|yellow|bright_red)\]", "", text)


def _one_line(message: str) -> str:
    """tyro's framed, many-line message as one line of text."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", message)
    lines = [re.sub(r"[\u2500-\u257f]+|-{3,}", " ", line).strip() for line in plain.splitlines()]
    hints = ("For full helptext", "Perhaps you meant", "Similar arguments", "Argument helptext")
    kept: list[str] = []
    for line in lines:
        if line.startswith(hints) and kept:
            break
        if line and line not in ("Parsing error", "Required options", "Unrecognized options"):
            kept.append(line)
    # what a configuration itself refuses is its own line, without tyro's words about where it was built
    text = re.sub(r"^(Value error )?(Error parsing (?!--)[^\s:]+: )?", "", _without_markup(" ".join(kept)))
    missing = re.search(r"Missing value for argument '(\S+?)'\. Expected (\d+) values", text)
    if missing is not None:
        return f"{missing[1]} wants {'a value' if missing[2] == '1' else f'{missing[2]} values'}"
    unfit = re.match(r"Error parsing (-\S+): (.*)", text)
    if unfit is not None and (got := re.findall(r"\[('.*?')\]|: ('[^']*')$", unfit[2])):
        kinds = (("int", "an integer"), ("float", "a number"))
        told = " ".join([unfit[2], *(line for line in lines if line.startswith(f"{unfit[1]} "))])  # and the flag's help
        expected = [words for kind, words in kinds if re.search(rf"\b{kind}\b", told, re.IGNORECASE)]
        return f"{unfit[1]}: got {got[0][0] or got[0][1]}, expected {' or '.join(expected) or 'what its help says'}"
    return text or "the arguments could not be read"


@dataclasses.dataclass(frozen=True)
class JsonFlag:
    """Output."""

    json: bool = False
    """Print exactly one JSON document on standard output."""


@dataclasses.dataclass(frozen=True)
class RunFlags(JsonFlag):
    """Where results go, and how."""

    preset: str | None = None
    """smoke (seconds), small (minutes to hours) or paper: where the other settings start from."""
    results: Path = Path("results")
    """Folder of all results."""
    workers: int | None = None
    """Worker processes (default: the processors)."""
    force: bool = False
    """Run again, even if there is a finished or unfinished run of these settings."""
