"""Findings on what the paper left out: refinement of the grid, and optimisers of higher order."""

from __future__ import annotations

from collections.abc import Sequence

from kansciml.analysis.paired import SUPPORTED
from kansciml.experiments.functions.record import FunctionsRecord
from kansciml.experiments.refine.record import COSTS, OPTIMISERS, Matched, RefineRecord, title
from kansciml.reporting.judging import VERDICT, by_seeds, majority
from kansciml.runs.findings import Finding
from kansciml.runs.records import Record


def findings(record: Record) -> list[Finding]:
    """Whether refinement fits better at equal cost, how parameters grow with the grid, and what L-BFGS changes.

    Raises:
        KansciError: the record holds no trainings.
    """
    found = RefineRecord(FunctionsRecord.read(record))
    made = []
    finest = found.fixed[-1]
    claim = '"[10] progressively refine the grid to improve the fitting of the model" (section 5.1)'
    for how, name in OPTIMISERS.items():
        own = [
            one
            for one in found.matched("Refined or fixed grid", "flops")
            if (one.a, one.b) == (("refined", how), (finest, how))
        ]
        case = f"against {title(finest)} from the start, {COSTS['flops']}, {name}"
        made.append(_finding(found, claim, case, own, ("refined KAN", "fixed grid")))
    claim = '"We don\'t consider optimizers like L-BFGS in our experiments" (section 5.1): KANs against MLPs with it'
    middle = f"fixed-{record.config['middle']}"
    for how, name in OPTIMISERS.items():
        own = [one for one in found.matched("KAN or MLP", "flops") if (one.a, one.b) == ((middle, how), ("mlp", how))]
        made.append(_finding(found, claim, f"{title(middle)}, {COSTS['flops']}, {name}", own, ("KAN", "MLP")))
    return [_growth(found), *made]


def _finding(found: RefineRecord, claim: str, case: str, own: Sequence[Matched], names: tuple[str, str]) -> Finding:
    seeds = found.found.n_seeds
    decided, measured = majority([one.outcome for one in own], *names)
    verdict, short = by_seeds(decided, seeds)
    return Finding(
        item="Section 5.1",
        claim=claim,
        case=case,
        printed="not tried",
        measured=measured,
        verdict=verdict,
        evidence=f"{short}exact signed-rank tests over {seeds} paired seeds, after Holm's correction; a claim stands if"
        " one side wins more than half of the functions; errors when both had cost as much, not where they would end",
        figures=("refine",),
    )


def _growth(found: RefineRecord) -> Finding:
    first = {variant: found.of(found.targets[0], (variant, "lbfgs"))[0] for variant in found.fixed}
    coarse, fine = first[found.fixed[0]], first[found.fixed[-1]]
    ratio = fine.n_parameters / coarse.n_parameters
    return Finding(
        item="Section 5.1",
        claim='"the parameter growth w.r.t. a finer grid prohibitively increases the parameter count" (section 5.1)',
        printed="no number",
        case="that it grows",
        measured=f"{coarse.n_parameters} parameters with {title(found.fixed[0])}, {fine.n_parameters} with"
        f" {title(found.fixed[-1])}: {ratio:.2g} times, linear in G + S + 2",
        verdict=VERDICT[SUPPORTED],
        evidence=f"counted; a forward pass takes {fine.flops / coarse.flops:.2g} times the FLOPs; whether that is"
        " prohibitive is a matter of the errors at equal cost",
        figures=("refine",),
    )
