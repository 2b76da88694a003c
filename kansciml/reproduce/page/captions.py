"""Captions of the pictures that experiments draw, by experiment and file; what the paper shows is not repeated."""

from __future__ import annotations

import re

CAPTIONS = {
    ("fig1", "extra_memory"): "Extra memory of a KAN layer over a fully connected one: Equation (2), and measured for"
    " the textbook recursion and for SplineKAN. Above: input and output size; below: width and batch size.",
    ("fig2", "loss_curves"): "Training loss against iteration, for each system.",
    ("fig2", "final_losses"): "Relative error on the training span after training: one mark per seed, bar at the"
    " median.",
    ("fig2", "phase_portraits"): "Phase portraits: the true orbit and the models', by the seed with the median error.",
    ("fig2", "trajectories_*"): "Trajectories of the {} system: truth, training data and models, within the training"
    " span and beyond it.",
    ("fig2", "orbits_*"): "Orbits of the bodies of the {} system.",
    ("fig3", "figure3"): "Accuracy in training, and densities of the Hessian's eigenvalues where the trainings end.",
    ("fig4a", "memory"): "Memory of a training step against batch size; the line marks the limit, beyond which the"
    " paper's points are missing.",
    ("fig4b", "memory"): "Memory of a training step of the neural operator against batch size; the line marks the"
    " limit.",
    ("table1", "table1"): "Parameters (hatched: never called by the forward pass) and accuracies of Table 1's models,"
    " printed and here.",
    ("fig5", "curves*"): "Test error against epoch, without and with residual connections.",
    ("fig5", "prediction_*"): "Test sample {}: coefficient, true solution, predictions and their errors.",
    ("fair", "fair"): "Error of the KAN over that of the MLP, by task and by what the two are made equal in: left of 1"
    " the KAN is better. Bars: intervals over seeds.",
    ("*", "curves*"): "Course of the trainings{}.",
    ("*", "accuracy_against_cost*"): "Test accuracy against what the models cost{}.",
}
"""Experiment (or ``*``) and stem (``*`` stands for a name, put where the braces are) -> caption."""


def caption(experiment: str, stem: str) -> str:
    """The caption of the picture ``stem.svg`` of `experiment`; of an unknown one its name in words."""
    for (owner, pattern), text in CAPTIONS.items():
        match = _match(pattern, stem)
        if match and owner in ("*", experiment):
            name = (match.groups() or ("",))[0].strip("_").replace("_", " ")
            if owner == "*" and name:
                name = f" ({name})"
            return text.format(name)
    words = stem.replace("_", " ").replace("-", " ").strip()
    return f"{words[:1].upper()}{words[1:]}."


def importance(experiment: str, stem: str) -> int:
    """Place of a picture among those of `experiment`: the order of `CAPTIONS`, unknown ones before the general ones."""
    places = [
        place + (len(CAPTIONS) + 1) * (owner == "*")
        for place, (owner, pattern) in enumerate(CAPTIONS)
        if owner in ("*", experiment) and _match(pattern, stem)
    ]
    return min(places, default=len(CAPTIONS))


def _match(pattern: str, stem: str) -> re.Match[str] | None:
    return re.fullmatch(re.escape(pattern).replace(r"\*", "(.*)"), stem)
