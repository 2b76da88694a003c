"""Tables of a neural-ODE experiment: final losses, and a verdict on each of the paper's claims about Figure 2."""

from __future__ import annotations

import math

import numpy as np

from kansciml.analysis.comparison import Comparison, compare_by_factor, compare_losses
from kansciml.experiments.ode.record import OdeGroup, OdeRecord
from kansciml.reporting.claims import VERDICT_NOTE, Claim, claim_table
from kansciml.runs.tables import Table, format_number

KINDS = {
    "": "as given",
    "width": "equal width",
    "params": "equal parameters",
    "unscaled": "unscaled state",
    "tanh": "tanh of the state",
}
"""What the part of a variant's name after its model says, e.g. ``kan-params``."""
INPUT_VARIANTS = ("kan-unscaled", "kan-tanh")
"""KANs that differ from one of the others only in how the state enters the grid; not settings of the paper."""
LOWER_ON = ("lotka", "pleiades", "rigid", "spiral")
"""Pal & Das 2024, Figure 2: systems on which MLPs end at a lower loss."""
NOT_LOWER_ON = ("fitzhugh",)
"""The exception of that figure, "where the difference in final loss is in the order of 10^-10"."""
STRUGGLE_ON = ("pleiades", "spiral")
"""Pal & Das 2024, section 4.1: systems that KANs struggle to fit."""
STRUGGLE_FACTOR = 10.0


OdeClaim = Claim[OdeGroup]
"""That one model of a system, the reference, ends lower than another, the group, or lower by a factor."""


def kind(variant: str) -> str:
    """What is held equal in a comparison with `variant`, e.g. ``"equal parameters"``."""
    variant, _, backend = variant.partition("@")
    suffix = variant.partition("-")[2]
    name = KINDS.get(suffix, suffix)
    return f"{name}, {backend}" if backend else name


def loss_table(ode: OdeRecord) -> Table:
    """Final losses per system and variant, over seeds."""
    rows, diverged = [], []
    for group in ode.groups:
        system = ode.systems[group.task]
        plain, _, backend = group.name.partition("@")
        is_reference = plain == "mlp" and len(ode.of(group.task)) > 1
        errors = [group.middle(), *group.spread(lambda run: run.error), group.middle("train_relative_mse")]
        test = group.middle("test_relative_mse") if system.extrapolates else None
        wall = sum(run.values["wall_s"] for run in group.rows) / len(group.rows)
        reference = f"reference, {backend}" if backend else "reference"
        about = [system.title, group.label, reference if is_reference else kind(group.name)]
        rows.append([*about, group.n_parameters, len(group.rows), *errors, test, wall])
        if group.n_diverged:
            diverged.append(f"{', '.join(about)}: {group.n_diverged} of {len(group.rows)} diverged.")
    notes = [
        "MSE: of the trained models solved again at rtol = atol = 1e-10, median over seeds (a diverged seed counts as"
        " infinite), min and max over those that did not diverge. Relative: squared error over the variation of the"
        " data, pooled over components (of your own data: in standard deviations of each); median. Test: the"
        " extrapolation span. Wall: mean seconds per seed."
    ]
    notes += diverged + _not_computed(ode)
    if ode.n_interrupted:
        notes.append(f"{ode.n_interrupted} interrupted runs are left out.")
    columns = ["System", "Model", "Comparison", "Parameters", "Seeds"]
    columns += ["Train MSE", "min", "max", "Train relative MSE", "Test relative MSE", "Wall (s)"]
    return Table("Final loss", columns, rows, notes)


def _not_computed(ode: OdeRecord) -> list[str]:
    """Which errors runs lack, a line per system and span, with the reason (of the first of them, if they differ)."""
    lines = []
    for system in ode.systems.values():
        runs = [run for group in ode.of(system.name).values() for run in group.rows]
        for span in ("train", "test") if system.extrapolates else ("train",):
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


def lower_claims(ode: OdeRecord) -> list[OdeClaim]:
    """That the MLP ends at a lower train MSE than the KAN, per system and kind of comparison."""
    found = []
    for name, reference, group in _pairs(ode):
        if group.name not in INPUT_VARIANTS:  # those have a claim of their own
            says = "yes" if name in LOWER_ON else "no" if name in NOT_LOWER_ON else None
            found.append(_claim("lower", reference, group, compare_losses(reference.losses(), group.losses()), says))
    return found


