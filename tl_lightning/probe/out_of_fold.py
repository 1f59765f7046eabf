"""What a solved head says of rows it has not seen: for every row, so that two sets of features compare row by row."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tl_lightning.probe.features import Features, Rows, chunks
from tl_lightning.probe.leave_one_out import RidgeProblem
from tl_lightning.probe.logistic import STRENGTHS, LogisticPath, check_labels, logistic_path
from tl_lightning.probe.ridge import RIDGE_STRENGTHS
from tl_lightning.probe.scores import RISEN, PathScores, score_path, stratified_folds

PAST = 1.02  # over its lowest, a fold's loss has turned: along the path it falls and then rises


@dataclass(frozen=True)
class OutOfFold:
    """Answers of heads that have not seen the row.

    Attributes:
        predicted: The most probable class of each row, ``(rows,)`` int64.
        losses: Minus the log of the probability of the right class, in nats, ``(rows,)`` float64.
        strengths: The C with which each fold was predicted, one for each fold.
    """

    predicted: Tensor
    losses: Tensor
    strengths: tuple[float, ...]


def out_of_fold(
    features: Features,
    labels: Tensor,
    *,
    classes: int,
    folds: int = 5,
    seed: int = 0,
    strengths: tuple[float, ...] = STRENGTHS,
    fold_of: Tensor | None = None,
) -> OutOfFold:
    """Answers every row by the head that was solved on the other folds, at a strength that the row had no say in.

    Each path is solved once. A fold is predicted at the strength whose loss over the rows of the *other* folds is
    lowest: choosing on all rows and scoring on the same ones would flatter. That is not quite nested, as the heads of
    the other folds have seen this one. A fold's path ends, after some strengths that are solved side by side, where its
    loss is `PAST` times its lowest; the fold is then predicted at one of those.

    Args:
        features: At least `folds` rows.
        labels: Class of each row, ``(rows,)`` int64.
        classes: 2 or more.
        folds: 2 or more.
        seed: Which rows go together.
        strengths: Values of C.
        fold_of: The fold of each row, ``(rows,)`` int64 from 0 to below `folds`, none of them empty, where rows must
            not be torn apart; `None` spreads every class evenly.

    Raises:
        ValueError: If there are fewer rows than folds, an empty fold, or a number is out of range.
    """
    fold, predicted, losses = _held_out(
        features, labels, classes=classes, folds=folds, seed=seed, strengths=strengths, fold_of=fold_of, past=PAST
    )
    by_fold = torch.stack([losses[:, fold == number].sum(dim=1) for number in range(folds)])
    # What the fold itself did not reach has no prediction; else it has no say.
    others = torch.stack([by_fold[torch.arange(folds) != number].sum(dim=0) for number in range(folds)])
    others = torch.where(by_fold.isfinite(), others, torch.inf)
    chosen = torch.tensor([row.tolist().index(row.min().item()) for row in others])  # the most regularised of equals
    at = chosen[fold][None]
    picked = tuple(sorted(strengths)[position] for position in chosen.tolist())
    return OutOfFold(predicted.gather(0, at)[0], losses.gather(0, at)[0], picked)


def cross_validate(
    features: Features,
    labels: Tensor,
    *,
    classes: int,
    folds: int = 5,
    seed: int = 0,
    strengths: tuple[float, ...] = STRENGTHS,
    fold_of: Tensor | None = None,
) -> PathScores:
    """Scores every strength on rows that its head has not seen: each fold by the heads solved on the others.

    Args:
        features: Raw features; `out_of_fold` says more of this and of what follows.
        labels: Class of each row.
        classes: 2 or more.
        folds: 2 or more.
        seed: Which rows go together.
        strengths: Values of C. With fewer rows than all of them, the same C means a penalty that weighs a little more.
        fold_of: The fold of each row.

    Returns:
        Scores in ascending order of C; an infinite loss, and no accuracy (NaN), where the path of a fold had ended, as
        its loss was `RISEN` times its lowest.

    Raises:
        ValueError: If a fold lacks a class; see `out_of_fold`.
    """
    _, predicted, losses = _held_out(
        features, labels, classes=classes, folds=folds, seed=seed, strengths=strengths, fold_of=fold_of, past=RISEN
    )
    means, right = losses.mean(dim=1), (predicted == labels).double().mean(dim=1)
    return PathScores(means, torch.where(means.isfinite(), right, torch.nan))


def _held_out(
    features: Features,
    labels: Tensor,
    *,
    classes: int,
    folds: int,
    seed: int,
    strengths: tuple[float, ...],
    fold_of: Tensor | None,
    past: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The fold of each row; what each strength predicts for it, ``(strengths, rows)``, and the loss of that."""
    check_labels(features, labels, classes=classes)
    rows = features.shape[0]
    if not 2 <= folds <= rows:
        raise ValueError(f"{folds} folds of {rows} rows")
    fold = stratified_folds(labels, folds=folds, seed=seed) if fold_of is None else fold_of
    if fold.shape != labels.shape or (torch.bincount(fold, minlength=folds) == 0).any() or int(fold.max()) >= folds:
        raise ValueError(f"the fold of each row has to be from 0 to below {folds}, and none may be empty")
    ordered = tuple(sorted(strengths))
    predicted = torch.zeros(len(ordered), rows, dtype=torch.int64)
    losses = torch.full((len(ordered), rows), torch.inf, dtype=torch.float64)  # where a path ended before
    for number in range(folds):
        inside, outside = (fold == number).nonzero()[:, 0], (fold != number).nonzero()[:, 0]
        path = logistic_path(
            Rows(features, outside),
            labels[outside],
            classes=classes,
            strengths=ordered,
            enough=_risen(Rows(features, inside), labels[inside], past=past),
        )
        for part, block in chunks(Rows(features, inside)):
            own = inside[part]
            for position in range(len(path.strengths)):
                logits = torch.addmm(path.biases[position], block, path.weights[position].T)
                predicted[position, own] = logits.argmax(dim=1)
                losses[position, own] = logits.logsumexp(dim=1) - logits.gather(1, labels[own, None])[:, 0]
    return fold, predicted, losses


