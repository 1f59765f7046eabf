"""What a solved linear head does on each image that it has not seen: the estimate by which models are compared."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_lightning.data.base import TransferDataModule
from tl_lightning.data.splits import fold_numbers, kin_numbers
from tl_lightning.errors import UserError
from tl_lightning.probe import Features, left_out, out_of_fold, ridge_out_of_fold
from tl_lightning.tasks.objectives import OBJECTIVES

FOLDS = 5
PROBED = 5_000  # images at most; the standard error of an accuracy is then below a point
STRENGTHS = tuple(10.0**exponent for exponent in range(-5, 3))  # coarser than the head's: models are to be compared


def folds_and_kin(data: TransferDataModule, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
    """The fold of each image, ``(n,)`` int64 from 0 on, and the number of its kin; see `kin_numbers`.

    Args:
        data: Set up.
        rows: Ascending indices among its samples, ``(n,)``.

    Raises:
        UserError: If there are fewer images, or groups of images, than folds.
    """
    groups = rows if data.samples.groups is None else np.unique(data.samples.groups[rows])
    if len(groups) < FOLDS:
        what = "training and validation images" if data.samples.groups is None else "groups of images"
        raise UserError(f"{len(groups)} {what} are too few to compare backbones on: {FOLDS} or more are needed")
    fold_of = fold_numbers(data.samples, rows, data.split, folds=FOLDS)
    kin = kin_numbers(data.samples, rows, data.split, folds=FOLDS)
    return torch.from_numpy(fold_of), None if kin is None else torch.from_numpy(kin)


def probed(fold_of: Tensor) -> Tensor:
    """The rows that are probed, ascending ``int64``: all, or the same `PROBED` of more for every model.

    Args:
        fold_of: The fold of each row; none of them loses all of its rows.
    """
    rows = len(fold_of)
    if rows <= PROBED:
        return torch.arange(rows)
    drawn = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    first = torch.zeros(rows, dtype=torch.bool)
    for number in sorted(set(fold_of.tolist())):
        first[(fold_of[drawn] == number).nonzero()[0]] = True
    return torch.cat([drawn[first], drawn[~first]])[:PROBED].sort().values


def solved_right(
    features: Features, labels: Tensor, *, problem_type: str, classes: int, fold_of: Tensor, kin: Tensor | None
) -> Tensor:
    """How well a solved linear head that has seen neither an image nor its kin does on it.

    Classes and levels are cross-validated. Labels and numbers leave out each image, or its fold where it has kin.

    Args:
        features: ``(n, width)``.
        labels: The targets, ``(n,)`` int64 for classes and levels, else ``(n, k)``.
        problem_type: What kind of targets they are.
        classes: How many.
        fold_of: The fold of each image, from `folds_and_kin`.
        kin: Whether there is any decides.

    Returns:
        A score per image, ``(n,)`` float64: 1 or 0 for a class, else see `Objective.probe_scores`.
    """
    objective = OBJECTIVES[problem_type]
    if objective.picks_one:
        folds = int(fold_of.max()) + 1
        solved = out_of_fold(features, labels, classes=classes, folds=folds, strengths=STRENGTHS, fold_of=fold_of)
        return (solved.predicted == labels).double()
    targets = labels.double()
    if kin is None:
        outputs, _ = left_out(features, targets)
    else:
        outputs = ridge_out_of_fold(features, targets, fold_of=fold_of)
    return objective.probe_scores(outputs, targets)
