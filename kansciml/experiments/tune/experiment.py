"""Tunes MLP and KAN neural ODEs with the same number of trials each, and compares them tuned and untuned.

Command: ``kansciml tune --system lotka --trials 24``.
Beyond the paper, which compares untuned models. Every trial is a set of depth, learning rate, scaling of the state and,
of an MLP, activation, of a KAN, grid intervals, order and range; its hidden layers are as wide as the parameters of the
untuned MLP allow. It is trained with some seeds and scored by its error on trajectories from other initial states. The
best settings of each model, and the default ones, are then trained with other seeds and compared on trajectories that
neither training nor tuning has seen.
Cost on one core: ``smoke`` 10 s; ``small`` (16 trials of each model; until the best loss fell by less than 1 % over the
last fifth of the evaluations, or for 2000 iterations) 450 trainings of about 3 s, 25 minutes; ``paper`` days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kansciml._errors import UsageError, check_names
from kansciml.experiments.ode.backends import choices, closing_backends, resolve
from kansciml.experiments.ode.config import RunConfig, SystemConfig
from kansciml.experiments.ode.jobs import Job, Plan
from kansciml.experiments.ode.runs import run_jobs
from kansciml.experiments.ode.scores import SCORING
from kansciml.experiments.tune.choice import Choice
from kansciml.experiments.tune.comparisons import comparisons
from kansciml.experiments.tune.record import TUNED, Trial, best
from kansciml.experiments.tune.report import render, summary
from kansciml.experiments.tune.search import ROUND, Search
from kansciml.experiments.tune.space import allowed, field_for, optuna, trained_by
from kansciml.models.field_spec import MODELS
from kansciml.models.hybrid_spec import Spec
from kansciml.runs.archive import with_parts
from kansciml.runs.experiment import BEYOND, Experiment, Result, RunContext
from kansciml.runs.settings import part
from kansciml.runs.typed import write
from kansciml.tasks.ode.problem import FieldSizes
from kansciml.tasks.ode.registry import file_fingerprints
from kansciml.tasks.ode.system import System

HISTORY = ("iteration", "loss", "phase", "evaluations", "rung", "cpu_s", "flops")
"""Columns of the trainings' histories."""
SYSTEMS = ("lotka", "fitzhugh", "rigid", "spiral")
TRIAL_SEED = 1000
"""The first seed of trials; those of the models at the end begin at 0."""


@dataclass(frozen=True)
class TuneConfig:
    """Settings of `kansciml tune`: the trials of each model, and the trainings at the end."""

    systems: tuple[str, ...] = ()
    """Several systems, in place of --system."""
    trials: int = 24
    """Settings tried of each model on each system, the default ones among them."""
    trial_seeds: int = 2
    """Seeds that each trial is trained with."""
    search_seed: int = 0
    """Seed of the search."""
    system: SystemConfig = part(SystemConfig(trajectories=4, validation_trajectories=4, test_trajectories=8))
    sizes: FieldSizes = part(FieldSizes())
    run: RunConfig = part(RunConfig.of_steps(1000, 2000, 12))

    def __post_init__(self) -> None:
        for name, value in (("trials", self.trials), ("trial_seeds", self.trial_seeds)):
            if value < 1:
                raise UsageError(f"got {name} {value}: expected at least 1")
        if self.systems:
            check_names("system", self.systems)
        if self.systems and self.system.data is not None:
            raise UsageError("got systems and data: expected one of the two")
        if self.run.backend == "both":
            raise UsageError("got backend both: tune takes one, torch, julia or auto")
        if self.run.seeds + self.run.first_seed > TRIAL_SEED:
            raise UsageError(f"got seeds up to {self.run.seeds + self.run.first_seed}: expected less than {TRIAL_SEED}")
        default = Choice()
        for name, given, own in (
            ("learning_rate", self.run.training.learning_rate, default.learning_rate),
            ("grid", self.sizes.grid, default.grid),
            ("spline_order", self.sizes.spline_order, default.spline_order),
        ):
            if given != own:
                raise UsageError(f"got {name} {given:g}: trials choose it, leave it at {own:g}")
        if not self.system.validation_trajectories:
            raise UsageError("got no validation_trajectories: trials are scored by the error on them, so give some")

    @property
    def sources(self) -> list[SystemConfig]:
        """Where the systems are read from."""
        return [replace(self.system, system=name) for name in self.systems] or [self.system]

    def inputs(self) -> list[str]:
        """What systems' files define: the data that they read count, not only their text."""
        return file_fingerprints([source.source for source in self.sources])

    def job(self, source: SystemConfig, variant: str, spec: Spec, choice: Choice, system: System, seed: int) -> Job:
        """One training with the settings of a choice."""
        return Job(source, variant, spec, seed, self.run.backend, trained_by(self.run.suited_to(system), choice))


def plan(config: TuneConfig) -> Plan:
    """The models at their defaults: what is known before trials. Raises UsageError for whatever is wrong."""
    optuna()
    return _final(config, {})


