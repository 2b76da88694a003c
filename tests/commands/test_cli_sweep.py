"""``kansciml sweep`` as a user types it, on real experiments of seconds."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

import pytest
from support.command_line import losses, run


def test_dry_run_lists_the_tasks_and_writes_nothing(capsys, folder):
    flags = "--preset smoke --set backend=torch --seeds 0,3 --set grid=3,5 --dry-run --json".split()
    code, out, _ = run(capsys, "sweep", "ode", *flags)
    tasks = json.loads(out)["tasks"]
    assert code == 0 and not list(folder.iterdir())
    assert [(one["config"]["grid"], one["config"]["first_seed"], one["state"]) for one in tasks] == [
        (grid, seed, "to be run") for grid in (3, 5) for seed in (0, 3)
    ]


@pytest.mark.slow
def test_the_summary_is_that_of_the_records(capsys, swept):
    results, flags = swept
    (one, *_) = (results / "ode").iterdir()
    shutil.rmtree(one)  # one task is left to be run, in a process of its own
    assert run(capsys, "sweep", *flags)[0] == 0
    found = losses(results)
    assert sorted(found) == [(3, 0), (3, 1), (5, 0), (5, 1)]
    code, out, err = run(capsys, "sweep", *flags, "--json")
    document = json.loads(out)
    assert code == 0 and "4 of 4 tasks are finished already" in err
    rows = {row["grid"]: row for row in document["summary"]["rows"] if row["loss"] == "final_loss"}
    for grid in (3, 5):
        own, row = [found[grid, 0], found[grid, 1]], rows[str(grid)]
        assert [row[name] for name in ("runs", "lowest", "highest")] == [2, min(own), max(own)]
        assert row["median"] == statistics.median(own)
    assert {Path(path).name for path in document["files"]} >= {"summary.svg", "summary.csv", "summary.md"}
