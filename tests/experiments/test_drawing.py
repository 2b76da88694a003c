"""Pictures of a finished run are drawn until all of them are there, and the run is not repeated for them."""

from dataclasses import dataclass

import pytest

from kansciml import KansciError
from kansciml._files import write_text
from kansciml.runs.experiment import Experiment, Result
from kansciml.runs.records import DamagedRecord
from kansciml.runs.runner import run_experiment
from kansciml.runs.tables import Table

NAMES = ("tables.md", "first.svg", "second.svg")


@dataclass(frozen=True)
class Config:
    seeds: int = 1


class Demo:
    """An experiment that counts its runs and drawings, and may stop a drawing after one file."""

    def __init__(self):
        self.runs = self.drawings = 0
        self.stop = None

    def run(self, config, context):
        self.runs += 1
        return Result({"runs": [{"loss": 1.0}]})

    def render(self, record, folder):
        self.drawings += 1
        paths = []
        for name in NAMES:
            paths.append(write_text(folder / name, f"{record.result['runs'][0]['loss']}"))
            if self.stop is not None:
                raise self.stop
        return paths

    def experiment(self):
        return Experiment(
            name="demo", title="", item="", config=Config, presets={}, run=self.run, render=self.render,
            summary=lambda record: Table("demo", ["loss"], [[record.result["runs"][0]["loss"]]]),
        )  # fmt: skip


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), KansciError("cannot write: No space left")])
def test_a_drawing_that_was_stopped_is_finished_by_the_next_command(tmp_path, stop):
    demo = Demo()
    record = run_experiment(demo.experiment(), Config(), results=tmp_path, log=list().append)
    demo.stop = stop
    with pytest.raises(type(stop)):
        demo.experiment().draw(record)
    assert [path.name for path in record.folder.glob("*.svg")] == [] and (record.folder / "tables.md").exists()
    demo.stop = None
    for _ in range(2):
        record = run_experiment(demo.experiment(), Config(), results=tmp_path, log=list().append)
        assert [path.name for path in demo.experiment().draw(record)] == list(NAMES)
    assert demo.runs == 1 and demo.drawings == 2  # the second of the two found them all


def test_one_that_is_gone_is_drawn_again_and_a_new_run_has_new_ones(tmp_path):
    demo = Demo()
    record = run_experiment(demo.experiment(), Config(), results=tmp_path, log=list().append)
    demo.experiment().draw(record)
    (record.folder / "second.svg").unlink()
    demo.experiment().draw(record)
    assert demo.drawings == 2 and (record.folder / "second.svg").exists()
    again = run_experiment(demo.experiment(), Config(), results=tmp_path, force=True, log=list().append)
    assert not list(again.folder.glob("*.svg"))
    demo.experiment().draw(again)
    assert demo.drawings == 3 and demo.runs == 2


def test_a_row_without_a_number_names_its_record(tmp_path):
    demo = Demo()
    record = run_experiment(demo.experiment(), Config(), results=tmp_path, log=list().append)
    record.result["runs"][0].clear()
    for show in (demo.experiment().draw, demo.experiment().tables):
        with pytest.raises(DamagedRecord, match=r"record.json is damaged .*demo has: no 'loss'"):
            show(record)
