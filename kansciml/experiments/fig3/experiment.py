"""Figure 3: mixers of images with MLPs and with splines: accuracy, parameters, and Hessian spectra where they end.

Command: ``kansciml run fig3 --preset small``.
Paper: "KAN variants converge to sharp minima (large number of positive eigenvalues) [while] MLP variants converge to
smooth minima. Additionally KANs use significantly large number of parameters compared to MLP while attaining a lower
final accuracy". It gives no sizes, and no numbers but pictures: models and recipes are those of the sources it points
to (`kansciml.models.mixer`, `kansciml.models.conv_mixer`, `kansciml.experiments.vision.experiment.recipe`).
Expected, exactly: MLP-Mixer 673,418 parameters with MLPs, 6,565,514 with splines; ConvMixer 594,186, and 5,837,066
(splines appended) or 5,310,730 (in place of the 1x1 convolutions). Published for MLPs: mixer 90.8 %, ConvMixer 94 %.
Each spectrum is that of the mean cross-entropy over the same training images for all models, without augmentation or
smoothing. Models of up to 10,000 parameters get all eigenvalues of the float64 Hessian: their numbers of positive, zero
and negative ones have no error but that of rounding, which is stated. Larger ones are measured by Lanczos quadrature,
in the precision of the training; errors are those of the probes and of the seeds. ``kansciml hessian`` on the run's
folder measures the same models with other settings.
Cost: ``smoke`` half a minute on one core. ``small`` (4000 images of CIFAR-10 at 16 x 16, mixers of 665 to 3,410
parameters, 12 seeds, small and large batches: 180 trainings to a plateau, and all eigenvalues over 128 images) forty
minutes of two cores: it uses all, or KANSCIML_WORKERS. ``paper`` is for a GPU, where the spectra are
measured too.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from kansciml.experiments.fig3.ahead import NAME, SPECTRA, in_parallel, record_of
from kansciml.experiments.fig3.config import Fig3Config, jobs
from kansciml.experiments.fig3.findings import findings
from kansciml.experiments.fig3.record import Fig3Record
from kansciml.experiments.fig3.report import render, summary
from kansciml.experiments.hessian.measure import measure
from kansciml.experiments.minibatch.jobs import check_jobs
from kansciml.experiments.vision.comparisons import of_images
from kansciml.experiments.vision.experiment import check as check_vision
from kansciml.experiments.vision.report import CAPTIONS
from kansciml.experiments.vision.runs import ImageTrainer
from kansciml.experiments.vision.trained import SCORING, trained_networks
from kansciml.runs import ranks
from kansciml.runs.archive import with_parts
from kansciml.runs.config_json import with_settings
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.ranks import device_of
from kansciml.runs.records import Record
from kansciml.runs.registry import trained_models
from kansciml.runs.trained import LoadedModel, TrainedModel


def check(config: Fig3Config) -> None:
    """Raise UsageError for whatever is wrong with a configuration before a folder is made for it."""
    for one in config.runs():
        check_vision(one)
    check_jobs(jobs(config))


def run(config: Fig3Config, context: RunContext) -> Result:
    in_parallel(config, context)
    result = ImageTrainer(context).run(jobs(config)).result
    own = ranks.agree(result.result)
    record = record_of(config, context.folder, own)
    folder = context.checkpoints / SPECTRA
    measured = measure(trained_models(record), config.spectra, context, folder, record.config_hash)
    spectra = measured.to_result()
    return Result(own | spectra.result, result.arrays | spectra.arrays)


def trained(record: Record) -> list[TrainedModel]:
    """The networks of a run, for `kansciml hessian`; on the GPU where they were trained on one."""
    device, models = device_of(record.config["accelerator"]), trained_networks(record)

    def load(model: TrainedModel) -> LoadedModel:
        loaded = model.load()
        return replace(loaded, module=loaded.module.to(device))  # batches follow their module

    return [replace(one, load=partial(load, one)) for one in models] if device.type == "cuda" else models


NARROW = {
    "models": ("mixer-nano", "conv-mixer-128-4"), "warmup": 1.0, "augmentation": "light", "label_smoothing": 0.0,
}  # fmt: skip
SMOKE = {
    **NARROW, "seeds": 1, "dataset": "digits", "subset": 320, "epochs": 3, "batch_size": 64, "width": 4, "depth": 1,
    "token_hidden": 4, "channel_hidden": 4, "kernel": 3, "placements": ("grouped",), "spectra.samples": 64,
}  # fmt: skip
SMALL = {
    **NARROW, "seeds": 12, "subset": 4000, "image_size": 16, "patch": 4, "width": 8, "depth": 1, "token_hidden": 6,
    "channel_hidden": 6, "kernel": 3, "augmentation": "none", "learning_rate": 5e-3, "epochs": 20, "batch_size": 50,
    "large_batch": 500, "large_epochs": 30, "narrow": True, "placements": ("replace", "head", "grouped"),
    "spectra.samples": 128,
}  # fmt: skip

EXPERIMENT = Experiment(
    name=NAME,
    title="Mixers of images with MLPs and splines: accuracy, parameters, and spectra of their minima",
    item="Figure 3",
    config=Fig3Config,
    presets={
        "smoke": with_settings(Fig3Config(), SMOKE),
        "small": with_settings(Fig3Config(), SMALL),
        "paper": Fig3Config(),
    },
    costs={"small": "forty minutes of two cores"},
    run=run,
    render=render,
    summary=summary,
    check=check,
    trained=trained,
    scoring=SCORING,
    findings=findings,
    comparisons=lambda record: of_images(Fig3Record.read(record)),
    order=3,
    unshown=with_parts("confusion"),
    captions={
        "figure3": "Accuracy in training, and densities of the Hessian's eigenvalues where the trainings end.",
        **CAPTIONS,
    },
)
