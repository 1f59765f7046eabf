"""One class per sample, out of two or more."""

import math
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
from tl_lightning.metrics.classification import (
    METRICS,
    classification_metrics,
    confusion_matrix,
    majority_accuracy,
    per_class,
    standard_errors,
)
from tl_lightning.probe import Features, HeadSolution, solve_logistic, solve_ridge
from tl_lightning.tasks.losses import balanced_class_weights, effective_class_weights, focal_loss
from tl_lightning.tasks.objectives.base import Objective


class Multiclass(Objective):
    """Softmax over two or more classes.

    Attributes:
        loss_weights: Weight of each class in the loss, ``(classes,)``; part of checkpoints, so that losses compare.

    Args:
        classes: Names of the classes.
        solver: ``lbfgs``, ``ridge`` or ``sgd``.
        loss: ``cross_entropy`` or ``focal``.
        focal_gamma: How much less samples count that the model is sure of; matters with ``loss: focal``.
        label_smoothing: Share of the label spread over all classes.
        class_weights: ``none``, ``balanced`` or ``effective``.
        effective_beta: Matters with ``class_weights: effective``.

    Raises:
        UserError: If a name or a number is wrong.
    """

    problem_type: ClassVar[ProblemType] = "multiclass"
    metrics: ClassVar[Mapping[str, str]] = METRICS
    monitor: ClassVar[str] = "macro_f1"
    headline: ClassVar[str] = "accuracy"
    score: ClassVar[str] = "accuracy"
    alternatives: ClassVar[tuple[str, ...]] = ("macro_f1", "balanced_accuracy")
    probe_baseline_name: ClassVar[str] = "majority class"
    baseline_name: ClassVar[str] = "majority class"
    noun: ClassVar[str] = "class"
    nouns: ClassVar[str] = "classes"
    picks_one: ClassVar[bool] = True
    weighs_classes: ClassVar[bool] = True
    solvers: ClassVar[tuple[str, ...]] = ("lbfgs", "ridge", "sgd")
    loss_weights: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        *,
        solver: str | None = None,
        loss: str = "cross_entropy",
        focal_gamma: float = 2.0,
        label_smoothing: float = 0.0,
        class_weights: str = "none",
        effective_beta: float = 0.999,
    ) -> None:
        super().__init__(classes, solver=solver)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"model.label_smoothing is {label_smoothing}; it must be at least 0 and below 1")
        if loss not in ("cross_entropy", "focal"):
            raise UserError(f"model.loss is {loss!r}; it must be cross_entropy or focal")
        if not 0 <= focal_gamma < math.inf:
            raise UserError(f"model.focal_gamma is {focal_gamma}; it must be 0 or more")
        if class_weights not in ("none", "balanced", "effective"):
            raise UserError(f"model.class_weights is {class_weights!r}; it must be none, balanced or effective")
        if not 0 <= effective_beta < 1:
            raise UserError(f"model.effective_beta is {effective_beta}; it must be at least 0 and below 1")
        self.focal_gamma = focal_gamma if loss == "focal" else None
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.effective_beta = effective_beta
        self.register_buffer("loss_weights", torch.ones(len(self.classes)))

    def set_training_targets(self, targets: Tensor) -> None:
        """Weighs the classes by how many training samples each has; matters with ``class_weights``."""
        counts = targets.bincount(minlength=len(self.classes)).tolist()
        if self.class_weights == "balanced":
            self.loss_weights.copy_(balanced_class_weights(counts))
        elif self.class_weights == "effective":
            self.loss_weights.copy_(effective_class_weights(counts, beta=self.effective_beta))

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, ``(N,)``.

        Args:
            outputs: Logits, ``(N, classes)``.
            targets: Class indices ``(N,)``, or the share of each class ``(N, classes)``.
        """
        smoothing = self.label_smoothing
        if self.class_weights != "none":
            # A weight is of a sample's class. Given to torch, it would also weigh what smoothing gives to all the other
            # outputs, and a rare class would win everywhere (pytorch/pytorch #104776).
            shares = targets if targets.is_floating_point() else functional.one_hot(targets, len(self.classes))
            weighed = shares * self.loss_weights.to(outputs.dtype)  # a trainer's `bf16-true` makes them bfloat16
            targets = weighed * (1 - smoothing) + weighed.sum(dim=1, keepdim=True) * (smoothing / len(self.classes))
            smoothing = 0.0
        if self.focal_gamma is None:
            return functional.cross_entropy(outputs, targets, label_smoothing=smoothing, reduction="none")
        return focal_loss(outputs, targets, gamma=self.focal_gamma, label_smoothing=smoothing, reduction="none")

    def predictions(self, outputs: Tensor) -> Tensor:
        """The probability of each class, ``(N, classes)``."""
        return outputs.softmax(dim=1)

    def constant_outputs(self, targets: Tensor) -> Tensor:
        """The logarithm of each class's frequency."""
        counts = targets.bincount(minlength=len(self.classes)).double().clamp(min=0.5)
        return (counts / counts.sum()).log()

    def decided(self, predictions: Tensor) -> Tensor:
        """The most probable class of each sample, ``(N,)`` int64."""
        return predictions.argmax(dim=1)

    def make_metrics(self, prefix: str = "") -> MetricCollection:
        """Accuracy, macro F1 and others over probabilities; see `classification_metrics`."""
        return classification_metrics(len(self.classes), prefix)

    @property
    def unsolvable(self) -> str | None:
        """Why the head has to be trained by steps; `None` where it can be solved."""
        reasons = {
            "model.loss focal has no solver": self.focal_gamma is not None,
            "model.label_smoothing is above 0": self.label_smoothing > 0,
        }
        return super().unsolvable or next((reason for reason, holds in reasons.items() if holds), None)

    def solve(
        self,
        training: Features,
        targets: Tensor,
        held_out: Features,
        held_out_targets: Tensor,
        row_weights: Tensor | None,
    ) -> HeadSolution:
        """Solves logistic regression, or least squares with the solver ``ridge``; see `Objective.solve`."""
        weights = None if self.class_weights == "none" else self.loss_weights.double().cpu()
        count = len(self.classes)
        if self.solver == "ridge":
            return solve_ridge(training, targets, classes=count, class_weights=weights, row_weights=row_weights)
        return solve_logistic(
            *(training, targets, held_out, held_out_targets),
            classes=count,
            class_weights=weights,
            row_weights=row_weights,
        )

    def baseline(self, training: Tensor, targets: Tensor) -> dict[str, float]:
        """The accuracy of always predicting the class that is most frequent in training."""
        return {"accuracy": majority_accuracy(training, targets)}

    def report(self, predictions: Tensor, targets: Tensor, groups: NDArray[np.str_] | None) -> dict[str, Any]:
        """Standard errors, each class's scores ``per_class``, and the ``confusion`` matrix."""
        predicted, right, count = self.decided(predictions).numpy(), targets.numpy(), len(self.classes)
        confusion = confusion_matrix(predicted, right, count)
        return {
            "standard_errors": standard_errors(predicted, right, count, groups),
            "per_class": [vars(score) for score in per_class(confusion, self.classes)],
            "confusion": confusion.tolist(),
        }
