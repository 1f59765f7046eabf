"""One label per example, out of two or more classes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tl_lightning.errors import UserError
from tl_lightning.metrics.classification import (
    FIGURES,
    classification_metrics,
    confusion_matrix,
    majority_accuracy,
    per_class,
    standard_errors,
)
from tl_lightning.probe import Features, HeadSolution, solve_logistic, solve_ridge
from tl_lightning.tasks.base import HeadOptions, TransferTask
from tl_lightning.tasks.heads import HeadKind
from tl_lightning.tasks.losses import balanced_class_weights, effective_class_weights, focal_loss


class ClassificationTask(TransferTask):
    """A classifier on a pretrained backbone: softmax over two or more classes.

    Attributes:
        loss_weights: Weight of each class in the loss, ``(classes,)``; kept in checkpoints, so that losses compare.
    """

    problem_type: ClassVar[str] = "multiclass"
    metrics: ClassVar[Mapping[str, str]] = FIGURES
    monitor: ClassVar[str] = "macro_f1"
    baseline_name: ClassVar[str] = "majority class"
    loss_weights: Tensor

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
        head_solver: Literal["lbfgs", "ridge", "sgd"] = "lbfgs",
        loss: Literal["cross_entropy", "focal"] = "cross_entropy",
        focal_gamma: float = 2.0,
        label_smoothing: float = 0.0,
        class_weights: Literal["none", "balanced", "effective"] = "none",
        effective_beta: float = 0.999,
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
            classes: Names of the classes, in the order of the labels; comes from the data.
            weights: ``pretrained``, ``none``, ``package:NAME``, a file, or the run folder of an earlier run.
            preprocess: The preparation of the images; comes from the weights by way of the data.
            head: ``linear``, or ``mlp`` with one hidden layer.
            head_hidden: Width of the MLP's hidden layer.
            head_dropout: Probability of dropping an input of the head's last layer.
            head_solver: How a linear head alone on kept features is fitted: ``lbfgs`` solves logistic regression for a
                path of regularisation strengths, of which validation chooses; ``ridge`` solves least squares, which
                streams any number of rows, the strength chosen by leaving one out; ``sgd`` trains by epochs.
            loss: ``cross_entropy``, or ``focal``, in which examples that the model is sure of count for less.
            focal_gamma: How much less they count, 0 (as cross-entropy) or more; matters with ``loss: focal``.
            label_smoothing: Share of the label spread over all classes, 0 to 1.
            class_weights: ``balanced`` weighs each class in the loss by the inverse of its frequency; ``effective`` by
                that of its effective number of examples, less steeply (Cui et al. 2019, arXiv:1901.05555).
            effective_beta: 0 up to 1, where ``effective`` becomes ``balanced``: with 0.999, examples beyond a few
                thousand of a class hardly count any more.
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
        if head_solver not in ("lbfgs", "ridge", "sgd"):
            raise UserError(f"model.head_solver is {head_solver!r}; it must be lbfgs, ridge or sgd")
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
        if not 0 <= label_smoothing < 1:
            raise UserError(f"model.label_smoothing is {label_smoothing}; it must be at least 0 and below 1")
        if loss not in ("cross_entropy", "focal"):
            raise UserError(f"model.loss is {loss!r}; it must be cross_entropy or focal")
        if not 0 <= focal_gamma < math.inf:
            raise UserError(f"model.focal_gamma is {focal_gamma}; it must be 0 or more")
        if not 0 <= effective_beta < 1:
            raise UserError(f"model.effective_beta is {effective_beta}; it must be at least 0 and below 1")
        self.save_hyperparameters()
        # The values in force, also where none were given: prediction never falls back to a library's defaults.
        self.hparams["preprocess"] = self.preprocess
        self.focal_gamma = focal_gamma if loss == "focal" else None
        self.label_smoothing = label_smoothing
        self.weighted = class_weights != "none"
        self.register_buffer("loss_weights", torch.ones(len(self.classes)))
        self.val_metrics = classification_metrics(len(self.classes), "val/")
        self.test_metrics = classification_metrics(len(self.classes), "test/")

    def set_training_targets(self, labels: Tensor) -> None:
        """Tells the loss how many training images each class has; matters with ``class_weights``."""
        counts = labels.bincount(minlength=len(self.classes)).tolist()
        if self.hparams["class_weights"] == "balanced":
            self.loss_weights.copy_(balanced_class_weights(counts))
        elif self.weighted:
            self.loss_weights.copy_(effective_class_weights(counts, beta=self.hparams["effective_beta"]))

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss of each image, ``(N,)``.

        Args:
            outputs: Logits, ``(N, classes)``.
            target: Class indices ``(N,)``, or the share of each class ``(N, classes)``.
        """
        weight = self.loss_weights.to(outputs.dtype)  # a trainer's `bf16-true` makes them bfloat16
        if self.weighted and not target.is_floating_point():
            # Smoothing spreads the weights of class indices and of shares in different ways; this is that of shares.
            target = functional.one_hot(target, len(self.classes)).to(outputs.dtype)
        if self.focal_gamma is None:
            return functional.cross_entropy(
                outputs, target, weight=weight, label_smoothing=self.label_smoothing, reduction="none"
            )
        return focal_loss(
            outputs,
            target,
            gamma=self.focal_gamma,
            weight=weight,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )

    def predictions(self, outputs: Tensor) -> Tensor:
        """The probability of each class, ``(N, classes)``."""
        return outputs.softmax(dim=1)

    @property
    def unsolvable(self) -> str | None:
        """Why the head has to be trained by steps; `None` where it can be solved."""
        reasons = {
            "model.loss focal has no solver": self.focal_gamma is not None,
            "model.label_smoothing is above 0": self.label_smoothing > 0,
        }
        return super().unsolvable or next((reason for reason, holds in reasons.items() if holds), None)

    def solve_head(
        self,
        training: Features,
        answers: Tensor,
        held_out: Features,
        held_out_targets: Tensor,
        row_weights: Tensor | None,
    ) -> HeadSolution:
        """Solves logistic regression, or least squares with ``head_solver: ridge``; see `TransferTask.solve_head`."""
        class_weights, classes = self.loss_weights.double().cpu() if self.weighted else None, len(self.classes)
        if self.head_options.solver == "ridge":
            return solve_ridge(training, answers, classes=classes, class_weights=class_weights, row_weights=row_weights)
        return solve_logistic(
            training,
            answers,
            held_out,
            held_out_targets,
            classes=classes,
            class_weights=class_weights,
            row_weights=row_weights,
        )

    def baseline(self, training: Tensor, labels: Tensor) -> dict[str, float]:
        """The accuracy of always answering the class that is most frequent in training."""
        return {"accuracy": majority_accuracy(training, labels)}

    def details(self, predictions: Tensor, labels: Tensor, groups: NDArray[np.str_] | None) -> dict[str, Any]:
        """Standard errors, each class's figures ``per_class``, and the ``confusion`` matrix."""
        predicted, right, count = predictions.argmax(dim=1).numpy(), labels.numpy(), len(self.classes)
        confusion = confusion_matrix(predicted, right, count)
        return {
            "standard_errors": standard_errors(predicted, right, count, groups),
            "per_class": [vars(score) for score in per_class(confusion, self.classes)],
            "confusion": confusion.tolist(),
        }
