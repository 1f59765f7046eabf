"""The same images in every preparation, right and wrong, and what each costs."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor

from tl_lightning.backbones.engines import EngineChoice, pick_engine
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.errors import UserError
from tl_lightning.inspecting.preprocessing_check.preparations import Variant, prepared_batches, variants
from tl_lightning.metrics.noise import bootstrap
from tl_lightning.preprocess.image import ImagePreprocess
from tl_lightning.tasks import TransferTask
from tl_lightning.tasks.objectives import Objective

DRAWS = 200  # of the bootstrap


@dataclass(frozen=True)
class Result:
    """How the model does with one preparation.

    Attributes:
        name: The name of the `Variant`.
        verdict: ``right``, ``worse``, ``better``, ``within the noise``, ``the same``, or why the model cannot run.
        metrics: The task's, by plain names; empty where it cannot run.
        cost: How much worse the metric in question is than with the right preparation; below 0 where it is better.
        standard_error: The standard error of the cost, from the same images.
        changed: The share of predictions that are others.
    """

    name: str
    verdict: str
    metrics: dict[str, float]
    cost: float = 0.0
    standard_error: float = 0.0
    changed: float = 0.0


@dataclass(frozen=True)
class Checked:
    """All preparations on the same images.

    Attributes:
        metric: The plain name of the metric that costs are of.
        images: How many there were.
        broken: How many more could not be read.
        results: The right one, then from the worst to the best, then what is the same or cannot run.
    """

    metric: str
    images: int
    broken: int
    results: list[Result]


@dataclass(frozen=True)
class _Outputs:
    """What the model gave: rows that could be read, outputs by variant, variants that change no number, and reasons."""

    readable: NDArray[np.int64]
    of: dict[str, Tensor]
    same: set[str]
    impossible: dict[str, str]


def check_preprocessing(
    task: TransferTask,
    data: ImageDataModule,
    trainer: Trainer,
    rows: NDArray[np.int64],
    *,
    own: ImagePreprocess,
    engine: EngineChoice,
) -> Checked:
    """Runs the model over the same images in every preparation.

    Args:
        task: With the weights to check.
        data: Has the images.
        trainer: Says device and precision.
        rows: Indices of the images.
        own: The right preparation.
        engine: What runs the model.

    Raises:
        UserError: If none of the images can be read.
    """
    ways = variants(own)
    device, samples = trainer.strategy.root_device, len(rows) * len(ways)
    with task.evaluating_by(pick_engine(engine, task.transferred, samples=samples, device=device), say=False):
        outputs = _run(task, data, trainer, rows, ways)
    if not len(outputs.readable):
        raise UserError(f"none of the {len(rows):,} images of {data.source} can be read")
    task.cpu()
    labels = torch.from_numpy(data.samples.labels[outputs.readable])
    groups = None if data.samples.groups is None else data.samples.groups[outputs.readable]
    objective = task.objective
    metric = objective.headline
    predicted = {name: objective.predictions(given) for name, given in outputs.of.items()}
    names = [name for name in predicted if name not in outputs.same]
    errors = paired_errors(objective, {name: predicted[name] for name in names}, labels, metric, groups)
    right = _metrics(objective, outputs.of[ways[0].name], labels)
    results = []
    for way in ways[1:]:
        if way.name in outputs.impossible:
            results.append(Result(way.name, outputs.impossible[way.name], {}))
        elif way.name in outputs.same:
            results.append(Result(way.name, "the same", right))
        else:
            metrics, error = _metrics(objective, outputs.of[way.name], labels), errors[way.name]
            cost = right[metric] - metrics[metric]
            cost = cost if objective.metrics[metric] == "max" else -cost
            verdict = "within the noise" if abs(cost) <= 2 * error or not cost else "worse" if cost > 0 else "better"
            changed = float(objective.changed(predicted[ways[0].name], predicted[way.name], labels).double().mean())
            results.append(Result(way.name, verdict, metrics, cost, error, changed))
    results.sort(key=lambda result: (not result.metrics, result.verdict == "the same", -result.cost))
    broken = len(rows) - len(outputs.readable)
    return Checked(metric, len(labels), broken, [Result(ways[0].name, "right", right), *results])


def _run(
    task: TransferTask, data: ImageDataModule, trainer: Trainer, rows: NDArray[np.int64], ways: Sequence[Variant]
) -> _Outputs:
    task.eval().to(trainer.strategy.root_device)
    trainer.precision_plugin.convert_module(task)

    def forward(images: Tensor) -> Tensor:
        images = images.to(task.device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            outputs: Tensor = task(images)
        return outputs.cpu()

    impossible = _impossible(task, forward, ways)
    ways = [way for way in ways if way.name not in impossible]
    first, *others = ways
    kept: dict[str, list[Tensor]] = {way.name: [] for way in ways}
    same, readable = {way.name for way in others}, []
    kinds = list(dict.fromkeys(way.pixels for way in ways))
    for batch, pixels in prepared_batches(data.samples.paths, rows, kinds, batch_size=data.batch_size):
        readable.append(batch)
        if not len(batch):
            continue
        right = first.numbers(pixels)
        kept[first.name].append(forward(right))
        for way in others:
            numbers = way.numbers(pixels)
            if torch.equal(numbers, right):
                kept[way.name].append(kept[first.name][-1])
            else:
                same.discard(way.name)
                kept[way.name].append(forward(numbers))
    given = {name: torch.cat(parts) for name, parts in kept.items() if parts}
    return _Outputs(np.concatenate(readable), given, same, impossible)


def _impossible(task: TransferTask, forward: Callable[[Tensor], Tensor], ways: Sequence[Variant]) -> dict[str, str]:
    """Why a model cannot run on some sizes, such as a ViT on any but its own."""
    own, reasons = ways[0].preprocess.size, {}
    for way in ways:
        size = way.preprocess.size
        try:
            if size != own:
                forward(*way.preprocess.example(2, task.device))
        except (AssertionError, RuntimeError, ValueError):
            reasons[way.name] = f"the model takes no {size} x {size} pixels"
    return reasons


def _metrics(objective: Objective, outputs: Tensor, labels: Tensor) -> dict[str, float]:
    """The metrics that an evaluation would log."""
    loss = float(objective.losses(outputs, labels).mean())
    return {"loss": loss, **objective.evaluate(objective.predictions(outputs), labels)}


def paired_errors(
    objective: Objective, predicted: Mapping[str, Tensor], labels: Tensor, metric: str, groups: NDArray[np.str_] | None
) -> dict[str, float]:
    """The standard error of each difference to the first, by drawing the same images for both.

    Args:
        objective: Says what the metric is; on the CPU.
        predicted: The predictions by name, a row per image; the right preparation's first.
        labels: The targets.
        metric: The metric's plain name.
        groups: What images have in common.
    """
    score = objective.scorer(metric)

    def differences(times: NDArray[np.int64]) -> dict[str, float]:
        drawn = torch.from_numpy(np.repeat(np.arange(len(times)), times))
        scores = {name: score(predictions[drawn], labels[drawn]) for name, predictions in predicted.items()}
        right = next(iter(scores.values()))
        return {name: value - right for name, value in scores.items()}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a draw may lack a class or a label, of which torchmetrics warns each time
        return bootstrap(differences, len(labels), groups=groups, draws=DRAWS)
