"""What is wrong in the paper, with the numbers that show it: counted here, all but the printed ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kansciml.analysis.cost import Sizes, equation_1, equation_2, linear_layer, spline_layer, textbook_layer
from kansciml.experiments.table1.claims import MARGINS
from kansciml.experiments.table1.costs import PRINTED, PrintedRow
from kansciml.layers.bspline import uniform_knots
from kansciml.models.registry import model_config
from kansciml.reproduce.page.content import PaperError
from kansciml.runs.tables import Table
from kansciml.tasks.ode.data import training_data
from kansciml.tasks.ode.registry import get_system

LAYERS = ((64, 64, 128), (64, 128, 128), (128, 64, 128), (784, 64, 64), (768, 3072, 256), (256, 256, 16384))
"""Inputs, outputs and batch sizes of the layers that the equations are tried on."""
CAPTION_MARGIN = (8.0, 12.0)
"""Points by which the caption of Table 1 has MLPs better than KANs."""
GRID, ORDER, GRID_RANGE = 5, 3, (-1.0, 1.0)
"""Of the paper's splines; the range is the default of the implementation it names."""
SYSTEMS = ("lotka", "fitzhugh", "rigid", "spiral", "pleiades")
MIXERS = (
    ("mixer-nano", {}, "replaced by splines"),
    ("conv-mixer-256-8", {"placement": "append"}, "splines appended to 1x1 convolutions"),
    ("conv-mixer-256-8", {"placement": "replace"}, "splines in place of 1x1 convolutions"),
)


def paper_errors() -> list[PaperError]:
    """All of them, the equations first."""
    return [
        equation_1_misprint(),
        equation_2_too_low(),
        dead_parameters(),
        table_1_margins(),
        table_1_confounds(),
        spiral_grid_range(),
        sharpness_and_size(),
        names_and_silence(),
    ]


def equation_1_misprint() -> PaperError:
    """I (O + 1) is printed where O (I + 1) is meant."""
    rows = []
    for sizes in _sizes():
        printed, true = (equation_1(sizes, corrected).parameters for corrected in (False, True))
        counted = textbook_layer(sizes).parameters - linear_layer(sizes).parameters
        rows.append([sizes.inputs, sizes.outputs, printed, true, counted, printed - true])
    columns = ["I", "O", "extra parameters, printed", "corrected", "counted from the layers", "printed too high by"]
    text = (
        "Equation (1) subtracts I (O + 1) parameters for the fully connected layer, which has O (I + 1): one bias per"
        " output, as section 3.1 of the paper says. The printed number of extra parameters is O - I too high, and so"
        " right only where a layer has as many inputs as outputs. The step from Equation (1) to Equation (2) is correct"
        " algebra, and so Equation (2) has the same error.",
        "The effect is small; the correct count is I O (1 + G + S) - O.",
    )
    note = "Counted: parameters of a B-spline layer with base weight and scale per edge, less those of nn.Linear."
    table = Table("Parameters that a KAN layer has beyond a fully connected one, G = 5, S = 3", columns, rows, [note])
    return PaperError(
        "Equation (1) misprints the fully connected layer", text, [table], "kansciml cost --in 64 --out 128 --batch 128"
    )


def equation_2_too_low() -> PaperError:
    """The equation counts one tensor for the backward pass; autograd keeps every level of the recursion."""
    rows = []
    for sizes in _sizes():
        linear, estimate = linear_layer(sizes), equation_2(sizes)
        extras = [layer(sizes).footprint - linear.footprint for layer in (textbook_layer, spline_layer)]
        rows.append(
            [
                f"{sizes.inputs} -> {sizes.outputs}, batch {sizes.batch}",
                estimate,
                extras[0],
                extras[0] / estimate,
                extras[1],
                extras[1] / estimate,
            ]
        )
    low, high = (f"{edge(row[3] for row in rows):.2g}" for edge in (min, max))
    lean = rows[-1][5]
    text = (
        "Equation (2) allows one extra tensor for the gradients of the splines. The implementation that it is about"
        " leaves the recursion to automatic differentiation, which keeps the tensors of every level: parameters and"
        f" peak of a training step come to {low} to {high} times the equation at these sizes. The equation also leaves"
        " out the knots, the gradients of the parameters, and the optimiser's state.",
        "Nor is that a property of KANs: a layer that keeps its input alone and builds the splines anew in the backward"
        f" pass takes {lean:.2g} times the equation at the last of these sizes, the recursion {rows[-1][3]:.2g} times.",
    )
    columns = ["layer", "Equation (2)", "textbook recursion", "over Eq. (2)", "SplineKAN, at most", "over Eq. (2) "]
    note = "Elements beyond nn.Linear + SiLU: parameters, buffers, and the peak of a forward and backward pass."
    table = Table("Extra memory of a KAN layer in elements, G = 5, S = 3", columns, rows, [note])
    return PaperError(
        "Equation (2) is far below what its implementation takes", text, [table], "kansciml run fig1 --preset small"
    )


