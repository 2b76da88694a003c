"""Tables of a neural-ODE experiment: final losses, and a verdict on each of the paper's claims about Figure 2."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, replace

import numpy as np

from kansciml.analysis.paired import DIFFERENCE, UNDECIDED, Comparison, compare, corrected
from kansciml.experiments.ode.record import OdeRecord, OdeSystem
from kansciml.experiments.ode.run_rows import COMPARISONS, OWN, OdeGroup, Run
from kansciml.reporting.claims import RATIO, Claim, claim_table, in_families
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
LIMIT = 10**-9.5
"""Of the difference on FitzHugh-Nagumo, "in the order of 10^-10": up to half an order more counts as that."""
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
            test = group.middle("test_relative_mse") if extrapolates(system) else None
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


def extrapolates(system: OdeSystem) -> bool:
    """Whether one of the trajectories that are trained on goes on beyond its training span."""
    return any(one.role == "train" and one.end > one.train_end for one in system.series)


def _not_computed(ode: OdeRecord) -> list[str]:
    """Which errors runs lack, a line per system and span, with the reason (of the first of them, if they differ)."""
    lines = []
    for system in ode.systems:
        runs = [run for group in system.groups for run in group.rows]
        held = [kind for kind in ("validation", "unseen") if kind in system.roles]
        for span in ("train", *["test"] * extrapolates(system), *held):
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
    """What the seeds say of each claim, per system and kind of comparison; after Holm's correction per name.

    Their names: ``lower``, that the MLP ends at a lower train MSE than the KAN; ``own``, than a layer of the user's;
    ``close``, that the two differ by less than `LIMIT`, on the system of which that is said; ``struggle``, that the
    KAN's relative MSE is `STRUGGLE_FACTOR` times the MLP's, on the systems that KANs are said to struggle with;
    ``scaling``, that a KAN whose state is scaled into its grid ends lower than one of the same size with another input.
    Effects: KAN / MLP, KAN - MLP of ``close``, layer / MLP, and other / scaled.
    """
    found = []
    for system in ode.systems:
        mlps = {group.first.backend: group for group in system.groups if group.variant == "mlp"}
        for group in system.groups:
            mlp = None if group.variant == "mlp" else mlps.get(group.first.backend)
            own = group.first.model == OWN
            if mlp is not None and group.variant not in INPUT_VARIANTS:  # those have a claim of their own
                says = "yes" if system.name in LOWER_ON else "no" if system.name in NOT_LOWER_ON else None
                outcome = compare(group.by_seed(), mlp.by_seed(), above=1, text="MLP lower")
                name, says = ("own", None) if own else ("lower", says)
                found.append(OdeClaim(name, "", group, mlp, outcome, paper=says, system=system))
                if says == "no":
                    sides = group.by_seed(), mlp.by_seed()
                    outcome = compare(*sides, above=-LIMIT, below=LIMIT, scale=DIFFERENCE, text="so close")
                    found.append(OdeClaim("close", "", group, mlp, outcome, system=system))
            if mlp is not None and system.name in STRUGGLE_ON and not own:
                high, low = (side.by_seed(_relative) for side in (group, mlp))
                if not np.isnan([*low.values(), *high.values()]).any():
                    text = f"{STRUGGLE_FACTOR:g} times as high"
                    outcome = compare(high, low, above=STRUGGLE_FACTOR, text=text)
                    found.append(OdeClaim("struggle", "", group, mlp, outcome, system=system))
            scaled = next(
                (one for one in system.groups if group.variant in INPUT_VARIANTS and _alike(one, group)), None
            )
            if scaled is not None:
                outcome = compare(group.by_seed(), scaled.by_seed(), above=1, text="scaled lower")
                found.append(OdeClaim("scaling", "", group, scaled, outcome, paper=None, system=system))
    return [replace(claim, outcome=_finished(claim)) for claim in in_families(found)]


def _relative(run: Run) -> float:
    return run.ranked("train_relative_mse")


def _alike(one: OdeGroup, group: OdeGroup) -> bool:
    """Whether `one` is the KAN that differs from `group` in nothing but the scaling of its input."""
    kan = one.variant.startswith("kan") and one.variant not in INPUT_VARIANTS
    return kan and one.n_parameters == group.n_parameters


def verdict_tables(ode: OdeRecord) -> list[Table]:
    """One table per claim, with a verdict per system and kind of comparison. Nothing to compare, no table."""
    paper = "Paper: whether Pal & Das (2024, Figure 2 and section 4.1) claim it; a dash where they say nothing."
    finished = (
        f"Nothing is decided where less than {100 * LEAST_CONVERGED:g} % of a side's trainings ended on a plateau, or"
        " at the noise floor of the last tolerance of a ladder."
    )
    grid = "Beyond its grid a spline fades to zero over S knots; base branch and hidden layer may make up for it."
    tables: list[Table] = []
    found = claims(ode)
    for name, title, effect, notes in (
        ("lower", "Claim: the MLP ends at a lower train MSE than the KAN", RATIO, [paper, finished]),
        ("own", "Claim: the MLP ends at a lower train MSE than a layer of Lux of your own", "layer / MLP", []),
        ("close", f"Claim: the train MSEs differ by less than {LIMIT:.1e}", "KAN - MLP", []),
        ("struggle", f"Claim: KANs struggle (train relative MSE {STRUGGLE_FACTOR:g} times the MLP's)", RATIO, []),
        ("scaling", "Claim: a KAN ends lower with its state scaled into the grid", "other / scaled", [grid]),
    ):
        own = [claim for claim in found if claim.name == name]
        about = [claim.group.label if name == "own" else claim.group.comparison for claim in own]
        rows = [([claim.system.title, what, claim.paper], claim) for what, claim in zip(about, own)]
        if rows:
            tables.append(claim_table(title, ["System", "Comparison", "Paper"], effect, rows, notes))
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
    outcomes: list[Comparison] = []
    for system in ode.systems:
        on_julia = {group.variant: group for group in system.groups if group.first.backend == "julia"}
        for group in system.groups:
            if group.first.backend == "torch" and group.variant in on_julia:
                other = on_julia[group.variant]
                outcomes.append(compare(group.by_seed(), other.by_seed(), above=1))
                early = [_apart(group, other, step) for step in (0, EARLY_STEPS)]
                seconds = [statistics.median(run.wall_s for run in side.rows) for side in (group, other)]
                how = COMPARISONS.get(group.variant, group.variant)
                trainings.append([system.title, group.label, how, *early, group.middle(), other.middle(), *seconds])
    for row, one in zip(trainings, corrected(outcomes)):
        told = "not told apart" if one.corrected == UNDECIDED else "differ"
        row[-2:-2] = [one.effect, one.low, one.high, one.p_value, one.adjusted_p, one.n_pairs, told]
    if trainings:
        note = (
            f"Start, {EARLY_STEPS} steps: largest relative difference of the training losses of the same seed. Later on"
            " trainings part: the two solvers' errors, whose size the tolerance sets, are enlarged by the optimiser"
            " (gate 5 measures it), so that only where they end can be compared: in pairs of one seed (signed-rank"
            " test, Holm's correction over this table). Seconds: of a training, median."
        )
        columns = [
            "System",
            "Model",
            "Comparison",
            "Start",
            f"{EARLY_STEPS} steps",
            "Torch train MSE",
            "Julia train MSE",
        ]
        columns += ["Torch / Julia", "from", "to", "p", "p after Holm", "Seeds", "After Holm", "Torch (s)", "Julia (s)"]
        tables.append(Table("Torch against Julia: trainings", columns, trainings, [note]))
    return tables


def _apart(group: OdeGroup, other: OdeGroup, step: int) -> float | None:
    """Largest relative difference of the losses at a step between runs of the same seed; None where none is known."""
    losses = [
        {run.seed: loss for run in side.rows if (loss := run.loss_at(step)) is not None} for side in (group, other)
    ]
    return max((abs(losses[1][seed] / loss - 1) for seed, loss in losses[0].items() if seed in losses[1]), default=None)


def _finished(claim: OdeClaim) -> Comparison:
    """The outcome; undecided where too many trainings of either side were not finished, if the record knows."""
    outcome, sides = claim.outcome, [side for side in (claim.reference, claim.group) if side.converged is not None]
    ends = [(side.label, (side.converged or 0) + side.at_floor, len(side.rows)) for side in sides]
    short = [f"{count} of {of} of {label}" for label, count, of in ends if count < LEAST_CONVERGED * of]
    if not short or outcome.verdict == UNDECIDED:
        return outcome
    where = "on a plateau" + " or at the last noise floor" * any(side.at_floor for side in sides)
    reason = f"not converged: {' and '.join(short)} ended {where}; else {outcome.verdict}, {outcome.reason}"
    return replace(outcome, verdict=UNDECIDED, corrected=UNDECIDED, reason=reason)
