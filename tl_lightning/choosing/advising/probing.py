"""What a solved head does on features that nobody trained for the task: a score per picture, by heads that have not
seen it, and a score per stage.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_lightning.choosing.advising.facts import Probe, Score
from tl_lightning.choosing.ranking.assess import STRENGTHS, standard_error
from tl_lightning.choosing.ranking.measure import FOLDS
from tl_lightning.configuration import Configuration
from tl_lightning.data.module import ImageDataModule
from tl_lightning.data.splits import folds_within
from tl_lightning.depth_probe import StageProbe, pooled, probe_stages
from tl_lightning.errors import UserError
from tl_lightning.probe import left_out, out_of_fold

PROBED = {"train": 3000, "val": 1500}  # pictures at most; the standard error is then below a point
WHAT = {"class": "accuracy", "level": "accuracy", "labels": "label accuracy", "number": "R2"}

Splits = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class TopScores:
    """How good the backbone's own features are.

    Attributes:
        values: A score per training and validation picture, 1 at best, ``(n,)``.
        groups: What the pictures have in common; `None` for nothing.
        constant: The mean score of always giving one answer.
        seconds: How long the heads took to solve.
    """

    values: Tensor
    groups: NDArray[np.str_] | None
    constant: float
    seconds: float

    @property
    def score(self) -> Score:
        """Their mean, with its standard error; the pictures of a group count as one."""
        return _mean(self.values, self.groups)

    def ahead_of(self, other: "TopScores") -> Score:
        """How much better this is on the same pictures."""
        return _mean(self.values - other.values, self.groups)


def probed_pictures(data: ImageDataModule) -> dict[str, NDArray[np.int64]]:
    """The training and validation pictures that a probe looks at: all, or a random sample of many.

    Args:
        data: Set up.

    Raises:
        UserError: If there are fewer pictures than a probe needs.
    """
    if len(data.splits["train"]) < FOLDS:
        raise UserError(
            f"{len(data.splits['train'])} training pictures are too few to probe: {FOLDS} or more are needed"
        )
    rng = np.random.default_rng(0)
    return {name: np.sort(rng.permutation(data.splits[name])[:most]) for name, most in PROBED.items()}


def probe_top(configuration: Configuration, splits: Splits) -> TopScores:
    """Scores the backbone's own features, cross-validated over training and validation pictures.

    Args:
        configuration: Its data are set up, and its model is on the trainer's device.
        splits: Of `probed_pictures`.

    Raises:
        UserError: If the backbone cannot be split, there is no room, or too few groups of pictures.
    """
    data, last = configuration.datamodule, len(configuration.model.stages) - 1
    store = pooled(configuration, splits=splits)
    rows = np.union1d(splits["train"], splits["val"])
    features, labels = store.rows(rows, last), torch.from_numpy(data.samples.labels[rows])
    begun = time.perf_counter()
    kind = data.samples.answers
    if kind in ("class", "level"):
        classes, fold_of = len(data.classes), _folds(data, rows)
        solved = out_of_fold(features, labels, classes=classes, folds=FOLDS, strengths=STRENGTHS, fold_of=fold_of)
        values = (solved.answers == labels).double()
    else:
        values = scores(left_out(features, labels.double())[0], labels.double(), answers=kind)
    seconds = time.perf_counter() - begun
    groups = None if data.samples.groups is None else data.samples.groups[rows]
    return TopScores(values, groups, constant_score(labels, answers=kind), seconds)


def probe_depth(configuration: Configuration, splits: Splits) -> list[StageProbe]:
    """Probes every stage, on the validation pictures; nothing where the answers are neither classes nor levels."""
    data, stages = configuration.datamodule, configuration.model.stages
    if data.samples.answers not in ("class", "level"):
        return []
    return probe_stages(data, pooled(configuration, splits=splits), stages, splits=splits)


def _folds(data: ImageDataModule, rows: NDArray[np.int64]) -> Tensor:
    parts = folds_within(data.samples, rows, data.split, folds=FOLDS)
    if any(not len(part) for part in parts):
        raise UserError(f"the pictures are in too few groups to probe: {FOLDS} or more are needed")
    fold_of = np.empty(len(rows), dtype=np.int64)
    for number, part in enumerate(parts):
        fold_of[np.searchsorted(rows, part)] = number
    return torch.from_numpy(fold_of)


def scores(outputs: Tensor, right: Tensor, *, answers: str) -> Tensor:
    """A score per picture, ``(N,)``, 1 at best.

    Args:
        outputs: ``(N, k)`` float64; of labels a regression of 0 and 1, of numbers the numbers.
        right: The right answers, likewise.
        answers: ``labels``: the share of the labels that is right. ``number``: one less the squared error over the
            variance of the numbers, so that the mean is R2.
    """
    if answers == "labels":
        return ((outputs > 0.5) == (right > 0.5)).double().mean(dim=1)
    variance = right.var(dim=0, correction=0)
    return 1 - ((outputs - right).square() / torch.where(variance > 0, variance, 1.0)).mean(dim=1)


def constant_score(labels: Tensor, *, answers: str) -> float:
    """The mean score of always giving one answer: the most frequent class, the more frequent of each label, the mean.

    Args:
        labels: The right answers, a row each.
        answers: The kind of answer.
    """
    if labels.ndim == 1:
        return float(torch.bincount(labels).max()) / len(labels)
    constant = labels.double().mean(dim=0).expand(len(labels), -1)
    return float(scores(constant, labels.double(), answers=answers).mean())


def probe_facts(top: TopScores, control: TopScores | None, stages: list[StageProbe], *, what: str) -> Probe:
    """Makes facts of scores.

    Args:
        top: Of the weights.
        control: On the same pictures with random weights; `None` where there are none.
        stages: Of `probe_depth`.
        what: What is scored.
    """
    # Of equal ones the highest.
    best = max(reversed(range(len(stages))), key=lambda position: stages[position].accuracy, default=None)
    return Probe(
        what=what,
        pretrained=top.score,
        random=None if control is None else control.score,
        gain=None if control is None else top.ahead_of(control),
        constant=top.constant,
        best_stage=None if best is None else stages[best].name,
        below=0 if best is None else len(stages) - 1 - best,
        top_behind=Score(0.0, 0.0) if best is None else Score(*stages[-1].behind(stages[best])),
        stages=tuple((probe.name, Score(probe.accuracy, probe.error)) for probe in stages),
        seconds=top.seconds,
    )


def _mean(values: Tensor, groups: NDArray[np.str_] | None) -> Score:
    return Score(float(values.mean()), standard_error(values.double().numpy(), groups))
