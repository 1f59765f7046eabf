"""What a run says before it trains: on what, with what, and which of its choices are probably mistakes."""

from typing import TYPE_CHECKING

from tl_lightning.backbones import preprocess_of
from tl_lightning.core.console import console
from tl_lightning.experiment.cautions import Caution, cautions
from tl_lightning.experiment.tables import data_line, leak_table, split_table
from tl_lightning.preprocess import Preprocess
from tl_lightning.tasks.objectives import OBJECTIVES
from tl_lightning.training.global_batch import WORDS

if TYPE_CHECKING:
    from tl_lightning.experiment.session import Experiment

MOST_COUNTED = 20  # classes whose images are counted on the screen; summary.json has all


def show_start(experiment: "Experiment") -> None:
    """Prints the data, the model, the machine and the cautions of a run.

    Args:
        experiment: The run, with everything checked.
    """
    config, hyper_parameters, trainer = experiment.configuration.config, experiment.task.hparams, experiment.trainer
    data = experiment.data.summary()
    console.print(data_line(data))
    targets = experiment.data.samples.targets.values()
    counted = [target for target in targets if OBJECTIVES[target.problem_type].counts]
    if counted and all(len(target.classes) <= MOST_COUNTED for target in counted):
        console.print(split_table(data))
    leaks = experiment.data.leaks
    if leaks is not None and (leaks.leaking or leaks.relabelled):
        console.print(leak_table(leaks, title="images that are there more than once"))
    if leaks is not None and leaks.contradictions:
        console.print(f"caution    the same image under two labels: {leaks.contradiction()}", style="yellow")
    for note in experiment.data.notes():
        console.print(f"note       {note}", style="yellow")
    console.print(f"backbone   {hyper_parameters.backbone}, weights {hyper_parameters.weights}")
    if experiment.configuration.implied:
        implied = ", ".join(f"model.{name} {value}" for name, value in experiment.configuration.implied.items())
        console.print(f"phases     {config.phases}, which means {implied}")
    processes = f", {trainer.world_size} processes" if trainer.world_size > 1 else ""
    console.print(f"machine    {trainer.accelerator.name()}{processes}, precision {trainer.precision}")
    batch = experiment.configuration.batch
    if batch.processes > 1 or batch.accumulate > 1:
        console.print(f"batch      {batch}")
    if config.lr_scaling != "none":
        word = WORDS[config.lr_scaling]
        console.print(
            f"lr         x {experiment.configuration.lr_factor:.3g}: {word}{batch.images} images a step over the "
            f"{config.lr_scaling_batch} that model.lr is for"
        )
    if experiment.configuration.folder is not None:
        console.print(f"run folder {experiment.folder.path}")
    for caution in _cautions(experiment):
        console.print(f"caution    {caution.text}", style="yellow")


def _cautions(experiment: "Experiment") -> list[Caution]:
    hyper_parameters, data = experiment.task.hparams, experiment.data
    first = data.samples.first  # of several targets, by which a balanced sampler draws
    found = cautions(
        name=experiment.configuration.run_name,
        phases=experiment.configuration.phases,
        pretrained=hyper_parameters.weights != "none",
        top_lr=max(lr for name, lr in experiment.task.learning_rates.items() if not name.startswith("head")),
        preprocess=Preprocess.from_dict(experiment.task.preprocess),
        own_preprocess=preprocess_of(hyper_parameters.backbone, hyper_parameters.weights),
        training_images=experiment.data.summary()["train"],
        patience=experiment.training.patience,
        sampler=experiment.data.sampler,
        class_weights=hyper_parameters.get("class_weights", "none"),
        class_counts=dict(zip(first.classes, first.counts(data.splits["train"]).tolist(), strict=False)),
    )
    return [caution for caution in found if caution.key not in experiment.configuration.config.silence]
