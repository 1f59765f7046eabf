"""What a solved head does on features that nobody trained for the task, a score per validation picture."""

import time
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_lightning.activations import ActivationStore
from tl_lightning.choosing.facts import Probe, Score
from tl_lightning.configuration import Configuration
from tl_lightning.data.module import ImageDataModule
from tl_lightning.depth_probe import FOLDS, pooled, probe_stage, probe_stages
from tl_lightning.errors import UserError
from tl_lightning.probe import ridge_path

PROBED = {"train": 3000, "val": 1500}  # pictures at most; the standard error is then about a point
WHAT = {"class": "accuracy", "level": "accuracy", "labels": "label accuracy", "number": "R2"}

Splits = Mapping[str, NDArray[np.int64]]


def probed_pictures(data: ImageDataModule) -> dict[str, NDArray[np.int64]]:
    """The training and validation pictures that a probe looks at: all, or a random sample of many.

    Args:
        data: Set up.

    Raises:
        UserError: If there are fewer training pictures than a probe needs.
    """
    if len(data.splits["train"]) < FOLDS:
        raise UserError(
            f"{len(data.splits['train'])} training pictures are too few to probe: {FOLDS} or more are needed"
        )
    rng = np.random.default_rng(0)
    return {name: np.sort(rng.permutation(data.splits[name])[:most]) for name, most in PROBED.items()}


def probe_depth(configuration: Configuration, splits: Splits) -> tuple[list[tuple[str, Tensor]], float]:
    """Probes every stage where the answers are classes or levels, else the top alone.

    Args:
        configuration: Its data are set up, and its model is on the trainer's device.
        splits: Of `probed_pictures`.

    Returns:
        The name of each stage with a score per validation picture, 1 at best, input to output; and how many seconds the
        top's head took to solve.

    Raises:
        UserError: If the backbone cannot be split, or there is no room.
    """
    data, stages = configuration.datamodule, configuration.model.stages
    store = pooled(configuration, splits=splits)
    begun = time.perf_counter()
    top = _top(data, store, configuration, splits)
    seconds = time.perf_counter() - begun
    if data.samples.answers not in ("class", "level"):
        return [(stages[-1].name, top)], seconds
    probes = probe_stages(data, store, stages, splits=splits)
    return [(probe.name, probe.right.double()) for probe in probes], seconds


def probe_top(configuration: Configuration, splits: Splits) -> Tensor:
    """A score per validation picture of a head on the backbone's own features; see `probe_depth`."""
    return _top(configuration.datamodule, pooled(configuration, splits=splits), configuration, splits)


def _top(data: ImageDataModule, store: ActivationStore, configuration: Configuration, splits: Splits) -> Tensor:
    stages = configuration.model.stages
    if data.samples.answers in ("class", "level"):
        return probe_stage(data, store, stages, len(stages) - 1, splits=splits).right.double()
    answers = {name: torch.from_numpy(data.samples.labels[rows]).double() for name, rows in splits.items()}
    features = {name: store.rows(rows, len(stages) - 1) for name, rows in splits.items()}
    path = ridge_path(features["train"], answers["train"])
    outputs = features["val"][:].double() @ path.weights[path.chosen].T + path.biases[path.chosen]
    return scores(outputs, answers["val"], training=answers["train"], answers=data.samples.answers)


def scores(outputs: Tensor, right: Tensor, *, training: Tensor, answers: str) -> Tensor:
    """A score per picture, ``(N,)``, 1 at best.

    Args:
        outputs: ``(N, k)``; of labels a regression of 0 and 1, of numbers the numbers.
        right: The right answers, likewise.
        training: Those of the training pictures.
        answers: ``labels``: the share of the labels that is right. ``number``: 1 less the squared error over the
            variance of the training pictures' numbers, so that the mean is R2 but for that variance.
    """
    if answers == "labels":
        return ((outputs > 0.5) == (right > 0.5)).double().mean(dim=1)
    variance = training.var(dim=0, correction=0)
    varied = torch.where(variance > 0, variance, torch.ones_like(variance))
    return 1 - ((outputs - right).square() / varied).mean(dim=1)


def constant_score(training: Tensor, right: Tensor, *, answers: str) -> float:
    """The mean score of always giving one answer: the most frequent class, the more frequent of each label, the mean.

    Args:
        training: Answers of the training pictures, a row each.
        right: Of the pictures to score.
        answers: The kind of answer.
    """
    if training.ndim == 1:
        return float((right == torch.bincount(training).argmax()).double().mean())
    constant = training.double().mean(dim=0).expand(len(right), -1)
    return float(scores(constant, right.double(), training=training.double(), answers=answers).mean())


def probe_facts(
    stages: list[tuple[str, Tensor]], control: Tensor | None, *, what: str, constant: float, seconds: float
) -> Probe:
    """Makes facts of scores.

    Args:
        stages: Of `probe_depth`.
        control: The scores on the same pictures with random weights; `None` where there are none.
        what: What is scored.
        constant: The score of always giving one answer.
        seconds: How long the top's head took to solve.
    """
    _, top = stages[-1]
    # Of equal ones the highest.
    best = max(reversed(range(len(stages))), key=lambda position: float(stages[position][1].mean()))
    name, scored = stages[best]
    return Probe(
        what=what,
        pretrained=Score.of(top),
        random=None if control is None else Score.of(control),
        gain=None if control is None else Score.of(top - control),
        constant=constant,
        best_stage=name if len(stages) > 1 else None,
        below=len(stages) - 1 - best,
        top_behind=Score.of(scored - top),
        stages=tuple((stage, Score.of(values)) for stage, values in stages),
        seconds=seconds,
    )
