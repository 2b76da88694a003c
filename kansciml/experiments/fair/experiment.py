"""When is a KAN worth its cost? KANs against MLPs on every task at equal width, parameters, operations and time.

Command: ``kansciml run fair --preset small``.
Beyond the paper, which compares at one width (section 4) and says "comparable" without numbers. Tasks: five systems
learned by neural ODEs, images by an MLP-Mixer, Darcy flow by a weight-tied neural operator. Protocols: equal hidden
widths; KANs shrunk to the MLPs' parameters, or to their operations (`kansciml.analysis.cost`); and equal time, where
the model whose training step is cheaper is given as many more steps as the measured ratio of times says, on a schedule
stretched with them. The operators differ in lift and projection alone.
One seed stands for the same data, order, augmentation and generator of first weights for all models, so losses are
paired by seed: exact signed-rank test, interval of the ratio by its inversion, and Holm's correction over all
comparisons of the tasks' own measures (`kansciml.analysis.paired`). 6 seeds are the least that decide one comparison
at 0.05, 11 the least for 28.
In ``small`` a neural ODE is trained until its best loss fell by less than 1 % over the last fifth of its evaluations,
or for 4000 iterations at a tolerance of 1e-7 (at equal time: the cheaper model for as many more as its steps allow). A
verdict there says who is better by then: KANs have mostly ended, most MLPs have not; ``fig2`` trains them to their end.
Cost on one core: ``smoke`` half a minute; ``small`` 1.2 hours; ``paper`` is for a GPU.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from kansciml._errors import UsageError
from kansciml.experiments.fair.comparisons import comparisons
from kansciml.experiments.fair.config import DARCY, IMAGES, FairConfig
from kansciml.experiments.fair.domain import MLP, Domain, Metric, Pair, equal_time, kan_of, pairs, stored
from kansciml.experiments.fair.findings import findings
from kansciml.experiments.fair.kinds import NeuralOdes, darcy, images
from kansciml.experiments.fair.record import Comparison, FairRecord, FairRun, Side, StepTimes, judged
from kansciml.experiments.fair.report import render, summary
from kansciml.experiments.fno.experiment import SMOKE
from kansciml.experiments.ode.backends import choices, closing_backends, resolve
from kansciml.runs import ranks
from kansciml.runs.config_json import with_settings
from kansciml.runs.experiment import BEYOND, Experiment, Result, RunContext
from kansciml.runs.typed import attributes


def domains(config: FairConfig) -> list[Domain[Any]]:
    """The kinds of tasks that a configuration has: neural ODEs, images, operators."""
    found: list[Domain[Any]] = [NeuralOdes(config, one) for one in config.ode.whole().backends if config.systems]
    return found + [make(config) for task, make in ((IMAGES, images), (DARCY, darcy)) if task in config.tasks]


def check(config: FairConfig) -> None:
    """Raise UsageError for whatever is wrong with a configuration before a folder is made for it."""
    if ranks.size() > 1:
        raise UsageError(f"got {ranks.size()} processes of torchrun: expected one, as neural ODEs start their own")
    for domain in domains(config):
        domain.jobs()


def run(config: FairConfig, context: RunContext) -> Result:
    runs: list[FairRun] = []
    found: list[Comparison] = []
    times: list[StepTimes] = []
    with closing_backends():
        for domain in domains(config):
            own, shown = _train(domain, context, times)
            runs += own
            found += [
                compared(domain, task, pair, metric, own) for task, pair in shown for metric in domain.metrics[task]
            ]
    tasks = tuple(dict.fromkeys(row.task for row in found))
    comparisons = judged(found, config.alpha)
    return FairRecord(config.alpha, tasks, config.layers, comparisons, tuple(times), tuple(runs)).result()


def _train(
    domain: Domain[Any], context: RunContext, times: list[StepTimes]
) -> tuple[list[FairRun], list[tuple[str, Pair]]]:
    """All trainings of a domain, and what is compared on which task; measured times are added to `times`."""
    protocols, jobs, longer = domain.config.protocols, domain.jobs(), []
    runs, arrays = domain.train([job for seeds in jobs.values() for job in seeds], context)
    lines = list(product(domain.titles, domain.layers))
    shown = [(task, pair) for task, layer in lines for pair in pairs(protocols, layer)]
    for task, layer in lines if "time" in protocols else ():
        kans, mlps = jobs[task, kan_of(layer)], jobs[task, MLP]
        path = context.checkpoints / f"step-times.{task}.{layer}.json"
        step = stored(path, partial(domain.step_times, kans, mlps, arrays, context))
        times.append(replace(step, task=task, layer=layer))
        pair = equal_time(layer, step.factor)
        context.log(f"{task}: {_told(step)}")
        shown.append((task, pair))
        cheap, model, times_as_long = (
            (mlps, pair.mlp, step.factor) if step.factor >= 1 else (kans, pair.kan, 1 / step.factor)
        )
        longer += [domain.stretched(job, model, times_as_long) for job in cheap]
    return runs + (domain.train(longer, context)[0] if longer else []), shown


def _told(step: StepTimes) -> str:
    if not step.pairs:
        return "no step could be timed, both models take as many"
    cheaper, factor = ("MLP", step.factor) if step.factor >= 1 else ("KAN", 1 / step.factor)
    return f"the {cheaper} takes {factor:.2f} times as many steps for equal time ({step.clock} clock)"


def compared(domain: Domain[Any], task: str, pair: Pair, metric: Metric, runs: Sequence[FairRun]) -> Comparison:
    """The comparison of two models, of whose trainings `runs` are, before it is `judged`."""
    own = sorted((run for run in runs if run.task == task), key=lambda run: run.seed)
    kans, mlps = ([run for run in own if run.group == model.group] for model in (pair.kan, pair.mlp))
    kan_losses, mlp_losses = (tuple(run.losses[metric.name] for run in side) for side in (kans, mlps))
    return Comparison(
        task=task,
        title=domain.titles[task],
        kind=domain.name,
        layer=pair.layer,
        protocol=pair.protocol,
        adapted=pair.adapted,
        metric=metric.name,
        metric_title=metric.title,
        primary=metric.primary,
        kan=_side(kans),
        mlp=_side(mlps),
        seeds=tuple(run.seed for run in kans),
        kan_losses=kan_losses,
        mlp_losses=mlp_losses,
    )


def _side(runs: Sequence[FairRun]) -> Side:
    first = runs[0]
    return Side(
        **attributes(first, "group label parameters flops"),
        steps=int(statistics.median(run.steps for run in runs)),
        seconds=statistics.median(run.seconds for run in runs),
        n_diverged=sum(run.status != "finished" for run in runs),
    )


NARROW = {
    "training.adam_steps": 1000, "training.lbfgs_steps": 1000, "training.final_learning_rate": 1e-3, "images_patch": 2,
    "images_width": 32, "images_depth": 2, "images_token_hidden": 64, "images_channel_hidden": 128,
    "images_batch_size": 64, "images_epochs": 30,
}  # fmt: skip
"""A mixer of 21,770 parameters."""
SHORT = {
    **NARROW, "tasks": ("lotka", "spiral", IMAGES, DARCY), "seeds": 2, "images_subset": 320, "images_epochs": 2,
    "training.adam_steps": 15, "training.lbfgs_steps": 5,
    **{f"darcy_{name}": value for name, value in (SMOKE | {"projection": 128, "epochs": 2}).items()},
}  # fmt: skip
SMALL = {
    **NARROW, "seeds": 12, "training.lbfgs_steps": 3000, "training.plateau": 0.01, "darcy_subsample": 15,
    "darcy_n_train": 512, "darcy_n_test": 128, "darcy_epochs": 8, "darcy_batch_size": 8, "darcy_learning_rate": 4e-3,
    "darcy_width": 16, "darcy_modes": (8, 8), "darcy_iterations": 2,
}  # fmt: skip
LARGE = {
    "images_dataset": "cifar10", "images_epochs": 100, "images_warmup": 5.0, "images_weight_decay": 5e-5,
    "images_augmentation": "mixer", "images_label_smoothing": 0.1,
}  # fmt: skip

EXPERIMENT = Experiment(
    name="fair",
    title="When is a KAN worth it? KANs against MLPs at equal width, parameters, FLOPs and time, on every task",
    item=BEYOND,
    config=FairConfig,
    presets={
        name: with_settings(FairConfig(), {**own, "backend": "auto"})
        for name, own in (("smoke", SHORT), ("small", SMALL), ("paper", LARGE))
    },
    costs={"small": "an hour and a quarter of one core"},
    run=run,
    render=render,
    summary=summary,
    check=check,
    choices=choices,
    resolve=resolve,
    findings=findings,
    comparisons=comparisons,
    order=100,
    captions={"fair": "Error of the KAN over that of the MLP, by task and by what the two are made equal in."},
)
