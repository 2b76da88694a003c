"""Tables of a neural-ODE experiment: final losses, and a verdict on each of the paper's claims about Figure 2."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, replace

import numpy as np

from kansciml.analysis.comparison import UNDECIDED, Comparison, compare_by_factor, compare_losses
from kansciml.experiments.ode.record import OdeRecord, OdeSystem
from kansciml.experiments.ode.run_rows import COMPARISONS, OdeGroup
from kansciml.reporting.claims import VERDICT_NOTE, Claim, claim_table
from kansciml.runs.tables import Table, format_number

INPUT_VARIANTS = ("kan-unscaled", "kan-tanh")
"""KANs that differ from one of the others only in how the state enters the grid; not settings of the paper."""
LOWER_ON = ("lotka", "pleiades", "rigid", "spiral")
"""Pal & Das 2024, Figure 2: systems on which MLPs end at a lower loss."""
NOT_LOWER_ON = ("fitzhugh",)
"""The exception of that figure, "where the difference in final loss is in the order of 10^-10"."""
STRUGGLE_ON = ("pleiades", "spiral")
"""Pal & Das 2024, section 4.1: systems that KANs struggle to fit."""
STRUGGLE_FACTOR = 10.0
LEAST_CONVERGED = 0.8
"""Share of each side's trainings that must have ended on a plateau, or at the noise floor of a ladder's last tolerance,
for a verdict on where they end."""


@dataclass(frozen=True)
class OdeClaim(Claim[OdeGroup]):
    """That one model of a system, the reference, ends lower than another, the group, or lower by a factor."""

    system: OdeSystem = field(kw_only=True)


def loss_table(ode: OdeRecord) -> Table:
    """Final losses per system and variant, over seeds."""
    rows, diverged = [], []
    ends = any(group.converged is not None for group in ode.groups)
    kinds = [kind for kind in ("validation", "unseen") if any(kind in system.roles for system in ode.systems)]
    for system in ode.systems:
        for group in system.groups:
            is_reference = group.variant == "mlp" and len(system.groups) > 1
            about = [system.title, group.label, group.said("reference") if is_reference else group.comparison]
            errors = [group.middle(), *group.range(), group.middle("train_relative_mse")]
            test = group.middle("test_relative_mse") if _extrapolates(system) else None
            held = [group.middle(f"{kind}_relative_mse") if kind in system.roles else None for kind in kinds]
            wall = sum(run.wall_s for run in group.rows) / len(group.rows)
            told = (
                [None, None] if group.converged is None else [f"{group.converged} of {len(group.rows)}", group.at_floor]
            )
            rows.append([*about, group.n_parameters, len(group.rows), *told[: 2 * ends], *errors, test, *held, wall])
            if group.n_diverged:
                diverged.append(f"{', '.join(about)}: {group.n_diverged} of {len(group.rows)} diverged.")
    notes = [
        "MSE: of the trained models solved again at rtol = atol = 1e-10, median over seeds (a diverged seed counts as"
        " infinite), min and max over those that did not diverge. Relative: squared error over the variation of the"
        " data, pooled over components (of your own data: in standard deviations of each); median. Test: the"
        " extrapolation span."
        + " Validation, unseen: trajectories that were not trained on."
        * bool(kinds)
        + " Converged: seeds whose training ended on a plateau of its loss. Floor: where even at the last tolerance of"
        " the ladder the solver's noise hides whether it can be lower." * ends + " Wall: mean seconds per seed."
    ]
    notes += diverged + _not_computed(ode)
    if ode.n_interrupted:
        notes.append(f"{ode.n_interrupted} interrupted runs are left out.")
    columns = ["System", "Model", "Comparison", "Parameters", "Seeds", *["Converged", "Floor"][: 2 * ends]]
    columns += ["Train MSE", "min", "max", "Train relative MSE", "Test relative MSE"]
    columns += [f"{kind.capitalize()} relative MSE" for kind in kinds] + ["Wall (s)"]
    return Table("Final loss", columns, rows, notes)


def estimate_tables(ode: OdeRecord) -> list[Table]:
    """What the parameters of known terms were estimated at; no table where none are."""
    rows = []
    for system in ode.systems:
        for group in system.groups:
            runs = [run for run in group.rows if not run.diverged]
            for name in runs[0].estimates if runs else ():
                values = [run.estimates[name] for run in runs]
                about = [system.title, group.label, group.comparison, name, len(values)]
                rows.append([*about, float(np.median(values)), min(values), max(values)])
    columns = ["System", "Model", "Comparison", "Parameter", "Seeds", "Median", "min", "max"]
    note = "Of the known terms, over the seeds that did not diverge. The network may stand in for what they miss."
    return [Table("Estimated parameters", columns, rows, [note])] if rows else []


def _extrapolates(system: OdeSystem) -> bool:
    """Whether one of the trajectories that are trained on goes on beyond its training span."""
    return any(one.role == "train" and one.end > one.train_end for one in system.series)


def _not_computed(ode: OdeRecord) -> list[str]:
    """Which errors runs lack, a line per system and span, with the reason (of the first of them, if they differ)."""
    lines = []
    for system in ode.systems:
        runs = [run for group in system.groups for run in group.rows]
        held = [kind for kind in ("validation", "unseen") if kind in system.roles]
        for span in ("train", *["test"] * _extrapolates(system), *held):
            failed = [run for run in runs if f"{span}_mse" in run.not_computed]
            undefined = [run for run in runs if run not in failed and f"{span}_relative_mse" in run.not_computed]
            for name, lacking in ((f"{span}_mse", failed), (f"{span}_relative_mse", undefined)):
                reasons = [run.not_computed[name] for run in lacking]
                if lacking:
                    first = f"{lacking[0].id}: " if len(set(reasons)) > 1 else ""
                    what = name.replace("_", " ").replace("mse", "MSE")
                    count = f"{len(lacking)} of {len(runs)} runs"
                    lines.append(f"{system.title}: {what} of {count} not computed: {first}{reasons[0]}.")
            if undefined:
                median = float(np.median([run.metric(f"{span}_mse") for run in undefined]))
                lines[-1] += f" Their {span} MSE, median: {format_number(median)}."
    return lines


def claims(ode: OdeRecord) -> list[OdeClaim]:
    """What the seeds say of each claim, per system and kind of comparison.

    Their names: ``lower``, that the MLP ends at a lower train MSE than the KAN; ``struggle``, that the KAN's relative
    MSE is `STRUGGLE_FACTOR` times the MLP's, on the systems that KANs are said to struggle with; ``scaling``, that a
    KAN whose state is scaled into its grid ends lower than one of the same size with another input.
    """
    found = []
    for system in ode.systems:
        mlps = {group.first.backend: group for group in system.groups if group.variant == "mlp"}
        for group in system.groups:
            mlp = None if group.variant == "mlp" else mlps.get(group.first.backend)
            if mlp is not None and group.variant not in INPUT_VARIANTS:  # those have a claim of their own
                says = "yes" if system.name in LOWER_ON else "no" if system.name in NOT_LOWER_ON else None
                found.append(_claim("lower", system, mlp, group, compare_losses(mlp.losses(), group.losses()), says))
            if mlp is not None and system.name in STRUGGLE_ON:
                low, high = (side.losses("train_relative_mse") for side in (mlp, group))
                if not np.isnan([*low, *high]).any():
                    outcome = compare_by_factor(low, high, STRUGGLE_FACTOR)
                    found.append(_claim("struggle", system, mlp, group, outcome, "yes"))
            scaled = next(
                (one for one in system.groups if group.variant in INPUT_VARIANTS and _alike(one, group)), None
            )
            if scaled is not None:
                outcome = compare_losses(scaled.losses(), group.losses())
                found.append(_claim("scaling", system, scaled, group, outcome, None))
    return found


def _alike(one: OdeGroup, group: OdeGroup) -> bool:
    """Whether `one` is the KAN that differs from `group` in nothing but the scaling of its input."""
    kan = one.variant.startswith("kan") and one.variant not in INPUT_VARIANTS
    return kan and one.n_parameters == group.n_parameters


def verdict_tables(ode: OdeRecord) -> list[Table]:
    """One table per claim, with a verdict per system and kind of comparison. Nothing to compare, no table."""
    test = (
        f"{VERDICT_NOTE} Ratios are of medians. Cliff's delta: -1 if every seed of the model claimed to be lower is"
        " lower, 1 if none is. Paper: whether Pal & Das (2024, Figure 2 and section 4.1) claim it; a dash where they"
        " say nothing."
    )
    factor = (
        f"Supported if the KAN's median relative MSE is at least {STRUGGLE_FACTOR:g} times the MLP's and the difference"
        f" is significant; refuted if it is significantly less than {STRUGGLE_FACTOR:g} times; undecided otherwise."
    )
    grid = "Beyond its grid a spline fades to zero over S knots; base branch and hidden layer may make up for it."
    tables: list[Table] = []
    for name, title, ratio, note in (
        ("lower", "Claim: the MLP ends at a lower train MSE than the KAN", "KAN / MLP", None),
        ("struggle", "Claim: KANs struggle on this system (train relative MSE)", "KAN / MLP", factor),
        ("scaling", "Claim: a KAN ends lower with its state scaled into the grid", "other / scaled", grid),
    ):
        own = [claim for claim in claims(ode) if claim.name == name]
        rows = [([claim.system.title, claim.group.comparison, claim.paper], claim) for claim in own]
        if rows:
            notes = [text for text in (note, None if tables else test) if text]
            tables.append(claim_table(title, ["System", "Comparison", "Paper"], [ratio], rows, notes))
    return tables


EARLY_STEPS = 20
"""Optimiser steps after which the losses of two backends are compared seed by seed."""


def backend_tables(ode: OdeRecord) -> list[Table]:
    """Torch against Julia: the gates, the losses at the start, early and at the end, and the times of both."""
    tables = []
    if ode.gates:
        rows = [
            [
                gate.system,
                gate.model,
                gate.number,
                gate.quantity,
                gate.measured,
                gate.allowed,
                "pass" if gate.passed else "FAIL",
            ]
            for gate in ode.gates
        ]
        note = "float64, rtol = atol = 1e-10, same parameters in both backends."
        columns = ["System", "Model", "Gate", "Quantity", "Measured", "Allowed", ""]
        tables.append(Table("Torch against Julia: gates", columns, rows, [note]))
    trainings: list[list[object]] = []
    for system in ode.systems:
        on_julia = {group.variant: group for group in system.groups if group.first.backend == "julia"}
        for group in system.groups:
            if group.first.backend == "torch" and group.variant in on_julia:
                other = on_julia[group.variant]
                both = compare_losses(group.losses(), other.losses())
                told = "differ" if both.verdict != "undecided" else "not told apart"
                early = [_apart(group, other, step) for step in (0, EARLY_STEPS)]
                seconds = [statistics.median(run.wall_s for run in side.rows) for side in (group, other)]
                end: list[object] = [group.middle(), other.middle(), both.p_value, f"{both.n_a}, {both.n_b}", told]
                how = COMPARISONS.get(group.variant, group.variant)
                trainings.append([system.title, group.label, how, *early, *end, *seconds])
    if trainings:
        note = (
            f"Start, {EARLY_STEPS} steps: largest relative difference of the training losses of the same seed. Later on"
            " trainings part: the two solvers' errors, whose size the tolerance sets, are enlarged by the optimiser"
            " (gate 5 measures it), so that only the distributions can be compared. Seconds: of a training, median."
        )
        columns = [
            "System",
            "Model",
            "Comparison",
            "Start",
            f"{EARLY_STEPS} steps",
            "Torch train MSE",
            "Julia train MSE",
            "p",
            "Seeds",
        ]
        columns += ["Distributions", "Torch (s)", "Julia (s)"]
        tables.append(Table("Torch against Julia: trainings", columns, trainings, [note]))
    return tables


def _apart(group: OdeGroup, other: OdeGroup, step: int) -> float | None:
    """Largest relative difference of the losses at a step between runs of the same seed; None where none is known."""
    losses = [
        {run.seed: loss for run in side.rows if (loss := run.loss_at(step)) is not None} for side in (group, other)
    ]
    return max((abs(losses[1][seed] / loss - 1) for seed, loss in losses[0].items() if seed in losses[1]), default=None)


def _claim(
    name: str, system: OdeSystem, lower: OdeGroup, other: OdeGroup, outcome: Comparison, paper: str | None
) -> OdeClaim:
    """The claim; undecided where too many trainings of either side were not finished, if the record knows."""
    sides = [side for side in (lower, other) if side.converged is not None]
    ends = [(side.label, (side.converged or 0) + side.at_floor, len(side.rows)) for side in sides]
    short = [f"{count} of {of} of {label}" for label, count, of in ends if count < LEAST_CONVERGED * of]
    if short and outcome.verdict != UNDECIDED:
        where = "on a plateau" + " or at the last noise floor" * any(side.at_floor for side in sides)
        reason = f"not converged: {' and '.join(short)} ended {where}; else {outcome.verdict}, {outcome.reason}"
        outcome = replace(outcome, verdict=UNDECIDED, reason=reason)
    return OdeClaim(name, "", other, lower, outcome, (outcome.median_ratio,), paper, system=system)
