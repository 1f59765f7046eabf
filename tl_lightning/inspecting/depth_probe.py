"""``tl probe``: where in a backbone's depth the useful features sit, from one forward pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from tl_lightning.backbones import CannotSplit, Stage
from tl_lightning.core.cache_room import NoRoom
from tl_lightning.core.console import console, new_table, track
from tl_lightning.core.files import write_csv
from tl_lightning.core.options import OptionParser, writable
from tl_lightning.core.plots import INSTALL, can_draw, new_figure, save_figure
from tl_lightning.data.base import TransferDataModule
from tl_lightning.data.splits import fold_numbers
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.experiment.preamble import assemble, read_data, refuse_run_dir
from tl_lightning.feature_cache.activation_store import ActivationStore
from tl_lightning.feature_cache.extractor import Extractor, every_stage
from tl_lightning.metrics.classification import majority_accuracy
from tl_lightning.metrics.noise import standard_error
from tl_lightning.probe import choose, cross_validate, logistic_path
from tl_lightning.tasks.objectives import OBJECTIVES

STRENGTHS = tuple(10.0**exponent for exponent in range(-5, 3))  # coarser than the head's: stages are to be compared
FOLDS = 3


@dataclass(frozen=True)
class StageProbe:
    """How well a linear head does on what one stage hands on.

    Attributes:
        name: The stage.
        width: Features, averaged over all positions of the image.
        strength: The regularisation C that cross-validation within the training images chose.
        loss: On the validation images, of a head solved on the training images.
        right: Which validation images it got right.
        groups: What those have in common, ``(n,)``; `None` where each stands for itself.
    """

    name: str
    width: int
    strength: float
    loss: float
    right: Tensor
    groups: NDArray[np.str_] | None = None

    @property
    def accuracy(self) -> float:
        """The share of the validation images that it got right."""
        return float(self.right.double().mean())

    @property
    def error(self) -> float:
        """The standard error of the accuracy."""
        return standard_error(self.right.double().numpy(), self.groups)

    def behind(self, other: "StageProbe") -> tuple[float, float]:
        """How much less accurate this is on the same images, with the standard error of the difference."""
        difference = other.right.double() - self.right.double()
        return float(difference.mean()), standard_error(difference.numpy(), self.groups)


def probe_stages(
    data: TransferDataModule,
    store: ActivationStore,
    stages: Sequence[Stage],
    *,
    splits: Mapping[str, NDArray[np.int64]],
) -> list[StageProbe]:
    """Solves a head on the features of every stage.

    Args:
        data: The data, whose targets are classes or levels.
        store: One tensor per stage, a row per image.
        stages: In the same order.
        splits: Indices of images in the store, ascending: those under ``train`` fit and choose, those under ``val``
            score.
    """
    positions = track(range(len(stages)), "solving a head per stage", total=len(stages))
    return [probe_stage(data, store, stages, position, splits=splits) for position in positions]


def probe_stage(
    data: TransferDataModule,
    store: ActivationStore,
    stages: Sequence[Stage],
    position: int,
    *,
    splits: Mapping[str, NDArray[np.int64]],
) -> StageProbe:
    """Solves a head on the features of one stage; see `probe_stages`.

    Args:
        data: The data, whose targets are classes or levels.
        store: One tensor per stage, a row per image.
        stages: In the same order.
        position: Which of them.
        splits: Indices of images under ``train`` and ``val``.

    Raises:
        UserError: If all training images are of one group.
    """
    labels, classes = torch.from_numpy(data.samples.single), len(data.classes)
    training, targets = store.rows(splits["train"], position), labels[splits["train"]]
    fold_of = torch.from_numpy(fold_numbers(data.samples, splits["train"], data.split, folds=FOLDS))
    folds = int(fold_of.max()) + 1
    if folds < 2:
        raise UserError(f"all {len(targets)} training images are of one group; to choose by others takes two or more")
    scores = cross_validate(training, targets, classes=classes, folds=folds, strengths=STRENGTHS, fold_of=fold_of)
    chosen = choose(scores)
    path = logistic_path(training, targets, classes=classes, strengths=STRENGTHS[chosen : chosen + 1])
    features = store.rows(splits["val"], position)[:].double()
    logits = features @ path.weights[0].T + path.biases[0]
    expected = labels[splits["val"]]
    loss = torch.nn.functional.cross_entropy(logits, expected)
    right = logits.argmax(dim=1) == expected
    groups = None if data.samples.groups is None else data.samples.groups[splits["val"]]
    return StageProbe(stages[position].name, features.shape[1], STRENGTHS[chosen], float(loss), right, groups)


def probe_command(args: list[str]) -> None:
    """``tl probe``: solves a linear head on the features of every stage, and shows accuracy against depth.

    Args:
        args: ``--output NAME`` and everything that ``tl fit`` takes.

    Raises:
        UserError: If an option is wrong, or something that ``tl fit`` would say.
    """
    parser = OptionParser(
        "probe",
        "Shows where in the depth of the backbone the useful features sit: one forward pass, then a linear head solved "
        "on what each stage hands on. Takes every option of tl fit too (tl fit --help).",
    )
    parser.add_argument(
        "--output", default="probe", metavar="NAME", help="writes NAME.csv and, with matplotlib, NAME.png"
    )
    options, rest = parser.parse_known_args(args)
    table, image = (writable(options.output, suffix=suffix) for suffix in (".csv", ".png"))
    refuse_run_dir(rest, "probe")
    configuration = assemble(rest, command="probe")
    task, data = configuration.model, configuration.datamodule
    read_data(configuration)
    if len(data.splits["train"]) < FOLDS:
        raise UserError(f"{len(data.splits['train'])} training images are too few to probe: {FOLDS} or more are needed")
    if not OBJECTIVES[data.samples.problem_type].picks_one:
        raise UserError(
            f"tl probe compares how well classes can be told apart, and the problem here is {data.samples.problem_type}"
        )
    majority = majority_accuracy(data.targets("train").labels, data.targets("val").labels)
    task.to(configuration.trainer.strategy.root_device)
    probes = probe_stages(data, pooled(configuration, splits=data.splits), task.stages, splits=data.splits)
    console.print(_table(probes, majority=majority))
    console.print(advice(probes))
    _write(probes, table)
    if can_draw():
        draw(probes, image, majority=majority)
        console.print(f"metrics in {table}, chart in {image}")
    else:
        console.print(f"metrics in {table}; {INSTALL} for a chart")


def pooled(configuration: Configuration, *, splits: Mapping[str, NDArray[np.int64]]) -> ActivationStore:
    """What every stage hands on, averaged over positions, of training and validation images; cached.

    Args:
        configuration: With its data set up, and its model on the trainer's device.
        splits: Indices of images under ``train`` and ``val``.

    Raises:
        UserError: If the backbone cannot be split, or there is no room.
    """
    task, data = configuration.model, configuration.datamodule
    extractor = Extractor(task, data, configuration.trainer, configuration.config.engine)

    view = data.plain_view
    rows = np.union1d(splits["train"], splits["val"])
    try:
        stores = extractor.extract(every_stage(task.transferred), [(view, rows)])
    except CannotSplit as error:
        raise UserError(f"model.backbone {task.hparams.backbone} cannot be probed stage by stage: {error}") from error
    except NoRoom as error:
        raise UserError(f"the activations cannot be cached: {error}") from error
    return stores[view.name]


def advice(probes: Sequence[StageProbe]) -> str:
    """Says in words where the features are best, and what follows for the cut."""
    best = max(probes, key=lambda probe: probe.accuracy)
    names = [probe.name for probe in probes]
    near = next(probe for probe in probes if probe.behind(best)[0] <= probe.behind(best)[1])
    lines = [f"best after {best.name}: {best.accuracy:.3f} ± {best.error:.3f}"]
    if near is not best:
        lines.append(f"{near.name} is the first that does as well within the noise")
    last = names.index(near.name)
    if last + 1 < len(names):
        phases = f'[{{train: "from:{names[last + 1]}"}}]'
        lines.append(f"what is above may serve the source more than you: --phases '{phases}' trains it")
    return "; ".join(lines)


def _table(probes: Sequence[StageProbe], *, majority: float) -> Table:
    title = f"linear probe of every stage, {len(probes[0].right):,} validation images"
    table = new_table(title, "after stage", numbers=("features", "C", "loss", "accuracy", "behind the best"))
    best = max(probes, key=lambda probe: probe.accuracy)
    for probe in probes:
        distance, error = probe.behind(best)
        behind = "best" if probe is best else f"{distance:.3f} ± {error:.3f}"
        accuracy = f"{probe.accuracy:.3f} ± {probe.error:.3f}"
        style = "bold" if probe is best else None
        table.add_row(
            probe.name, f"{probe.width:,}", f"{probe.strength:.0e}", f"{probe.loss:.4f}", accuracy, behind, style=style
        )
    table.add_section()
    table.add_row("majority class", "", "", "", f"{majority:.3f}", "")
    return table


def _write(probes: Sequence[StageProbe], file: Path) -> None:
    names = ["stage", "features", "strength", "loss", "accuracy", "standard_error"]
    rows = ([probe.name, probe.width, probe.strength, probe.loss, probe.accuracy, probe.error] for probe in probes)
    write_csv(file, [names, *rows])


def draw(probes: Sequence[StageProbe], file: Path, *, majority: float) -> None:
    """Draws accuracy against depth.

    Args:
        probes: One per stage, input to output.
        file: The PNG to write.
        majority: Accuracy of always predicting the most frequent class.
    """
    figure, axes = new_figure()
    places = range(len(probes))
    accuracies = [probe.accuracy for probe in probes]
    axes.errorbar(places, accuracies, yerr=[probe.error for probe in probes], marker="o", capsize=4, color="tab:blue")
    axes.axhline(majority, color="gray", linestyle="--", label=f"majority class: {majority:.3f}")
    axes.set_xticks(places, [probe.name for probe in probes], rotation=45, ha="right")
    axes.set_xlabel("features after this stage, input to output")
    axes.set_ylabel("validation accuracy of a linear head (± 1 s.e.)")
    axes.set_title("linear probe of every stage")
    axes.legend()
    save_figure(figure, file)
