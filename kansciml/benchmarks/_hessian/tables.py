"""The tables of ``kansciml bench hessian``, from its JSON document."""

from __future__ import annotations

from kansciml.benchmarks._hessian import accuracy
from kansciml.benchmarks._hessian.cases import LOADER, SINGLE, TEXTBOOK
from kansciml.benchmarks._measuring import Row, table_of, targets_table
from kansciml.runs.tables import Table

COLUMNS = {
    "candidate": "algorithm",
    "product_ms": "product [ms]",
    "product_low_ms": "25 % [ms]",
    "product_high_ms": "75 % [ms]",
    "recurrence_ms": "recurrence [ms]",
    "iteration_ms": "iteration [ms]",
    "ratio": "iteration, x loader",
    "over_textbook": "x the same with textbook layers",
    "peak_bytes": "peak [MB]",
    "peak_gradients": "peak [gradients]",
}


def tables_of(document: Row) -> list[Table]:
    """Times and memory by backend, the plan, accuracy where it was compared, and the targets."""
    found = [_times(document, result) for result in document["results"]]
    found.append(_plan(document["plan"]))
    if document["accuracy"] is not None:
        found += _accuracy(document["accuracy"])
    return [*found, targets_table(document["targets"])]


def _times(document: Row, result: Row) -> Table:
    facts, gradient = document["machine"], 4 * document["parameters"]
    rows = [{**row, "peak_gradients": row["peak_bytes"] / gradient} for row in result["rows"]]
    notes = [
        f"One thread ({facts['cpu_capability']}), PyTorch {facts['torch']}, {document['dtype']}: processor time, "
        f"interleaved medians. Iteration: product + recurrence, which is the mean over {document['iterations']} steps.",
        f"{LOADER}: its defaults on a data set, the gradient's graph recomputed for every product; "
        f"{SINGLE.rpartition(', ')[2]}: its other way, the graph kept.",
        f"All use the same layers; {TEXTBOOK} (the recursion of efficient-kan): "
        f"{document['textbook']['product_ms']:.0f} ms a product.",
        "Peak: making the product and one call of it, tensors alive at once; the basis not counted.",
    ]
    title = f"Lanczos on {document['model']}: {document['parameters']:,} parameters, {document['images']} images, "
    return table_of(title + f"{result['backend']} kernels", rows, COLUMNS, notes)


def _plan(plan: Row) -> Table:
    gradient = plan["gradient_bytes"]
    named = {
        "said beforehand": plan["planned_bytes"],
        "measured peak": plan["measured_bytes"],
        "3 gradients and the basis": 3 * gradient + plan["basis_bytes"],
    }
    rows = [[name, size / 1e6, (size - plan["basis_bytes"]) / gradient] for name, size in named.items()]
    title = f"Memory of {plan['steps']} Lanczos steps, micro-batches of {plan['micro_batch']}"
    return Table(title, ["", "[MB]", "beyond the basis [gradients]"], rows, plan["text_all"].splitlines())


def _accuracy(found: Row) -> list[Table]:
    sides = (accuracy.THEIRS, accuracy.SAME, accuracy.BETTER)
    notes = [
        f"Root mean square over {found['probes']} probes, the same for the first two; float32 against all eigenvalues "
        f"in float64. At most {accuracy.PRODUCTS} products each: "
        + ", ".join(f"{side} {found['products'][side]}" for side in sides)
        + ".",
        "Trace: relative. Eigenvalues: by the largest |eigenvalue|. Wasserstein-1: by the mean |eigenvalue|. Counts: by"
        " the number of parameters.",
    ]
    title = f"Error of the spectral density: {found['parameters']:,} parameters, {found['images']} images"
    alone = "Theirs: Hutchinson's mean; power iteration. Ours: XTrace; Lanczos. Root mean square; mean of the products."
    return [
        table_of(title, found["rows"], {name: name for name in ("quantity", *sides)}, notes),
        table_of(
            "Relative error at as many products as PyHessian's own stopping rule takes",
            found["alone"],
            {name: name for name in ("quantity", accuracy.THEIRS, "kansciml", "products")},
            [alone],
        ),
    ]