def _final(config: TuneConfig, chosen: dict[tuple[SystemConfig, str], Choice]) -> Plan:
    """The trainings at the end, with the default settings and, where others were chosen, with these."""
    found = Plan.of(config.sources, lambda system: _fields(config, system, {}), config.run)
    jobs = []
    for source, system in found.systems.items():
        tuned = {model: chosen[source, model] for model in MODELS if (source, model) in chosen}
        for variant, spec in _fields(config, system, tuned).items():
            choice = tuned[variant.removesuffix(TUNED)] if variant.endswith(TUNED) else Choice()
            seeds = range(config.run.first_seed, config.run.first_seed + config.run.seeds)
            jobs += [config.job(source, variant, spec, choice, system, seed) for seed in seeds]
    return replace(found, jobs=jobs)


def _fields(config: TuneConfig, system: System, tuned: dict[str, Choice]) -> dict[str, Spec]:
    most, found = allowed(system, config.sizes), {}
    wanted = {model: Choice() for model in MODELS} | {model + TUNED: choice for model, choice in tuned.items()}
    for variant, choice in wanted.items():
        field = field_for(system, variant.removesuffix(TUNED), choice, most)
        if field is None:
            raise UsageError(
                f"{system.name}: {most} parameters give no {variant} of 2 hidden units: set a larger --hidden"
            )
        found[variant] = field
    return found


def run(config: TuneConfig, context: RunContext) -> Result:
    apart = replace(context, folder=context.folder / "trials")
    systems: dict[SystemConfig, System] = context.plan.systems
    searches = {
        (source, model): Search(system.name, model, config.search_seed)
        for source, system in systems.items()
        for model in MODELS
    }
    with closing_backends():
        for done in range(0, config.trials, ROUND):
            asked = {key: one.ask(min(ROUND, config.trials - done)) for key, one in searches.items()}
            context.log(
                f"trials {done + 1} to {done + len(next(iter(asked.values())))} of {config.trials} of each model"
            )
            for key, tried in _tried(config, systems, asked, apart).items():
                searches[key].tell(tried)
        for one in searches.values():
            was, now = one.trials[0], best(one.trials)
            context.log(
                f"{one.system}, {one.model}: validation error {was.score:.3g} by default, {now.score:.3g} with"
                f" {now.choice.said(one.model)}"
            )
        chosen = {key: best(one.trials).choice for key, one in searches.items() if best(one.trials).number}
        result = run_jobs(_final(config, chosen), context)
    result.result["trials"] = [write(trial) for one in searches.values() for trial in one.trials]
    return result


def _tried(
    config: TuneConfig,
    systems: Mapping[SystemConfig, System],
    asked: Mapping[tuple[SystemConfig, str], Sequence[Trial]],
    context: RunContext,
) -> dict[tuple[SystemConfig, str], list[Trial]]:
    """The trials with their errors; all seeds of all of them are trained together."""
    jobs: dict[Trial, list[Job]] = {}
    found: dict[tuple[SystemConfig, str], list[Trial]] = {}
    for (source, model), trials in asked.items():
        system = systems[source]
        found[source, model] = []
        for trial in trials:
            spec = field_for(system, model, trial.choice, allowed(system, config.sizes))
            if spec is not None:
                trial = replace(trial, label=spec.label(), n_parameters=spec.n_parameters)
                seeds = range(TRIAL_SEED, TRIAL_SEED + config.trial_seeds)
                name = f"{model}-{trial.number:02d}"
                jobs[trial] = [config.job(source, name, spec, trial.choice, system, seed) for seed in seeds]
            found[source, model].append(trial)
    plan = Plan([job for own in jobs.values() for job in own], systems)
    finished = [row for row in run_jobs(plan, context).result["runs"] if row["status"] == "finished"]
    rows = {row["id"]: row["validation_relative_mse"] for row in finished}
    return {
        key: [replace(one, errors=tuple(rows.get(job.id) for job in jobs.get(one, ()))) for one in trials]
        for key, trials in found.items()
    }


EXPERIMENT = Experiment(
    name="tune",
    title="Tuned with equally many trials: neural ODEs with KANs against MLPs, depth, learning rate, grid and all",
    item=BEYOND,
    config=TuneConfig,
    presets={
        "smoke": TuneConfig(trials=2, trial_seeds=1, run=RunConfig.of_steps(20, 10, 2)),
        "small": TuneConfig(SYSTEMS, 16, run=replace(RunConfig.to_plateau(500, 1500, 12), ladder=())),
        "paper": TuneConfig((*SYSTEMS, "pleiades"), 100, 3, run=RunConfig.of_steps(5000, 20000, 20)),
    },
    costs={"small": "25 minutes of one core"},
    unshown=with_parts(*HISTORY, "line", "slopes", "trajectory"),
    run=run,
    render=render,
    summary=summary,
    check=plan,
    choices=choices,
    resolve=resolve,
    scoring=SCORING,
    comparisons=comparisons,
    order=101,
    captions={
        "tuned": "Errors on unseen trajectories of models at their default settings and tuned: one mark per seed, bar"
        " at the median.",
        "search": "Validation error of each trial, and the lowest one so far.",
    },
)
