"""Eigenvectors of Gram matrices, by way of whichever side is the shorter one."""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCKS = 4  # of columns, of which those below the diagonal are left out: 10 of 16 parts of the work


@dataclass(frozen=True)
class Spectrum:
    """What is known of a symmetric matrix ``(width, width)`` without negative eigenvalues.

    Attributes:
        values: The ``r`` largest eigenvalues, ascending, float64; all others are 0.
        vectors: Their eigenvectors as columns ``(width, r)``, float64.
    """

    values: Tensor
    vectors: Tensor

    def apply_inverse(self, points: Tensor, *, scale: Tensor, penalty: Tensor) -> Tensor:
        """Solves ``(scale * matrix + penalty) x = point``.

        Args:
            points: ``(..., width)``.
            scale: 0 or more; broadcasts against ``points`` with a last dimension of 1.
            penalty: More than 0; likewise.

        Returns:
            As `points`.
        """
        if self.vectors.shape[1] == self.vectors.shape[0]:
            return ((points @ self.vectors) / (scale * self.values + penalty)) @ self.vectors.T
        within = points @ self.vectors
        return points / penalty + (within / (scale * self.values + penalty) - within / penalty) @ self.vectors.T


def add_gram(gram: Tensor, rows: Tensor) -> None:
    """Adds ``rows.T @ rows`` on and above the diagonal blocks; `full_gram` has the rest.

    Args:
        gram: ``(width, width)`` float64, changed in place.
        rows: ``(n, width)``; in float32 the product is made in float32 and only the sum in float64.
    """
    width = len(gram)
    size = -(-width // BLOCKS)
    for start in range(0, width, size):
        end = start + size
        gram[start:end, start:] += rows[:, start:end].T @ rows[:, start:]


def full_gram(gram: Tensor) -> Tensor:
    """The whole matrix of which `add_gram` made the upper part."""
    return gram.triu() + gram.triu(diagonal=1).T


def spectrum_of_gram(gram: Tensor) -> Spectrum:
    """The eigenvectors of a matrix of which only the upper triangle is read.

    Args:
        gram: ``(width, width)`` float64, symmetric and without negative eigenvalues but for rounding.
    """
    values, vectors = torch.linalg.eigh(gram, UPLO="U")
    return Spectrum(values.clamp_(min=0), vectors)


def spectrum_of_rows(rows: Tensor) -> Spectrum:
    """The eigenvectors of ``rows.T @ rows``, by way of the smaller ``rows @ rows.T``.

    Args:
        rows: ``(n, width)`` float64, fewer rows than columns.
    """
    values, sides = torch.linalg.eigh(rows @ rows.T)
    # Below this they are rounding errors, and their vectors would be noise.
    real = values > values[-1:] * len(values) * torch.finfo(values.dtype).eps
    values, sides = values[real], sides[:, real]
    return Spectrum(values, rows.T @ (sides / values.sqrt()))
