"""What a model predicted, sample by sample."""

import torch
from torch import Tensor
from torchmetrics import Metric


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

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """All of them on the CPU, in the order of the samples' indices: predictions, labels and indices."""
        states = (self.predictions, self.labels, self.indices)
        predictions, labels, indices = (
            torch.cat(state).cpu() if isinstance(state, list) else state.cpu() for state in states
        )
        order = indices.argsort()
        return predictions[order], labels[order], indices[order]
