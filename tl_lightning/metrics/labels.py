"""Any number of labels per image: each label's own metrics, and their mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MultilabelAUROC,
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelF1Score,
)

from tl_lightning.metrics.noise import bootstrap

# The names of the metrics, and whether the best value is the largest or the smallest.
METRICS = {
    "mean_average_precision": "max",
    "macro_f1": "max",
    "micro_f1": "max",
    "auroc": "max",
    "exact_match": "max",
    "loss": "min",
}


def label_metrics(labels: int, prefix: str) -> MetricCollection:
    """The metrics over probabilities and targets of shape ``(n, labels)``.

    ``mean_average_precision`` and ``auroc`` are means over the labels for which there are both kinds of images;
    ``macro_f1``, ``micro_f1`` and ``exact_match`` (all labels of an image right) are of the labels above one half.

    Args:
        labels: One or more.
        prefix: Put before every name, such as ``val/``.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "mean_average_precision": MultilabelAveragePrecision(labels, average="macro"),
        "macro_f1": MultilabelF1Score(labels, average="macro"),
        "micro_f1": MultilabelF1Score(labels, average="micro"),
        "auroc": MultilabelAUROC(labels, average="macro"),
        "exact_match": MultilabelExactMatch(labels),
    }
    return MetricCollection(metrics, prefix=prefix)


def per_label(probabilities: NDArray[np.float64], targets: NDArray[Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Scores each label: ``name``, ``examples``, ``precision``, ``recall`` and ``f1`` of the threshold one half.

    Args:
        probabilities: ``(n, labels)``.
        targets: 0 or 1, ``(n, labels)``.
        names: The labels' names.
    """
    found, right = (probabilities > 0.5), targets > 0.5
    rows = []
    for column, name in enumerate(names):
        hits, called, are = (int(part[:, column].sum()) for part in (found & right, found, right))
        precision, recall, f1 = hits / max(called, 1), hits / max(are, 1), 2 * hits / max(called + are, 1)
        rows.append({"name": name, "examples": are, "precision": precision, "recall": recall, "f1": f1})
    return rows


def label_errors(
    probabilities: NDArray[np.float64], targets: NDArray[Any], groups: NDArray[np.str_] | None = None
) -> dict[str, float]:
    """The noise of ``macro_f1``, ``micro_f1`` and ``exact_match``; see `bootstrap`.

    Args:
        probabilities: ``(n, labels)``.
        targets: 0 or 1, ``(n, labels)``.
        groups: What images have in common.
    """
    found, right = probabilities > 0.5, targets > 0.5
    # Sums over images of these columns say all: hits, called and are for each label, and images without a mistake.
    exact = (found == right).all(axis=1)
    columns = np.concatenate([found & right, found, right, exact[:, None]], axis=1).astype(np.float64)
    count = targets.shape[1]

    def metrics(times: NDArray[np.int64]) -> dict[str, float]:
        sums = times @ columns
        hits, called, are = sums[:count], sums[count : 2 * count], sums[2 * count : 3 * count]
        return {
            "macro_f1": float((2 * hits / np.maximum(called + are, 1)).mean()),
            "micro_f1": float(2 * hits.sum() / max(called.sum() + are.sum(), 1)),
            "exact_match": float(sums[-1] / times.sum()),
        }

    return bootstrap(metrics, len(targets), groups=groups)
