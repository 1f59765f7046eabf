"""Any number of labels per image."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tl_lightning.errors import UserError
from tl_lightning.metrics.labels import FIGURES, label_errors, label_metrics, per_label
from tl_lightning.probe import Features, HeadSolution, solve_ridge_labels
from tl_lightning.tasks.base import HeadOptions, TransferTask
from tl_lightning.tasks.heads import HeadKind


class MultiLabelTask(TransferTask):
    """A classifier whose images have none, one or several of some labels: a sigmoid for each.

    Attributes:
        positive_weights: How much an image that has the label counts in that label's loss, ``(labels,)``; kept in
            checkpoints, so that losses compare.
    """

    problem_type: ClassVar[str] = "multilabel"
    metrics: ClassVar[Mapping[str, str]] = FIGURES
    monitor: ClassVar[str] = "mean_average_precision"
    positive_weights: Tensor

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
        head_solver: Literal["ridge", "sgd"] = "ridge",
        class_weights: Literal["none", "balanced"] = "none",
        l2_sp: float = 0.0,
        lr: float = 1e-3,
        weight_decay: float = 1e-3,
        backbone_lr_scale: float = 0.1,
        bottom_ratio: float = 0.1,
        drop_path_rate: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Builds the classifier.

        Args:
            backbone: Such as ``timm/tf_efficientnet_lite0`` or ``timm/hf-hub:ORG/MODEL``.
            classes: Names of the labels, in the order of the answers; comes from the data.
            weights: ``pretrained``, ``none``, ``package:NAME``, a file, or the run folder of an earlier run.
            preprocess: The preparation of the images; comes from the weights by way of the data.
            head: ``linear``, or ``mlp`` with one hidden layer.
            head_hidden: Width of the MLP's hidden layer.
            head_dropout: Probability of dropping an input of the head's last layer.
            head_solver: How a linear head alone on kept features is fitted: ``ridge`` solves least squares, strength
                and scale chosen by leaving one out; ``sgd`` trains by epochs.
            class_weights: ``balanced`` weighs the images that have a label as much as those that have it not.
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
        if head_solver not in ("ridge", "sgd"):
            raise UserError(f"model.head_solver is {head_solver!r}; it must be ridge or sgd")
        super().__init__(
            backbone,
            classes,
            outputs=len(classes),
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
        self.balanced = class_weights == "balanced"
        self.register_buffer("positive_weights", torch.ones(len(self.classes)))
        self.val_metrics = label_metrics(len(self.classes), "val/")
        self.test_metrics = label_metrics(len(self.classes), "test/")

    def set_training_targets(self, labels: Tensor) -> None:
        """Tells the loss how frequent each label is; matters with ``class_weights: balanced``."""
        if self.balanced:
            having = labels.sum(dim=0)
            self.positive_weights.copy_((len(labels) - having).clamp(min=1) / having.clamp(min=1))

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss of each image, ``(N,)``, the mean over the labels.

        Args:
            outputs: Logits, ``(N, labels)``.
            target: 0 or 1, likewise.
        """
        weights = self.positive_weights.to(outputs.dtype)
        losses = functional.binary_cross_entropy_with_logits(
            outputs, target.to(outputs.dtype), pos_weight=weights, reduction="none"
        )
        return losses.mean(dim=1)

    def predictions(self, outputs: Tensor) -> Tensor:
        """The probability of each label, ``(N, labels)``."""
        return outputs.sigmoid()

    def compared(self, predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The metrics want whole numbers."""
        return predictions, labels.long()

    @property
    def unsolvable(self) -> str | None:
        """Why the head has to be trained by steps; `None` where it can be solved."""
        return super().unsolvable or ("model.class_weights balanced has no solver" if self.balanced else None)

    def solve_head(
        self,
        training: Features,
        answers: Tensor,
        held_out: Features,
        held_out_targets: Tensor,
        row_weights: Tensor | None,
    ) -> HeadSolution:
        """Solves least squares; see `TransferTask.solve_head`. What is held out is not needed."""
        return solve_ridge_labels(training, answers, row_weights=row_weights)

    def baseline(self, training: Tensor, labels: Tensor) -> dict[str, float]:
        """The share of images whose labels are exactly those that more than half of the training images have."""
        usual = training.mean(dim=0) > 0.5
        return {"exact_match": float(((labels > 0.5) == usual).all(dim=1).double().mean())}

    def details(self, predictions: Tensor, labels: Tensor, groups: NDArray[np.str_] | None) -> dict[str, Any]:
        """Standard errors, and each label's figures ``per_label``."""
        answered, right = predictions.double().numpy(), labels.numpy()
        return {
            "standard_errors": label_errors(answered, right, groups),
            "per_label": per_label(answered, right, self.classes),
        }
