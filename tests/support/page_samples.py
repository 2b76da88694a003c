"""A made-up page with one of everything: runs finished, failed, stopped and not begun, and all three verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kansciml.analysis.paired import compare
from kansciml.reporting.style import new_figure, publication_style, save_figure
from kansciml.reproduce.answer import Answer
from kansciml.reproduce.page.content import FAILED, FINISHED, MISSING, UNFINISHED, Entry, Page, PaperError, Setting
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Finding, KanOverMlp
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

HOSTILE = "<script>alert(\"x\")</script> & 'y'"
"""Text that must arrive as text."""


def draw(folder: Path, stem: str, bars: bool = False) -> Path:
    """Path of a small picture (SVG; the PNG lies beside it) with clip paths, text and a white background."""
    with publication_style():
        figure = new_figure(2.2)
        axes = figure.subplots()
        if bars:
            axes.barh([0, 1], [3.0, 5.0])
        else:
            axes.plot(np.arange(5.0), [3.0, 2.0, 1.5, 1.2, 1.0])
        axes.set_xlabel("iteration")
        axes.set_title(stem)
    return save_figure(figure, folder, stem)[0]


def make_record(folder: Path, name: str) -> Record:
    """A finished record, whose folder holds its settings."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("config", "record"):
        (folder / f"{kind}.json").write_text("{}")
    return Record(
        folder, name, {}, "0123456789ab", "finished", seeds=(0, 1), finished="2026-01-02T03:04:05+00:00", wall_s=4000.0,
        versions={"python": "3.11.7", "torch": "2.13.0", "juliacall": None}, commit="f" * 40, sessions=2,
        machine={"processor": "A processor", "device": "cpu", "cores": 2, "threads": 1, "platform": "Linux"},
        peak_memory_mb=512.3,
    )  # fmt: skip


TABLE = Table(
    "Final loss, by model",
    ["Model", "Parameters", "Loss", "Accuracy (%)", "Why"],
    [
        ["MLP 2-50-2", 25_200, 1.2e-5, "73.0 +- 0.5", "a reason of many words that has to be broken into lines"],
        ["KAN 2-6-2", 240, 3e-7, "9.5 +- 1", "short"],
        ["KAN 10-6-2", 1000, None, None, "diverged"],
        ["RSWAF", 3000, 2.0, "100 +- 0", None],
    ],
    ["A note with `code` and <angles>."],
)


def make_page(folder: Path) -> Page:
    """The page; its pictures lie in `folder`."""
    pictures = [draw(folder / "fig2", "loss_curves"), draw(folder / "fig2", "orbits_pleiades", bars=True)]
    findings = [
        Finding("Figure 2", '"MLPs converge lower" (Figure 2)', "lower", "half of it",
                NOT_REPRODUCED, "paired over 5 seeds", ["loss_curves"], "Spiral, equal width"),
        Finding("Figure 2", '"MLPs converge lower" (Figure 2)', "", "12 times", REPRODUCED, "paired over 4",
                case=HOSTILE),
        Finding("Equation (1)", "It holds", "I (O + 1)", "36800 parameters", UNDECIDED, "counted with `kansciml cost`"),
    ]  # fmt: skip
    settings = [
        Setting("seeds", "2", "10"), Setting("training.adam_steps", "20", "5000"), Setting("systems", "lotka", "lotka"),
    ]  # fmt: skip
    captions = {"loss_curves": "Training loss against iteration.", "orbits_*": "Orbits of the bodies of the {} system."}
    entries = [
        Entry(
            "fig2", "Figure 2", "Neural ODEs", "kansciml run fig2 --preset smoke", FINISHED, "",
            make_record(folder / "fig2", "fig2"), [TABLE], findings, pictures, settings, captions=captions,
        ),
        Entry("fig3", "Figure 3", "Spectra", "kansciml run fig3 --preset smoke", FAILED, f"It broke: {HOSTILE}"),
        Entry("fig4a", "Figure 4a", "Memory", "kansciml run fig4a --preset smoke", MISSING),
        Entry("fig5", "Figure 5", "Darcy flow", "kansciml run fig5 --preset smoke", UNFINISHED, "It was stopped.",
              make_record(folder / "fig5", "fig5")),
        Entry("fair", "Beyond the paper", "Fair comparisons", "kansciml run fair --preset smoke", FINISHED, "",
              make_record(folder / "fair", "fair"), [TABLE], [], [draw(folder / "fair", "loss_curves")],
              problems=["Its findings cannot be shown: a reason"]),
    ]  # fmt: skip
    errors = [
        PaperError("A misprint", ["It says `I (O + 1)`.", HOSTILE], [TABLE], "kansciml cost"),
        PaperError("B", []),
    ]
    better = compare({seed: 0.1 + seed for seed in range(3)}, dict.fromkeys(range(3), 2.0), above=1)
    rows = [KanOverMlp("neural ODEs", "Spiral", "training loss", "params", better)]
    said = ["KANs end lower on 2 of 3 tasks, p = 0.01.", "Nothing else is decided."]
    answer = Answer(rows, said, ["More seeds <than 3>"])
    return Page("smoke", entries, answer, (), errors, "2026-01-02 03:04 UTC", "0.1.0")
