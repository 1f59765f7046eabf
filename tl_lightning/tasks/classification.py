"""One label per example, out of two or more classes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from tl_lightning.errors import UserError
from tl_lightning.heads import HeadKind, build_head
from tl_lightning.losses import balanced_class_weights
from tl_lightning.metrics import classification_metrics
from tl_lightning.tasks.base import TransferTask


class ClassificationTask(TransferTask):
    """A classifier on a pretrained backbone: softmax cross-entropy over two or more classes.

    Batches are mappings with ``image`` (prepared pictures, ``(N, C, S, S)``) and ``label`` (``(N,)``, class indices).

    Attributes:
        loss_weights: Weight of each class in the loss, ``(classes,)``; kept in checkpoints, so that losses compare.
    """

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
        label_smoothing: float = 0.0,
        class_weights: Literal["none", "balanced"] = "none",
        lr: float = 1e-3,
        weight_decay: float = 1e-3,
        backbone_lr_scale: float = 0.1,
        bottom_ratio: float = 0.1,
        drop_path_rate: float = 0.0,
    ) -> None:
        """Builds the classifier.

        Args:
            backbone: Such as ``timm/tf_efficientnet_lite0`` or ``timm/hf-hub:ORG/MODEL``.
            classes: Names of the classes, in the order of the labels; comes from the data.
            weights: ``pretrained``, ``none``, ``package:NAME``, a file, or the run folder of an earlier run.
            preprocess: The preparation of the pictures; comes from the weights by way of the data.
            head: ``linear``, or ``mlp`` with one hidden layer.
            head_hidden: Width of the MLP's hidden layer.
            head_dropout: Probability of dropping an input of the head's last layer.
            label_smoothing: Share of the label spread over all classes, 0 to 1.
            class_weights: ``balanced`` weighs each class in the loss by the inverse of its frequency.
            lr: Peak learning rate of the head.
            weight_decay: Of AdamW, for everything but biases and normalisation weights.
            backbone_lr_scale: The top stage's learning rate relative to the head's.
            bottom_ratio: The first stage's learning rate relative to the top stage's; between them it falls
                geometrically.
            drop_path_rate: Stochastic depth of the backbone's trainable stages.

        Raises:
            UserError: If a name, a weight file or a number is wrong.
        """
        super().__init__(
            backbone,
            weights=weights,
            preprocess=preprocess,
            lr=lr,
            weight_decay=weight_decay,
            backbone_lr_scale=backbone_lr_scale,
            bottom_ratio=bottom_ratio,
            drop_path_rate=drop_path_rate,
        )
        if not 0 <= label_smoothing < 1:
            raise UserError(f"model.label_smoothing is {label_smoothing}; it must be at least 0 and below 1")
        self.save_hyperparameters()
        # The values in force, also where none were given: prediction never falls back to a library's defaults.
        self.hparams["preprocess"] = self.preprocess
        self.classes = list(classes)
        self.label_smoothing = label_smoothing
        self.balanced = class_weights == "balanced"
        self.head = build_head(head, self.num_features, len(self.classes), hidden=head_hidden, dropout=head_dropout)
        self.register_buffer("loss_weights", torch.ones(len(self.classes)))
        self.val_metrics = classification_metrics(len(self.classes), "val/")
        self.test_metrics = classification_metrics(len(self.classes), "test/")
        self.confusion = MulticlassConfusionMatrix(len(self.classes))

    def set_class_counts(self, counts: Sequence[int]) -> None:
        """Tells the loss how many training examples each class has; matters with ``class_weights: balanced``."""
        if self.balanced:
            self.loss_weights.copy_(balanced_class_weights(counts))

    def forward(self, images: Tensor) -> Tensor:
        """Scores prepared pictures.

        Args:
            images: ``(N, C, S, S)``.

        Returns:
            Logits, ``float32`` of shape ``(N, classes)``.
        """
        dtype = next(self.backbone.parameters()).dtype  # float32, but for the trainer's `bf16-true` and kin
        logits: Tensor = self.head(self.backbone(images.to(dtype)))
        return logits.float()

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The loss to descend."""
        loss, _ = self._shared_step(batch)
        self.log("train/loss", loss, on_step=True, on_epoch=True, batch_size=len(batch["label"]))
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Adds a batch to the validation figures."""
        loss, logits = self._shared_step(batch)
        self.log("val/loss", loss, batch_size=len(batch["label"]), sync_dist=True)
        self.val_metrics.update(logits.softmax(dim=1), batch["label"])
        self.confusion.update(logits, batch["label"])

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Adds a batch to the test figures."""
        loss, logits = self._shared_step(batch)
        self.log("test/loss", loss, batch_size=len(batch["label"]), sync_dist=True)
        self.test_metrics.update(logits.softmax(dim=1), batch["label"])
        self.confusion.update(logits, batch["label"])

    def on_validation_epoch_end(self) -> None:
        """Logs the validation figures."""
        self._log_figures(self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Logs the test figures."""
        self._log_figures(self.test_metrics)

    def on_validation_epoch_start(self) -> None:
        """Starts an empty confusion matrix; it is read after the epoch."""
        self.confusion.reset()

    def on_test_epoch_start(self) -> None:
        """Starts an empty confusion matrix; it is read after the epoch."""
        self.confusion.reset()

    def _log_figures(self, metrics: MetricCollection) -> None:
        # torchmetrics gives some degenerate values, such as an MCC of 0, as whole numbers.
        self.log_dict({name: value.float() for name, value in metrics.compute().items()})
        metrics.reset()

    def _shared_step(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = self(batch["image"])
        loss = functional.cross_entropy(
            logits, batch["label"], weight=self.loss_weights, label_smoothing=self.label_smoothing
        )
        return loss, logits
