"""How good the heads of a path are on rows they were not solved for, and which one to take."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tl_lightning.probe.features import Features, chunks
from tl_lightning.probe.logistic import LogisticPath, check_labels, logistic_path

RISEN = 3.0  # by this much the held-out loss has risen once and for all
LOGITS = 2**21  # numbers held at once


@dataclass(frozen=True)
class PathScores:
    """One value for each strength of a path.

    Attributes:
        losses: Mean of class weight times cross-entropy, in nats, ``(strengths,)`` float64.
        accuracies: Unweighted share of rows whose most probable class is right, 0 to 1, ``(strengths,)`` float64.
    """

    losses: Tensor
    accuracies: Tensor


def score_path(
    path: LogisticPath, features: Features, labels: Tensor, *, class_weights: Tensor | None = None
) -> PathScores:
    """Scores all strengths in one pass over the rows.

    Args:
        path: The heads.
        features: Raw features, at least one row.
        labels: Class of each row, ``(rows,)`` int64.
        class_weights: Those of the training, ``(classes,)``; `None` for 1.

    Raises:
        ValueError: If there is no row, or the labels do not fit.
    """
    count, classes, width = path.weights.shape
    check_labels(features, labels, classes=classes)
    rows = features.shape[0]
    weights = torch.ones(classes, dtype=torch.float64) if class_weights is None else class_weights.double()
    losses, right = path.biases.new_zeros(count), path.biases.new_zeros(count)
    for part, block in chunks(features):
        target = labels[part]
        size = max(1, LOGITS // (classes * len(block)))
        for start in range(0, count, size):
            some = slice(start, start + size)
            logits = torch.addmm(path.biases[some].reshape(-1, 1), path.weights[some].reshape(-1, width), block.T)
            logits = logits.view(-1, classes, len(block))
            own = logits.gather(1, target.expand(len(logits), 1, -1))[:, 0]
            losses[some] += (logits.logsumexp(dim=1) - own) @ weights[target]
            right[some] += (logits.argmax(dim=1) == target).sum(dim=1)
    return PathScores(losses / rows, right / rows)


def path_until_it_rises(
    features: Features,
    labels: Tensor,
    held_out: Features,
    held_out_labels: Tensor,
    *,
    classes: int,
    class_weights: Tensor | None = None,
    row_weights: Tensor | None = None,
) -> tuple[LogisticPath, PathScores]:
    """Solves from strong to weak regularisation for as long as it may still help on rows that were held out.

    Without much regularisation a problem takes longest, and the held-out loss has long risen: no strength is tried
    beyond one at which it is `RISEN` times the lowest.

    Args:
        features: Raw features that the path is fitted to; `logistic_path` says more of this and of what follows.
        labels: Class of each row.
        held_out: Raw features that score each strength.
        held_out_labels: The class of each row of `held_out`.
        classes: 2 or more.
        class_weights: ``(classes,)``; `None` for 1.
        row_weights: ``(rows,)``, of training; `None` for 1.

    Returns:
        The path, and its scores.
    """
    parts: list[PathScores] = []

    def enough(part: LogisticPath) -> bool:
        parts.append(score_path(part, held_out, held_out_labels, class_weights=class_weights))
        return bool(parts[-1].losses.min() > RISEN * min(scores.losses.min() for scores in parts))

    path = logistic_path(
        features, labels, classes=classes, class_weights=class_weights, row_weights=row_weights, enough=enough
    )
    losses, accuracies = (torch.cat([getattr(part, name) for part in parts]) for name in ("losses", "accuracies"))
    return path, PathScores(losses, accuracies)


def choose(scores: PathScores) -> int:
    """The position of the lowest loss; of equal ones the most regularised."""
    return int(scores.losses.tolist().index(scores.losses.min().item()))


def stratified_folds(labels: Tensor, *, folds: int, seed: int) -> Tensor:
    """The fold of each row; sizes differ by at most one, of the whole as of each class."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    fold = torch.empty_like(labels)
    fold[by_class] = torch.arange(len(labels)) % folds
    return fold
