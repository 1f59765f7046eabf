"""Any number of labels per image: each label's own metrics, and their mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MultilabelExactMatch

from tl_lightning.metrics.defined import LabelF1, auroc, average_precision
from tl_lightning.metrics.noise import bootstrap, mean_of_defined, share

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

    ``mean_average_precision`` is a mean over the labels that any image has, ``auroc`` over those for which there are
    both kinds of images; ``macro_f1`` (over the labels that any image has or is said to have), ``micro_f1`` and
    ``exact_match`` (all labels of an image right) are of the labels above one half.

    Args:
        labels: One or more.
        prefix: Put before every name, such as ``val/``.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "mean_average_precision": average_precision(),
        "macro_f1": LabelF1(labels, average="none"),
        "micro_f1": LabelF1(labels, average="micro"),
        "auroc": auroc(),
        "exact_match": MultilabelExactMatch(labels, validate_args=False),
    }
    return MetricCollection(metrics, prefix=prefix)


def per_label(probabilities: NDArray[np.float64], targets: NDArray[Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Scores each label: ``name``, ``examples``, ``precision``, ``recall`` and ``f1`` of the threshold one half.

    What has no value, as the recall of a label that no image has, is `nan`.

    Args:
        probabilities: ``(n, labels)``.
        targets: 0 or 1, ``(n, labels)``.
        names: The labels' names.
    """
    found, right = (probabilities > 0.5), targets > 0.5
    hits, called, are = (part.sum(axis=0) for part in (found & right, found, right))
    scores = {"precision": share(hits, called), "recall": share(hits, are), "f1": share(2 * hits, called + are)}
    return [
        {"name": name, "examples": int(are[k]), **{score: float(values[k]) for score, values in scores.items()}}
        for k, name in enumerate(names)
    ]


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
            "macro_f1": float(mean_of_defined(share(2 * hits, called + are))),
            "micro_f1": float(share(2 * hits.sum(), called.sum() + are.sum())),
            "exact_match": float(sums[-1] / times.sum()),
        }

    return bootstrap(metrics, len(targets), groups=groups)
