"""How good the answers are: torchmetrics for the figures, the confusion matrix for their noise and the classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)

# The figures of a classifier, and whether the best value is the largest or the smallest.
FIGURES = {
    "accuracy": "max",
    "balanced_accuracy": "max",
    "macro_f1": "max",
    "auroc": "max",
    "mcc": "max",
    "calibration_error": "min",
    "loss": "min",
}


def classification_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """The figures of a classifier over class probabilities of shape ``(N, num_classes)``; binary is two classes.

    ``accuracy``, ``balanced_accuracy`` (mean recall), ``macro_f1``, ``auroc`` (mean over the classes, each against the
    rest), ``mcc`` (Matthews' correlation) and ``calibration_error`` (expected, 15 bins).

    Args:
        num_classes: Two or more.
        prefix: Put before every name, such as ``val/``.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
        "balanced_accuracy": MulticlassAccuracy(num_classes, average="macro"),
        "macro_f1": MulticlassF1Score(num_classes, average="macro"),
        "auroc": MulticlassAUROC(num_classes),
        "mcc": MulticlassMatthewsCorrCoef(num_classes),
        "calibration_error": MulticlassCalibrationError(num_classes, n_bins=15),
    }
    return MetricCollection(metrics, prefix=prefix)


@dataclass(frozen=True)
class ClassScore:
    """How one class fared.

    Attributes:
        name: The class.
        examples: How many there are.
        precision: Of what was called this class, the share that is.
        recall: Of what is this class, the share that was called so.
        f1: Their harmonic mean.
    """

    name: str
    examples: int
    precision: float
    recall: float
    f1: float


def per_class(confusion: NDArray[np.int64], classes: Sequence[str]) -> list[ClassScore]:
    """Scores each class.

    Args:
        confusion: Counts, row = true class, column = predicted class.
        classes: Their names, in the same order.
    """
    precision, recall, f1 = _precision_recall_f1(confusion)
    return [
        ClassScore(name, int(confusion[k].sum()), float(precision[k]), float(recall[k]), float(f1[k]))
        for k, name in enumerate(classes)
    ]


def standard_errors(confusion: NDArray[np.int64], *, draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """The noise of figures that a finite set of examples gives, by the bootstrap over examples.

    Accuracy and macro F1 depend on the examples through the confusion matrix alone, so drawing examples with
    replacement is drawing a multinomial over its cells.

    Args:
        confusion: Counts, row = true class, column = predicted class; at least one example.
        draws: Bootstrap samples.
        seed: Of the draws.

    Returns:
        Standard errors of ``accuracy`` and ``macro_f1``.
    """
    total = int(confusion.sum())
    cells = np.random.default_rng(seed).multinomial(total, confusion.ravel() / total, size=draws)
    samples = cells.reshape(draws, *confusion.shape)
    accuracy = np.trace(samples, axis1=1, axis2=2) / total
    macro_f1 = _precision_recall_f1(samples)[2].mean(axis=-1)
    return {"accuracy": float(accuracy.std()), "macro_f1": float(macro_f1.std())}


def _precision_recall_f1(confusion: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    called, are = confusion.sum(axis=-2), confusion.sum(axis=-1)
    return right / np.maximum(called, 1), right / np.maximum(are, 1), 2 * right / np.maximum(called + are, 1)
