"""Every benchmark takes turns, counts what was asked, and refuses what cannot be measured in one line."""

import importlib
from pathlib import Path

import numpy as np
import pytest

import kansciml
from kansciml import UsageError, cli
from kansciml.benchmarks import _measuring as measuring


def test_calls_take_turns_and_stop_when_the_budget_is_spent():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = measuring.in_turns(calls, rounds=5, budget_s=0.0)
    assert order == ["a", "b"] * 4 and all(len(values) == 3 and np.all(values >= 0) for values in seconds.values())


def test_slow_calls_are_timed_once_and_short_ones_repeated():
    now, told, calls = [0.0], [], {"slow": 5.0, "short": 0.5}
    made = dict.fromkeys(calls, 0)

    def call(name):
        now[0] += calls[name]
        made[name] += 1

    seconds = measuring.in_turns(
        {name: lambda name=name: call(name) for name in calls},
        3,
        told.append,
        clock=lambda: now[0],
        slow_s=2.0,
        shortest_s=2.0,
    )
    assert seconds["slow"].tolist() == [5.0] and seconds["short"].tolist() == [0.5] * 3
    assert made == {"slow": 1, "short": 2 + 3 * 4} and set(told) == set(calls)


def test_ratios_are_taken_round_by_round_where_rounds_are_as_many():
    values, base = np.array([2.0, 20.0, 6.0]), np.array([1.0, 10.0, 2.0])
    assert measuring.ratio(values, base) == 2.0 and measuring.ratio(values, base[:1]) == 6.0
    assert measuring.quartiles("step_", base) == {"step_ms": 2000.0, "step_low_ms": 1500.0, "step_high_ms": 6000.0}


def test_a_row_that_failed_shows_its_error_and_bytes_are_shown_in_megabytes():
    rows = [{"layer": "a", "peak_bytes": 2_000_000, "ms": 1.0}, {"layer": "b", "error": "no such operator"}]
    table = measuring.table_of("t", rows, {"layer": "layer", "peak_bytes": "peak [MB]", "ms": "time [ms]"})
    assert table.rows == [["a", 2.0, 1.0], ["b", "no such operator", None]]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("layers", {"shapes": ("S9",)}, "S9.*S1, S2"),
        ("layers", {"shapes": ()}, "got no shapes"),
        ("layers", {"dtype": "float16"}, "float16.*float32, float64"),
        ("layers", {"grid": 0}, "grid 0.*at least 1"),
        ("hessian", {"width": 0}, "width 0.*at least 1"),
        ("hessian", {"probes": -1}, "probes -1"),
        ("hessian", {"backend": "cuda"}, "cuda.*torch"),
        ("ode", {"model": "cnn"}, "unknown model 'cnn'"),
        ("ode", {"tolerance": 0.0}, "tolerance 0.0.*between 0 and 1"),
        ("vision", {"models": ("resnet",)}, "unknown model 'resnet': expected one of"),
        ("vision", {"models": ("fno-wt",)}, "unknown model 'fno-wt'"),
        ("vision", {"models": ("mixer-nano", "mixer-nano")}, "expected one or more different"),
        ("vision", {"batch_size": 1}, "batch_size 1: expected at least 2"),
        ("vision", {"loop_steps": 0}, "loop_steps 0: expected at least 2"),
        ("fno", {"models": ("mixer-nano",)}, "unknown model 'mixer-nano': expected one of fno-deq"),
        ("fno", {"resolution": 8}, "resolution 8, with padding 9"),
        ("fno", {"memory_resolution": 3}, "memory_resolution 3, with padding 9"),
        ("fno", {"resolution": 0}, "resolution 0"),
        ("fno", {"batch_size": 0}, "batch_size 0: expected at least 1"),
        *((name, {"rounds": 2}, "rounds 2.*at least 3 for a median") for name in ("layers", "hessian", "ode", "fno")),
        *((name, {"plot": Path(".")}, "got plot") for name in ("layers", "hessian")),
    ],
)
def test_bad_options_are_one_line(name, options, message):
    benchmark = importlib.import_module(f"kansciml.benchmarks.{name}")
    with pytest.raises(UsageError, match=message) as caught:
        benchmark.run(benchmark.Options(**options), lambda line: None)
    assert "\n" not in str(caught.value)


def test_a_mistake_on_the_command_line_is_one_line(capsys):
    assert cli.main(["bench", "vision", "--rounds", "2"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and "got rounds 2: expected at least 3" in err


def test_only_the_command_imports_benchmarks():
    root = Path(kansciml.__file__).parent
    importers = [path for path in root.rglob("*.py") if "benchmarks" in path.read_text()]
    outside = {path for path in importers if (root / "benchmarks") not in path.parents}
    assert outside == {root / "commands" / "bench.py"}
