"""Losses and their weights, as pure functions."""

from collections.abc import Sequence

import torch
from torch import Tensor


def balanced_class_weights(counts: Sequence[int]) -> Tensor:
    """Weights under which every class counts the same, whatever its size.

    Args:
        counts: Training examples of each class; a class without any counts as if it had one.

    Returns:
        ``float32`` of shape ``(classes,)``: ``total / (classes * count)``, whose mean over the examples is 1.
    """
    sizes = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    return (sizes.sum() / (len(counts) * sizes)).float()
