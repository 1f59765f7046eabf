"""What a solved head does on features that nobody trained for the task: a score per image, by heads that have not
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
from tl_lightning.choosing.ranking.solved import FOLDS, folds_and_kin, solved_right
from tl_lightning.data.base import TransferDataModule
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.inspecting.depth_probe import StageProbe, pooled, probe_stages
from tl_lightning.metrics.noise import standard_error
from tl_lightning.tasks.objectives import OBJECTIVES

PROBED = {"train": 3000, "val": 1500}  # images at most; the standard error is then below a point

Splits = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class TopScores:
    """How good the backbone's own features are.

    Attributes:
        values: A score per training and validation image, 1 at best, ``(n,)``.
        groups: What the images have in common; `None` for nothing.
        baseline: The mean score of always predicting the same.
        seconds: How long the heads took to solve.
    """

    values: Tensor
    groups: NDArray[np.str_] | None
    baseline: float
    seconds: float

    @property
    def score(self) -> Score:
        """Their mean, with its standard error; the images of a group count as one."""
        return _mean(self.values, self.groups)

    def ahead_of(self, other: "TopScores") -> Score:
        """How much better this is on the same images."""
        return _mean(self.values - other.values, self.groups)


def probed_images(data: TransferDataModule) -> dict[str, NDArray[np.int64]]:
    """The training and validation images that a probe looks at: all, or a random sample of many.

    Args:
        data: Set up.

    Raises:
        UserError: If there are fewer images than a probe needs.
    """
    if len(data.splits["train"]) < FOLDS:
        raise UserError(f"{len(data.splits['train'])} training images are too few to probe: {FOLDS} or more are needed")
    rng = np.random.default_rng(0)
    return {name: np.sort(rng.permutation(data.splits[name])[:most]) for name, most in PROBED.items()}


def probe_top(configuration: Configuration, splits: Splits) -> TopScores:
    """Scores the backbone's own features, cross-validated over training and validation images.

    Args:
        configuration: The data are set up, and its model is on the trainer's device.
        splits: Indices of images, from `probed_images`.

    Raises:
        UserError: If the backbone cannot be split, there is no room, or too few groups of images.
    """
    data, last = configuration.datamodule, len(configuration.model.stages) - 1
    store = pooled(configuration, splits=splits)
    rows = np.union1d(splits["train"], splits["val"])
    features, labels = store.rows(rows, last), torch.from_numpy(data.samples.labels[rows])
    begun = time.perf_counter()
    kind, classes = data.samples.problem_type, len(data.classes)
    fold_of, kin = folds_and_kin(data, rows)
    values = solved_right(features, labels, problem_type=kind, classes=classes, fold_of=fold_of, kin=kin)
    seconds = time.perf_counter() - begun
    groups = None if data.samples.groups is None else data.samples.groups[rows]
    baseline = OBJECTIVES[kind].probe_baseline(labels)
    return TopScores(values, groups, 0.0 if baseline is None else baseline, seconds)


def probe_depth(configuration: Configuration, splits: Splits) -> list[StageProbe]:
    """Probes every stage, on the validation images; nothing where the targets are neither classes nor levels."""
    data, stages = configuration.datamodule, configuration.model.stages
    if not OBJECTIVES[data.samples.problem_type].picks_one:
        return []
    return probe_stages(data, pooled(configuration, splits=splits), stages, splits=splits)


def probe_facts(top: TopScores, control: TopScores | None, stages: list[StageProbe], *, what: str) -> Probe:
    """Makes facts of scores.

    Args:
        top: The scores of the weights at the top stage.
        control: On the same images with random weights; `None` where there are none.
        stages: What `probe_depth` found.
        what: What is scored.
    """
    # Of equal ones the highest.
    best = max(reversed(range(len(stages))), key=lambda position: stages[position].accuracy, default=None)
    return Probe(
        what=what,
        pretrained=top.score,
        random=None if control is None else control.score,
        gain=None if control is None else top.ahead_of(control),
        baseline=top.baseline,
        best_stage=None if best is None else stages[best].name,
        below=0 if best is None else len(stages) - 1 - best,
        top_behind=Score(0.0, 0.0) if best is None else Score(*stages[-1].behind(stages[best])),
        stages=tuple((probe.name, Score(probe.accuracy, probe.error)) for probe in stages),
        seconds=top.seconds,
    )


def _mean(values: Tensor, groups: NDArray[np.str_] | None) -> Score:
    return Score(float(values.mean()), standard_error(values.double().numpy(), groups))
