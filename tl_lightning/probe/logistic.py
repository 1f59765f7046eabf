"""Logistic regression on cached features for many regularisation strengths: one path, solved to the optimum."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from tl_lightning.probe.features import Features
from tl_lightning.probe.hessian import Covariance, HessianGuess, OneOutput, SeveralOutputs
from tl_lightning.probe.lbfgs import Minima, minimise
from tl_lightning.probe.problem import Problem

STRENGTHS: tuple[float, ...] = tuple(10 ** (-6 + step / 4) for step in range(45))
"""Values of C, 1e-6 to 1e5, as in the linear evaluation of DINOv2 (Oquab et al. 2023, arXiv:2304.07193)."""

GROUP = 5  # strengths solved side by side, which share a guess at the Hessian: a factor of 10 in C
PATIENCE = 20  # iterations before the guess is renewed in the middle of a group, which costs about as many
RENEWALS = 50  # at most, for classes that can nearly be told apart without any regularisation
OUTDATED = 12  # iterations of the group before from which a new covariance pays off
GROUP_BYTES = 256 * 2**20  # of what is kept of a group; many classes make the groups smaller
VECTORS = 30  # about how many vectors are kept of each strength
FARTHEST = 2.0  # how many of the last steps along the path the next start may lie ahead


@dataclass(frozen=True)
class LogisticPath:
    """Linear heads for several strengths; softmax of ``weights @ features + biases`` gives the probabilities.

    Attributes:
        strengths: Values of C, ascending: the last is the least regularised.
        weights: ``(strengths, classes, width)`` float64, for raw features.
        biases: ``(strengths, classes)`` float64.
        losses: Mean weighted cross-entropy of the training rows, in nats, ``(strengths,)``.
        objectives: That plus the penalty; scikit-learn's objective divided by C and the number of rows.
        iterations: Passes over the rows until each had converged, ``(strengths,)`` int64.
        converged: Whether each had, ``(strengths,)`` bool.
    """

    strengths: tuple[float, ...]
    weights: Tensor
    biases: Tensor
    losses: Tensor
    objectives: Tensor
    iterations: Tensor
    converged: Tensor


def logistic_path(
    features: Features,
    labels: Tensor,
    *,
    classes: int,
    strengths: tuple[float, ...] = STRENGTHS,
    class_weights: Tensor | None = None,
    row_weights: Tensor | None = None,
    tolerance: float = 1e-9,
    enough: Callable[["LogisticPath"], bool] | None = None,
) -> LogisticPath:
    """Solves logistic regression for every strength, on features with mean 0 and deviation 1.

    The objective is that of scikit-learn's ``LogisticRegression(C=C)``: the sum of ``C * class weight * cross-entropy``
    plus half the squared weights. Biases are free, and two classes share one weight vector. Memory does not grow with
    the number of rows.

    Args:
        features: At least one row, on the CPU. A constant column gets the weight 0.
        labels: Class of each row, ``(rows,)`` int64. A class without any row gets a bias that makes it improbable.
        classes: 2 or more.
        strengths: Values of C, more than 0, in any order.
        class_weights: ``(classes,)``, 0 or more; `None` for 1.
        row_weights: ``(rows,)``, 0 or more, by which a row's loss is multiplied; `None` for 1.
        tolerance: A strength has converged when the next step promises to gain less than this share of its objective.
        enough: Asked after every few strengths, with their heads, whether weaker regularisation need not be tried.

    Returns:
        The heads, with the scaling folded into them.

    Raises:
        ValueError: If a number is out of range, or a feature is not finite.
    """
    check_labels(features, labels, classes=classes)
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"strengths have to be more than 0: {strengths}")
    ordered = tuple(sorted(strengths))
    problem = Problem(features, labels, classes=classes, class_weights=class_weights, row_weights=row_weights)
    penalties = 1 / (torch.tensor(ordered, dtype=torch.float64) * problem.rows)
    parts: list[LogisticPath] = []
    for minima in _follow(problem, penalties, tolerance=tolerance):
        done = sum(len(part.strengths) for part in parts)
        some = slice(done, done + len(minima.values))
        parts.append(_heads(problem, ordered[some], penalties[some], minima))
        if enough is not None and enough(parts[-1]):
            break
    tensors = [field.name for field in fields(LogisticPath) if field.name != "strengths"]
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in tensors}
    return LogisticPath(tuple(strength for part in parts for strength in part.strengths), **joined)


def _heads(problem: Problem, strengths: tuple[float, ...], penalties: Tensor, minima: Minima) -> LogisticPath:
    """Folds the scaling of the features into the heads."""
    weights = minima.points[..., :-1] / problem.scale
    biases = minima.points[..., -1] - weights @ problem.mean
    if problem.outputs == 1:
        weights, biases = torch.cat([-weights, weights], dim=1) / 2, torch.cat([-biases, biases], dim=1) / 2
    losses = minima.values - 0.5 * penalties * minima.points[..., :-1].square().sum(dim=(1, 2))
    return LogisticPath(strengths, weights, biases, losses, minima.values, minima.iterations, minima.converged)


def _follow(problem: Problem, penalties: Tensor, *, tolerance: float) -> Iterator[Minima]:
    """Goes from strong to weak regularisation, group by group; each starts where the path seems to lead."""
    size = GROUP_BYTES // (VECTORS * 8 * problem.outputs * (problem.width + 1))
    points, logs = problem.start()[None], list[Tensor]()
    last: Minima | None = None
    covariance: Covariance
    guess: HessianGuess
    for group in torch.split(penalties, min(max(size, 1), GROUP)):
        start = _ahead(points, torch.cat(logs), group.log()) if logs else points.expand(len(group), -1, -1)
        middle = start[len(start) // 2]
        outdated = last is None or int(last.iterations.max()) > OUTDATED
        if outdated:
            covariance = problem.covariance(middle)
        if outdated or problem.outputs == 1:
            guess = _guess(problem, covariance, middle, group)
        last = _minimise(problem, group, guess, start, tolerance=tolerance)
        yield last
        logs.append(group.log())
        points = torch.cat([points, last.points])[-2:]


def _minimise(problem: Problem, penalties: Tensor, guess: HessianGuess, start: Tensor, *, tolerance: float) -> Minima:
    """Solves a group; for what takes long the guess at the Hessian is renewed where it has got to."""
    found = minimise(_Penalised(problem, penalties, guess), start, tolerance=tolerance, limit=PATIENCE)
    for _ in range(RENEWALS):
        left = (~found.converged).nonzero()[:, 0]
        if not len(left):
            break
        points = found.points[left]
        middle = points[len(left) // 2]
        guess = _guess(problem, problem.covariance(middle), middle, penalties[left])
        more = minimise(_Penalised(problem, penalties[left], guess), points, tolerance=tolerance, limit=PATIENCE)
        found.points[left], found.values[left], found.converged[left] = more.points, more.values, more.converged
        found.iterations[left] += more.iterations
    return found


def _guess(problem: Problem, covariance: Covariance, point: Tensor, penalties: Tensor) -> HessianGuess:
    """For one output it holds for the penalty in the middle of a group, for several outputs for any."""
    if problem.outputs > 1:
        return SeveralOutputs(covariance)
    curvature = float(problem.evaluate(point[None])[2])
    ratio = float(penalties.log().mean().exp()) / max(curvature, torch.finfo(torch.float64).tiny)
    return OneOutput(covariance, ratio)


def _ahead(points: Tensor, logs: Tensor, wanted: Tensor) -> Tensor:
    """Extends the straight line through the last two points, in the logarithm of the strength."""
    if len(logs) < 2 or logs[-1] == logs[-2]:
        return points[-1:].expand(len(wanted), -1, -1)
    steps = ((wanted - logs[-1]) / (logs[-1] - logs[-2])).clamp(max=FARTHEST)
    return points[-1] + steps[:, None, None] * (points[-1] - points[-2])


class _Penalised:
    """A problem with its penalties, as `minimise` wants it."""

    def __init__(self, problem: Problem, penalties: Tensor, guess: HessianGuess) -> None:
        self._problem, self._penalties, self._guess = problem, penalties, guess
        self._weights = torch.ones(problem.width + 1, dtype=torch.float64)
        self._weights[-1] = 0  # the bias is free

    def evaluate(self, points: Tensor, which: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        losses, gradients, curvatures = self._problem.evaluate(points)
        pulls = self._penalties[which, None, None] * self._weights * points
        return losses + 0.5 * (pulls * points).sum(dim=(1, 2)), gradients + pulls, curvatures

    def precondition(self, gradients: Tensor, curvatures: Tensor, which: Tensor) -> Tensor:
        return self._guess.solve(gradients, curvatures, self._penalties[which])


def check_labels(features: Features, labels: Tensor, *, classes: int) -> None:
    """Says what is wrong with labels before arithmetic hides it.

    Raises:
        ValueError: If there is no row, or the labels are not one whole number from 0 to below `classes` for each.
    """
    rows = features.shape[0]
    if labels.shape != (rows,) or labels.dtype != torch.int64:
        raise ValueError(f"{rows} labels of int64 expected, but got {labels.dtype} of shape {tuple(labels.shape)}")
    if not rows:
        raise ValueError("there are no rows")
    if classes < 2 or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"labels have to be from 0 to below the number of classes, which is {classes}")
