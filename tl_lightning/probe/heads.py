"""The heads that tasks ask for: solved for a path of strengths, of which one is chosen."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tl_lightning.probe.features import Features, Rows
from tl_lightning.probe.logistic import STRENGTHS, logistic_path
from tl_lightning.probe.ridge import ridge_classifier, ridge_labels, ridge_path
from tl_lightning.probe.scores import choose, path_until_it_rises

IMPOSSIBLE = -20.0  # logit of a level that no training image has


@dataclass(frozen=True)
class HeadSolution:
    """A linear head, and the path that it was chosen from.

    Attributes:
        weight: ``(outputs, width)`` float64, for raw features.
        bias: ``(outputs,)`` float64.
        columns: One value per strength: ``strength`` and whatever was found for each.
        chosen: The position of the strength.
        word: What the strength is called: ``C`` or ``lambda``.
        said: In words, how good it is.
    """

    weight: Tensor
    bias: Tensor
    columns: dict[str, list[float]]
    chosen: int
    word: str
    said: str


def solve_logistic(
    features: Features,
    labels: Tensor,
    held_out: Features,
    held_out_labels: Tensor,
    *,
    classes: int,
    class_weights: Tensor | None = None,
    row_weights: Tensor | None = None,
) -> HeadSolution:
    """Logistic regression; the loss of rows that were held out chooses the strength.

    Args:
        features: Raw features that it is fitted to.
        labels: Class of each row.
        held_out: Raw features that score each strength.
        held_out_labels: The class of each row of `held_out`.
        classes: 2 or more.
        class_weights: ``(classes,)``; `None` for 1.
        row_weights: ``(rows,)``; `None` for 1.
    """
    path, scores = path_until_it_rises(
        features,
        labels,
        held_out,
        held_out_labels,
        classes=classes,
        class_weights=class_weights,
        row_weights=row_weights,
    )
    chosen = choose(scores)
    said = f"validation loss {scores.losses[chosen]:.4f}"
    said += "" if path.converged[chosen] else f", not converged in {path.iterations[chosen]} passes"
    columns = {
        "strength": list(path.strengths),
        "training_loss": path.losses.tolist(),
        "validation_loss": scores.losses.tolist(),
        "validation_accuracy": scores.accuracies.tolist(),
        "iterations": path.iterations.tolist(),
    }
    return HeadSolution(path.weights[chosen], path.biases[chosen], columns, chosen, "C", said)


def solve_levels(
    features: Features,
    levels: Tensor,
    held_out: Features,
    held_out_labels: Tensor,
    *,
    count: int,
    row_weights: Tensor | None = None,
) -> HeadSolution:
    """Logistic regressions of "above level k", each of the rows that reach it; one strength for all of them.

    They share nothing but the strength, so each is solved alone; see `tl_lightning.tasks.losses.corn_loss`.

    Args:
        features: At least one row.
        levels: Level of each row, ``(rows,)`` int64.
        held_out: Raw features that score each strength; some of them have to reach the second level.
        held_out_labels: The level of each row of `held_out`.
        count: How many levels there are.
        row_weights: ``(rows,)``; `None` for 1.
    """
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    columns: dict[str, Any] = dict.fromkeys(("training_loss", "validation_loss", "iterations"), 0.0)
    for threshold in range(count - 1):
        if not (levels >= threshold).any():  # no image reaches it: it is as good as impossible
            weights.append(torch.zeros_like(weights[0]))
            biases.append(torch.full_like(biases[0], IMPOSSIBLE))
            continue
        rows, held = ((part >= threshold).nonzero()[:, 0] for part in (levels, held_out_labels))
        own = None if row_weights is None else row_weights[rows]
        above = (levels[rows] > threshold).long()
        if len(held):
            expected = (held_out_labels[held] > threshold).long()
            path, scores = path_until_it_rises(
                Rows(features, rows), above, Rows(held_out, held), expected, classes=2, row_weights=own
            )
            losses = scores.losses * (len(held) / len(held_out_labels))
        else:
            path = logistic_path(Rows(features, rows), above, classes=2, row_weights=own)
            losses = torch.zeros_like(path.losses)
        weights.append(path.weights[:, 1] - path.weights[:, 0])
        biases.append(path.biases[:, 1] - path.biases[:, 0])
        found = {
            "training_loss": path.losses * (len(rows) / len(levels)),
            "validation_loss": losses,
            "iterations": path.iterations,
        }
        columns = {name: _sum(columns[name], values) for name, values in found.items()}
    tried = len(columns["validation_loss"])  # some paths may have ended earlier
    chosen = int(columns["validation_loss"].argmin())
    return HeadSolution(
        torch.stack([weight[chosen] for weight in weights]),
        torch.stack([bias[chosen] for bias in biases]),
        {"strength": list(STRENGTHS[:tried]), **{name: values.tolist() for name, values in columns.items()}},
        chosen,
        "C",
        f"validation loss {columns['validation_loss'][chosen]:.4f}",
    )


def _sum(one: Tensor | float, other: Tensor) -> Tensor:
    """The sum of two columns of paths, as far as both go."""
    return other if isinstance(one, float) else one[: len(other)] + other[: len(one)]


def solve_ridge(
    features: Features,
    labels: Tensor,
    *,
    classes: int,
    class_weights: Tensor | None = None,
    row_weights: Tensor | None = None,
) -> HeadSolution:
    """Least squares of classes; the leave-one-out error chooses the strength. Arguments as for `ridge_classifier`."""
    ridge = ridge_classifier(features, labels, classes=classes, class_weights=class_weights, row_weights=row_weights)
    return _by_leave_one_out(ridge.weight, ridge.bias, ridge.strengths, ridge.errors, ridge.chosen)


def solve_ridge_labels(features: Features, labels: Tensor, *, row_weights: Tensor | None = None) -> HeadSolution:
    """Least squares of labels that are 0 or 1 each; arguments as for `ridge_labels`."""
    ridge = ridge_labels(features, labels, row_weights=row_weights)
    return _by_leave_one_out(ridge.weight, ridge.bias, ridge.strengths, ridge.errors, ridge.chosen)


def solve_ridge_numbers(features: Features, numbers: Tensor, *, row_weights: Tensor | None = None) -> HeadSolution:
    """Least squares of numbers; arguments as for `ridge_path`."""
    path = ridge_path(features, numbers, row_weights=row_weights)
    weight, bias = path.weights[path.chosen], path.biases[path.chosen]
    return _by_leave_one_out(weight, bias, path.strengths, path.errors, path.chosen)


def _by_leave_one_out(
    weight: Tensor, bias: Tensor, strengths: tuple[float, ...], errors: tuple[float, ...], chosen: int
) -> HeadSolution:
    columns = {"strength": list(strengths), "leave_one_out_error": list(errors)}
    return HeadSolution(weight, bias, columns, chosen, "lambda", f"leave-one-out error {errors[chosen]:.4f}")