def struggle_claims(ode: OdeRecord) -> list[OdeClaim]:
    """That the KAN's relative MSE is `STRUGGLE_FACTOR` times the MLP's, on the systems that KANs are said to struggle
    with."""
    found = []
    for name, reference, group in _pairs(ode):
        undefined = any(math.isnan(side.middle("train_relative_mse")) for side in (reference, group))
        if name in STRUGGLE_ON and not undefined:
            losses, others = (side.losses("train_relative_mse") for side in (reference, group))
            found.append(
                _claim("struggle", reference, group, compare_by_factor(losses, others, STRUGGLE_FACTOR), "yes")
            )
    return found


def scaling_claims(ode: OdeRecord) -> list[OdeClaim]:
    """That a KAN whose state is scaled into its grid ends lower than the same with another input."""
    found = []
    for name in ode.systems:
        groups = ode.of(name)
        for variant in INPUT_VARIANTS:
            scaled = _scaled(groups, variant)
            if scaled is not None:
                outcome = compare_losses(scaled.losses(), groups[variant].losses())
                found.append(_claim("scaling", scaled, groups[variant], outcome, None))
    return found


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
    for title, ratio, claims, note in (
        ("Claim: the MLP ends at a lower train MSE than the KAN", "KAN / MLP", lower_claims(ode), None),
        ("Claim: KANs struggle on this system (train relative MSE)", "KAN / MLP", struggle_claims(ode), factor),
        ("Claim: a KAN ends lower with its state scaled into the grid", "other / scaled", scaling_claims(ode), grid),
    ):
        about = ["System", "Comparison", "Paper"]
        rows = [([ode.systems[one.group.task].title, kind(one.group.name), one.paper], one) for one in claims]
        if rows:
            notes = [text for text in (note, None if tables else test) if text]
            tables.append(claim_table(title, about, [ratio], rows, notes))
    return tables


def backend_tables(ode: OdeRecord) -> list[Table]:
    """What a run on two backends shows: the gates between them, and their final losses as distributions."""
    gates = ode.record.result.get("gates", [])
    if not gates:
        return []
    rows = [
        [gate["model"], gate["number"], gate["quantity"], gate["measured"], gate["allowed"],
         "pass" if gate["passed"] else "FAIL"]
        for gate in gates
    ]  # fmt: skip
    note = "float64, rtol = atol = 1e-10, same parameters in both backends."
    tables = [Table("Torch against Julia", ["Model", "Gate", "Quantity", "Measured", "Allowed", ""], rows, [note])]
    rows = []
    for name in ode.systems:
        groups = ode.of(name)
        for variant, group in groups.items():
            plain, _, backend = variant.partition("@")
            other = groups.get(f"{plain}@julia")
            if backend == "torch" and other is not None:
                both = compare_losses(group.losses(), other.losses())
                told = "differ" if both.verdict != "undecided" else "not told apart"
                rows.append(
                    [ode.systems[name].title, group.label, group.middle(), other.middle(), both.p_value,
                     f"{both.n_a}, {both.n_b}", told]
                )  # fmt: skip
    note = (
        "Trainings part within tens of steps: the two solvers' errors, whose size the tolerance sets, are enlarged by"
        " Adam's first steps (gate 5 measures it). So only the distributions can be compared."
    )
    columns = ["System", "Model", "Torch median train MSE", "Julia median train MSE", "p", "Seeds", "Distributions"]
    return [*tables, Table("Final losses by backend", columns, rows, [note])]


def _claim(name: str, lower: OdeGroup, other: OdeGroup, outcome: Comparison, paper: str | None) -> OdeClaim:
    return Claim(name, "", other, lower, outcome, (outcome.median_ratio,), paper)


def _pairs(ode: OdeRecord) -> list[tuple[str, OdeGroup, OdeGroup]]:
    """System, MLP, KAN, of all KANs that there is an MLP for."""
    pairs = [(name, _reference(ode.of(name), group), group) for name in ode.systems for group in ode.of(name).values()]
    return [(name, reference, group) for name, reference, group in pairs if reference is not None]


def _reference(groups: dict[str, OdeGroup], group: OdeGroup) -> OdeGroup | None:
    """The MLP that a KAN is compared with: the one made for this kind of comparison, or the only one."""
    variant, at, backend = group.name.partition("@")
    model, _, suffix = variant.partition("-")
    if model == "mlp":
        return None
    return groups.get(f"mlp-{suffix}{at}{backend}") or groups.get(f"mlp{at}{backend}")


def _scaled(groups: dict[str, OdeGroup], variant: str) -> OdeGroup | None:
    """The KAN that differs from `variant` in nothing but the scaling of its input; None if either is missing."""
    if variant not in groups:
        return None
    kans = [group for name, group in groups.items() if name.startswith("kan") and name not in INPUT_VARIANTS]
    return next((group for group in kans if group.n_parameters == groups[variant].n_parameters), None)
