"""Nearest neighbours: how well the features as they are tell classes apart, with nothing fitted at all."""

import torch
from torch import Tensor
from torch.nn import functional

from tl_lightning.probe import Features, Rows
from tl_lightning.probe.features import chunks
from tl_lightning.probe.logistic import check_labels

TEMPERATURE = 0.07  # of the votes, as in DINO
QUERIES = 5_000  # at most; the work would grow with the square, and this many leave a noise of 0.7 points
BLOCK = 1024  # rows that are asked about at once


def nearest_neighbours(
    features: Features, labels: Tensor, *, classes: int, k: int = 20, kin: Tensor | None = None
) -> Tensor:
    """Which rows a weighted vote of their nearest other rows gets right (Caron et al. 2021, arXiv:2104.14294).

    The ``k`` rows with the largest cosine similarity ``s`` to a row, itself and its kin left out, vote for their
    class with the weight ``exp(s / 0.07)``; of equal sums the first class wins.

    Args:
        features: At least two rows, on the CPU.
        labels: Class of each row, ``(rows,)`` int64.
        classes: 2 or more.
        k: 1 or more; of fewer rows all others vote.
        kin: A number for each row, ``(rows,)``; those with the same one do not vote for each other. `None` for none.

    Returns:
        One bool for each row; of more than 5,000 rows, for those that `queries` names.

    Raises:
        ValueError: If the labels do not fit, or there are fewer than two rows or only kin.
    """
    check_labels(features, labels, classes=classes)
    count = features.shape[0]
    if count < 2 or k < 1:
        raise ValueError(f"{k} neighbours of {count} rows")
    kin = torch.arange(count) if kin is None else kin
    if kin.shape != labels.shape or bool((kin == kin[0]).all()):
        raise ValueError("every row needs a number of its kin, and not all may be kin")
    asked = queries(count)
    wanted, k = Rows(features, asked), min(k, count - 1)
    right = []
    for begin in range(0, len(asked), BLOCK):
        block = slice(begin, min(begin + BLOCK, len(asked)))
        own = kin[asked[block]]
        similar, voters = _nearest(features, functional.normalize(wanted[block].double(), dim=1), own, k, kin=kin)
        # Less the largest, which changes no vote and keeps the sums from overflowing.
        weights = ((similar - similar[:, :1]) / TEMPERATURE).exp()
        votes = torch.zeros(len(weights), classes, dtype=torch.float64).scatter_add_(1, labels[voters], weights)
        right.append(votes.argmax(dim=1) == labels[asked[block]])
    return torch.cat(right)


def queries(rows: int) -> Tensor:
    """The rows that `nearest_neighbours` asks about, ascending ``int64``: all, or the same sample for every model."""
    if rows <= QUERIES:
        return torch.arange(rows)
    return torch.randperm(rows, generator=torch.Generator().manual_seed(0))[:QUERIES].sort().values


def _nearest(features: Features, wanted: Tensor, own: Tensor, k: int, *, kin: Tensor) -> tuple[Tensor, Tensor]:
    """Similarities and positions of the nearest rows that are no kin, ``(len(wanted), k)`` each, falling."""
    similar = torch.full((len(wanted), 0), 0.0, dtype=torch.float64)
    voters = torch.zeros(len(wanted), 0, dtype=torch.int64)
    for part, rows in chunks(features):
        # Scaled afterwards: the rows are more than the products.
        products = wanted @ rows.T / rows.norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
        products.masked_fill_(own[:, None] == kin[None, part], -torch.inf)
        positions = torch.arange(part.start, part.stop).expand(len(wanted), -1)
        similar, voters = torch.cat([similar, products], dim=1), torch.cat([voters, positions], dim=1)
        similar, best = similar.topk(min(k, similar.shape[1]), dim=1)
        voters = voters.gather(1, best)
    return similar, voters
