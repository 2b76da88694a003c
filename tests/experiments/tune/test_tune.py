"""Tuning: equal trials, equal parameters, the default never lost; the same trials however often it is interrupted."""

import json
import math
import sys
from dataclasses import replace

import pytest
from support.settings import changed

from kansciml import UsageError
from kansciml.experiments.tune.choice import Choice
from kansciml.experiments.tune.experiment import EXPERIMENT, TuneConfig
from kansciml.experiments.tune.record import Trial, best, read_tuned
from kansciml.experiments.tune.report import comparisons, verdict_table
from kansciml.experiments.tune.search import ROUND, Search
from kansciml.experiments.tune.space import allowed, field_for
from kansciml.ode import get_system
from kansciml.runs.runner import run_experiment
from kansciml.runs.typed import write
from kansciml.tasks.ode.problem import FieldSizes
from kansciml.training.flat import FlatTraining

SMALL = changed(
    TuneConfig(), trials=ROUND + 1, trial_seeds=1, system="lotka", trajectories=2, validation_trajectories=1,
    test_trajectories=1, backend="torch", seeds=1, hidden=(24,),
    training=FlatTraining(3, lbfgs_steps=2),
)  # fmt: skip


def searched(trials, error):
    search = Search("lotka", "kan", seed=1)
    while len(search.trials) < trials:
        search.tell([replace(one, errors=(error(one.choice),)) for one in search.ask(ROUND)])
    return search.trials


@pytest.mark.parametrize("model", ["mlp", "kan"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_fields_are_as_wide_as_the_parameters_allow(model, depth):
    system = get_system("lotka")
    most = allowed(system, FieldSizes())
    assert most == 252  # 2 x 50 + 50 + 50 x 2 + 2
    choice = Choice(depth=depth, grid=3, spline_order=2)
    field = field_for(system, model, choice, most)
    wider = replace(field, widths=tuple(w + (0 < i <= depth) for i, w in enumerate(field.widths)))
    assert len(field.widths) == depth + 2
    assert field.n_parameters <= most < wider.n_parameters


def test_a_choice_that_allows_no_network_gives_none():
    assert field_for(get_system("lotka"), "kan", Choice(depth=3, grid=12, spline_order=4), 100) is None


def test_a_search_comes_nearer_to_what_is_best_than_the_default_is():
    def error(choice):
        return 1e-6 * 10 ** (abs(choice.grid - 10) + abs(math.log10(choice.learning_rate / 0.05)))

    trials = searched(24, error)
    assert trials[0].choice == Choice()
    assert best(trials).score < 0.01 * trials[0].score
    assert [one.choice for one in searched(24, error)] == [one.choice for one in trials]


def test_a_trial_that_diverged_is_never_chosen():
    trials = [Trial("lotka", "kan", n, Choice(), errors=errors) for n, errors in enumerate([(1e-9, None), (0.5, 0.5)])]
    assert math.isinf(trials[0].score)
    assert best(trials) is trials[1]
    assert best([replace(one, errors=()) for one in trials]).number == 0  # none is better than the default


@pytest.fixture
def untuned(make_record, tmp_path):
    """Models of which no trial was better than the default; all their solutions from other states blow up."""
    record = make_record(tmp_path, ("lotka",), ("mlp", "kan-params"), seeds=7, diverged=())
    for run in record.result["runs"]:
        run["variant"] = run["group"] = run["model"]
        run["not_computed"] = {f"unseen_{name}": "it blows up" for name in ("mse", "relative_mse")}
    trials = [Trial("lotka", model, 0, Choice(), "2-6-2", 252, (0.1,)) for model in ("mlp", "kan")]
    record.result["trials"] = [write(one) for one in trials]
    return record


def test_errors_on_unseen_trajectories_decide_even_where_all_of_them_blow_up(untuned):
    for _, claim, one in comparisons(read_tuned(untuned)):
        assert claim.startswith("KAN below MLP") and one.verdict == "undecided" and "7 pairs diverged" in one.reason
    assert "unseen initial states" in verdict_table(read_tuned(untuned)).notes[0]


def test_without_unseen_trajectories_the_table_says_that_training_errors_decide(untuned):
    for run in untuned.result["runs"]:
        run["not_computed"] = {}
    assert all(one.n_pairs == 7 for *_, one in comparisons(read_tuned(untuned)))
    (answered,) = EXPERIMENT.comparisons(untuned)
    assert answered.outcome == comparisons(read_tuned(untuned))[1][-1] and answered.task == "Lotka-Volterra"
    assert "the training span" in verdict_table(read_tuned(untuned)).notes[0]


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_one_that_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("KANSCIML_WORKERS", "1")

    def run(folder, log):
        return run_experiment(EXPERIMENT, SMALL, results=tmp_path / folder, log=log)

    def stop(line):
        if line.startswith(f"trials {ROUND + 1} to"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("killed", stop)
    resumed, whole = run("killed", lambda line: None), run("whole", lambda line: None)
    assert json.dumps(resumed.result["trials"]) == json.dumps(whole.result["trials"])
    tuned = read_tuned(whole)
    assert {one.model: len(one.trials) for one in tuned} == {"mlp": SMALL.trials, "kan": SMALL.trials}
    for one in tuned:
        assert one.best.score <= one.trials[0].score
        assert one.group(True) is not None
        assert all(trial.n_parameters <= one.trials[0].n_parameters + 60 for trial in one.trials)
    tables = EXPERIMENT.tables(whole)
    assert [row[1] for row in tables[-1].rows[:2]] == ["KAN below MLP, untuned", "KAN below MLP, tuned"]
    assert {path.stem for path in EXPERIMENT.draw(whole)} >= {"search", "tuned"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 0}, "got trials 0"),
        ({"validation_trajectories": 0}, "scored by the error on them"),
        ({"backend": "both"}, "one, torch, julia or auto"),
        ({"seeds": 1001}, "expected less than 1000"),
        ({"training": FlatTraining(3, learning_rate=0.05)}, "got learning_rate 0.05: trials choose it"),
        ({"grid": 8}, "got grid 8: trials choose it"),
    ],
)
def test_what_cannot_be_tuned_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        changed(TuneConfig(), **settings)


def test_without_optuna_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'kansciml\[tune\]'"):
        EXPERIMENT.accept(SMALL)
