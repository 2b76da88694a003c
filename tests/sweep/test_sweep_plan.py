"""What a sweep consists of: products of settings and seeds, each task the run that `kansciml run` would make."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.settings import changed

from kansciml import UsageError
from kansciml.runs.registry import get_experiment
from kansciml.runs.settings import config_hash
from kansciml.sweep.plan import make_plan, parse_seeds, parse_settings, setting_label

FIG2 = get_experiment("fig2")


class TestSeeds:
    @pytest.mark.parametrize(
        "text, first, seeds",
        [("3", 0, (0, 1, 2)), ("2", 5, (5, 6)), ("0,3,7", 0, (0, 3, 7)), ("7,", 0, (7,)), (" 4 , 2 ", 0, (4, 2))],
    )
    def test_how_many_or_which(self, text, first, seeds):
        assert parse_seeds(text, first) == seeds

    @pytest.mark.parametrize("text", ["0", "-1", "x", "", "1,-2", "1,,2", "1,1", "2.5", "²"])
    def test_others_are_refused(self, text):
        with pytest.raises(UsageError, match="got seeds"):
            parse_seeds(text)


class TestSettings:
    def test_values_of_lists_are_separated_by_semicolons(self):
        found = parse_settings(
            FIG2.config, ["field.grid=3,5", "hidden=50;10,10", "adam-steps=1e2", "gradient=none;adjoint"]
        )
        assert found == {
            "grid": [3, 5], "hidden": [(50,), (10, 10)], "training.adam_steps": [100], "gradient": [None, "adjoint"]
        }  # fmt: skip

    @pytest.mark.parametrize(
        "texts, message",
        [
            (["grid"], "expected name=value"),
            (["grid="], "expected name=value"),
            (["gird=3"], "unknown setting 'gird'"),
            (["grid=3,x"], "grid: got 'x', expected an integer"),
            (["grid=3,3"], "expected each value once"),
            (["grid=3", "field.grid=5"], "got --set grid twice"),
            (["seeds=3,5"], "seeds are swept by --seeds"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, texts, message):
        with pytest.raises(UsageError) as caught:
            parse_settings(FIG2.config, texts)
        assert message in str(caught.value) and "\n" not in str(caught.value)


class TestPlan:
    def test_is_the_product_of_settings_and_seeds(self):
        base = changed(FIG2.preset("smoke"), backend="torch")
        plan = make_plan(FIG2, base, {"grid": [3, 5], "training.adam_steps": [1, 2, 4]}, "2")
        assert len(plan.settings) == 6 and len(plan.tasks) == 12 and plan.seeds == (0, 1)
        seen = {(task.setting["grid"], task.setting["training.adam_steps"], task.seed) for task in plan.tasks}
        assert seen == {(grid, steps, seed) for grid in (3, 5) for steps in (1, 2, 4) for seed in (0, 1)}
        for task in plan.tasks:
            training = replace(base.run.training, adam_steps=task.setting["training.adam_steps"])
            config = changed(base, grid=task.setting["grid"], training=training, seeds=1, first_seed=task.seed)
            assert task.config == config and task.id == config_hash("fig2", config)

    def test_the_id_is_that_of_the_tasks_alone(self):
        base = FIG2.preset("smoke")
        plans = [make_plan(FIG2, base, {"grid": [3, 5]}, seeds) for seeds in ("2", "0,1", "3")]
        assert plans[0].id == plans[1].id != plans[2].id
        assert plans[0].folder("r") == Path("r") / "sweeps" / plans[0].id

    def test_without_settings_and_seeds_those_of_the_configuration(self):
        base = changed(FIG2.preset("smoke"), seeds=2, first_seed=4)
        assert [task.seed for task in make_plan(FIG2, base, {}).tasks] == [4, 5]

    def test_an_experiment_without_seeds_has_a_task_per_setting(self):
        fig1 = get_experiment("fig1")
        plan = make_plan(fig1, fig1.preset("smoke"), {"grid": [3, 5]})
        assert [(task.seed, task.config.grid) for task in plan.tasks] == [(None, 3), (None, 5)]
        with pytest.raises(UsageError, match="fig1 has no seeds: leave out --seeds"):
            make_plan(fig1, fig1.preset("smoke"), {}, "3")

    def test_a_setting_that_the_experiment_refuses_is_named(self):
        with pytest.raises(UsageError, match=r"^systems=lorenz: unknown system 'lorenz'"):
            make_plan(FIG2, FIG2.preset("smoke"), {"systems": [("lotka",), ("lorenz",)]}, "1")

    def test_two_tasks_of_one_run_are_refused(self):
        """Where data lie does not count, so that both would write into one folder."""
        fig5 = get_experiment("fig5")
        with pytest.raises(UsageError, match="is the same run as data_dir=a"):
            make_plan(fig5, fig5.preset("smoke"), {"data_dir": [Path("a"), Path("b")]}, "1")

    def test_a_backend_that_depends_on_the_machine_is_refused(self):
        ode = get_experiment("ode")
        with pytest.raises(UsageError, match="add --set backend=torch"):
            make_plan(ode, ode.config(), {"backend": ["auto"]}, "1")
        for base, swept in ((ode.config(), {}), (ode.preset("smoke"), {}), (ode.config(), {"backend": ["torch"]})):
            assert {task.config.run.backend for task in make_plan(ode, base, swept, "1").tasks} == {"torch"}


def test_labels_are_as_typed():
    setting = {"grid": 3, "hidden": (10, 10), "match": None, "fast": True, "empty": ()}
    assert setting_label(setting) == "grid=3, hidden=10,10, match=none, fast=true, empty=()"
    assert setting_label({}) == "as given"
