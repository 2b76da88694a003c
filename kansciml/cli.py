"""The command line: ``kansciml COMMAND ...``. Exit codes: 0 done, 1 failed, 2 wrong request, 130 interrupted,
143 terminated.

Whatever a command meets on its way out is met here once: a request that is wrong, a machine that fails, a signal, a
reader of its output that is gone. Imports are light: a Ctrl-C while the others last is one as at any other time.
"""

from __future__ import annotations

import _thread
import contextlib
import importlib
import pkgutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from kansciml import __version__, commands
from kansciml._errors import KansciError, Terminated, UsageError, unknown_name
from kansciml._streams import guarded_streams

if TYPE_CHECKING:
    from kansciml.commands._output import Output

IMPORT_S = 10.0
"""How long an import may keep a signal waiting."""


def command_names() -> tuple[str, ...]:
    """Every module of `kansciml.commands` that does not start with an underscore."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(commands.__path__) if not m.name.startswith("_")))


def usage() -> str:
    """The overview that ``kansciml --help`` prints."""
    lines = ["usage: kansciml COMMAND [flags]     (kansciml COMMAND --help: flags, presets, examples)", ""]
    for name in command_names():
        lines.append(f"  {name:<12}{importlib.import_module(f'kansciml.commands.{name}').SUMMARY}")
    lines += ["", "  --json in any command: one JSON document on standard output; --version"]
    lines.append(
        "  --print-completion bash|zsh|fish|tcsh: a script for the shell, whose first line says where to put it"
    )
    return "\n".join([*lines, "", "Start with: kansciml ode --system lotka"])


def run(arguments: Sequence[str], out: Output) -> int:
    """Run one command; errors are raised."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(f"kansciml {__version__}")
        return 0
    if arguments[0] == "--print-completion":
        from kansciml.commands._completion import INSTALL, completion_script

        if len(arguments) != 2:
            raise UsageError(f"--print-completion wants a shell: one of {', '.join(INSTALL)}")
        print(completion_script(arguments[1], command_names()), end="")
        return 0
    for flag, argument in zip(("", *arguments), arguments):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            given = argument[:-1] or (flag if flag.startswith("--") else "")
            raise UsageError(f"got an empty value{f' for {given}' if given else ''}: give one, or leave it out")
    name, *rest = arguments
    if name not in command_names():
        raise unknown_name("command", name, command_names())
    command = importlib.import_module(f"kansciml.commands.{name}")
    if not {"-h", "--help"} & set(rest):
        return command.main(rest, out)
    with contextlib.suppress(SystemExit):
        command.main(rest, out)
    print("\n".join(["", "examples:", *(f"  {line}" for line in command.EXAMPLES)]))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: one clear line for whatever the user can act on."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with guarded_streams() as (shown, told), _signals() as received:
        try:
            code = _command(arguments)
        except BaseException as error:
            # A signal counts whatever became of its exception: imports and callbacks turn it into others.
            if not received and not isinstance(error, KeyboardInterrupt):
                raise
            terminated = isinstance(error, Terminated) or signal.SIGTERM in received
            print("terminated" if terminated else "interrupted", file=told)
            return 143 if terminated else 130
        shown.flush()
        if shown.lost:
            print(f"error: cannot write standard output: {shown.lost}", file=told)
        return code or int(bool(shown.lost))


def _command(arguments: list[str]) -> int:
    from kansciml._files import failure_of
    from kansciml.commands._output import Output

    out = Output(as_json="--json" in arguments)
    try:
        return run(arguments, out)
    except SystemExit as stop:  # --help was printed
        return int(stop.code or 0)
    except (KansciError, OSError, MemoryError) as error:
        known = failure_of(error)
        out.log(f"error: {known}")
        if out.as_json:
            out.result({"error": str(known), "exit_code": known.exit_code})
        return known.exit_code


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Within, SIGTERM ends a command as Ctrl-C does; gives the list of the signals that came.

    One that comes while a module is imported counts when it is: compiled ones abort at an exception in their midst.
    """
    received: list[int] = []
    patience = 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal patience
        patience = patience if received else time.monotonic() + IMPORT_S
        received.append(number)
        if _importing(frame) and time.monotonic() < patience:
            again = threading.Timer(0.05, _signal_again, (number,))
            again.daemon = True
            again.start()
            return
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup and a shell's & have it
            signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _signal_again(number: int) -> None:
    """Send the main thread a signal, also where it waits for something meanwhile."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:  # Windows
        _thread.interrupt_main(signal.Signals(number))


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


if __name__ == "__main__":
    sys.exit(main())
