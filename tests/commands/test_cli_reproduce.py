"""``kansciml reproduce``: what is missing is run, what is there is not, what fails is said, and nothing is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command_line import run as run_command
from support.settings import changed
from support.sweep_samples import wait_for

from kansciml import KansciError, UsageError
from kansciml.experiments.fig2.experiment import Fig2Config
from kansciml.layers.textbook_kan import TextbookKAN
from kansciml.reproduce import paper
from kansciml.reproduce.paper import chosen_names, gather, reproduce, run_and_draw, run_in_own_process, settings
from kansciml.reproduce.paper_errors import spline_sum
from kansciml.runs.records import load_record
from kansciml.runs.registry import available_experiments, get_experiment
from kansciml.training.flat import FlatTraining

PAPER = ("fig1", "fig2", "fig3", "mnist", "fig4a", "fig4b", "table1", "fig5")


def run(capsys, *arguments):
    return run_command(capsys, "reproduce", *arguments)


@pytest.fixture(scope="module")
def fig1(tmp_path_factory):
    """Results folder with a finished run of fig1, preset smoke, as its own process leaves it."""
    results = tmp_path_factory.mktemp("results")
    assert run_and_draw(["fig1", "smoke", "auto", str(results)]) == ""
    return results


def test_all_is_the_paper_in_its_order_and_what_is_beyond_it_last():
    names = chosen_names(["all"])
    assert names == chosen_names([]) and tuple(names[: len(PAPER)]) == PAPER
    assert {"ode", "vision", "fno"} <= set(available_experiments()) - set(names)  # of no one item
    items = [get_experiment(name).item for name in PAPER]
    figures = ["Figure 1", "Figure 2", "Figure 3", "Footnote 3", "Figure 4a", "Figure 4b", "Table 1", "Figure 5"]
    assert items == figures
    assert chosen_names(["table1", "fig1", "table1"]) == ["fig1", "table1"]  # in the paper's order, and once
    with pytest.raises(UsageError, match="unknown item 'ode': expected one of all, fig1, fig2"):
        chosen_names(["fig1", "ode"])


def test_what_is_there_is_shown_and_not_run_again(capsys, fig1, folder):
    (record,) = fig1.glob("fig1/*/record.json")
    before = {path: path.stat().st_mtime_ns for path in record.parent.rglob("*")}
    arguments = ("fig1", "--preset", "smoke", "--results", str(fig1), "--output", "page", "--json")
    code, out, err = run(capsys, *arguments)
    document = json.loads(out)
    assert code == 0 and err == ""
    assert {path: path.stat().st_mtime_ns for path in record.parent.rglob("*")} == before
    html = (folder / "page" / "index.html").read_text()
    assert html.count("<svg") == 1 and "Extra memory of a KAN layer" in html and "not run yet" in html
    assert f"kansciml run fig1 --preset smoke --results {fig1}" in html
    assert document["page"] == "page/index.html" and all(Path(path).is_file() for path in document["files"])
    status = {one["experiment"]: one["status"] for one in document["runs"]}
    assert status["fig1"] == "finished" and {status[name] for name in PAPER[1:]} == {"missing"}
    # the errors of the paper, with numbers counted: Equation (1) at 64 -> 128, printed and true; dead and used
    # parameters of DeiT-Tiny with splines; training data of the spiral outside the grid
    text = (folder / "page" / "report.md").read_text().partition("## Errors in the paper")[2]
    for counted in ("73664", "73600", "3550464", "10833700", "21,681,316", "| Spiral | 2.00 | 63.3 |"):
        assert counted in text
    assert "2 lie outside the caption's range and 3 outside the text's" in text


def test_pictures_that_are_missing_are_drawn_from_the_record(fig1, tmp_path):
    (source,) = fig1.glob("fig1/*")
    target = tmp_path / "copy" / "fig1" / source.name
    target.mkdir(parents=True)
    for name in ("record.json", "arrays.npz"):
        shutil.copy(source / name, target)
    entry = gather("fig1", "smoke", tmp_path / "copy")
    assert [path.name for path in entry.pictures] == ["extra_memory.svg"] and entry.pictures[0].is_file()


def test_the_page_of_packed_records_is_that_of_the_runs(capsys, fig1, folder):
    code, _, err = run_command(capsys, "results", "pack", "--results", str(fig1), "--to", "packed")
    assert code == 0 and "MB" in err
    pages = []
    for flags in (("--results", str(fig1), "--page-only"), ("--from", "packed", "--results", "elsewhere")):
        code, _, _ = run(capsys, "--preset", "smoke", "--output", "page", *flags)
        assert code == 0
        text = (folder / "page" / "report.md").read_text().replace(str(fig1), "elsewhere")
        lines = text[text.index("## Figure 1") : text.index("## Without results")].splitlines()
        pages.append([line for line in lines if "system: Linux" not in line])  # the version of the kernel is not packed
    assert pages[0] == pages[1] and any(line.startswith("| ") for line in pages[0])


def test_page_only_runs_nothing(capsys, folder):
    code, out, _ = run(capsys, "--preset", "smoke", "--page-only")
    assert code == 0 and "missing" in out
    assert [path.name for path in (folder / "results").iterdir()] == ["reproduce"]


class TestGoingOn:
    def reproduce(self, results, fails):
        """Names that were run, lines for the user, pages, and what came out; `fails` maps names to errors."""
        asked, lines, pages, last = [], [], [], None

        def runner(name, preset, backend, results):
            asked.append(name)
            if name in fails:
                raise fails[name]

        with contextlib.suppress(KeyboardInterrupt):
            names = ["fig1", "fig3", "fig5"]
            last = reproduce(names, "smoke", results, log=lines.append, run=runner, show=pages.append)
        return asked, lines, pages, last

    def test_one_that_fails_is_noted_and_the_others_are_run(self, tmp_path):
        fails = {name: KansciError(f"{name} has no luck.") for name in ("fig1", "fig3")}
        asked, lines, pages, page = self.reproduce(tmp_path, fails)
        status = {entry.name: (entry.status, entry.message) for entry in page.entries}
        assert asked == ["fig1", "fig3", "fig5"] and len(pages) == 3 and "fig3: fig3 has no luck." in lines
        assert status["fig1"] == ("failed", "The run failed: fig1 has no luck. The command below resumes it.")
        assert status["fig5"][0] == "missing" and status["fig2"][0] == "missing"
        # the page after the first run knows nothing yet of what the second does
        assert {entry.name: entry.status for entry in pages[0].entries}["fig3"] == "missing"

    def test_an_interrupt_is_passed_on_at_once_and_the_page_so_far_is_there(self, tmp_path):
        asked, _, pages, page = self.reproduce(tmp_path, {"fig3": KeyboardInterrupt()})
        assert asked == ["fig1", "fig3"] and len(pages) == 1 and page is None

    def test_a_part_that_cannot_be_shown_is_named_and_the_rest_is_shown(self, fig1, monkeypatch):
        broken = dataclasses.replace(get_experiment("fig1"), findings=lambda record: 1 / 0)
        monkeypatch.setattr(paper, "get_experiment", lambda name: broken)
        entry = gather("fig1", "smoke", fig1)
        assert entry.problems == ["Its findings cannot be shown: ZeroDivisionError: division by zero"]
        assert entry.went_wrong and entry.findings == [] and entry.tables and entry.pictures

    def test_a_damaged_record_is_said_on_the_page(self, capsys, folder):
        experiment = get_experiment("fig1")
        place = paper.result_folder(experiment, experiment.preset("smoke"), folder / "results")
        place.mkdir(parents=True)
        (place / "record.json").write_text("{")
        code, _, err = run(capsys, "fig1", "--preset", "smoke", "--page-only")
        html = (folder / "results" / "reproduce" / "smoke" / "index.html").read_text()
        assert code == 1 and "failed: fig1" in err and "is damaged" in html


def test_settings_that_differ_are_told_from_those_of_the_paper():
    here = changed(Fig2Config(), seeds=2, training=FlatTraining(20))
    found = {one.name: (one.here, one.paper, one.differs) for one in settings(here, Fig2Config())}
    assert found["seeds"] == ("2", "20", True) and found["training.adam_steps"] == ("20", "5000", True)
    assert found["grid"] == ("5", "5", False) and found["rtol"] == ("1e-07", "1e-07", False)
    assert found["hidden"] == ("none", "none", False)


def test_a_run_that_cannot_begin_says_why(tmp_path):
    (tmp_path / "fig1").write_text("a file where a folder has to be")
    with pytest.raises(KansciError, match="a file and a folder want the same name"):
        run_in_own_process("fig1", "smoke", "auto", tmp_path)


@pytest.mark.slow
def test_an_interrupted_run_saves_its_state(folder):
    command = [sys.executable, "-m", "kansciml", "reproduce", "fig2", "--preset", "smoke", "--backend", "torch"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: any(folder.glob("results/fig2/*/record.json")), 120)
    time.sleep(1)  # into the first training
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in err
    (record,) = folder.glob("results/fig2/*")
    assert load_record(record).status == "interrupted"
    assert gather("fig2", "smoke", folder / "results").status == "unfinished"  # that of torch, where auto prefers Julia


def test_splines_outside_the_grid_fade_as_those_of_a_layer_do():
    """Sum of the splines against the textbook recursion: 1 on the grid, half at 1.6, nothing from 2.2 on."""
    x = np.array([-3.0, -1.0, 0.3, 1.0, 1.3, 1.6, 2.0, 2.2, 5.0])
    layer = TextbookKAN(1, 1, dtype=torch.float64)
    assert spline_sum(x) == pytest.approx(layer.basis(torch.from_numpy(x)[:, None]).sum((1, 2)).numpy(), abs=1e-12)
    assert spline_sum(np.array([0.0, 1.0, 1.6, 2.2])) == pytest.approx([1, 1, 0.5, 0], abs=1e-12)
