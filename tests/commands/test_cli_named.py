"""A run by its folder or by its name: one rule for every command that takes a run."""

import os

import pytest
from support.command_line import run

from kansciml._errors import UsageError
from kansciml.commands._named import run_named
from kansciml.runs.records import Record, save_record

FINISHED = {"fig2": ("cf9c65cfcb41", "fc37b054cfc6"), "ode": ("00476e93b59b", "cf9caaaaaaaa")}


@pytest.fixture
def results(tmp_path):
    """Records of two experiments, later ones last, and a newer one of fig2 that was interrupted."""
    names = [(experiment, name, "finished") for experiment, own in FINISHED.items() for name in own]
    for age, (experiment, name, status) in enumerate([*names, ("fig2", "0047aaaaaaaa", "interrupted")]):
        folder = tmp_path / "results" / experiment / name
        folder.mkdir(parents=True)
        save_record(Record(folder, experiment, {}, name, status))
        os.utime(folder / "record.json", (age, age))
    return tmp_path / "results"


@pytest.mark.parametrize(
    "name, found",
    [
        ("fig2", "fig2/fc37b054cfc6"),
        ("fig2-cf9c65", "fig2/cf9c65cfcb41"),
        ("fig2/cf9c65", "fig2/cf9c65cfcb41"),
        ("cf9c65", "fig2/cf9c65cfcb41"),
        ("fig2-0047", "fig2/0047aaaaaaaa"),
        ("results/fig2", "fig2/fc37b054cfc6"),
        ("results/fig2/", "fig2/fc37b054cfc6"),
        ("results/fig2/cf9c", "fig2/cf9c65cfcb41"),
        ("results/fig2-cf9c", "fig2/cf9c65cfcb41"),
        ("results/ode/00476e93b59b", "ode/00476e93b59b"),
        ("results/ode/00476e93b59b/record.json", "ode/00476e93b59b"),
        ("ode/00476e93b59b", "ode/00476e93b59b"),
        ("{results}/ode/00476e93b59b", "ode/00476e93b59b"),
        ("{results}/ode-004", "ode/00476e93b59b"),
    ],
)
@pytest.mark.parametrize("where", ["results", "{results}"])
def test_a_run_is_found_by_folder_experiment_and_hash(results, name, found, where):
    folder = type(results)(where.format(results=results))
    assert run_named(name.format(results=results), folder, str).folder.resolve() == results / found


def test_the_run_that_was_chosen_is_told_and_a_damaged_one_passed_over(results):
    (results / "fig2" / "fc37b054cfc6" / "record.json").write_text("{")
    told = []
    assert run_named("fig2", results, told.append).config_hash == "cf9c65cfcb41"
    assert "left out: " in told[0] and told[1] == f"run: {results}/fig2/cf9c65cfcb41, the latest finished one of 3"


@pytest.mark.parametrize("command", ["render", "hessian", "evaluate", "rerun", "predict"])
@pytest.mark.parametrize(
    "name, message",
    [
        ("cf9c", "cf9c could be any of ode-cf9caaaaaaaa, fig2-cf9c65cfcb41: give more of its hash"),
        ("fig2-9", "no run fig2-9: expected the folder of one, or its name or hash (there are fig2-"),
        ("fig3", "no finished run of fig3 in results: kansciml run fig3 makes one"),
        ("hessian", "no finished run of hessian in results: kansciml hessian RUN makes one, in the folder of RUN"),
        (".", "no run .: expected"),
        ("packed.zip", "packed.zip is a packed record: kansciml reproduce --from . unpacks those there"),
        ("results/fig2/cf9c65cfcb41/record.json/x", "record.json is a file: expected a folder"),
    ],
)
def test_none_and_several_are_one_line_alike(capsys, results, command, name, message):
    (results.parent / "packed.zip").write_bytes(b"")
    code, out, err = run(capsys, command, name)
    assert code == 2 and out == "" and err.startswith(f"error: {message}" if "/" not in name else "error: ")
    assert message in err and err.count("\n") == 1


def test_without_results_it_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"no run cf9c: .* \(nowhere holds none\)"):
        run_named("cf9c", type(tmp_path)("nowhere"), str)
