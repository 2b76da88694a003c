"""The picture of anytime curves: losses of trainings against what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kansciml.experiments.ode.anytime.curves import COSTS, Pair, grid, leads, pairs, quartiles
from kansciml.experiments.ode.figures import styles_of
from kansciml.experiments.ode.record import OdeRecord, OdeSystem
from kansciml.experiments.ode.run_rows import OdeGroup
from kansciml.reporting.legends import key, place_legend
from kansciml.reporting.palette import FAINT
from kansciml.reporting.style import as_is, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREFERRED = ("kan-params", "kan-flops", "kan-width")
"""Which KAN is shown beside the MLP: the first of these that there is."""


def anytime(ode: OdeRecord) -> Figure | None:
    """Best training loss so far against evaluations, processor seconds and FLOPs, a row of panels per system: median
    over seeds and a band between quartiles, of the MLP and a KAN. None where costs are not known."""
    shown = {system.name: _shown(ode, system) for system in ode.systems}
    systems = [system for system in ode.systems if shown[system.name]]
    every = [pair for own in shown.values() for pair in own]
    costs = [cost for cost in COSTS if every and all(pair.known(cost) for pair in every)]
    if not costs:
        return None
    groups = {id(group): group for pair in every for group in pair.sides}
    styles = styles_of(groups.values())
    figure = new_figure(0.3 + (1.5 if len(systems) > 1 else 2.0) * len(systems))
    panels = figure.subplots(len(systems), len(costs), sharex="col", sharey="row", squeeze=False)
    for row, system in zip(panels, systems):
        for axes, cost in zip(row, costs):
            own = _groups(shown[system.name])
            spent = grid(own, cost)
            for group in own:
                low, middle, high = quartiles(group, cost, spent)
                style = styles[group.name]
                axes.plot(spent, middle, color=style.colour, linestyle=style.line, linewidth=1.1)
                finite = np.isfinite(high)
                axes.fill_between(spent[finite], low[finite], high[finite], color=style.colour, alpha=0.18, linewidth=0)
            for pair in shown[system.name]:
                for crossing in leads(pair, cost)[1:][-1:]:
                    axes.axvline(crossing.begin, color=FAINT, linewidth=0.7, linestyle=":")
            axes.set(xscale="log", yscale="log")
        row[0].set_ylabel(as_is(system.title))
    for axes, cost in zip(panels[-1], costs):
        axes.set_xlabel(COSTS[cost])
    figure.supylabel("best loss so far", fontsize=8)
    note = (
        "line: median over seeds, level after their end; band: quartiles; dotted: their last crossing;"
        " a step up: a tighter tolerance"
    )
    place_legend(figure, [key(style, mark=False) for style in styles.values()], note)
    return figure


def _shown(ode: OdeRecord, system: OdeSystem) -> list[Pair]:
    own = [pair for pair in pairs(ode, PREFERRED) if pair.system is system]
    best = min((PREFERRED.index(pair.kan.variant) for pair in own), default=0)
    return [pair for pair in own if pair.kan.variant == PREFERRED[best]]


def _groups(own: list[Pair]) -> list[OdeGroup]:
    return list({id(group): group for pair in own for group in pair.sides}.values())
