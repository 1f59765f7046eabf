"""Guesses at the inverse Hessian of a classifier's loss, which make L-BFGS converge in tens of steps."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tl_lightning.probe.spectrum import Spectrum, full_gram, spectrum_of_gram, spectrum_of_rows

FLATTEST = 1e-6  # of the curvature along any axis of the logits, by the largest
LARGEST_RATIO = 1e12  # of penalty and curvature; beyond it the rows do not matter


@dataclass(frozen=True)
class Covariance:
    """The covariance of rows that curve.

    Attributes:
        mean: The mean of those rows, ``(width,)``: moving the weights moves the bias that fits them.
        matrix: The upper triangle of the covariance itself; or, where they are fewer than columns, the centred and
            weighted rows ``(n, width)`` whose product with themselves it is.
        is_gram: Whether it is the first.
    """

    mean: Tensor
    matrix: Tensor
    is_gram: bool


class HessianGuess(Protocol):
    """A guess that holds for several penalties."""

    def solve(self, gradients: Tensor, curvatures: Tensor, penalties: Tensor) -> Tensor:
        """Multiplies by the inverse, which gives the Newton step with the wrong sign.

        Args:
            gradients: By weights and biases, ``(..., n, outputs, width + 1)``.
            curvatures: The mean Hessians with respect to the logits ``(n, outputs, outputs)``.
            penalties: The factors of half the squared weights, ``(n,)``, more than 0.

        Returns:
            As `gradients`.
        """
        ...


class OneOutput:
    """For one output: curvature times (covariance + ratio), with one ratio of penalty and curvature for all penalties.

    Along the path both fall together, so one Cholesky decomposition serves a few neighbours; it takes a fraction of the
    time of the eigenvectors.

    Args:
        covariance: The covariance of the rows.
        ratio: The penalty divided by the curvature, more than 0.
    """

    def __init__(self, covariance: Covariance, ratio: float) -> None:
        self._mean = covariance.mean
        self._ratio = min(max(ratio, torch.finfo(torch.float64).tiny), LARGEST_RATIO)
        matrix = covariance.matrix
        gram = full_gram(matrix) if covariance.is_gram else matrix @ matrix.T
        # Rounding leaves a semidefinite matrix with eigenvalues slightly below 0.
        least = gram.diagonal().sum() * torch.finfo(gram.dtype).eps
        gram.diagonal().add_(max(self._ratio, float(least)))
        factor = torch.linalg.cholesky(gram)
        self._inverse = torch.cholesky_inverse(factor) if covariance.is_gram else None
        self._rows = matrix if covariance.is_gram else torch.linalg.solve_triangular(factor, matrix, upper=False)

    def solve(self, gradients: Tensor, curvatures: Tensor, penalties: Tensor) -> Tensor:
        """See `HessianGuess.solve`."""
        curves = curvatures.clamp(min=torch.finfo(curvatures.dtype).tiny)
        slopes, bias_slopes = gradients[..., :-1], gradients[..., -1:]
        slopes = slopes - self._mean * bias_slopes
        if self._inverse is None:  # the identity of Woodbury
            weights = (slopes - (slopes @ self._rows.T) @ self._rows) / (self._ratio * curves)
        else:
            weights = slopes @ self._inverse / curves
        return torch.cat([weights, bias_slopes / curves - (weights @ self._mean)[..., None]], dim=-1)


class SeveralOutputs:
    """For softmax: the Kronecker product of the logits' mean Hessian and the covariance, plus the penalty.

    Args:
        covariance: The covariance of the rows.
    """

    def __init__(self, covariance: Covariance) -> None:
        self._mean = covariance.mean
        matrix = covariance.matrix
        self._spectrum: Spectrum = spectrum_of_gram(matrix) if covariance.is_gram else spectrum_of_rows(matrix)

    def solve(self, gradients: Tensor, curvatures: Tensor, penalties: Tensor) -> Tensor:
        """See `HessianGuess.solve`."""
        curves, axes = torch.linalg.eigh(curvatures)
        # Softmax has an axis without any curvature: all logits up by the same.
        curves = curves.clamp(min=torch.finfo(curves.dtype).tiny).maximum(FLATTEST * curves[:, -1:])[:, :, None]
        rotated = axes.mT @ gradients
        slopes, bias_slopes = rotated[..., :-1], rotated[..., -1:]
        slopes = slopes - self._mean * bias_slopes
        weights = self._spectrum.apply_inverse(slopes, scale=curves, penalty=penalties[:, None, None])
        biases = bias_slopes / curves - (weights @ self._mean)[..., None]
        steps: Tensor = axes @ torch.cat([weights, biases], dim=-1)
        return steps