def dead_parameters() -> PaperError:
    """The printed KAN counts contain MLPs that the forward pass never calls."""
    rows, used = [], {}
    for row in PRINTED:
        active, dead, printed = _counts(row)
        used[row.size, row.variant] = active
        rows.append(
            [
                row.size,
                row.variant,
                printed / 1e6,
                (active + dead) / 1e6,
                dead,
                active,
                dead / (active + dead),
                active / used[row.size, "mlp"],
            ]
        )
    kans = [row for row in rows if row[4]]
    low, high = (f"{100 * edge(row[6] for row in kans):.0f}" for edge in (min, max))
    smaller = used["small", "kan-rswaf"] < used["small", "mlp"]
    text = (
        "The code that the paper names for its vision transformers builds the MLP of every block, puts a KAN beside it,"
        f" and never calls the MLP. Those dead MLPs are {low} to {high} % of the KANs' parameters, and they are in"
        ' Table 1: "significantly less parameters" for MLPs is in part a count of weights that nothing ever uses.',
        f"The RSWAF KAN of size Small in truth has {used['small', 'kan-rswaf']:,} parameters, the MLP"
        f" {used['small', 'mlp']:,}: {'fewer' if smaller else 'more'} and not 1.6 times as many, as printed.",
    )
    columns = ["size", "model", "printed (M)", "held (M)", "dead", "used", "dead / held", "used / MLP"]
    note = "Held: used and dead parameters together; this is what the printed numbers are, some of them cut off."
    table = Table("Parameters of Table 1's models", columns, rows, [note])
    return PaperError("Table 1 counts parameters that are never used", text, [table], "kansciml cost --model deit-tiny")


def table_1_margins() -> PaperError:
    """The margins in caption and text do not cover the table's own rows."""
    mlps = {row.size: row.top1 for row in PRINTED if row.variant == "mlp"}
    rows, outside = [], {"caption": 0, "text": 0}
    for row in PRINTED:
        if row.variant == "mlp":
            continue
        gap = mlps[row.size] - row.top1
        cells: list[object] = [row.size, row.variant, mlps[row.size], row.top1, gap]
        for name, (low, high) in (("text", MARGINS[row.variant]), ("caption", CAPTION_MARGIN)):
            inside = low <= round(gap, 2) <= high
            outside[name] += not inside
            cells.append(f"{low:g} to {high:g}: {'yes' if inside else 'no'}")
        rows.append(cells)
    text = (
        'The caption says "8 - 12 %", the text "10 - 12 %" for splines and "8 - 10 %" for RSWAF. Of the table\'s own'
        f" {len(rows)} differences, {outside['caption']} lie outside the caption's range and {outside['text']} outside"
        " the text's. They are differences in percentage points, of single runs without error bars.",
    )
    columns = ["size", "model", "MLP top-1 (%)", "KAN top-1 (%)", "difference", "within the text's", "the caption's"]
    return PaperError(
        "Table 1's margins do not fit its rows", text, [Table("Differences between Table 1's own rows", columns, rows)]
    )


def table_1_confounds() -> PaperError:
    """What else differs between the KANs and the MLPs of Table 1."""
    rows = []
    for row in PRINTED:
        config = model_config(f"deit-{row.size}", row.variant)
        (slot,) = config.slots()
        kan = row.variant != "mlp"
        hidden = config.kan_widths()[0][1] if kan else slot.widths[1]
        rows.append(
            [
                row.size,
                row.variant,
                "random" if kan else "ImageNet weights",
                slot.widths[0],
                hidden,
                hidden / slot.widths[0],
                slot.lost * slot.count if kan else 0,
                "off" if kan else "on",
            ]
        )
    text = (
        "The accuracies are those of fine-tuning: attention and MLPs start from ImageNet weights, the KANs from random"
        " ones. By the code that the paper names, the KANs have one hidden width for all sizes, lose the biases of"
        " queries, keys and values, and train without drop-path. Table 1 therefore compares two procedures, not two"
        " kinds of layer.",
        "The RSWAF layer of the library that the paper cites returns half the true gradient: its forward pass takes no"
        " account of a factor by which its backward pass multiplies. Its second derivatives, and any Hessian through"
        " it, are wrong.",
        "The protocol fair of `kansciml run table1` starts everything from scratch, with the same biases and the same"
        " drop-path, and KANs of as many parameters, or operations, as the MLPs.",
    )
    columns = [
        "size",
        "model",
        "MLP or KAN starts from",
        "width",
        "hidden width",
        "hidden / width",
        "biases that are lost",
        "drop-path",
    ]
    return PaperError(
        "Table 1 compares more than MLPs with KANs",
        text,
        [Table("What differs within Table 1", columns, rows)],
        "kansciml run table1 --preset small",
    )


