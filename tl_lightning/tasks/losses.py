"""Losses and their weights, as pure functions."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def balanced_class_weights(counts: Sequence[int]) -> Tensor:
    """Weights under which every class counts the same, whatever its size.

    Args:
        counts: Training examples of each class; a class without any counts as if it had one.

    Returns:
        ``float32`` of shape ``(classes,)``: ``total / (classes * count)``, whose mean over the examples is 1.
    """
    sizes = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    return (sizes.sum() / (len(counts) * sizes)).float()


def effective_class_weights(counts: Sequence[int], *, beta: float) -> Tensor:
    """Weights by the effective number of examples (Cui et al. 2019, arXiv:1901.05555).

    The n-th example of a class adds only ``beta^(n-1)`` to what is known of it: ``(1 - beta^n) / (1 - beta)`` in all.

    Args:
        counts: Training examples of each class; a class without any counts as if it had one.
        beta: 0 for the same weight everywhere; towards 1 ever nearer to `balanced_class_weights`. Below 1.

    Returns:
        ``float32`` of shape ``(classes,)``: proportional to 1 / effective number, the mean over the examples is 1.
    """
    sizes = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    weights = (1 - beta) / (1 - beta**sizes)
    return (weights * sizes.sum() / (weights * sizes).sum()).float()


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Cross-entropy that counts what the model is already sure of for less (Lin et al. 2017, arXiv:1708.02002).

    The softmax form: the mean over the examples of ``sum_c weight_c * target_c * (1 - p_c)^gamma * -log(p_c)``. At
    `gamma` 0 it is `torch.nn.functional.cross_entropy`.

    Args:
        logits: ``(N, classes)``, float.
        target: Class indices ``(N,)``, or probabilities ``(N, classes)`` of the logits' type.
        gamma: 0 or more; the higher, the less the easy examples count. The paper's choice is 2.
        weight: How much each class counts, ``(classes,)``. As in torch, the mean over class indices is divided by the
            sum of the examples' weights, the mean over probabilities by N.
        label_smoothing: Share of the target spread evenly over all classes, 0 to 1.
        reduction: ``mean``, or ``none`` for the loss of each example.

    Returns:
        The loss, a single number; or ``(N,)``.
    """
    classes = logits.shape[1]
    weights = logits.new_ones(classes) if weight is None else weight
    by_index = target.ndim == 1
    total = weights[target].sum() if by_index else len(target)
    shares = functional.one_hot(target, classes).to(logits.dtype) if by_index else target
    shares = shares * (1 - label_smoothing) + label_smoothing / classes
    log_p = logits.log_softmax(dim=1)
    # A sure example has 1 - p = 0, where the slope of a power below 1 is infinite; this keeps the gradient finite.
    unsure = (-log_p.expm1()).clamp(min=torch.finfo(logits.dtype).tiny)
    losses = -(weights * shares * unsure**gamma * log_p).sum(dim=1)
    return losses if reduction == "none" else losses.sum() / total


def corn_loss(logits: Tensor, levels: Tensor) -> Tensor:
    """Cross-entropy of ordered levels (CORN, Shi, Cao and Raschka 2021, arXiv:2111.08851).

    Output `k` says how probable it is that the level is above `k`, given that it is above ``k - 1``; an image counts
    for those outputs alone whose condition it meets.

    Args:
        logits: ``(N, levels - 1)``.
        levels: The right ones, ``(N,)`` int64.

    Returns:
        ``(N,)``: the summed losses of the outputs that count, which is minus the logarithm of the level's probability.
    """
    thresholds = torch.arange(logits.shape[1], device=logits.device)
    above = (levels[:, None] > thresholds).to(logits.dtype)
    counts = (levels[:, None] >= thresholds).to(logits.dtype)
    losses = functional.binary_cross_entropy_with_logits(logits, above, reduction="none")
    return (losses * counts).sum(dim=1)


def corn_probabilities(logits: Tensor) -> Tensor:
    """The probability of each level, from the outputs that `corn_loss` trains.

    Args:
        logits: ``(N, levels - 1)``.

    Returns:
        ``(N, levels)``, rows adding up to 1.
    """
    above = logits.sigmoid().cumprod(dim=1)
    ones = above.new_ones(len(above), 1)
    return torch.cat([ones, above], dim=1) - torch.cat([above, above.new_zeros(len(above), 1)], dim=1)


def l2_sp(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """How far weights have moved from their starting point, as a penalty (Li et al. 2018, arXiv:1802.01483).

    Args:
        pairs: Each weight with its starting point, of the same shape; the gradient goes to the first.

    Returns:
        Half the summed squared distance, a single number; its gradient is the distance itself. 0 for no pairs.
    """
    moves = [(weights - start).flatten() for weights, start in pairs]
    # One long vector: squaring and summing hundreds of tensors one by one would cost a GPU a launch for each.
    return torch.cat(moves).square().sum() / 2 if moves else torch.zeros(())
