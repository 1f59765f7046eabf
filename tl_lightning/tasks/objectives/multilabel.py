"""Any number of labels per sample."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchmetrics import MetricCollection

from tl_lightning.data.samples import ProblemType
from tl_lightning.errors import UserError
from tl_lightning.metrics.labels import METRICS, label_errors, label_metrics, per_label
from tl_lightning.probe import Features, HeadSolution, solve_ridge_labels
from tl_lightning.tasks.objectives.base import Objective, varies


class Multilabel(Objective):
    """None, one or several of some labels: a sigmoid for each.

    Attributes:
        positive_weights: How much a sample that has the label counts in that label's loss, ``(labels,)``; part of
            checkpoints, so that losses compare.

    Args:
        classes: Names of the labels.
        solver: ``ridge`` or ``sgd``.
        class_weights: ``none`` or ``balanced``.

    Raises:
        UserError: If a name is wrong.
    """

    problem_type: ClassVar[ProblemType] = "multilabel"
    metrics: ClassVar[Mapping[str, str]] = METRICS
    monitor: ClassVar[str] = "mean_average_precision"
    headline: ClassVar[str] = "mean_average_precision"
    score: ClassVar[str] = "right_labels"
    probe_name: ClassVar[str] = "label accuracy"
    probe_baseline_name: ClassVar[str] = "majority of each label"
    noun: ClassVar[str] = "label"
    nouns: ClassVar[str] = "labels"
    solvers: ClassVar[tuple[str, ...]] = ("ridge", "sgd")
    positive_weights: Tensor

    def __init__(self, classes: Sequence[str], *, solver: str | None = None, class_weights: str = "none") -> None:
        super().__init__(classes, solver=solver)
        if class_weights not in ("none", "balanced"):
            raise UserError(f"model.class_weights is {class_weights!r}; it must be none or balanced")
        self.balanced = class_weights == "balanced"
        self.register_buffer("positive_weights", torch.ones(len(self.classes)))

    def set_training_targets(self, targets: Tensor) -> None:
        """Weighs each label by how frequent it is; matters with ``class_weights: balanced``."""
        if self.balanced:
            having = targets.sum(dim=0)
            self.positive_weights.copy_((len(targets) - having).clamp(min=1) / having.clamp(min=1))

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, ``(N,)``, the mean over the labels.

        Args:
            outputs: Logits, ``(N, labels)``.
            targets: 0 or 1, ``(N, labels)``.
        """
        weights = self.positive_weights.to(outputs.dtype)
        losses = functional.binary_cross_entropy_with_logits(
            outputs, targets.to(outputs.dtype), pos_weight=weights, reduction="none"
        )
        return losses.mean(dim=1)

    def predictions(self, outputs: Tensor) -> Tensor:
        """The probability of each label, ``(N, labels)``."""
        return outputs.sigmoid()

    def constant_outputs(self, targets: Tensor) -> Tensor:
        """How often each label is there, as logits."""
        return targets.double().mean(dim=0).clamp(1e-3, 1 - 1e-3).logit()

    def make_metrics(self, prefix: str = "") -> MetricCollection:
        """Average precision, F1 and others over probabilities; see `label_metrics`."""
        return label_metrics(len(self.classes), prefix)

    def compared(self, predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The metrics want whole numbers."""
        return predictions, targets.long()

    def score_each(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """The share of each sample's labels that are right, ``(N,)``."""
        return ((predictions > 0.5) == (targets > 0.5)).double().mean(dim=1)

    def changed(self, predictions: Tensor, others: Tensor, targets: Tensor) -> Tensor:
        """Which samples get or lose a label."""
        return ((predictions > 0.5) != (others > 0.5)).any(dim=1)

    def in_words(self, predictions: Tensor) -> list[str]:
        """The labels that are more probable than not, with ``|`` between them."""
        having = (predictions > 0.5).tolist()
        return ["|".join(name for name, has in zip(self.classes, row, strict=True) if has) for row in having]

    @property
    def unsolvable(self) -> str | None:
        """Why the head has to be trained by steps; `None` where it can be solved."""
        return super().unsolvable or ("model.class_weights balanced has no solver" if self.balanced else None)

    def solve(
        self,
        training: Features,
        targets: Tensor,
        held_out: Features,
        held_out_targets: Tensor,
        row_weights: Tensor | None,
    ) -> HeadSolution:
        """Solves least squares; see `Objective.solve`. What is held out is not needed."""
        return solve_ridge_labels(training, targets, row_weights=row_weights)

    def baseline(self, training: Tensor, targets: Tensor) -> dict[str, float]:
        """The share of samples whose labels are exactly those that more than half of the training samples have."""
        usual = training.mean(dim=0) > 0.5
        return {"exact_match": float(((targets > 0.5) == usual).all(dim=1).double().mean())}

    def report(self, predictions: Tensor, targets: Tensor, groups: NDArray[np.str_] | None) -> dict[str, Any]:
        """Standard errors, and each label's scores ``per_label``."""
        predicted, right = predictions.double().numpy(), targets.numpy()
        return {
            "standard_errors": label_errors(predicted, right, groups),
            "per_label": per_label(predicted, right, self.classes),
        }

    @classmethod
    def target_in_words(cls, target: Any, classes: Sequence[str]) -> str:  # noqa: ANN401 - see the base
        """The labels that a sample has, with ``|`` between them."""
        return " | ".join(name for name, mark in zip(classes, target, strict=True) if mark > 0.5) or "no label"

    @classmethod
    def probe_scores(cls, outputs: Tensor, targets: Tensor) -> Tensor:
        """The share of each sample's labels that are right; a label that is the same everywhere says nothing."""
        varied = varies(targets)
        return ((outputs[:, varied] > 0.5) == (targets[:, varied] > 0.5)).double().mean(dim=1)

    @classmethod
    def probe_baseline(cls, targets: Tensor) -> float:
        """The share of right labels where each is as most samples have it."""
        shares = targets[:, varies(targets)].double().mean(dim=0)
        return float(torch.maximum(shares, 1 - shares).mean())
