"""Rows of features as the solvers read them: a chunk at a time, so that memory does not grow with their number."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

CHUNK_BYTES = 8 * 2**20  # of a chunk in float64: 819 rows of width 1280
CHUNK_ROWS = 4096  # at most, or else the logits of narrow features would be what fills the memory


class Features(Protocol):
    """A matrix of features that is read by slices of rows; a `torch.Tensor` is one."""

    @property
    def shape(self) -> Sequence[int]:
        """Rows and width."""
        ...

    def __getitem__(self, rows: slice, /) -> Tensor:
        """The rows of a slice with step 1: ``(n, width)`` on the CPU, in any float type."""
        ...


class Rows:
    """Some rows of other features; nothing is copied until it is read.

    Attributes:
        shape: Rows and width.

    Args:
        features: What they are rows of.
        indices: ``int64`` positions ``(rows,)``, ascending, so that a slice of them lies close together.

    Raises:
        ValueError: If the positions do not ascend or lie outside.
    """

    def __init__(self, features: Features, indices: Tensor) -> None:
        inside = not len(indices) or bool(indices[0] >= 0 and indices[-1] < features.shape[0])
        if not inside or bool((indices.diff() <= 0).any()):
            raise ValueError(f"the positions have to ascend from 0 to below {features.shape[0]}")
        self.shape = (len(indices), features.shape[1])
        self._features = features
        self._indices = indices

    def __getitem__(self, rows: slice, /) -> Tensor:
        """The rows of a slice, copied."""
        wanted = self._indices[rows]
        # Block by block, since rows far apart would have everything between them read at once.
        size = _chunk_rows(self.shape[1])
        blocks, counts = torch.unique_consecutive(wanted // size, return_counts=True)
        pieces = []
        for block, part in zip(blocks.tolist(), torch.split(wanted, counts.tolist()), strict=True):
            start = max(block * size, int(part[0]))
            pieces.append(self._features[start : int(part[-1]) + 1][part - start])
        return torch.cat(pieces) if pieces else self._features[0:0]


def chunks(
    features: Features, *, minus: Tensor | None = None, dtype: torch.dtype = torch.float64
) -> Iterator[tuple[slice, Tensor]]:
    """Reads all rows once.

    Args:
        features: What to read.
        minus: Subtracted from every row, ``(width,)`` in float64.
        dtype: What the rows are converted to, after the subtraction.

    Yields:
        Where the rows lie and the rows themselves, ``(n, width)``. They are overwritten by the next ones.
    """
    count, width = features.shape
    size = min(_chunk_rows(width), count)
    # Reused: fresh memory for every chunk costs more than the conversion.
    exact = torch.empty(size, width, dtype=torch.float64)
    converted = exact if dtype == torch.float64 else torch.empty(size, width, dtype=dtype)
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        rows = exact[: part.stop - start].copy_(features[part])
        if minus is not None:
            rows -= minus
        yield part, rows if dtype == torch.float64 else converted[: len(rows)].copy_(rows)


def moments(features: Features) -> tuple[Tensor, Tensor]:
    """The mean of every column, and its scale: the standard deviation (divided by the number of rows), in one pass.

    Chunks are merged as in Chan, Golub and LeVeque (1983), so a mean far from zero costs no digits.

    Args:
        features: At least one row.

    Returns:
        Both of shape ``(width,)`` in float64. The scale of a column that is the same in all rows is infinite: divided
        by it, its values and its weight are exactly 0.

    Raises:
        ValueError: If there is no row, or a value is not finite.
    """
    if not features.shape[0]:
        raise ValueError("there are no rows to learn from")
    first = features[0:1][0].double()  # as the origin: a constant column is then exactly 0
    mean, squares, seen = torch.zeros_like(first), torch.zeros_like(first), 0
    for _, rows in chunks(features, minus=first):
        count = len(rows)
        own = rows.mean(dim=0)
        rows -= own
        step = own - mean
        squares += rows.square_().sum(dim=0) + step.square() * (seen * count / (seen + count))
        mean += step * (count / (seen + count))
        seen += count
    if not (mean.isfinite().all() and squares.isfinite().all()):
        raise ValueError("the features are not finite everywhere")
    deviation = (squares / seen).sqrt()
    return first + mean, torch.where(deviation > 0, deviation, torch.inf)


def _chunk_rows(width: int) -> int:
    return min(CHUNK_ROWS, max(1, CHUNK_BYTES // (8 * max(width, 1))))
