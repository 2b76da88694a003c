"""The report of ``kansciml hessian``, on made-up spectra."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.hessian_records import estimate, measured, quadrature

from kansciml.experiments.hessian import report as hessian
from kansciml.experiments.hessian.record import HessianRecord
from kansciml.reporting.style import publication_style
from kansciml.runs.records import DamagedRecord, Record, load_record, save_record

SIZE = 200
TOP = 50.0
LARGER = {"mlp": {}, "kan-width": {"plain": 1.0, "adaptive": -1.0}}
"""By what the largest eigenvalues of a group are larger."""


def make_record(folder, seeds=2, exact=False, groups=("mlp", "kan-width"), spectra=("plain", "adaptive", "filter")):
    rng = np.random.default_rng(3)
    models, arrays = [], {}
    for group in groups:
        for seed in range(seeds):
            name, measures = f"lotka.{group}.torch.{seed}", {}
            for spectrum in spectra:
                prefix, key = "" if spectrum == "plain" else f"{spectrum}_", f"run.{name}.{spectrum}"
                if exact:
                    arrays[f"{key}.eigenvalues"] = np.sort(rng.normal(size=SIZE) ** 3)
                else:
                    arrays |= quadrature(key, rng, TOP, locked=2, probes=5)
                    arrays[f"{key}.nodes"] = np.clip(arrays[f"{key}.nodes"], -9, 9)
                measures[f"{prefix}top"] = estimate(TOP + LARGER[group].get(spectrum, 0), 1e-9, 0)
                measures[f"{prefix}trace"] = estimate(70.0, 0.5, 5)
            measures["effective_rank"] = estimate(3.0)
            measures["count_above_0.01"] = estimate(40.0, 1.0, 5, half=10.0)
            measures["count_above_0.1_top"] = estimate(4.0, 1.0, 5)
            sampled = {"trace": estimate(71.0, 2.0, 5)} if exact else {}
            models.append(
                measured(name, "lotka", group, group.upper(), seed, SIZE, measures, exact=exact, sampled=sampled)
            )
    result = HessianRecord(tuple(models), arrays).to_result()
    return Record(folder, "hessian", {}, "0" * 12, "finished", result=result.result, arrays=result.arrays)


@pytest.mark.parametrize("seeds, exact", [(1, False), (2, True)])
def test_it_writes_what_it_says_and_the_same_each_time(tmp_path, seeds, exact):
    record = make_record(tmp_path / "record", seeds, exact)
    save_record(record)
    first = hessian.render(record, tmp_path / "a")
    second = hessian.render(load_record(tmp_path / "record"), tmp_path / "b")
    assert sorted(first) == sorted((tmp_path / "a").iterdir())
    assert {path.name for path in first} == {"spectra.svg", "tables.md", "tables.json"}
    for one, other in zip(first, second):
        assert one.read_bytes() == other.read_bytes(), one.name
    svg = (tmp_path / "a" / "spectra.svg").read_text()
    assert ">eigenvalue</text>" in svg and ">lotka: Hessian H</text>" in svg and "equal width" in svg


def test_a_density_integrates_to_one_and_has_a_spike_where_an_eigenvalue_is_known(tmp_path):
    found = HessianRecord.read(make_record(tmp_path, 1))
    nodes, weights = found.spectrum(found.models[0], "plain")
    assert weights.sum(1) == pytest.approx(np.ones(5))
    unit = 1e-4
    at = np.linspace(-12, 12, 20001)
    density = hessian.density(nodes, weights, at, unit)
    assert density.sum(1) * (at[1] - at[0]) == pytest.approx(np.ones(5), rel=1e-6)
    above = at > hessian.symlog(np.array(35.0), unit)  # one eigenvalue, 50, lies beyond
    assert density[:, above].sum(1) * (at[1] - at[0]) == pytest.approx(np.full(5, 1 / SIZE), rel=0.2)


def test_a_single_group_and_a_single_spectrum_are_drawn(tmp_path):
    record = make_record(tmp_path, 1, groups=("mlp",), spectra=("plain",))
    with publication_style():
        figure = hessian.spectra(HessianRecord.read(record))
    assert len(figure.axes) == 1 and figure.axes[0].get_yscale() == "log"
    assert len(hessian.tables(record)) == 1


def test_tables_say_which_measure_supports_what_before_and_after_the_correction(tmp_path):
    record = make_record(tmp_path, 10)
    *models, verdict = hessian.tables(record)
    assert [table.title for table in models][:2] == ["lotka.mlp.torch.0: MLP", "lotka.mlp.torch.1: MLP"]
    cells = {row[0]: row[1] for row in models[0].rows}
    assert cells["trace"] == "70.0 +- 0.50" and cells["largest eigenvalue"] == "50.0"
    assert cells["eigenvalues > 0.01"] == "40.0 +- 1.0 [30.0, 50.0]" and "eigenvalues > 0.1 of the largest" in cells
    rows = {(row["Measure"], row["Of"]): row for row in (dict(zip(verdict.columns, row)) for row in verdict.rows)}
    plain, adaptive = (rows["largest eigenvalue", of] for of in ("Hessian H", "adaptive, |w| H |w|"))
    assert [row["Verdict"] for row in (plain, adaptive)] == ["sharper", "flatter"]
    assert plain["After Holm"] == "sharper" and plain["p"] == 2 / 2**10 and plain["p after Holm"] == 8 * 2 / 2**10
    assert [plain[name] for name in ("Difference", "from", "to")] == pytest.approx([1, 1, 1])
    assert adaptive["Unchanged by"] == "layers" and plain["Pairs"] == "10 / 0 of 10"
    rank = next(row for (text, _), row in rows.items() if "rank" in text)
    assert (rank["Verdict"], rank["After Holm"], rank["p after Holm"], rank["Why"]) == ("-", "-", None, "")
    assert "is sharper than MLP by 1 measures, flatter by 1, undecided by 6" in verdict.notes[0]
    assert "leaves unchanged: 0, 1, 3" in verdict.notes[0] and "2 of these verdicts stand" in verdict.notes[0]
    told = {(row["measure"], row["verdict"], row["corrected"]) for row in record.result["verdicts"]}
    assert {("top", "sharper", "sharper"), ("adaptive_top", "flatter", "flatter")} <= told


def test_single_models_are_compared_by_their_own_errors_alone(tmp_path):
    verdict = hessian.tables(make_record(tmp_path, 1))[-1]
    assert "p" not in verdict.columns and "After Holm" not in verdict.columns
    assert {row[-2] for row in verdict.rows} == {"sharper", "flatter", "undecided", "-"}


def test_with_all_eigenvalues_the_quadrature_stands_beside_them(tmp_path):
    table = hessian.tables(make_record(tmp_path, 1, exact=True))[0]
    assert table.columns[-1] == "Hessian H, by quadrature" and "all eigenvalues" in table.notes[0]
    assert {row[0]: row[-1] for row in table.rows}["trace"] == "71.0 +- 2.0"


def test_another_record_is_refused_in_one_line(tmp_path):
    with pytest.raises(DamagedRecord, match="it lacks what a run of ode has"):
        hessian.tables(Record(tmp_path, "ode", {}, "0" * 12, "finished", result={"runs": []}))


def test_what_is_written_is_json_and_comes_back(tmp_path):
    record = make_record(tmp_path, 1)
    assert json.loads(json.dumps(record.to_json()))["result"] == record.result
    again = HessianRecord.read(record).to_result()
    assert again.result == record.result and again.arrays.keys() == record.arrays.keys()
