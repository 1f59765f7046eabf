"""One class out of several: torchmetrics for the metrics, the confusion matrix for their noise and the classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
)

from tl_lightning.metrics.defined import BalancedAccuracy, Matthews, auroc
from tl_lightning.metrics.noise import bootstrap, mean_of_defined, share

# The names of a classifier's metrics, and whether the best value is the largest or the smallest.
METRICS = {
    "accuracy": "max",
    "balanced_accuracy": "max",
    "macro_f1": "max",
    "auroc": "max",
    "mcc": "max",
    "calibration_error": "min",
    "loss": "min",
}


def classification_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """The metrics of a classifier over class probabilities of shape ``(N, num_classes)``; binary is two classes.

    ``accuracy``, ``balanced_accuracy`` (mean recall), ``macro_f1``, ``auroc`` (mean over the classes, each against the
    rest), ``mcc`` (Matthews' correlation) and ``calibration_error`` (expected, 15 bins). A class that no image is of is
    left out of recall and AUROC; it is part of ``macro_f1``, as 0, where it was predicted.

    Args:
        num_classes: Two or more.
        prefix: Put before every name, such as ``val/``.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
        "balanced_accuracy": BalancedAccuracy(num_classes),
        "macro_f1": MulticlassF1Score(num_classes, average="macro"),
        "auroc": auroc(),
        "mcc": Matthews(num_classes),
        "calibration_error": MulticlassCalibrationError(num_classes, n_bins=15),
    }
    return MetricCollection(metrics, prefix=prefix)


@dataclass(frozen=True)
class ClassScore:
    """How one class fared.

    Attributes:
        name: The class.
        examples: How many there are.
        precision: The share of what was called this class that is; `nan` where nothing was.
        recall: The share of what is this class that was called so; `nan` where nothing is.
        f1: The harmonic mean of precision and recall; `nan` where nothing is this class or was called so.
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
        classes: The classes' names, in the order of the matrix.
    """
    precision, recall, f1 = _precision_recall_f1(confusion)
    return [
        ClassScore(name, int(confusion[k].sum()), float(precision[k]), float(recall[k]), float(f1[k]))
        for k, name in enumerate(classes)
    ]


def standard_errors(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int, groups: NDArray[np.str_] | None = None
) -> dict[str, float]:
    """The noise of ``accuracy`` and ``macro_f1``; see `bootstrap`.

    Args:
        predicted: The class that was predicted, ``(n,)``.
        labels: The right one.
        classes: How many there are.
        groups: What images have in common.
    """
    # Both metrics depend on the images through the confusion matrix alone, of which most cells are empty.
    cells, cell_of = np.unique(labels * classes + predicted, return_inverse=True)

    def metrics(times: NDArray[np.int64]) -> dict[str, float]:
        counts = np.zeros(classes * classes)
        counts[cells] = np.bincount(cell_of, weights=times, minlength=len(cells))
        confusion = counts.reshape(classes, classes)
        return {name: float(of_confusion(name, confusion)) for name in ("accuracy", "macro_f1")}

    return bootstrap(metrics, len(labels), groups=groups)


def of_confusion(metric: str, confusion: NDArray[Any]) -> NDArray[np.float64]:
    """A metric that the confusion matrix says all about; see `classification_metrics`.

    Args:
        metric: ``accuracy``, ``balanced_accuracy`` or ``macro_f1``.
        confusion: Counts, row = true class, column = predicted class, ``(..., classes, classes)``.

    Returns:
        0 to 1, ``(...)``.
    """
    if metric == "accuracy":
        total = np.maximum(confusion.sum(axis=(-2, -1)), 1)
        return np.asarray(np.diagonal(confusion, axis1=-2, axis2=-1).sum(axis=-1) / total)
    _, recall, f1 = _precision_recall_f1(confusion)
    return mean_of_defined({"balanced_accuracy": recall, "macro_f1": f1}[metric])


def confusion_matrix(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts, row = true class, column = predicted class.

    Args:
        predicted: The class that was predicted, ``(n,)``.
        labels: The right one.
        classes: How many there are.
    """
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def majority_accuracy(training: Tensor, labels: Tensor) -> float:
    """Accuracy, 0 to 1, of always predicting the class that is most frequent in training.

    Args:
        training: Classes of the training images, ``(n,)`` int64.
        labels: Classes of the images to score; `nan` for none.
    """
    return float((labels == training.bincount().argmax()).double().mean())


def _precision_recall_f1(confusion: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    called, are = confusion.sum(axis=-2), confusion.sum(axis=-1)
    return share(right, called), share(right, are), share(2 * right, called + are)
