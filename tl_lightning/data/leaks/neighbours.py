"""The nearest neighbours among many features, without comparing all with all."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_lightning.core.console import track

WIDTH = 256  # principal directions that are kept
PROBES = 8  # cells that are searched for each cell's members
SAMPLE = 20_000  # rows from which directions and cells are learned
EXACT = 4096  # rows up to which one cell is as fast
_BLOCK = 4096


def whitened(features: NDArray[np.float32], rows: NDArray[np.int64]) -> Tensor:
    """Centres features, gives each of their principal directions the same weight, and scales them to length 1.

    Features after a ReLU and a mean are all positive, and their cosines crowd near 1. On crops of drawn images, the
    nearest neighbour of a crop of 80 % was the image it came from for 90 % as they are, for 91 % whitened, and for
    43 % and 59 % on ELPV.

    Args:
        features: Rows of shape ``(n, d)``; may be memory-mapped.
        rows: Those that are wanted, sorted.

    Returns:
        ``float32`` of shape ``(len(rows), at most 256)``.
    """
    sample = torch.from_numpy(np.array(features[rows[:: -(-len(rows) // SAMPLE)]], dtype=np.float32))
    mean = sample.mean(dim=0)
    covariance = (sample - mean).T @ (sample - mean) / len(sample)
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values[-WIDTH:], vectors[:, -WIDTH:]
    scale = (values.clamp(min=0) + 0.1 * values.mean() + 1e-12).rsqrt()
    parts = []
    for start in range(0, len(rows), _BLOCK):
        part = torch.from_numpy(np.array(features[rows[start : start + _BLOCK]], dtype=np.float32))
        parts.append(torch.nn.functional.normalize((part - mean) @ vectors * scale))
    return torch.cat(parts)


def nearest(points: Tensor, count: int) -> NDArray[np.int64]:
    """Finds points of large cosine, in the cells of a k-means (an inverted file: Jégou et al. 2011).

    Args:
        points: Rows of length 1, shape ``(n, d)``.
        count: How many neighbours of each.

    Returns:
        ``int64`` of shape ``(n, count)``: rows, the nearest first; the point's own row where there are no more.
    """
    found = np.repeat(np.arange(len(points))[:, None], count, axis=1)
    centres = _centres(points)
    cell = torch.cat([(part @ centres.T).argmax(dim=1) for part in torch.split(points, _BLOCK)])
    members = [torch.nonzero(cell == number)[:, 0] for number in range(len(centres))]
    close = (centres @ centres.T).topk(min(PROBES, len(centres)), dim=1).indices
    for number in track(range(len(centres)), "comparing features", total=len(centres)):
        others = torch.cat([members[probe] for probe in close[number].tolist()])
        for own in torch.split(members[number], 1024):
            cosines = points[own] @ points[others].T
            cosines[own[:, None] == others] = -2.0
            best = cosines.topk(min(count, len(others) - 1), dim=1).indices
            found[own.numpy(), : best.shape[1]] = others[best].numpy()
    return found


def _centres(points: Tensor) -> Tensor:
    if len(points) <= EXACT:
        return points[:1]
    number = 2 * round(len(points) ** 0.5)
    sample = points[:: -(-len(points) // SAMPLE)]
    centres = sample[torch.linspace(0, len(sample) - 1, min(number, len(sample))).long()]
    for _ in range(6):
        cell = (sample @ centres.T).argmax(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, cell, sample)
        empty = sums.norm(dim=1) == 0
        centres = torch.where(empty[:, None], centres, torch.nn.functional.normalize(sums))
    return centres
