"""What a model predicted, sample by sample."""

import torch
from torch import Tensor
from torchmetrics import Metric


class Gathered:
    """Predictions, labels and indices of the samples, a row each.

    A class of its own, and none that torchmetrics looks into: what it finds there of one element loses its dimensions.
    """

    def __init__(self, predictions: Tensor, labels: Tensor, indices: Tensor) -> None:
        self.predictions, self.labels, self.indices = predictions, labels, indices


class Predicted(Metric):
    """Keeps the predictions of an evaluation, gathered from all processes."""

    full_state_update = False
    predictions: list[Tensor]
    labels: list[Tensor]
    indices: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("predictions", "labels", "indices"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, predictions: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Adds a batch.

        Args:
            predictions: Probabilities or numbers, ``(n, outputs)``.
            labels: The targets, a row each.
            indices: Which samples they are of, ``(n,)``.
        """
        self.predictions.append(predictions.detach())
        self.labels.append(labels)
        self.indices.append(indices)

    def compute(self) -> Gathered:
        """All of them on the CPU, in the order of the samples' indices."""
        states = (self.predictions, self.labels, self.indices)
        if isinstance(self.indices, list) and not self.indices:  # no sample has this target
            return Gathered(torch.zeros(0, 0), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        predictions, labels, indices = (
            torch.cat(state).cpu() if isinstance(state, list) else state.cpu() for state in states
        )
        order = indices.argsort()
        return Gathered(predictions[order], labels[order], indices[order])
