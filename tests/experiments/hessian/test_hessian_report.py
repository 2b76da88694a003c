"""The report of ``kansciml hessian``, on made-up spectra."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kansciml._errors import KansciError
from kansciml.experiments.hessian import report as hessian
from kansciml.reporting.style import publication_style
from kansciml.runs.records import Record, load_record, save_record

SIZE = 200


def estimate(value, error=0.0, probes=0, width=0.0):
    return {"value": value, "standard_error": error, "probes": probes, "lower": value - width, "upper": value + width}


def make_record(folder, seeds=2, exact=False, groups=("mlp", "kan-width"), spectra=("plain", "adaptive", "filter")):
    rng = np.random.default_rng(3)
    rows, arrays = [], {}
    for group in groups:
        for seed in range(seeds):
            name, measures = f"lotka.{group}.torch.{seed}", {}
            for spectrum in spectra:
                prefix = "" if spectrum == "plain" else f"{spectrum}_"
                key = f"run.{name}.{spectrum}"
                if exact:
                    arrays[f"{key}.eigenvalues"] = np.sort(rng.normal(size=SIZE) ** 3)
                    top = arrays[f"{key}.eigenvalues"][-1]
                else:
                    arrays[f"{key}.nodes"] = np.sort(np.clip(rng.normal(size=(5, 20)) ** 3, -9, 9), axis=1)
                    arrays[f"{key}.weights"] = rng.dirichlet(np.ones(20), size=5)
                    arrays[f"{key}.locked"] = np.array([50.0, 20.0])
                    top = 50.0
                measures[f"{prefix}top"] = estimate(float(top), 1e-9)
                measures[f"{prefix}trace"] = estimate(70.0, 0.5, 5)
            measures["count_above_0.01"] = estimate(40.0, 1.0, 5, width=10.0)
            measures["count_above_0.1_top"] = estimate(4.0, 1.0, 5)
            content = {
                "loss": 0.1,
                "exact": exact,
                "measures": measures,
                "sampled": {"trace": estimate(71.0, 2.0, 5)} if exact else {},
            }
            rows.append(
                {"name": name, "run": "run", "task": "lotka", "group": group, "label": group.upper(), "seed": seed,
                 "against": None if group == "mlp" else "mlp", "n_parameters": SIZE, "recorded_loss": 0.1,
                 "sharpness": content}
            )  # fmt: skip
    verdict = {"task": "lotka", "group": "kan-width", "label": "KAN-WIDTH", "against": "mlp", "against_label": "MLP",
               "text": "largest eigenvalue", "a": 2.0, "b": 1.0, "ratio": 2.0, "p_value": 0.02, "pairs_sharper": 3,
               "pairs_flatter": 1, "pairs": 4, "n_a": seeds, "n_b": seeds, "reason": "p = 0.02 <= 0.05"}  # fmt: skip
    verdicts = [
        {**verdict, "measure": "top", "spectrum": "plain", "invariant": [], "verdict": "sharper"},
        {**verdict, "measure": "adaptive_top", "spectrum": "adaptive", "invariant": ["layers"], "verdict": "flatter"},
        {**verdict, "measure": "effective_rank", "spectrum": "plain", "invariant": ["loss"], "verdict": ""},
    ]
    result = {"models": rows, "verdicts": verdicts if len(groups) > 1 else []}
    return Record(folder, "hessian", {}, "0" * 12, "finished", result=result, arrays=arrays)


@pytest.mark.parametrize("seeds, exact", [(1, False), (2, False), (1, True), (2, True)])
def test_it_writes_what_it_says_and_the_same_each_time(tmp_path, seeds, exact):
    record = make_record(tmp_path / "record", seeds, exact)
    save_record(record)
    first = hessian.render(record, tmp_path / "a")
    second = hessian.render(load_record(tmp_path / "record"), tmp_path / "b")
    assert sorted(first) == sorted((tmp_path / "a").iterdir())
    assert {path.name for path in first} == {"spectra.svg", "spectra.png", "spectra.pdf", "tables.md", "tables.json"}
    for one, other in zip(first, second):
        assert one.read_bytes() == other.read_bytes(), one.name
    svg = (tmp_path / "a" / "spectra.svg").read_text()
    assert ">eigenvalue</text>" in svg and ">lotka: Hessian H</text>" in svg and "equal width" in svg


def test_a_density_integrates_to_one_and_has_a_spike_where_an_eigenvalue_is_known(tmp_path):
    record = make_record(tmp_path, 1)
    nodes, weights = hessian._source(record, record.result["models"][0], "plain")
    assert weights.sum(1) == pytest.approx(np.ones(5))
    unit = 1e-4
    at = np.linspace(-12, 12, 20001)
    density = hessian._density(nodes, weights, at, unit)
    assert density.sum(1) * (at[1] - at[0]) == pytest.approx(np.ones(5), rel=1e-6)
    above = at > hessian._symlog(np.array(35.0), unit)  # one eigenvalue, 50, lies beyond
    assert density[:, above].sum(1) * (at[1] - at[0]) == pytest.approx(np.full(5, 1 / SIZE), rel=0.2)


def test_a_single_group_and_a_single_spectrum_are_drawn(tmp_path):
    record = make_record(tmp_path, 1, groups=("mlp",), spectra=("plain",))
    with publication_style():
        figure = hessian.spectra(record)
    assert len(figure.axes) == 1 and figure.axes[0].get_yscale() == "log"
    assert len(hessian.tables(record)) == 1


def test_tables_say_which_measure_supports_what(tmp_path):
    *models, verdict = hessian.tables(make_record(tmp_path, 2))
    assert [table.title for table in models][:2] == ["lotka.mlp.torch.0: MLP", "lotka.mlp.torch.1: MLP"]
    cells = {row[0]: row[1] for row in models[0].rows}
    assert cells["trace"] == "70.0 +- 0.50" and cells["largest eigenvalue"] == "50.0"
    assert cells["number > 0.01"] == "40.0 +- 1.0 [30.0, 50.0]" and "number > 0.1 of the largest" in cells
    rows = [dict(zip(verdict.columns, row)) for row in verdict.rows]
    assert [row["Verdict"] for row in rows] == ["sharper", "flatter", "-"]
    assert rows[1]["Unchanged by"] == "layers" and rows[0]["Pairs"] == "3 / 1 of 4"
    assert "sharper by 1 measures, flatter by 1, undecided by 0" in verdict.notes[0]
    assert "leaves unchanged: 0, 1, 0" in verdict.notes[0]


def test_with_all_eigenvalues_the_quadrature_stands_beside_them(tmp_path):
    table = hessian.tables(make_record(tmp_path, 1, exact=True))[0]
    assert table.columns[-1] == "Hessian H, by quadrature" and "all eigenvalues" in table.notes[0]
    assert {row[0]: row[-1] for row in table.rows}["trace"] == "71.0 +- 2.0"


def test_another_record_is_refused_in_one_line(tmp_path):
    with pytest.raises(KansciError, match="holds no result of kansciml hessian"):
        hessian.tables(Record(tmp_path, "ode", {}, "0" * 12, "finished", result={"runs": []}))


def test_the_record_is_json(tmp_path):
    record = make_record(tmp_path, 1)
    assert json.loads(json.dumps(record.to_json()))["result"] == record.result
