"""Metrics of each class or label, whose mean leaves out those of which the images say nothing.

Where no image is of a class, or all are, torchmetrics counts its AUROC or its recall as 0 and goes on: the mean is of
the split, not of the model. Here a mean is over what has a value; without any it is ``nan``, which is shown as a blank.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric, R2Score
from torchmetrics.classification import MulticlassMatthewsCorrCoef, MulticlassRecall, MultilabelF1Score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision


class Ranking(Metric):
    """How well probabilities rank the images of each class or label before the others: the mean over them.

    Args:
        measure: Takes probabilities and targets of one class, ``(n,)`` each.
        needs_others: Whether a class that all images are of has no value, as one that no image is of never has.
    """

    full_state_update = False
    probabilities: list[Tensor]
    targets: list[Tensor]

    def __init__(self, measure: Callable[[Tensor, Tensor], Tensor], *, needs_others: bool) -> None:
        super().__init__()
        self._measure, self._needs_others = measure, needs_others
        self.add_state("probabilities", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Adds a batch.

        Args:
            probabilities: ``(n, k)``.
            targets: Classes ``(n,)``, or which labels each image has ``(n, k)``, int64.
        """
        self.probabilities.append(probabilities.detach().float())
        self.targets.append(targets)

    def compute(self) -> Tensor:
        """The mean over what has a value."""
        states = (self.probabilities, self.targets)  # gathered from several processes, they are tensors
        probabilities, targets = (torch.cat(state) if isinstance(state, list) else state for state in states)
        if targets.ndim == 1:
            targets = one_hot(targets, probabilities.shape[1])
        having = targets.sum(dim=0)
        defined = having > 0
        if self._needs_others:
            defined &= having < len(targets)
        columns = defined.nonzero().flatten().tolist()
        return mean_of([self._measure(probabilities[:, column], targets[:, column]) for column in columns], having)


def auroc() -> Ranking:
    """The area under the ROC curve of each class or label against the rest; it takes both kinds of images."""
    return Ranking(binary_auroc, needs_others=True)


def average_precision() -> Ranking:
    """The average precision of each label that any image has."""
    return Ranking(binary_average_precision, needs_others=False)


class BalancedAccuracy(MulticlassRecall):
    """The mean recall of the classes that any image is of.

    Args:
        classes: How many there are.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes, average="none")

    def compute(self) -> Tensor:
        """The mean over what has a value."""
        right, missed = (torch.as_tensor(state) for state in (self.tp, self.fn))
        return mean_of_shares(right, right + missed)


class LabelF1(MultilabelF1Score):
    """The F1 of the labels that any image has or is said to have.

    Args:
        labels: How many there are.
        average: ``micro`` for all decisions together, ``none`` for the mean over labels.
    """

    def __init__(self, labels: int, average: Any) -> None:  # noqa: ANN401 - torchmetrics's own literal
        super().__init__(labels, average=average, validate_args=False)  # which refuses a single label

    def compute(self) -> Tensor:
        """The mean over what has a value."""
        right, *wrong = (torch.as_tensor(state) for state in (self.tp, self.fp, self.fn))
        return mean_of_shares(2 * right, 2 * right + wrong[0] + wrong[1])


class Matthews(MulticlassMatthewsCorrCoef):
    """The correlation of what is predicted and what is right: 0 where all predictions are alike, no value where all
    images are of one class.

    Torchmetrics 1.9 does so from three classes on; with two it gives .58 where three images of four are of the class
    that all are said to be of, and 1 where all are.
    """

    def compute(self) -> Tensor:
        """The value."""
        confusion = self.confmat.cpu().double()  # of whole numbers that can be large once they are multiplied
        are, called, count = confusion.sum(dim=1), confusion.sum(dim=0), confusion.sum()
        spread_of_right, spread_of_called = count**2 - are @ are, count**2 - called @ called
        if not spread_of_right:
            value = torch.nan
        elif not spread_of_called:
            value = 0.0
        else:
            together = float(confusion.trace() * count - are @ called)
            value = together / float((spread_of_right * spread_of_called).sqrt())
        return torch.tensor(value, device=self.confmat.device)


class R2(R2Score):
    """The share of each number's variation that is explained, ``(numbers,)``; ``nan`` for one that does not vary."""

    lowest: Tensor
    highest: Tensor

    def __init__(self, numbers: int) -> None:
        super().__init__(multioutput="raw_values")
        self.add_state("lowest", default=torch.full((numbers,), torch.inf), dist_reduce_fx="min")
        self.add_state("highest", default=torch.full((numbers,), -torch.inf), dist_reduce_fx="max")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds a batch, ``(n, numbers)`` each."""
        super().update(preds, target)
        self.lowest = torch.minimum(self.lowest, target.amin(dim=0))
        self.highest = torch.maximum(self.highest, target.amax(dim=0))

    def compute(self) -> Tensor:
        """The value of each number."""
        varies = self.highest > self.lowest
        return (
            torch.where(varies, super().compute(), torch.nan)
            if varies.any()
            else torch.full_like(self.lowest, torch.nan)
        )


def mean_of_shares(parts: Tensor, wholes: Tensor) -> Tensor:
    """The mean of those shares whose whole is not nothing; ``nan`` where there is none."""
    defined = wholes > 0
    return (parts[defined] / wholes[defined]).mean()


def mean_of(values: list[Tensor], like: Tensor) -> Tensor:
    """The mean of some values; ``nan`` where there are none."""
    return torch.stack(values).mean() if values else torch.tensor(torch.nan, device=like.device)
