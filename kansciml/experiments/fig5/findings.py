"""Findings of Figure 5: neural operators for Darcy flow with MLPs and with KANs, with and without residual."""

from __future__ import annotations

from kansciml.experiments.fno.record import FnoRecord, OperatorGroup
from kansciml.experiments.fno.report import HELPS as RESIDUAL_HELPS
from kansciml.experiments.fno.report import claims
from kansciml.reporting.claims import Claim, effect_text
from kansciml.reporting.judging import NO_NUMBER, diverged, judged, listed, resized, shortfalls
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import format_number

ITEM = "Figure 5"
MODEL = "fno-wt"
AT_LEAST = {"epochs": 500, "size": 85, "n_train": 1024, "n_test": 500}
"""Recipe of the source that the paper cites for its operators; it prints none."""
TRAINED = 0.02
"""Median test error of the MLPs without residual connections at which a smaller run decides the claims too."""
STEP_AT_LEAST = {"size": 85, "batch_size": 32}
"""What of it the memory of a step depends on, beside the network."""
GPU_GB = 16.0
"""Of the V100 of Figure 4."""
WITHOUT = '"KANs performing slightly worse compared to MLPs without residual connections" (section 4.3, Figure 5)'
WITH = '"in the presence of residual connections, KANs do outperform MLPs" (section 4.3, Figure 5)'
HELPS = '"The presence of residual connections provides a minor improvement to KAN performance" (Figure 5)'


def findings(record: Record) -> list[Finding]:
    """What a run says about both claims on residual connections, and about the feasibility of training KANs."""
    fno = FnoRecord.read(record)
    found = [_error(fno, claim) for claim in claims(fno) if claim.paper is not None]
    # the paper says it of KANs with residual connections, where it finds them better
    worse = [fno.without_residual(group) for group in fno.groups]
    said = [group for group in fno.groups if group.first.variant != "mlp" and group not in worse]
    return found + [_feasible(fno, group) for group in said]


def _error(fno: FnoRecord, claim: Claim[OperatorGroup]) -> Finding:
    group, other = claim.group, claim.reference
    helps = claim.name == RESIDUAL_HELPS
    names = ("with", "without") if helps else ("KAN", "MLP")
    smaller = _smaller(fno, group)
    verdict, evidence = judged(claim, _model(group) + ([] if _trained(fno, group) else smaller))
    if smaller and _trained(fno, group):
        evidence += f". Smaller than the source, with an error of at most {TRAINED:g}: {listed(smaller)}"
    lost = diverged({name: (side.n_diverged, len(side.rows)) for name, side in zip(names, (group, other))})
    return Finding(
        item=ITEM,
        claim=HELPS if helps else WITH if group.first.residual else WITHOUT,
        case=_where(fno, group),
        printed=NO_NUMBER,
        measured="test relative L2, median (lowest to highest seed): "
        + ", ".join(f"{name} {_spread(side)}" for name, side in zip(names, (group, other)))
        + f"; {' / '.join(names)} {effect_text(claim.outcome)}{lost}",
        verdict=verdict,
        evidence=evidence + f". Parameters {group.first.parameters:,} against {other.first.parameters:,}",
        figures=_pictures(fno, group),
    )


def _feasible(fno: FnoRecord, group: OperatorGroup) -> Finding:
    """Whether steps of the source's size were trained within the paper's memory; smaller ones do not decide it."""
    peaks = [row.peak_memory_mb for row in group.rows if row.peak_memory_mb is not None]
    got = {"size": fno.data_of(group).size, "batch_size": group.first.batch_size}
    short = _model(group) + resized(group.first.resized) + shortfalls(got, STEP_AT_LEAST, {})
    short += [] if peaks else ["no peak of memory"]
    on_gpu = fno.record.machine.get("device", "cpu") != "cpu"
    fits = max(peaks, default=0) <= 1000 * GPU_GB
    if short or not (fits or on_gpu):  # a process holds more than its training step
        verdict = UNDECIDED
    else:
        verdict = NOT_REPRODUCED if fits else REPRODUCED
    small = f"at this size: trained, which does not decide the paper's claim: {listed(short)}. " if short else ""
    how = ", recomputing activations" if fno.record.config.get("recompute") else ""
    return Finding(
        item="Section 4.3",
        claim='"extremely high memory requirements [Figure 4b] making training these models infeasible" (section 4.3)',
        case=_where(fno, group),
        printed=f"no number; {GPU_GB:g} GB in Figure 4",
        measured=f"{len(group.rows)} trainings ran, batches of {group.first.batch_size}{how}; peak"
        f" {format_number(max(peaks, default=None))} MB, of {'tensors on the GPU' if on_gpu else 'the whole process'}",
        verdict=verdict,
        evidence=f"{small}Infeasible is taken to mean more than {GPU_GB:g} GB. With this package's layers: Figure 4b"
        " counts the memory of the paper's recursion too, at any size",
        figures=_pictures(fno, group),
    )


def _trained(fno: FnoRecord, group: OperatorGroup) -> bool:
    """Whether the MLPs without residual connections of a group's task reached the error `TRAINED`."""
    mlps = [one for one in fno.of_residual(group.task, False) if one.first.variant == "mlp"]
    return any(one.median(lambda row: row.error) <= TRAINED for one in mlps)


def _smaller(fno: FnoRecord, group: OperatorGroup) -> list[str]:
    """In what a network and its training are smaller than those of the source."""
    got = {**vars(fno.data_of(group)), "epochs": fno.record.config.get("epochs")}
    return resized(group.first.resized) + shortfalls(got, AT_LEAST, {})


def _model(group: OperatorGroup) -> list[str]:
    return [] if group.first.model == MODEL else [f"model {group.first.model} instead of {MODEL}"]


def _where(fno: FnoRecord, group: OperatorGroup) -> str:
    return f"{fno.title(group.task)}, {group.label}"


def _spread(group: OperatorGroup) -> str:
    low, high = (format_number(value) for value in group.spread(lambda row: row.relative_l2))
    return f"{format_number(group.median(lambda row: row.relative_l2))} ({low} to {high})"


def _pictures(fno: FnoRecord, group: OperatorGroup) -> tuple[str, ...]:
    return (f"curves{fno.suffix(group.task)}",)
