"""The report of a neural-ODE experiment, on a made-up record."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from kansciml.experiments.ode import figures as ode_figures
from kansciml.experiments.ode import paths as ode_paths
from kansciml.experiments.ode.record import OdeRecord, unshown
from kansciml.experiments.ode.report import render, summary
from kansciml.reporting.style import publication_style
from kansciml.runs.archive import without_arrays
from kansciml.runs.records import DamagedRecord, load_record, save_record


def set_errors(record, system, variant, errors):
    """Give the seeds of one group these train MSEs, and half of each as relative MSE."""
    runs = [run for run in record.result["runs"] if (run["system"], run["variant"]) == (system, variant)]
    for run, error in zip(runs, errors, strict=True):
        run["train_mse"], run["train_relative_mse"] = error, None if error is None else error / 2


def rows(record, title):
    """Rows of the table whose title contains `title`, by system and comparison."""
    (table,) = [table for table in summary(record) if title in table.title]
    return {(row["System"], row["Comparison"]): row for row in table.to_json()["rows"]}


class TestRender:
    def test_one_run_writes_what_it_says(self, make_record, tmp_path):
        paths = render(make_record(tmp_path, ("lotka",), ("kan-width",), seeds=1), tmp_path)
        assert sorted(paths) == sorted(tmp_path.iterdir())
        stems = {path.stem for path in paths}
        assert stems == {"tables", "loss_curves", "phase_portraits", "trajectories_lotka", "errors_lotka"}
        svg = (tmp_path / "trajectories_lotka.svg").read_text()
        for text in ("Lotka-Volterra", "prey x", "time t (dimensionless)", "KAN, equal width", "training span"):
            assert f">{text}</text>" in svg

    def test_a_record_read_back_gives_the_same_bytes(self, make_record, tmp_path):
        """Also: nothing but the record is read, drawing twice is repeatable, and what is not packed is not drawn."""
        record = make_record(tmp_path / "record", ("spiral",), ("kan-params",), seeds=2)
        left_out = unshown(record)
        assert {name.partition("seed")[2][1:] for name in left_out} == {".trajectory"} and len(left_out) == 1
        save_record(without_arrays(record, left_out))
        first = render(record, tmp_path / "a")
        second = render(load_record(tmp_path / "record"), tmp_path / "b")
        assert [path.name for path in first] == [path.name for path in second]
        for one, other in zip(first, second):
            assert one.read_bytes() == other.read_bytes(), one.name

    def test_all_systems_with_diverged_runs(self, make_record, tmp_path):
        paths = render(make_record(tmp_path, seeds=2), tmp_path)
        assert {path.stem for path in paths} >= {"final_losses", "orbits_pleiades", "trajectories_pleiades"}
        tables = json.loads((tmp_path / "tables.json").read_text())
        assert [table["title"].split(":")[0] for table in tables] == ["Final loss", *["Claim"] * 4]

    def test_unknown_truth(self, make_record, tmp_path):
        record = make_record(tmp_path, ("rigid",), ("mlp",), seeds=1, truth=False)
        render(record, tmp_path)
        svg = (tmp_path / "trajectories_rigid.svg").read_text()
        assert ">data</text>" in svg and ">truth</text>" not in svg and ">training span</text>" not in svg
        assert summary(record)[0].to_json()["rows"][0]["Test relative MSE"] is None

    def test_every_seed_diverged_at_once(self, make_record, tmp_path):
        """No loss, no error, no trajectory: still a picture of the truth and a table that says so."""
        record = make_record(
            tmp_path, ("lotka",), ("mlp",), seeds=2, diverged=(("lotka", "mlp", 0), ("lotka", "mlp", 1))
        )
        set_errors(record, "lotka", "mlp", [None, None])
        arrays = {name: array for name, array in record.arrays.items() if ".mlp." not in name}
        record = replace(record, arrays=arrays)
        assert len(render(record, tmp_path)) == 6
        table = summary(record)[0]
        assert table.rows[0][5] == math.inf and "MLP 2-50-2, as given: 2 of 2 diverged." in " ".join(table.notes)

    @pytest.mark.parametrize("result", [{}, {"systems": {}, "runs": []}, {"systems": 3, "runs": None}])
    def test_record_of_something_else(self, make_record, tmp_path, result):
        with pytest.raises(DamagedRecord, match="holds no finished run|lacks what a run"):
            summary(replace(make_record(tmp_path, ("lotka",), ("mlp",), 1), result=result))


class TestCurves:
    def group(self, make_record, tmp_path, losses, diverged=()):
        record = make_record(
            tmp_path, ("lotka",), ("mlp",), len(losses), diverged=[("lotka", "mlp", seed) for seed in diverged]
        )
        for seed, loss in enumerate(losses):
            record.arrays[f"lotka.mlp.seed{seed}.loss"] = np.array(loss)
            record.arrays[f"lotka.mlp.seed{seed}.iteration"] = np.arange(len(loss))
        return OdeRecord.read(record).groups[0]

    def test_a_finished_run_keeps_its_last_loss(self, make_record, tmp_path):
        group = self.group(make_record, tmp_path, [[8.0, 4.0], [9.0, 3.0, 1.0]])
        grid, losses = ode_figures.on_one_grid(list(group.rows))
        np.testing.assert_array_equal(grid, [0, 1, 2])
        np.testing.assert_array_equal(losses, [[8, 4, 4], [9, 3, 1]])

    def test_a_diverged_run_ends_and_ranks_worst(self, make_record, tmp_path):
        group = self.group(make_record, tmp_path, [[8.0, 0.1], [9.0, 3.0, 1.0], [9.0, 5.0, 2.0]], diverged=[0])
        _, losses = ode_figures.on_one_grid(list(group.rows))
        np.testing.assert_array_equal(np.median(losses, axis=0), [9, 3, 2])

    def test_losses_without_a_logarithm_are_not_drawn(self, make_record, tmp_path):
        group = self.group(make_record, tmp_path, [[8.0, np.nan, 0.0, 2.0]])
        grid, losses = ode_figures.on_one_grid(list(group.rows))
        np.testing.assert_array_equal(grid, [0, 3])
        np.testing.assert_array_equal(losses, [[8, 2]])

    def test_the_picture_is_of_the_seed_with_the_median_error(self, make_record, tmp_path):
        record = make_record(tmp_path, ("lotka",), ("mlp",), 4, diverged=(("lotka", "mlp", 2),))
        set_errors(record, "lotka", "mlp", [3e-5, 1e-5, 1e-9, 2e-5])
        assert OdeRecord.read(record).groups[0].representative.id == "lotka.mlp.seed3"


class TestComponents:
    def test_small_systems_show_all_and_many_bodies_the_first_and_last(self, make_record, tmp_path):
        rigid, pleiades = OdeRecord.read(make_record(tmp_path, ("rigid", "pleiades"), ("mlp",), 1)).systems
        assert ode_paths.shown_components(rigid) == [0, 1, 2]
        assert ode_paths.shown_components(pleiades) == [0, 7, 6, 13]
        assert rigid.bodies == [] and len(pleiades.bodies) == 7

    def test_limits_follow_the_truth_not_a_runaway_extrapolation(self, make_record, tmp_path):
        record = make_record(tmp_path, ("lotka",), ("mlp",), 1)
        record.arrays["lotka.mlp.seed0.trajectory"][100:] = 1e9
        ode = OdeRecord.read(record)
        with publication_style():
            axes = ode_paths.trajectories(ode, *ode.systems).axes[0]
        assert max(np.abs(axes.get_ylim())) < 10


@pytest.mark.parametrize("systems", [("lotka",), ("lotka", "spiral"), ("lotka", "spiral", "rigid")])
def test_legends_and_notes_fit_into_their_figure(make_record, tmp_path, systems):
    variants = ("mlp", "kan-width", "kan-params", "kan-unscaled", "kan-tanh")
    ode = OdeRecord.read(make_record(tmp_path, systems, variants, seeds=2, diverged=(("lotka", "mlp", 0),)))
    for draw in (ode_figures.loss_curves, ode_figures.final_losses, ode_paths.phase_portraits):
        with publication_style():
            figure = draw(ode)
            figure.canvas.draw()
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert 0 <= box.x0 and box.x1 <= figure.bbox.x1, draw.__name__


class TestLossTable:
    def test_the_mlp_comes_first_whatever_the_order_of_the_record(self, make_record, tmp_path):
        record = make_record(tmp_path, ("lotka",), ("kan-unscaled", "rswaf", "kan-params", "mlp"), seeds=1)
        variants = ["mlp", "kan-params", "kan-unscaled", "rswaf"]
        ode = OdeRecord.read(record)
        assert [group.name for group in ode.groups] == variants

    def test_median_counts_diverged_seeds_as_infinite(self, make_record, tmp_path):
        record = make_record(tmp_path, ("lotka",), ("mlp",), 5, diverged=(("lotka", "mlp", 0), ("lotka", "mlp", 1)))
        set_errors(record, "lotka", "mlp", [1e-9, 1e-9, 3e-5, 1e-5, 2e-5])
        (row,) = summary(record)[0].to_json()["rows"]
        assert (row["Train MSE"], row["min"], row["max"], row["Train relative MSE"]) == (3e-5, 1e-5, 3e-5, 1.5e-5)
        assert (row["Seeds"], row["Parameters"], row["Wall (s)"]) == (5, 252, 14.5)

    def test_interrupted_runs_are_left_out_and_counted(self, make_record, tmp_path):
        record = make_record(tmp_path, ("lotka",), ("mlp",), 3, interrupted=(("lotka", "mlp", 2),))
        table = summary(record)[0]
        assert table.rows[0][4] == 2 and "1 interrupted runs are left out." in table.notes

    def test_says_what_is_held_equal(self, make_record, tmp_path):
        table = summary(make_record(tmp_path, ("lotka",), seeds=1))[0]
        assert [row[2] for row in table.rows] == ["reference", "equal width", "equal parameters", "unscaled state"]


class TestVerdicts:
    LOW, HIGH = [1e-6 * k for k in range(1, 9)], [1e-4 * k for k in range(1, 9)]

    def record(self, make_record, tmp_path, **errors):
        record = make_record(tmp_path, ("fitzhugh", "spiral"), ("mlp", *errors), seeds=8)
        for system in ("fitzhugh", "spiral"):
            for variant, values in {"mlp": self.LOW, **errors}.items():
                set_errors(record, system, variant, values)
        return record

    def test_lower_loss_per_kind_of_comparison(self, make_record, tmp_path):
        record = self.record(
            make_record, tmp_path, **{"kan-width": [loss / 10 for loss in self.LOW], "kan-params": self.HIGH}
        )
        verdicts = rows(record, "MLP ends at a lower")
        assert verdicts["Spiral", "equal width"]["Verdict"] == "refuted"
        row = verdicts["Spiral", "equal parameters"]
        assert (row["Verdict"], row["After Holm"], row["Paper"], row["Seeds"]) == ("supported", "supported", "yes", 8)
        assert (row["p"], row["p after Holm"]) == (2 / 256, 4 * 2 / 256)
        assert [row[name] for name in ("KAN / MLP", "from", "to")] == pytest.approx([100] * 3)
        assert verdicts["FitzHugh-Nagumo", "equal parameters"]["Paper"] == "no"

    def test_struggling_takes_ten_times_the_error_and_is_claimed_of_the_spiral_only(self, make_record, tmp_path):
        record = self.record(
            make_record, tmp_path, **{"kan-width": [loss + 5e-6 for loss in self.LOW], "kan-params": self.HIGH}
        )
        verdicts = rows(record, "struggle")
        assert {key: row["Verdict"] for key, row in verdicts.items()} == {
            ("Spiral", "equal width"): "refuted",
            ("Spiral", "equal parameters"): "supported",
        }

    def test_grid_range_effect_compares_with_the_scaled_kan_of_the_same_size(self, make_record, tmp_path):
        record = self.record(
            make_record,
            tmp_path,
            **{"kan-width": self.LOW, "kan-params": [1.0] * 8, "kan-unscaled": self.HIGH, "kan-tanh": self.LOW},
        )
        row = rows(record, "scaled into the grid")["Spiral", "unscaled state"]
        assert row["Verdict"] == "supported" and row["other / scaled"] == pytest.approx(100)
        assert rows(record, "scaled into the grid")["Spiral", "tanh of the state"]["Verdict"] == "undecided"
        assert ("Spiral", "unscaled state") not in rows(record, "MLP ends at a lower")

    def test_a_layer_of_the_users_own_is_compared_in_a_table_of_its_own(self, make_record, tmp_path):
        record = self.record(make_record, tmp_path, **{"kan-width": self.LOW, "rswaf": self.HIGH})
        for run in record.result["runs"]:
            run["model"] = {"rswaf": "lux"}.get(run["variant"], "")
        row = rows(record, "a layer of Lux of your own")["Spiral", "RSWAF 2-50-2"]
        assert (row["Verdict"], row["Paper"], row["layer / MLP"]) == ("supported", None, pytest.approx(100))
        assert set(rows(record, "than the KAN")) == {(s, "equal width") for s in ("Spiral", "FitzHugh-Nagumo")}
        assert set(rows(record, "struggle")) == {("Spiral", "equal width")}

    def test_too_few_seeds_are_undecided(self, make_record, tmp_path):
        record = make_record(tmp_path, ("lotka",), ("mlp", "kan-params"), seeds=1)
        row = rows(record, "MLP ends at a lower")["Lotka-Volterra", "equal parameters"]
        assert row["Verdict"] == "undecided" and "take 6 seeds" in row["Why"]

    def test_one_model_gets_no_verdict(self, make_record, tmp_path):
        assert [table.title for table in summary(make_record(tmp_path, ("lotka",), ("mlp",)))] == ["Final loss"]

    def test_a_kan_that_always_diverges_loses(self, make_record, tmp_path):
        record = self.record(make_record, tmp_path, **{"kan-width": [None] * 8})
        row = rows(record, "MLP ends at a lower")["Spiral", "equal width"]
        assert (row["Verdict"], row["KAN / MLP"]) == ("supported", None)


def test_two_backends_are_told_apart_and_compared(make_record, tmp_path):
    record = make_record(tmp_path, ("lotka",), ("mlp", "kan-params"), seeds=8)
    for run in record.result["runs"]:  # as a run with --backend both names them
        run["backend"], run["seed"] = ("torch", "julia")[run["seed"] % 2], run["seed"] // 2
        run["variant"] += f"@{run['backend']}"
        run["wall_s"] = {"torch": 30.0, "julia": 12.0}[run["backend"]]
        own = {"torch": 1.0, "julia": 1.0 + 1e-7 * (run["seed"] + 1)}[run["backend"]]
        iterations = record.arrays[f"{run['id']}.iteration"]
        record.arrays[f"{run['id']}.loss"] = np.where(iterations == 0, 2.0, own * np.exp(-0.01 * iterations))
    gate = {"number": 1, "quantity": "loss", "measured": 1e-12, "allowed": 1e-9, "passed": True, "pair": "a / b"}
    record.result["gates"] = [{"system": "lotka", "model": "MLP 2-50-2", **gate}]
    losses, lower, gates, backends = summary(record)
    told = [row[2] for row in losses.rows]
    assert told == [f"{what}, {on}" for what in ("reference", "equal parameters") for on in ("torch", "julia")]
    assert [row[1] for row in lower.rows] == told[2:]
    assert gates.rows[0][-1] == "pass" and gates.rows[0][0] == "lotka"
    for row in (dict(zip(backends.columns, values)) for values in backends.rows):
        assert (row["Start"], row["20 steps"]) == (0, pytest.approx(4e-7, rel=1e-6))  # the largest over the seeds
        assert (row["Seeds"], row["After Holm"]) == (4, "not told apart")
        assert (row["Torch (s)"], row["Julia (s)"]) == (30.0, 12.0)
    ode = OdeRecord.read(record)
    with publication_style():
        legend = ode_figures.loss_curves(ode).legends[0]
    assert {text.get_text() for text in legend.get_texts()} >= {"MLP (Torch)", "KAN, equal parameters (Julia)"}


def test_trainings_that_were_not_finished_decide_nothing(make_record, tmp_path):
    """A verdict on where trainings end needs four in five of each side on a plateau; records of before do not know."""
    for ended, verdict in ((None, "supported"), (("converged",) * 8, "supported"), (("capped",) * 2, "undecided")):
        record = make_record(tmp_path / str(ended), ("lotka",), ("mlp", "kan-params"), seeds=8)
        for run in record.result["runs"] if ended else ():
            run["ended"] = "converged"
            if run["model"] == "kan" and run["seed"] < len(ended):
                run["ended"] = ended[run["seed"]]
        losses, lower = summary(record)
        row = dict(zip(lower.columns, lower.rows[0]))
        assert row["Verdict"] == row["After Holm"] == verdict
        if ended and "capped" in ended:
            assert row["Why"].startswith("not converged: 6 of 8 of KAN")
            assert [dict(zip(losses.columns, one))["Converged"] for one in losses.rows] == ["8 of 8", "6 of 8"]


def test_the_noise_floor_of_a_ladder_is_an_end_and_that_of_one_tolerance_is_none(make_record, tmp_path):
    for rung, verdict in ((2, "supported"), (0, "undecided")):
        record = make_record(tmp_path / str(rung), ("lotka",), ("mlp", "kan-params"), seeds=8)
        for run in record.result["runs"]:
            run["ended"], run["rung"] = "at the noise floor" if run["seed"] < 2 else "converged", rung
        losses, lower = summary(record)
        row = dict(zip(lower.columns, lower.rows[0]))
        assert row["Verdict"] == verdict
        first = dict(zip(losses.columns, losses.rows[0]))
        assert (first["Converged"], first["Floor"]) == ("6 of 8", 2 if rung else 0)