def spiral_grid_range() -> PaperError:
    """States beyond the grid lose their splines; the paper says neither the range nor whether states are scaled."""
    rows = []
    for name in SYSTEMS:
        system = get_system(name)
        states = np.abs(training_data(system).states)
        covered = spline_sum(states)
        rows.append(
            [
                system.title,
                states.max(),
                100 * np.mean(states > GRID_RANGE[1]),
                covered.min(),
                100 * np.mean(covered == 0),
            ]
        )
    spiral = rows[SYSTEMS.index("spiral")]
    reach = uniform_knots(GRID, ORDER, GRID_RANGE)[-1]
    text = (
        '"KANs struggle to fit dynamical systems like the Pleiades and Spiral ODE problems": the paper does not say'
        " over which range the grid lies, nor whether states are scaled into it. The implementation's default is"
        f" {GRID_RANGE[0]:g} to {GRID_RANGE[1]:g}. Inside, the splines sum to 1; outside they fade, and beyond"
        f" {reach:.2g} there are none, so that nothing but the base activation is left to learn with.",
        f"The spiral starts at {spiral[1]:.3g}: {spiral[2]:.0f} % of its training data lie outside the grid. So do most"
        " states of all systems but the rigid body, and a struggle with unscaled states is one with the grid. Figure 2"
        " here scales states into the grid, and also runs the spiral unscaled and squashed by tanh.",
    )
    columns = ["system", "largest |state|", "outside the grid (%)", "least sum of splines", "without a spline (%)"]
    note = (
        f"Of all components of the training data; G = {GRID}, S = {ORDER}, grid {GRID_RANGE[0]:g} to {GRID_RANGE[1]:g}."
    )
    return PaperError(
        "The spiral leaves the grid",
        text,
        [Table("States of Figure 2's systems on the default grid", columns, rows, [note])],
        "kansciml run fig2 --preset small",
    )


def sharpness_and_size() -> PaperError:
    """Counting positive eigenvalues compares models of different size."""
    rows = []
    for name, options, how in MIXERS:
        mlp, kan = (_active(name, variant, options) for variant in ("mlp", "kan-spline"))
        rows.append([name, how, mlp, kan, kan / mlp])
    text = (
        'Figure 3 calls a minimum sharp for its "large number of positive eigenvalues". A Hessian has as many'
        " eigenvalues as the model has parameters, and the KANs have several times those of the MLPs, so that the count"
        " may differ for the size alone. Nor is it a property of the function: rescaling one layer of a ReLU network"
        " and its successor changes the eigenvalues but not the function. Figure 3 here also gives the share of"
        " positive eigenvalues and measures that do not change under such rescaling.",
        'The text says that the paper "augments" convolutions with KANs, which has two readings of different size.',
    )
    columns = ["model", "KANs", "parameters, MLP", "with splines", "ratio"]
    return PaperError(
        "Sharpness is counted between models of different size",
        text,
        [Table("Parameters of Figure 3's models", columns, rows)],
        "kansciml run fig3 --preset small",
    )


def names_and_silence() -> PaperError:
    """A wrong name, two statements that disagree, and what nobody can reproduce because it is not printed."""
    text = (
        'The "weight-tied FNO++" of Figure 5: in the work that the paper cites, FNO++ is the variant with input'
        " injection, whose weights are not tied; the weight-tied one is called FNO-WT, and it has no residual"
        " connections. Here: FNO-WT, with residual connections read as z <- z + block(z).",
        "Figure 2's caption has an exception, FitzHugh-Nagumo; in the text MLPs converge to lower losses"
        ' "consistently". Figure 5\'s caption speaks of "a minor improvement", the text of KANs better than MLPs.',
        "Not printed: the ranges of Figure 1; widths, time spans, tolerances, optimisers and numbers of seeds of"
        " Figure 2; the models' sizes and the spectrum's method in Figure 3; the shapes in Figure 4; sizes, resolution"
        " and errors of Figure 5; error bars anywhere. Each item's settings on this page say what was chosen, and the"
        " experiments' own documentation why.",
    )
    return PaperError("Names, contradictions, and what is not printed", text)


def spline_sum(x: np.ndarray) -> np.ndarray:
    """Sum of all splines of order `ORDER` on `GRID` intervals over `GRID_RANGE` at x: 1 on the grid, 0 far outside."""
    from scipy.interpolate import BSpline

    # more knots with coefficients of zero, or SciPy would take the outermost polynomials on beyond the grid
    low, high = GRID_RANGE
    step = (high - low) / GRID
    wide = uniform_knots(GRID + 2 * ORDER, ORDER, (low - ORDER * step, high + ORDER * step))
    coefficients = np.concatenate([np.zeros(ORDER), np.ones(GRID + ORDER), np.zeros(ORDER)])
    inside = np.clip(x, wide[ORDER], wide[-ORDER - 1])
    values = np.asarray(BSpline(wide, coefficients, ORDER)(inside))
    return np.where(np.abs(values) < 1e-12, 0.0, values)


def _sizes() -> Iterator[Sizes]:
    return (Sizes(i, o, b, GRID, ORDER) for i, o, b in LAYERS)


def _counts(row: PrintedRow) -> tuple[int, int, int]:
    """Parameters that a model of Table 1 uses, those that its source never uses, and those printed."""
    from kansciml.models.registry import find

    model, preset = find(f"deit-{row.size}")
    config = model.config(preset, row.variant)
    return model.count(config).active, config.dead_parameters(), model.printed[preset, row.variant]


def _active(name: str, variant: str, options: dict[str, str]) -> int:
    from kansciml.models.registry import find

    model, preset = find(name)
    return model.count(model.config(preset, variant, **options)).active
