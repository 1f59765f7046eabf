"""One or more numbers per image."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tl_lightning.errors import UserError
from tl_lightning.metrics.numbers import FIGURES, in_units, number_errors, number_metrics, per_number
from tl_lightning.probe import Features, HeadSolution, solve_ridge_numbers
from tl_lightning.tasks.base import HeadOptions, TransferTask
from tl_lightning.tasks.heads import HeadKind


class RegressionTask(TransferTask):
    """Regression on a pretrained backbone: one or more numbers per image.

    Inside, numbers have mean 0 and deviation 1 over the training images; answers and figures are in their own units,
    the loss is not.

    Attributes:
        mean: Of each number over the training images, ``(numbers,)``; kept in checkpoints.
        scale: The deviation of each, likewise.
        lowest: The lowest of each, likewise.
        highest: The highest of each, likewise.
    """

    problem_type: ClassVar[str] = "regression"
    metrics: ClassVar[Mapping[str, str]] = FIGURES
    monitor: ClassVar[str] = "r2"
    mean: Tensor
    scale: Tensor
    lowest: Tensor
    highest: Tensor

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
        loss: Literal["mse", "mae", "huber"] = "mse",
        extrapolate: bool = False,
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
            classes: Names of the numbers, in the order of the answers; comes from the data.
            weights: ``pretrained``, ``none``, ``package:NAME``, a file, or the run folder of an earlier run.
            preprocess: The preparation of the images; comes from the weights by way of the data.
            head: ``linear``, or ``mlp`` with one hidden layer.
            head_hidden: Width of the MLP's hidden layer.
            head_dropout: Probability of dropping an input of the head's last layer.
            head_solver: How a linear head alone on kept features is fitted: ``ridge`` solves least squares, the
                strength of regularisation chosen by leaving one out; ``sgd`` trains by epochs.
            loss: ``mse`` (squared error), ``mae`` (absolute error) or ``huber`` (squared up to one deviation of the
                number, absolute beyond: outliers pull less).
            extrapolate: Whether answers may lie outside the range of the training images' numbers. An image unlike
                any of them can otherwise get a number without any limit.
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
        if loss not in ("mse", "mae", "huber"):
            raise UserError(f"model.loss is {loss!r}; it must be mse, mae or huber")
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
        self.loss = loss
        self.extrapolate = extrapolate
        for name, value in (("mean", 0.0), ("scale", 1.0), ("lowest", -math.inf), ("highest", math.inf)):
            self.register_buffer(name, torch.full((len(self.classes),), value))
        self.val_metrics = number_metrics(len(self.classes), "val/")
        self.test_metrics = number_metrics(len(self.classes), "test/")

    def set_training_targets(self, labels: Tensor) -> None:
        """Takes mean, deviation and range of the training images' numbers; a constant one keeps its unit."""
        self.lowest.copy_(labels.amin(dim=0))
        self.highest.copy_(labels.amax(dim=0))
        deviation = labels.double().std(dim=0, correction=0)
        self.mean.copy_(labels.double().mean(dim=0))
        self.scale.copy_(torch.where(deviation > 0, deviation, 1.0))

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss of each image, ``(N,)``, the mean over its numbers.

        Args:
            outputs: ``(N, numbers)``, scaled.
            target: The right numbers, likewise, in their own units.
        """
        target = self._scaled(target).to(outputs.dtype)
        if self.loss == "mse":
            losses = functional.mse_loss(outputs, target, reduction="none")
        elif self.loss == "mae":
            losses = functional.l1_loss(outputs, target, reduction="none")
        else:
            losses = functional.huber_loss(outputs, target, reduction="none")
        return losses.mean(dim=1)

    def _scaled(self, numbers: Tensor) -> Tensor:
        return (numbers - self.mean.to(numbers.dtype)) / self.scale.to(numbers.dtype)

    def predictions(self, outputs: Tensor) -> Tensor:
        """The numbers in their own units, ``(N, numbers)``."""
        numbers = outputs * self.scale.to(outputs.dtype) + self.mean.to(outputs.dtype)
        return numbers if self.extrapolate else numbers.clamp(self.lowest, self.highest)

    def compared(self, predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Both scaled, for the metrics."""
        return self._scaled(predictions), self._scaled(labels)

    def finished(self, figures: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The means over the numbers, errors in their own units."""
        return in_units(figures, self.scale)

    @property
    def unsolvable(self) -> str | None:
        """Why the head has to be trained by steps; `None` where it can be solved."""
        return super().unsolvable or (None if self.loss == "mse" else f"model.loss {self.loss} has no solver")

    def solve_head(
        self,
        training: Features,
        answers: Tensor,
        held_out: Features,
        held_out_targets: Tensor,
        row_weights: Tensor | None,
    ) -> HeadSolution:
        """Solves least squares; see `TransferTask.solve_head`. What is held out is not needed."""
        scaled = (answers.double() - self.mean.double().cpu()) / self.scale.double().cpu()
        return solve_ridge_numbers(training, scaled, row_weights=row_weights)

    def baseline(self, training: Tensor, labels: Tensor) -> dict[str, float]:
        """The errors of always answering the median of the training images, or their mean for squared errors."""
        if not len(labels):
            return {}
        middle, mean = training.double().quantile(0.5, dim=0), training.double().mean(dim=0)
        return {
            "mean_absolute_error": float((labels - middle).abs().mean()),
            "root_mean_squared_error": float((labels - mean).square().mean(dim=0).sqrt().mean()),
        }

    def details(self, predictions: Tensor, labels: Tensor, groups: NDArray[np.str_] | None) -> dict[str, Any]:
        """Standard errors, and each number's figures ``per_number``."""
        answered, right = predictions.double().numpy(), labels.numpy()
        return {
            "standard_errors": number_errors(answered, right, groups),
            "per_number": per_number(answered, right, self.classes),
        }
