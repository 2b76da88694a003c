"""Tables of what is reached for which cost, at which tolerance, and beyond the training data."""

from __future__ import annotations

import math
from dataclasses import replace

from kansciml.analysis.paired import UNDECIDED, compare
from kansciml.experiments.ode.anytime.curves import (
    COSTS,
    FIRST,
    LEAD,
    Pair,
    best_so_far,
    leads,
    paired_at_equal,
    pairs,
    ratio_at,
)
from kansciml.experiments.ode.record import OdeRecord
from kansciml.experiments.ode.run_rows import CONVERGED, NOISE, OdeGroup, Run
from kansciml.experiments.ode.tables import LEAST_CONVERGED, extrapolates
from kansciml.reporting.claims import RATIO, Claim, claim_table, in_families
from kansciml.runs.records import Record
from kansciml.runs.tables import Table, format_number

SHARES = (FIRST, 0.1, 1.0)
"""Of the cost of the cheaper training, at which both models are compared."""
Row = tuple[list[object], Claim[OdeGroup]]


def cost_claims(ode: OdeRecord) -> list[tuple[Pair, str, Claim[OdeGroup]]]:
    """That the MLP has the lower loss for what the cheaper of two trainings cost, with the pair and a key of `COSTS`;
    corrected over each kind of cost."""
    found = [(pair, cost) for pair in pairs(ode) for cost in COSTS if pair.known(cost)]
    claims = []
    for pair, cost in found:
        mlp, kan = paired_at_equal(pair, cost)
        outcome = compare(kan, mlp, above=1, text="MLP lower")
        claims.append(Claim(f"equal {COSTS[cost]}", "", pair.kan, pair.mlp, outcome, paper=None))
    return [(*key, claim) for key, claim in zip(found, in_families(claims))]


def anytime_tables(ode: OdeRecord) -> list[Table]:
    """Who leads at which cost and where the curves cross, and claims at equal cost; none where costs are not known."""
    found = cost_claims(ode)
    if not found:
        return []
    rows = [
        [*_about(pair), COSTS[cost], _told(pair, cost), *(ratio_at(pair, cost, s) for s in SHARES)]
        for pair, cost, _ in found
    ]
    columns = ["System", "Comparison", "Cost", "Lower median loss", *(f"KAN / MLP at {100 * s:g} %" for s in SHARES)]
    note = (
        "Training loss, best so far at the tolerance of the moment, median over seeds. Lower median loss: the model"
        f" that leads by a factor of {LEAD:g} or more, and from which cost on. At 1 %, 10 %, 100 %: of the cost of the"
        " cheaper of both, by medians; before 1 % nothing is told. Evaluations: of loss and gradient. Processor"
        " seconds: of the training and, on Julia, its worker. FLOPs: of the network, forward and backward, for each"
        " evaluation of the field by the solver."
    )
    rows_of = [([*_about(pair), COSTS[cost]], claim) for pair, cost, claim in found]
    about = ["System", "Comparison", "Equal"]
    equal = (
        "Losses, seed by seed, for what the cheaper of the two trainings cost in all, whether or not the other goes on."
    )
    return [
        Table("Anytime: who leads at which cost", columns, rows, [note]),
        claim_table("Claim: at equal cost the MLP has the lower training loss", about, RATIO, rows_of, [equal]),
    ]


