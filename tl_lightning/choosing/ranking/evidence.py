"""LogME: how well a Bayesian linear model on the features explains the targets (You et al. 2021, arXiv:2102.11005)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tl_lightning.probe import Features
from tl_lightning.probe.features import chunks
from tl_lightning.probe.logistic import check_labels
from tl_lightning.probe.spectrum import Spectrum, add_gram, spectrum_of_gram, spectrum_of_rows

STEPS = 1000  # of the iteration at most; the evidence is flat where the steps have become small
TOLERANCE = 1e-8  # relative change of alpha / beta
WIDEST = 1e12  # how far alpha / beta may go from the largest eigenvalue; beyond it the evidence stays the same

AddProducts = Callable[[Tensor, slice, Tensor], object]


@dataclass(frozen=True)
class _Projected:
    """Targets in the basis of the features' left singular vectors.

    Attributes:
        values: Squared singular values, more than 0, ``(r,)``.
        squares: Squared coordinates of the targets, ``(r, targets)``.
        left: Squared norm of what no feature can explain, ``(targets,)``.
        rows: How many rows the features have.
    """

    values: Tensor
    squares: Tensor
    left: Tensor
    rows: int


def log_me(features: Features, labels: Tensor, *, classes: int) -> float:
    """The log of the maximum evidence for one-vs-rest targets, per row, averaged over the classes that occur.

    For each target ``y`` with the noise precision ``beta`` and the weights' precision ``alpha`` the evidence is
    ``p(y | F, alpha, beta) = N(y | 0, 1 / beta + F F' / alpha)``; alpha and beta are those that the fixed-point
    iteration of the journal version finds from 1 and 1 (You et al. 2022, arXiv:2110.10545, algorithm 3), carried to
    convergence. As in the paper the features are used as they are, without an intercept.

    One eigendecomposition serves all classes. Memory: one ``width x width`` matrix with its eigenvectors, and
    ``width x classes`` numbers; it does not grow with the rows.

    Args:
        features: At least one row, on the CPU.
        labels: Class of each row, ``(rows,)`` int64.
        classes: 2 or more.

    Returns:
        Nats; higher is better. Only values for the same rows and labels compare.

    Raises:
        ValueError: If there is no row, a feature is not finite, or the labels do not fit.
    """
    check_labels(features, labels, classes=classes)
    counts = torch.bincount(labels, minlength=classes)
    used = counts > 0

    def add(products: Tensor, part: slice, rows: Tensor) -> None:
        products.index_add_(0, labels[part], rows)

    return _mean_evidence(_project(features, add, counts.double(), used))


def log_me_numbers(features: Features, targets: Tensor) -> float:
    """As `log_me`, for targets that are numbers (or labels of 0 and 1): the mean over the columns.

    Args:
        features: Each image's, as `log_me` takes them.
        targets: ``(rows, k)``; a column of zeros is left out.

    Raises:
        ValueError: If the shapes do not fit, no target is left, or a number is not finite.
    """
    if targets.ndim != 2 or len(targets) != features.shape[0] or not targets.any():
        raise ValueError(f"targets {tuple(targets.shape)} for {features.shape[0]} rows, not all 0, are needed")
    numbers = targets.double()
    norms = numbers.square().sum(dim=0)

    def add(products: Tensor, part: slice, rows: Tensor) -> None:
        products.addmm_(numbers[part].T, rows)

    return _mean_evidence(_project(features, add, norms, norms > 0))


def _project(features: Features, add: AddProducts, norms: Tensor, used: Tensor) -> _Projected:
    """One pass over the rows, and the eigenvectors of whichever Gram matrix is the smaller one."""
    rows, width = features.shape
    products = torch.zeros(len(norms), width, dtype=torch.float64)
    gram = None if rows < width else torch.zeros(width, width, dtype=torch.float64)
    pieces: list[Tensor] = []
    for part, some in chunks(features):
        add(products, part, some)
        if gram is None:
            pieces.append(some.clone())
        else:
            add_gram(gram, some)
    if not products.isfinite().all():
        raise ValueError("the features are not finite everywhere")
    spectrum = _without_rounding(spectrum_of_gram(gram)) if gram is not None else spectrum_of_rows(torch.cat(pieces))
    squares = (spectrum.vectors.T @ products[used].T).square_() / spectrum.values[:, None]
    left = (norms[used] - squares.sum(dim=0)).clamp(min=0)
    return _Projected(spectrum.values, squares, left, rows)


def _without_rounding(spectrum: Spectrum) -> Spectrum:
    real = spectrum.values > spectrum.values[-1] * len(spectrum.values) * torch.finfo(torch.float64).eps
    return Spectrum(spectrum.values[real], spectrum.vectors[:, real])


def _mean_evidence(data: _Projected) -> float:
    if not len(data.values):  # all features are 0
        ratio = torch.ones_like(data.left)
    else:
        ratio = _fixed_points(data)
    # With alpha = ratio * beta the best beta is known, and at a fixed point it is the one of the iteration.
    lengths, missed = _lengths(data, data.squares, data.left, ratio)
    beta = data.rows / (missed + ratio * lengths)
    shrunk = (ratio / (ratio + data.values[:, None])).log().sum(dim=0)
    evidence = data.rows / 2 * (beta.log() - math.log(2 * math.pi) - 1) + shrunk / 2
    return float(evidence.mean()) / data.rows


def _fixed_points(data: _Projected) -> Tensor:
    """The ratio alpha / beta of each target, by iterating both from 1."""
    largest = float(data.values[-1])
    ratios = torch.ones_like(data.left)
    moving = torch.arange(len(ratios))
    squares, left = data.squares, data.left
    for _ in range(STEPS):
        ratio = ratios[moving]
        known = (data.values[:, None] / (data.values[:, None] + ratio)).sum(dim=0)  # the paper's gamma
        lengths, missed = _lengths(data, squares, left, ratio)
        alpha, beta = known / lengths, (data.rows - known).clamp(min=torch.finfo(torch.float64).tiny) / missed
        ratios[moving] = (alpha / beta).nan_to_num(nan=math.inf).clamp(largest / WIDEST, largest * WIDEST)
        still = (ratios[moving] - ratio).abs() > TOLERANCE * ratio
        if not still.any():
            break
        if not still.all():
            moving, squares, left = moving[still], squares[:, still], left[still]
    return ratios


def _lengths(data: _Projected, squares: Tensor, left: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Squared length of the mean weights, and squared error of the fit, ``(targets,)`` each."""
    shares = squares / (data.values[:, None] + ratio).square_()
    return data.values @ shares, ratio.square() * shares.sum(dim=0) + left
