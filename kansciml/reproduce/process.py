"""Runs one experiment in a process of its own, so that its peak memory, and its end for lack of it, are its own."""

from __future__ import annotations

from pathlib import Path

from kansciml._errors import KansciError
from kansciml._workers import call_in_process


def run_in_own_process(name: str, preset: str, results: Path) -> None:
    """Run or resume preset `preset` of experiment `name` in the folder `results`, and draw its pictures.

    Raises:
        KansciError: why it failed, or how its process ended.
        KeyboardInterrupt: after the run has saved its state.
    """
    failure = call_in_process(run_and_draw, [name, preset, str(results)])
    if failure:
        raise KansciError(failure)


def run_and_draw(arguments: list[str]) -> str:
    """What `run_in_own_process` asks for, in the process itself; why it failed, or empty."""
    from kansciml.runs.registry import get_experiment
    from kansciml.runs.runner import run_experiment

    name, preset, results = arguments
    try:
        experiment = get_experiment(name)
        experiment.draw(run_experiment(experiment, experiment.preset(preset), results=results))
    except KeyboardInterrupt:
        return "interrupted"
    except Exception as error:  # whatever an experiment can raise: the others go on, and the page says it
        return str(error) if isinstance(error, KansciError) else f"{type(error).__name__}: {error}"
    return ""