def tolerance_tables(record: Record, ode: OdeRecord) -> list[Table]:
    """Who ends lower at the first tolerance of a ladder alone, and who after each further one; none without ladder."""
    factors = (1.0, *record.config.get("ladder", ()))
    known = [pair for pair in pairs(ode) if all(len(run.array("rung")) for side in pair.sides for run in side.rows)]
    if len(factors) == 1 or not known:
        return []
    claims = [(pair, k, _ends_on(pair, k, factors)) for k in range(len(factors)) for pair in known]
    outcomes = in_families([claim for *_, claim in claims])
    rows: list[Row] = []
    for (pair, k, _), claim in zip(claims, outcomes):
        done = [sum(_done(run, k) for run in side.rows) / len(side.rows) for side in pair.sides]
        outcome = claim.outcome
        if min(done) < LEAST_CONVERGED and outcome.verdict != UNDECIDED:
            reason = f"not converged: else {outcome.verdict}, {outcome.reason}"
            claim = replace(claim, outcome=replace(outcome, verdict=UNDECIDED, corrected=UNDECIDED, reason=reason))
        cells = [*_about(pair), format_number(record.config["rtol"] * factors[k], 1)]
        ends = [f"{sum(_done(run, k) for run in side.rows)} of {len(side.rows)}" for side in pair.sides]
        rows.append(([*cells, *ends], claim))
    about = ["System", "Comparison", "Tolerance", "MLPs done", "KANs done"]
    note = (
        "Training loss where L-BFGS came to an end at a tolerance, on a plateau or in noise, before it went on at the"
        " next; measured at that tolerance. A training that ended before counts with its last loss. Done: trainings"
        f" that had not reached their cap by then; nothing is decided where less than {100 * LEAST_CONVERGED:g} % of a"
        " side had not."
    )
    return [claim_table("Claim, by tolerance: the MLP ends at a lower training loss", about, RATIO, rows, [note])]


def _ends_on(pair: Pair, k: int, factors: tuple[float, ...]) -> Claim[OdeGroup]:
    mlp, kan = (side.by_seed(lambda run: _loss_on(run, k)) for side in pair.sides)
    outcome = compare(kan, mlp, above=1, text="MLP lower")
    return Claim(f"tolerance {factors[k]:g}", "", pair.kan, pair.mlp, outcome, paper=None)


def _loss_on(run: Run, k: int) -> float:
    """Loss at the end of rung k of the ladder, or of the last one before that the run went to."""
    own = best_so_far(run)[run.array("rung") <= k]
    return math.inf if run.diverged or not len(own) else float(own[-1])


def _done(run: Run, k: int) -> bool:
    return run.rung > k or run.ended in (CONVERGED, NOISE)


SPANS = {"train": "the training span", "test": "later times", "unseen": "unseen initial states"}
"""Where true errors are taken, by the names that a run has of them."""


def span_claims(ode: OdeRecord) -> list[tuple[Pair, str, Claim[OdeGroup]]]:
    """That the MLP errs less, with the pair and a key of `SPANS`; all one family.

    None where no errors at unseen initial states were measured.
    """
    found, claims = [], []
    for pair in pairs(ode):
        for span in SPANS:
            if span in {"train", *pair.system.roles} or (span == "test" and extrapolates(pair.system)):
                name = f"{span}_relative_mse"
                mlp, kan = ({run.seed: run.ranked(name) for run in side.rows} for side in pair.sides)
                if any(map(math.isnan, (*mlp.values(), *kan.values()))):  # data that do not vary
                    continue
                outcome = compare(kan, mlp, above=1, text="MLP lower")
                medians = tuple(side.middle(name) for side in pair.sides)
                claims.append(Claim("true errors", "", pair.kan, pair.mlp, outcome, medians, paper=None))
                found.append((pair, span))
    if not any("unseen" in system.roles for system in ode.systems):
        return []
    return [(*key, claim) for key, claim in zip(found, in_families(claims))]


def generalisation_tables(ode: OdeRecord) -> list[Table]:
    """True errors of MLP and KAN where they were trained and beyond, where unseen initial states were measured."""
    rows: list[Row] = [([*_about(pair), SPANS[span]], claim) for pair, span, claim in span_claims(ode)]
    if not rows:
        return []
    note = (
        "Squared error over the variation of the true states, which carry no noise: 1 is what their mean over time"
        " reaches. Later times: from the end of the training span on. Unseen: from states drawn from the system's box,"
        " over the training span, all together; infinite where one of them could not be solved."
    )
    about, found = ["System", "Comparison", "Errors at"], ["MLP, median", "KAN, median"]
    title = "Claim: the MLP errs less, where it was trained and beyond (relative MSE)"
    return [claim_table(title, about, RATIO, rows, [note], found)]


def _about(pair: Pair) -> list[object]:
    return [pair.system.title, pair.kan.comparison]


def _told(pair: Pair, cost: str) -> str:
    """``KAN, from 3.1e4 MLP``."""
    first, *others = leads(pair, cost)
    return ", ".join([first.model or "alike", *(f"from {format_number(one.begin, 2)} {one.model}" for one in others)])
