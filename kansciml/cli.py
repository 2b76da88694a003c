"""The command line: ``kansciml COMMAND ...``. Exit codes: 0 done, 1 failed, 2 wrong request, 130 interrupted,
143 terminated."""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
import threading
from collections.abc import Sequence

from kansciml import __version__, commands
from kansciml._errors import KansciError, unknown_name
from kansciml.commands._output import Output


def command_names() -> tuple[str, ...]:
    """Every module of `kansciml.commands` that does not start with an underscore."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(commands.__path__) if not m.name.startswith("_")))


def usage() -> str:
    """The overview that ``kansciml --help`` prints."""
    lines = ["usage: kansciml COMMAND [flags]     (kansciml COMMAND --help for its flags; --json for one document)", ""]
    for name in command_names():
        lines.append(f"  {name:<12}{importlib.import_module(f'kansciml.commands.{name}').SUMMARY}")
    return "\n".join([*lines, "", "Start with: kansciml ode --system lotka"])


def run(arguments: Sequence[str], out: Output) -> int:
    """Run one command; errors are raised."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(f"kansciml {__version__}")
        return 0
    name, *rest = arguments
    if name not in command_names():
        raise unknown_name("command", name, command_names())
    return importlib.import_module(f"kansciml.commands.{name}").main(rest, out)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, from a batch system say: state is saved and workers are ended as after Ctrl-C."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: one clear line for whatever the user can act on."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    out = Output(as_json="--json" in arguments)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        return run(arguments, out)
    except KansciError as error:
        out.log(f"error: {error}")
        if out.as_json:
            out.result({"error": str(error), "exit_code": error.exit_code})
        return error.exit_code
    except _Terminated:
        out.log("terminated")
        return 143
    except KeyboardInterrupt:
        out.log("interrupted")
        return 130
    except BrokenPipeError:  # the reader of a pipe went away, as with `kansciml list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
