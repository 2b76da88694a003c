"""``kansciml bench NAME``: speed and memory measurements."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

from kansciml import benchmarks
from kansciml._errors import UsageError, check_name
from kansciml.commands._output import JsonFlag, Output, flags_of, parse

SUMMARY = "measure speed and memory: kansciml bench ode, layers, hessian, vision, fno"
EXAMPLES = (
    "kansciml bench layers  # layers of KANs against nn.Linear and the peers that are installed",
    "kansciml bench ode --systems lotka --rounds 3",
    "kansciml bench layers --help  # flags of one benchmark",
)


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
    check_name("benchmark", arguments[0], names)
    benchmark = importlib.import_module(f"kansciml.benchmarks.{arguments[0]}")
    kind: Any = flags_of(None, options=benchmark.Options(), output=JsonFlag())
    parsed = parse(kind, arguments[1:], f"bench {arguments[0]}")
    document, tables = benchmark.run(parsed.options, out.log)
    out.result(document, tables)
    return 0
