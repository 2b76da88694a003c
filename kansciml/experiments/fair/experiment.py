"""When is a KAN worth its cost? KANs against MLPs on every task at equal width, parameters, operations and time.

Command: ``kansciml run fair --preset small``.
Beyond the paper, which compares at one width (section 4) and says "comparable" without numbers. Tasks: five systems
learned by neural ODEs, images by an MLP-Mixer, Darcy flow by a weight-tied neural operator. Protocols: equal hidden
widths; KANs shrunk to the MLPs' parameters, or to their operations (`kansciml.analysis.cost`); MLPs widened to the
KANs'; and equal time, where the model whose training step is cheaper is given as many more steps as the measured ratio
of times says, on a schedule stretched with them. The operators differ in lift and projection alone.
One seed stands for the same data, order, augmentation and generator of first weights for all models, so losses are
paired by seed: exact signed-rank test, interval of the ratio by its inversion, and Holm's correction over all
comparisons of the tasks' own measures (`kansciml.analysis.paired`). 6 seeds are the least that decide one comparison
at 0.05, 11 the least for 20.
Cost: ``smoke`` half a minute on one core; ``small`` 67 minutes on two shared ones; ``paper`` is for a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kansciml._errors import UsageError
from kansciml.experiments.fair.config import DARCY, IMAGES, PROTOCOLS, SYSTEMS, FairConfig
from kansciml.experiments.fair.images import ImagesKind
from kansciml.experiments.fair.kinds import MLP, Kind, Pair, equal_time, groups, of_layer, pairs
from kansciml.experiments.fair.ode import OdeKind
from kansciml.experiments.fair.operators import DarcyKind
from kansciml.experiments.fair.record import Comparison, FairRecord, StepTimes, TaskTimes, Trained
from kansciml.experiments.fair.report import render, summary
from kansciml.experiments.fair.rows import corrected, rows
from kansciml.experiments.fair.step_times import stored
from kansciml.experiments.fno.experiment import SMOKE
from kansciml.runs import ranks
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.training.flat import FlatTraining


def kinds(config: FairConfig) -> list[Kind]:
    """The kinds of tasks that a configuration has, in its order of kinds: neural ODEs, images, operators."""
    found: list[Kind] = [OdeKind(config)] if set(config.tasks) - {IMAGES, DARCY} else []
    found += [ImagesKind(config)] if IMAGES in config.tasks else []
    return found + ([DarcyKind(config)] if DARCY in config.tasks else [])


def layers_of(kind: Kind, config: FairConfig) -> list[str]:
    """The KAN layers that are compared on tasks of a kind."""
    return [layer for layer in config.layers if layer in kind.layers]


def check(config: FairConfig) -> None:
    """Raise UsageError for whatever is wrong with a configuration before a folder is made for it."""
    if ranks.size() > 1:
        raise UsageError(f"got {ranks.size()} processes of torchrun: expected one, as neural ODEs start their own")
    for kind in kinds(config):
        kind.jobs(lambda layer: groups(config, layer))


def run(config: FairConfig, context: RunContext) -> Result:
    trained: list[Trained] = []
    found: list[Comparison] = []
    times: list[TaskTimes] = []
    for kind in kinds(config):
        own, compared = _train(kind, config, context, times)
        trained += own
        for task in kind.tasks:
            found += rows(kind, task, compared[task], own, config.alpha)
    tasks = tuple(dict.fromkeys(row.task for row in found))
    comparisons = tuple(corrected(found, config.alpha))
    return FairRecord(config.alpha, tasks, config.layers, comparisons, tuple(times), tuple(trained)).result()


def _train(
    kind: Kind, config: FairConfig, context: RunContext, times: list[TaskTimes]
) -> tuple[list[Trained], dict[str, list[Pair]]]:
    """All trainings of a kind, and what is compared on each of its tasks; measured times are added to `times`."""
    layers = layers_of(kind, config)
    jobs = kind.jobs(lambda layer: groups(config, layer))
    result, trained = kind.train(jobs, context)
    compared = {task: [pair for layer in layers for pair in pairs(config, layer)] for task in kind.tasks}
    if "time" not in config.protocols:
        return trained, compared
    longer = []
    for task in kind.tasks:
        for layer in layers:
            kans, mlps = (_of(kind, jobs, task, group) for group in (of_layer(layer), MLP))
            path = context.checkpoints / f"step-times.{task}.{layer}.json"
            step = stored(path, lambda kans=kans, mlps=mlps: kind.step_times(kans, mlps, result, context))
            times.append(TaskTimes(**vars(step), task=task, layer=layer))
            context.log(f"{task}: {_told(step)}")
            pair = equal_time(layer, step.factor)
            compared[task].append(pair)
            if pair.mlp != MLP:
                longer += [kind.stretched(job, pair.mlp, step.factor) for job in mlps]
            else:
                longer += [kind.stretched(job, pair.kan, 1 / step.factor) for job in kans]
    return trained + kind.train(longer, context)[1], compared


def _of(kind: Kind, jobs: Sequence[Any], task: str, group: str) -> list[Any]:
    return [job for job in jobs if (kind.task_of(job), kind.group_of(job)) == (task, group)]


def _told(step: StepTimes) -> str:
    if not step.pairs:
        return "no step could be timed, both models take as many"
    cheaper, factor = ("MLP", step.factor) if step.factor >= 1 else ("KAN", 1 / step.factor)
    return f"the {cheaper} takes {factor:.2f} times as many steps for equal time ({step.clock} clock)"


SMALL = {
    "images_patch": 2, "images_width": 32, "images_depth": 2, "images_token_hidden": 64, "images_channel_hidden": 128,
    "images_batch_size": 64, "images_epochs": 30,
}  # fmt: skip
"""A mixer of 21,770 parameters."""

EXPERIMENT = Experiment(
    name="fair",
    title="When is a KAN worth it? KANs against MLPs at equal width, parameters, FLOPs and time, on every task",
    item="Beyond the paper",
    config=FairConfig,
    presets={
        "smoke": FairConfig(
            tasks=("lotka", "spiral", IMAGES, DARCY),
            protocols=PROTOCOLS,
            seeds=2,
            training=FlatTraining(15, final_learning_rate=1e-3, lbfgs_steps=5),
            images_subset=320,
            **SMALL | {"images_epochs": 2},
            **{f"darcy_{name}": value for name, value in (SMOKE | {"projection": 128, "epochs": 2}).items()},
        ),
        "small": FairConfig(
            tasks=(*SYSTEMS, IMAGES, DARCY),
            protocols=PROTOCOLS,
            seeds=6,
            training=FlatTraining(1000, final_learning_rate=1e-3, lbfgs_steps=1000),
            **SMALL,
            darcy_subsample=15,
            darcy_n_train=256,
            darcy_n_test=64,
            darcy_epochs=10,
            darcy_batch_size=8,
            darcy_width=16,
            darcy_modes=(8, 8),
        ),
        "paper": FairConfig(
            images_dataset="cifar10",
            images_epochs=100,
            images_warmup=5.0,
            images_weight_decay=5e-5,
            images_augmentation="mixer",
            images_label_smoothing=0.1,
        ),
    },
    run=run,
    render=render,
    summary=summary,
    check=check,
)
