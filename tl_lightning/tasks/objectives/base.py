"""What it takes to learn one kind of target: its loss, predictions, metrics, baseline, report and solver."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import MetricCollection

from tl_lightning.data.samples import ProblemType
from tl_lightning.errors import UserError
from tl_lightning.probe import Features, HeadSolution


class Objective(nn.Module):
    """One kind of target; a subclass says all that is particular about it, so that no other module has to ask.

    What training targets set, such as weights of classes, are buffers: they are part of every checkpoint.

    Attributes:
        problem_type: multiclass, ordinal, multilabel or regression.
        metrics: The names of the metrics, and whether the best value is the largest (max) or the smallest (min).
        monitor: The metric that picks the best weights unless the user names another.
        headline: The metric that says the most to people.
        in_points: Whether that is a share, of which people speak in points.
        score: What the mean of `score_each` is called.
        alternatives: What else models may be compared by; `of_confusion` computes it from the classes they pick.
        probe_name: What a probe's score is called.
        probe_baseline_name: What the prediction without features is called, which a probe is shown beside.
        baseline_name: What the prediction without a model is called, which the metrics are shown beside.
        noun: What each of `classes` is.
        nouns: What several of them are.
        picks_one: Whether each sample has exactly one of `classes`.
        counts: Whether the samples of each of `classes` can be counted.
        weighs_classes: Whether classes may count by their frequency, so that rare ones of many are learned too.
        solvers: How a linear head can be fitted, the default first.
        classes: Names of what the predictions stand for, in their order.
        solver: How a linear head alone on cached features is fitted; ``sgd`` trains by epochs.

    Args:
        classes: Names of the classes, levels, labels or numbers.
        solver: One of `solvers`; `None` for the first.

    Raises:
        UserError: If there is no such solver.
    """

    problem_type: ClassVar[ProblemType]
    metrics: ClassVar[Mapping[str, str]]
    monitor: ClassVar[str]
    headline: ClassVar[str]
    in_points: ClassVar[bool] = True
    score: ClassVar[str]
    alternatives: ClassVar[tuple[str, ...]] = ()
    probe_name: ClassVar[str] = "accuracy"
    probe_baseline_name: ClassVar[str] = ""
    baseline_name: ClassVar[str] = "constant prediction"
    noun: ClassVar[str]
    nouns: ClassVar[str]
    picks_one: ClassVar[bool] = False
    counts: ClassVar[bool] = True
    weighs_classes: ClassVar[bool] = False
    solvers: ClassVar[tuple[str, ...]]

    def __init__(self, classes: Sequence[str], *, solver: str | None = None) -> None:
        super().__init__()
        self.classes = list(classes)
        self.solver = solver or self.solvers[0]
        if self.solver not in self.solvers:
            known = f"{', '.join(self.solvers[:-1])} or {self.solvers[-1]}"
            raise UserError(f"model.head_solver is {solver!r}; it must be {known}")

    @property
    def outputs(self) -> int:
        """How many numbers the head gives for a sample."""
        return len(self.classes)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, ``(N,)``.

        Args:
            outputs: ``(N, outputs)``, from the head.
            targets: A row each.
        """
        raise NotImplementedError

    def predictions(self, outputs: Tensor) -> Tensor:
        """What is predicted: probabilities of what `classes` names, or numbers, ``(N, len(classes))``.

        Args:
            outputs: ``(N, outputs)``, from the head.
        """
        raise NotImplementedError

    def set_training_targets(self, targets: Tensor) -> None:
        """Takes from the targets of the training samples what the loss and the predictions need.

        Args:
            targets: A row each.
        """

    def constant_outputs(self, targets: Tensor) -> Tensor:
        """What a head without features had best give for every sample, ``(outputs,)``.

        Args:
            targets: Those of the training samples.
        """
        raise NotImplementedError

    def make_metrics(self, prefix: str = "") -> MetricCollection:
        """The metrics, which take what `compared` gives and whose results `finished` turns into those that are shown.

        Args:
            prefix: Put before every name, such as ``val/``.
        """
        raise NotImplementedError

    def compared(self, predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What the metrics are given; by default the predictions and the targets as they are."""
        return predictions, targets

    def finished(self, results: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Makes what is shown out of what the metrics give at the end of an evaluation."""
        return dict(results)

    def evaluate(self, predictions: Tensor, targets: Tensor) -> dict[str, float]:
        """All metrics of some predictions, by plain names.

        Args:
            predictions: ``(N, len(classes))``.
            targets: A row each.
        """
        metrics = self.make_metrics()
        metrics.update(*self.compared(predictions, targets))
        return {name: float(value) for name, value in self.finished(metrics.compute()).items()}

    def scorer(self, metric: str) -> Callable[[Tensor, Tensor], float]:
        """A function of predictions and targets that computes one metric, quickly enough to be called many times.

        Args:
            metric: The plain name of the metric.
        """
        one = dict(self.make_metrics().items(keep_base=True))[metric]

        def score(predictions: Tensor, targets: Tensor) -> float:
            one.reset()
            one.update(*self.compared(predictions, targets))
            return float(self.finished({metric: one.compute()})[metric])

        return score

    def decided(self, predictions: Tensor) -> Tensor | None:
        """The class of each sample, ``(N,)`` int64; `None` where a sample has no single one."""
        return None

    def score_each(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """How good the prediction for each sample is, ``(N,)`` float64, the larger the better.

        Paired comparisons of models are made of it: 1 or 0 for right or wrong, the share of right labels, or minus the
        absolute error.
        """
        return (self.decided(predictions) == targets).double()  # type: ignore[union-attr]

    def changed(self, predictions: Tensor, others: Tensor, targets: Tensor) -> Tensor:
        """Which samples get another prediction that a user would notice, ``(N,)`` bool.

        Args:
            predictions: ``(N, len(classes))``.
            others: Other predictions for the same samples.
            targets: A row each; they say how far numbers are apart.
        """
        return self.decided(predictions) != self.decided(others)  # type: ignore[return-value]

    def rows(self, predictions: Tensor) -> list[dict[str, str | float]]:
        """The columns of a file of predictions, for each sample: ``class`` and the probability of each class."""
        names = [f"probability_{name}" for name in self.classes]
        labels = self.in_words(predictions)
        parts = zip(labels, predictions.tolist(), strict=True)
        return [{"class": label, **dict(zip(names, row, strict=True))} for label, row in parts]

    def rows_each(self, predictions: Tensor) -> list[list[dict[str, str | float]]]:
        """The rows of a file of predictions, a list for each sample: one by default, as many as are found in it."""
        return [[row] for row in self.rows(predictions)]

    def in_words(self, predictions: Tensor) -> list[str]:
        """The class of each sample by its name."""
        decided = self.decided(predictions)
        return [] if decided is None else [self.classes[number] for number in decided.tolist()]

    def baseline(self, training: Tensor, targets: Tensor) -> dict[str, float]:
        """Metrics of predicting the same for all, the best for the training samples.

        Args:
            training: The targets of the training samples.
            targets: Those of the samples to score.
        """
        return {}

    def report(self, predictions: Tensor, targets: Tensor, groups: NDArray[np.str_] | None) -> dict[str, Any]:
        """What an evaluation tells beyond its metrics, as plain data.

        Args:
            predictions: Those of all samples, in float32 or more, on the CPU.
            targets: A row each.
            groups: What samples have in common.

        Returns:
            ``standard_errors`` of some metrics, and tables of rows such as ``per_class``.
        """
        return {"standard_errors": {}}

    @property
    def unsolvable(self) -> str | None:
        """Why a linear head on cached features cannot be solved but has to be trained; `None` where it can."""
        return f"model.head_solver is {self.solver}" if self.solver == "sgd" else None

    def solve(
        self,
        training: Features,
        targets: Tensor,
        held_out: Features,
        held_out_targets: Tensor,
        row_weights: Tensor | None,
    ) -> HeadSolution | None:
        """Solves a linear head on features; `None` where `unsolvable` says why it cannot.

        Args:
            training: Features that it is fitted to.
            targets: A row for each of `training`.
            held_out: Features that may choose how strongly it is regularised.
            held_out_targets: A row for each of `held_out`.
            row_weights: How much each row of `training` counts; `None` for all the same.
        """
        return None

    def known(self, targets: Tensor) -> Tensor:
        """Which samples have a target, ``(N,)`` bool; those that lack it have -1, or NaN for numbers and labels."""
        return targets >= 0 if targets.ndim == 1 else ~targets.isnan().any(dim=1)

    def filled(self, targets: Tensor) -> Tensor:
        """The targets with something that has a loss in the place of what is lacking; see `known`."""
        return targets.clamp(min=0) if targets.ndim == 1 else targets.nan_to_num()

    @classmethod
    def described(cls, classes: Sequence[str]) -> str:
        """What there is to learn, in words, such as ``3 classes``."""
        return f"{len(classes)} {cls.nouns}"

    @classmethod
    def target_in_words(cls, target: Any, classes: Sequence[str]) -> str:  # noqa: ANN401 - a number, or an array
        """What is to be learned of one sample, in words.

        Args:
            target: One row of the targets.
            classes: Names of what it stands for.
        """
        return classes[int(target)]

    @classmethod
    def probe_scores(cls, outputs: Tensor, targets: Tensor) -> Tensor:
        """A score of each sample for the outputs of a least-squares probe, ``(N,)``, 1 at best.

        Args:
            outputs: ``(N, k)`` float64.
            targets: ``(N, k)`` float64.

        Raises:
            UserError: If all samples have the same targets.
        """
        raise NotImplementedError

    @classmethod
    def probe_baseline(cls, targets: Tensor) -> float | None:
        """The mean score of predicting the most frequent target for all; `None` for numbers, whose R2 would be 0.

        Args:
            targets: A row each.
        """
        return float(torch.bincount(targets).max()) / len(targets)


def varies(targets: Tensor) -> Tensor:
    """Which labels or numbers, of ``(n, k)``, are not the same for all samples: ``(k,)`` bool.

    Raises:
        UserError: If there is none.
    """
    varied: Tensor = (targets != targets[0]).any(dim=0)
    if not varied.any():
        raise UserError(f"all {len(targets):,} images have the same targets: there is nothing to tell apart")
    return varied
