"""Ridge regression for every penalty from one eigendecomposition, with its exact leave-one-out error."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tl_lightning.probe.features import Features
from tl_lightning.probe.leave_one_out import RidgeProblem
from tl_lightning.probe.logistic import check_labels

RIDGE_STRENGTHS: tuple[float, ...] = tuple(10 ** (-6 + step / 4) for step in range(41))
"""Penalties per row and squared weight, 1e-6 to 1e4; the features have deviation 1."""

SAMPLE_ROWS = 20_000  # that the temperature, a single number, is fitted to
SAMPLE_NUMBERS = 2**21  # of the outputs of those rows; many classes make them fewer
HOTTEST, COLDEST = 1e3, 1e-3  # range of the temperature


@dataclass(frozen=True)
class RidgePath:
    """Linear regressions for several penalties.

    Attributes:
        strengths: The penalties, ascending.
        weights: ``(strengths, outputs, width)`` float64, for raw features.
        biases: ``(strengths, outputs)`` float64.
        errors: Leave-one-out squared error, a weighted mean over rows and outputs, one for each penalty.
        chosen: The position of the lowest error; of equal ones the most regularised.
    """

    strengths: tuple[float, ...]
    weights: Tensor
    biases: Tensor
    errors: tuple[float, ...]
    chosen: int


@dataclass(frozen=True)
class RidgeClassifier:
    """A linear head by ridge regression; softmax of ``weight @ features + bias`` gives the probabilities.

    Attributes:
        weight: ``(classes, width)`` float64, for raw features, divided by the temperature.
        bias: ``(classes,)`` float64, likewise.
        strengths: The penalties, ascending.
        errors: Leave-one-out squared error of targets -1 and +1, one for each penalty.
        chosen: The position of the penalty.
        temperature: What the regression's outputs were divided by.
    """

    weight: Tensor
    bias: Tensor
    strengths: tuple[float, ...]
    errors: tuple[float, ...]
    chosen: int
    temperature: float


@dataclass(frozen=True)
class RidgeLabels:
    """A linear head by ridge regression for labels; sigmoid of ``weight @ features + bias`` gives the probabilities.

    Attributes:
        weight: ``(labels, width)`` float64, for raw features, scaled.
        bias: ``(labels,)`` float64, likewise.
        strengths: The penalties, ascending.
        errors: Leave-one-out squared error of targets -1 and +1, one for each penalty.
        chosen: The position of the penalty.
    """

    weight: Tensor
    bias: Tensor
    strengths: tuple[float, ...]
    errors: tuple[float, ...]
    chosen: int


def ridge_path(
    features: Features,
    targets: Tensor,
    *,
    strengths: tuple[float, ...] = RIDGE_STRENGTHS,
    row_weights: Tensor | None = None,
) -> RidgePath:
    """Solves ridge regression for every penalty, on features with mean 0 and deviation 1; the biases are free.

    The objective is the mean of row weight times squared error, plus the penalty times the squared weights:
    scikit-learn's ``Ridge`` with ``alpha = rows * penalty``. Leaving a row out is exact for the same scaling of the
    columns (Hastie, Tibshirani and Friedman 2009, equation 7.64). Memory does not grow with the number of rows.

    Args:
        features: At least two rows, on the CPU. A constant column gets the weight 0.
        targets: ``(rows, outputs)`` float64.
        strengths: Penalties, more than 0, in any order.
        row_weights: ``(rows,)``, more than 0; `None` for 1.

    Returns:
        The regressions, with the scaling folded into them.

    Raises:
        ValueError: If a number is out of range, or a feature is not finite.
    """
    rows = features.shape[0]
    if targets.ndim != 2 or len(targets) != rows:
        raise ValueError(f"targets of {rows} rows expected, but their shape is {tuple(targets.shape)}")
    weights = torch.ones(rows, dtype=torch.float64) if row_weights is None else row_weights.double()
    problem = RidgeProblem(
        features, lambda part: targets[part].double(), lambda part: weights[part], strengths=strengths
    )
    raw = [problem.raw(position) for position in range(len(problem.strengths))]
    heads, biases = torch.stack([head for head, _ in raw]), torch.stack([bias for _, bias in raw])
    return RidgePath(problem.strengths, heads, biases, problem.errors, problem.chosen)


def ridge_classifier(
    features: Features,
    labels: Tensor,
    *,
    classes: int,
    class_weights: Tensor | None = None,
    row_weights: Tensor | None = None,
    strengths: tuple[float, ...] = RIDGE_STRENGTHS,
) -> RidgeClassifier:
    """Regresses -1 and +1 for each class; the leave-one-out rows choose the penalty, and then the temperature.

    Args:
        features: At least two rows, on the CPU.
        labels: Class of each row, ``(rows,)`` int64.
        classes: 2 or more.
        class_weights: ``(classes,)``, more than 0; `None` for 1.
        row_weights: ``(rows,)``, more than 0; `None` for 1.
        strengths: Penalties, more than 0; see `ridge_path`.

    Returns:
        The head whose leave-one-out error is lowest. Its temperature has the lowest weighted cross-entropy on (a sample
        of) the leave-one-out outputs, between 1e-3 and 1e3; of `n` rows of a class one in ``n + 2`` is taken for
        another class, or perfect outputs would ask for perfect certainty (Platt 1999).

    Raises:
        ValueError: If a number is out of range, or a feature is not finite.
    """
    check_labels(features, labels, classes=classes)
    by_class = torch.ones(classes, dtype=torch.float64) if class_weights is None else class_weights.double()
    if not (by_class > 0).all():
        raise ValueError(f"class weights have to be more than 0: {by_class.tolist()}")
    weights = by_class[labels] if row_weights is None else by_class[labels] * row_weights.double()

    def targets(part: slice) -> Tensor:
        return 2 * torch.nn.functional.one_hot(labels[part], classes).double() - 1

    problem = RidgeProblem(features, targets, lambda part: weights[part], strengths=strengths)
    outputs, target, weight_of = _left_out(problem, labels, weights, classes)
    temperature = _temperature(outputs, target, weight_of)
    weight, bias = problem.raw(problem.chosen)
    return RidgeClassifier(
        weight / temperature, bias / temperature, problem.strengths, problem.errors, problem.chosen, temperature
    )


def ridge_labels(
    features: Features,
    labels: Tensor,
    *,
    row_weights: Tensor | None = None,
    strengths: tuple[float, ...] = RIDGE_STRENGTHS,
) -> RidgeLabels:
    """Regresses -1 and +1 for each of several labels; sigmoid of the outputs gives the probability of each.

    The leave-one-out rows choose one penalty for all labels, and then slope and shift of each label's output, as Platt
    (1999) scales the outputs of a support vector machine, his doubt about the targets included.

    Args:
        features: At least two rows, on the CPU.
        labels: 0 or 1, ``(rows, labels)``.
        row_weights: ``(rows,)``, more than 0; `None` for 1.
        strengths: Penalties, more than 0; see `ridge_path`.

    Returns:
        The head whose leave-one-out error is lowest.

    Raises:
        ValueError: If a number is out of range, or a feature is not finite.
    """
    weights = torch.ones(len(labels), dtype=torch.float64) if row_weights is None else row_weights.double()
    problem = RidgeProblem(
        features, lambda part: 2 * labels[part].double() - 1, lambda part: weights[part], strengths=strengths
    )
    outputs, targets, weight_of = _left_out(problem, labels.double(), weights, labels.shape[1])
    slope, shift = platt(outputs, targets, weight_of)
    weight, bias = problem.raw(problem.chosen)
    weight, bias = weight * slope[:, None], bias * slope + shift
    return RidgeLabels(weight, bias, problem.strengths, problem.errors, problem.chosen)


def _left_out(problem: RidgeProblem, targets: Tensor, weights: Tensor, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of (a sample of) the rows by regressions that had not seen them, with the rows' targets and weights."""
    step = -(-len(targets) // min(SAMPLE_ROWS, max(SAMPLE_NUMBERS // outputs, 1)))
    samples = [(some, targets[part][::step], weights[part][::step]) for part, some in problem.left_out(step)]
    columns = [torch.cat(list(column)) for column in zip(*samples, strict=True)]
    return columns[0].double(), columns[1], columns[2]


def platt(outputs: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Fits slope and shift of each column so that the sigmoid gives probabilities, by Newton's method.

    Args:
        outputs: ``(rows, columns)`` float64.
        targets: 0 or 1, ``(rows, columns)``.
        weights: How much each row counts, ``(rows,)``.

    Returns:
        Slope and shift, ``(columns,)`` each; of a column with one kind of target only the slope is 0.
    """
    yes = targets.sum(dim=0)
    no = len(targets) - yes
    smoothed = targets * (yes + 1) / (yes + 2) + (1 - targets) / (no + 2)
    inputs = torch.stack([outputs, torch.ones_like(outputs)])  # (2, rows, columns)
    point = torch.stack([torch.zeros_like(yes), ((yes + 1) / (no + 1)).log()])
    varied = ((yes > 0) & (no > 0)).double()
    inputs[0] *= varied
    for _ in range(100):
        chances = (inputs * point[:, None]).sum(dim=0).sigmoid()
        slope = torch.einsum("knc,nc,n->ck", inputs, chances - smoothed, weights)
        curvature = torch.einsum("knc,lnc,nc,n->ckl", inputs, inputs, chances * (1 - chances), weights)
        # A column without variation would leave its slope undecided; steps beyond 1 would overshoot where it is flat.
        curvature += 1e-9 * torch.eye(2, dtype=torch.float64)
        step = torch.linalg.solve(curvature, slope).T.clamp(-1, 1)
        point = point - step
        if step.abs().max() < 1e-10:
            break
    return point[0] * varied, point[1]


def _temperature(outputs: Tensor, labels: Tensor, weights: Tensor) -> float:
    """Bisects the slope of the cross-entropy by the inverse temperature, which only ever grows."""
    classes = outputs.shape[1]
    doubt = (1 / (torch.bincount(labels, minlength=classes) + 2.0))[labels]
    # What the targets expect of the outputs: those of the row's own class, but for the doubt, the mean of the others.
    own = outputs.gather(1, labels[:, None])[:, 0]
    others = (outputs.sum(dim=1) - own) / (classes - 1)
    own = own + doubt * (others - own)
    low, high = -math.log(HOTTEST), -math.log(COLDEST)
    for _ in range(40):
        middle = (low + high) / 2
        chances = (outputs * math.exp(middle)).softmax(dim=1)
        if float(weights @ ((chances * outputs).sum(dim=1) - own)) > 0:
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)
