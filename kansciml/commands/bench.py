"""``kansciml bench NAME``: speed and memory measurements."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Sequence

from kansciml import benchmarks
from kansciml._errors import UsageError, unknown_name
from kansciml.commands._output import JsonFlag, Output, parse

SUMMARY = "measure speed and memory: kansciml bench ode, layers, hessian, vision, fno"


def benchmark_names() -> tuple[str, ...]:
    """Every module of `kansciml.benchmarks` that does not start with an underscore."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_")))


def main(arguments: Sequence[str], out: Output) -> int:
    names = benchmark_names()
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: kansciml bench NAME [flags]; benchmarks: {', '.join(names)}")
        return 0
    if not arguments or arguments[0].startswith("-"):
        raise UsageError(f"bench wants a name: one of {', '.join(names)}")
    if arguments[0] not in names:
        raise unknown_name("benchmark", arguments[0], names)
    benchmark = importlib.import_module(f"kansciml.benchmarks.{arguments[0]}")
    kind = dataclasses.make_dataclass(
        "Arguments",
        [
            ("options", benchmark.Options, dataclasses.field(default=benchmark.Options())),
            ("output", JsonFlag, dataclasses.field(default=JsonFlag())),
        ],
        frozen=True,
    )
    parsed = parse(kind, arguments[1:], f"bench {arguments[0]}")
    document, tables = benchmark.run(parsed.options, out.log)
    out.result(document, tables)
    return 0
