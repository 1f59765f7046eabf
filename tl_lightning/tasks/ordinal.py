"""One of several levels that have an order, such as grades of a disease."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tl_lightning.errors import UserError
from tl_lightning.metrics.classification import confusion_matrix, majority_accuracy, per_class
from tl_lightning.metrics.levels import FIGURES, level_errors, level_metrics
from tl_lightning.probe import Features, HeadSolution, solve_levels
from tl_lightning.tasks.base import HeadOptions, TransferTask
from tl_lightning.tasks.heads import HeadKind
from tl_lightning.tasks.losses import corn_loss, corn_probabilities


class OrdinalTask(TransferTask):
    """Ordered levels on a pretrained backbone: an output for each step from a level to the next (CORN).

    Shi, Cao and Raschka 2021, arXiv:2111.08851. The answer is the median of the levels' probabilities, which is off by
    the fewest levels.
    """

    problem_type: ClassVar[str] = "ordinal"
    metrics: ClassVar[Mapping[str, str]] = FIGURES
    monitor: ClassVar[str] = "mean_absolute_error"
    baseline_name: ClassVar[str] = "median level"

    def __init__(
        self,
        backbone: str,
        classes: Sequence[str],
        *,
        weights: str = "pretrained",
        preprocess: Mapping[str, Any] | None = None,
        head: HeadKind = "linear",
        head_hidden: int = 512,
        head_dropout: float = 0.0,
        head_solver: Literal["lbfgs", "sgd"] = "lbfgs",
        l2_sp: float = 0.0,
        lr: float = 1e-3,
        weight_decay: float = 1e-3,
        backbone_lr_scale: float = 0.1,
        bottom_ratio: float = 0.1,
        drop_path_rate: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Builds the model.

        Args:
            backbone: Such as ``timm/tf_efficientnet_lite0`` or ``timm/hf-hub:ORG/MODEL``.
            classes: Names of the levels, from the lowest to the highest; comes from the data.
            weights: ``pretrained``, ``none``, ``package:NAME``, a file, or the run folder of an earlier run.
            preprocess: The preparation of the images; comes from the weights by way of the data.
            head: ``linear``, or ``mlp`` with one hidden layer.
            head_hidden: Width of the MLP's hidden layer.
            head_dropout: Probability of dropping an input of the head's last layer.
            head_solver: How a linear head alone on kept features is fitted: ``lbfgs`` solves logistic regressions for a
                path of regularisation strengths, of which validation chooses; ``sgd`` trains by epochs.
            l2_sp: Pulls the backbone's weights towards where they started, this strongly; 0 for not at all.
            lr: Peak learning rate of the head.
            weight_decay: Of AdamW, for everything but biases and normalisation weights.
            backbone_lr_scale: The top stage's learning rate relative to the head's.
            bottom_ratio: The first stage's learning rate relative to the top stage's; between them it falls
                geometrically.
            drop_path_rate: Stochastic depth of the backbone's trainable stages.
            gradient_checkpointing: Saves memory by computing the backbone's activations again in the backward pass.

        Raises:
            UserError: If a name, a weight file or a number is wrong.
        """
        if head_solver not in ("lbfgs", "sgd"):
            raise UserError(f"model.head_solver is {head_solver!r}; it must be lbfgs or sgd")
        if len(classes) < 2:
            raise UserError(f"the levels are {', '.join(classes) or 'none'}; at least two are needed")
        super().__init__(
            backbone,
            classes,
            outputs=len(classes) - 1,
            head=HeadOptions(head, head_hidden, head_dropout, head_solver),
            weights=weights,
            preprocess=preprocess,
            lr=lr,
            weight_decay=weight_decay,
            backbone_lr_scale=backbone_lr_scale,
            bottom_ratio=bottom_ratio,
            drop_path_rate=drop_path_rate,
            l2_sp=l2_sp,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.save_hyperparameters()
        # The values in force, also where none were given: prediction never falls back to a library's defaults.
        self.hparams["preprocess"] = self.preprocess
        self.val_metrics = level_metrics(len(self.classes), "val/")
        self.test_metrics = level_metrics(len(self.classes), "test/")

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss of each image, ``(N,)``.

        Args:
            outputs: ``(N, levels - 1)``.
            target: The right levels, ``(N,)``.
        """
        return corn_loss(outputs, target)

    def predictions(self, outputs: Tensor) -> Tensor:
        """The probability of each level, ``(N, levels)``."""
        return corn_probabilities(outputs)

    def compared(self, predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The metrics compare levels."""
        return median_level(predictions), labels

    def solve_head(
        self,
        training: Features,
        answers: Tensor,
        held_out: Features,
        held_out_targets: Tensor,
        row_weights: Tensor | None,
    ) -> HeadSolution:
        """Solves a logistic regression for each step; see `TransferTask.solve_head`."""
        return solve_levels(
            training, answers, held_out, held_out_targets, count=len(self.classes), row_weights=row_weights
        )

    def baseline(self, training: Tensor, labels: Tensor) -> dict[str, float]:
        """The error of always answering the median training level, and the accuracy of the most frequent one."""
        if not len(labels):
            return {}
        middle = training.sort().values[(len(training) - 1) // 2]
        return {
            "mean_absolute_error": float((labels - middle).abs().double().mean()),
            "accuracy": majority_accuracy(training, labels),
        }

    def details(self, predictions: Tensor, labels: Tensor, groups: NDArray[np.str_] | None) -> dict[str, Any]:
        """Standard errors, each level's figures ``per_class``, and the ``confusion`` matrix."""
        predicted, right, count = median_level(predictions).numpy(), labels.numpy(), len(self.classes)
        confusion = confusion_matrix(predicted, right, count)
        return {
            "standard_errors": level_errors(predicted, right, count, groups),
            "per_class": [vars(score) for score in per_class(confusion, self.classes)],
            "confusion": confusion.tolist(),
        }


def median_level(probabilities: Tensor) -> Tensor:
    """The lowest level that is at least as probable as not to be reached or stayed below, ``(N,)`` int64.

    Args:
        probabilities: ``(N, levels)``.
    """
    return (probabilities.cumsum(dim=1)[:, :-1] < 0.5).sum(dim=1)
