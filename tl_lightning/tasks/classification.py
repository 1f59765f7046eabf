"""One label per example, out of two or more classes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from tl_lightning.errors import UserError
from tl_lightning.heads import HeadKind, build_head, linear_layer
from tl_lightning.losses import balanced_class_weights, effective_class_weights, focal_loss
from tl_lightning.metrics import classification_metrics
from tl_lightning.tasks.base import TransferTask, replaced


class ClassificationTask(TransferTask):
    """A classifier on a pretrained backbone: softmax over two or more classes.

    Batches are mappings with ``image`` (prepared pictures, ``(N, C, S, S)``) and ``label`` (``(N,)``, class indices);
    where mixed pictures are trained on, also ``target`` (``(N, classes)``, the share of each class).

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
            preprocess: The preparation of the pictures; comes from the weights by way of the data.
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
        super().__init__(
            backbone,
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
        if head_solver not in ("lbfgs", "ridge", "sgd"):
            raise UserError(f"model.head_solver is {head_solver!r}; it must be lbfgs, ridge or sgd")
        self.save_hyperparameters()
        # The values in force, also where none were given: prediction never falls back to a library's defaults.
        self.hparams["preprocess"] = self.preprocess
        self.classes = list(classes)
        self.focal_gamma = focal_gamma if loss == "focal" else None
        self.label_smoothing = label_smoothing
        self.head_solver = head_solver
        self.weighted = class_weights != "none"
        self.head = build_head(head, self.num_features, len(self.classes), hidden=head_hidden, dropout=head_dropout)
        self.register_buffer("loss_weights", torch.ones(len(self.classes)))
        self.val_metrics = classification_metrics(len(self.classes), "val/")
        self.test_metrics = classification_metrics(len(self.classes), "test/")
        # Lightning's own mean over processes truncates the number of examples to whole ones.
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()
        self.confusion = MulticlassConfusionMatrix(len(self.classes))

    def set_class_counts(self, counts: Sequence[int]) -> None:
        """Tells the loss how many training examples each class has; matters with ``class_weights``."""
        if self.hparams["class_weights"] == "balanced":
            self.loss_weights.copy_(balanced_class_weights(counts))
        elif self.weighted:
            self.loss_weights.copy_(effective_class_weights(counts, beta=self.hparams["effective_beta"]))

    def forward(self, images: Tensor) -> Tensor:
        """Scores prepared pictures.

        Args:
            images: ``(N, C, S, S)``.

        Returns:
            Logits of shape ``(N, classes)``, ``float32``; ``float64`` where the weights are.
        """
        return self.logits(self.features({"image": images}))

    def logits(self, features: Tensor) -> Tensor:
        """What the head makes of features, from pictures or kept; training, validation and prediction go through it.

        Args:
            features: ``(N, num_features)``.

        Returns:
            As `forward`.
        """
        # In full precision, which costs next to nothing here: logits rounded to bfloat16 have three digits.
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.head(features.to(next(self.head.parameters()).dtype))
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    @property
    def unkeepable(self) -> str | None:
        """Why its steps want pictures; `None` where they can do with kept activations."""
        steps = ("training_step", "validation_step", "forward", "features", "logits")
        return replaced(self, ClassificationTask, steps)

    @property
    def unsolvable(self) -> str | None:
        """Why the head has to be trained by steps; `None` where it can be solved."""
        own = replaced(self, ClassificationTask, ("training_step", "logits", "_loss", "penalty"))
        if own is not None:
            return own
        reasons = {
            "model.head_solver is sgd": self.head_solver == "sgd",
            "model.head mlp has more than one optimum": self.hparams.get("head") == "mlp",
            "its head is not one linear layer": linear_layer(self.head) is None,
            "model.loss focal has no solver": self.focal_gamma is not None,
            "model.label_smoothing is above 0": self.label_smoothing > 0,
            "model.head_dropout is above 0": self.hparams.get("head_dropout", 0.0) > 0,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    @torch.no_grad()
    def set_linear_head(self, weight: Tensor, bias: Tensor) -> None:
        """Sets what was solved.

        Args:
            weight: ``(classes, num_features)``.
            bias: ``(classes,)``.
        """
        linear = linear_layer(self.head)
        assert linear is not None  # or it would have been unsolvable
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The loss to descend."""
        loss = self._loss(self.logits(self.features(batch)), batch.get("target", batch["label"]))
        return loss + self.penalty()

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Adds a batch to the validation figures."""
        self._add(batch, self.val_metrics, self.val_loss)

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Adds a batch to the test figures."""
        self._add(batch, self.test_metrics, self.test_loss)

    def on_validation_epoch_end(self) -> None:
        """Logs the validation figures."""
        self._log_figures("val/loss", self.val_metrics, self.val_loss)

    def on_test_epoch_end(self) -> None:
        """Logs the test figures."""
        self._log_figures("test/loss", self.test_metrics, self.test_loss)

    def on_validation_epoch_start(self) -> None:
        """Starts an empty confusion matrix; it is read after the epoch."""
        self.confusion.reset()

    def on_test_epoch_start(self) -> None:
        """Starts an empty confusion matrix; it is read after the epoch."""
        self.confusion.reset()

    def _add(self, batch: Mapping[str, Tensor], metrics: MetricCollection, mean_loss: MeanMetric) -> None:
        logits = self.logits(self.features(batch))
        mean_loss.update(self._loss(logits, batch["label"]), weight=len(batch["label"]))
        metrics.update(logits.softmax(dim=1), batch["label"])
        self.confusion.update(logits, batch["label"])

    def _log_figures(self, loss: str, metrics: MetricCollection, mean_loss: MeanMetric) -> None:
        # torchmetrics gives some degenerate values, such as an MCC of 0, as whole numbers.
        figures = {loss: mean_loss.compute(), **metrics.compute()}
        # They are the same on all processes already; saying `sync_dist` only keeps Lightning from asking for it.
        self.log_dict({name: value.float() for name, value in figures.items()}, sync_dist=True)
        metrics.reset()
        mean_loss.reset()

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.weighted and not target.is_floating_point():
            # Class indices would have torch divide by the batch's own sum of weights: the loss would depend on how a
            # batch is divided into parts and processes. Probabilities are divided by the number of examples.
            target = functional.one_hot(target, len(self.classes)).to(logits.dtype)
        weight = self.loss_weights.to(logits.dtype)  # a trainer's `bf16-true` makes them bfloat16
        if self.focal_gamma is None:
            return functional.cross_entropy(logits, target, weight=weight, label_smoothing=self.label_smoothing)
        return focal_loss(logits, target, gamma=self.focal_gamma, weight=weight, label_smoothing=self.label_smoothing)