def _risen(held_out: Features, predicted: Tensor, *, past: float) -> Callable[[LogisticPath], bool]:
    """Whether weaker regularisation need not be tried: the loss of the weakest yet is `past` times the lowest."""
    losses: list[float] = []

    def enough(part: LogisticPath) -> bool:
        losses.extend(score_path(part, held_out, predicted).losses.tolist())
        return losses[-1] > past * min(losses)

    return enough


def left_out(
    features: Features, targets: Tensor, *, strengths: tuple[float, ...] = RIDGE_STRENGTHS
) -> tuple[Tensor, float]:
    """What ridge regression says of each row if it has not seen that row; see `ridge_path`.

    One penalty serves all rows and outputs: that with the lowest leave-one-out error, so each row has a say of one in
    all rows in the choice of one number.

    Args:
        features: At least two rows.
        targets: ``(rows, outputs)``.
        strengths: Penalties, more than 0.

    Returns:
        The outputs ``(rows, outputs)`` float64, and the penalty.

    Raises:
        ValueError: If a number is out of range, or a feature is not finite.
    """
    problem = _ridge(features, targets, strengths)
    outputs = torch.empty(targets.shape, dtype=torch.float64)
    for part, some in problem.left_out(1):
        outputs[part] = some
    return outputs, problem.strengths[problem.chosen]


def ridge_out_of_fold(
    features: Features, targets: Tensor, *, fold_of: Tensor, strengths: tuple[float, ...] = RIDGE_STRENGTHS
) -> Tensor:
    """What ridge regression on the other folds says of each row, where rows must not be torn apart; see `ridge_path`.

    Each fold has its own penalty: that with the lowest leave-one-out error within the other folds.

    Args:
        features: Rows, of which at least two lie outside of each fold.
        targets: ``(rows, outputs)``.
        fold_of: The fold of each row, ``(rows,)`` int64.
        strengths: Penalties, more than 0.

    Returns:
        The outputs ``(rows, outputs)`` float64.

    Raises:
        ValueError: If a number is out of range, or a feature is not finite.
    """
    outputs = torch.empty(targets.shape, dtype=torch.float64)
    for number in sorted(set(fold_of.tolist())):
        inside, outside = (fold_of == number).nonzero()[:, 0], (fold_of != number).nonzero()[:, 0]
        problem = _ridge(Rows(features, outside), targets[outside], strengths)
        weight, bias = problem.raw(problem.chosen)
        for part, block in chunks(Rows(features, inside)):
            outputs[inside[part]] = torch.addmm(bias, block, weight.T)
    return outputs


def _ridge(features: Features, targets: Tensor, strengths: tuple[float, ...]) -> RidgeProblem:
    ones = torch.ones(len(targets), dtype=torch.float64)
    return RidgeProblem(features, lambda part: targets[part].double(), lambda part: ones[part], strengths=strengths)
