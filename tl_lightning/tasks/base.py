"""What every task shares: a backbone, the phase it is in, its optimizer and its learning rates."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import LRSchedulerTypeUnion, OptimizerLRScheduler
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric, MetricCollection

from tl_lightning.backbones import build_backbone, checkpoint_gradients
from tl_lightning.core.console import track
from tl_lightning.core.precision import train_depthwise_in_float32
from tl_lightning.core.randomness import seed_generators
from tl_lightning.errors import UserError
from tl_lightning.finetuning.averaging import ExponentialMovingAverage
from tl_lightning.finetuning.batch_norm import average_statistics, estimate_statistics
from tl_lightning.finetuning.freezing import StageRow, freeze_all_but, set_training_modes, stage_rows
from tl_lightning.finetuning.groups import build_optimizer, learning_rates
from tl_lightning.finetuning.phases import Phase
from tl_lightning.finetuning.schedules import build_schedule
from tl_lightning.finetuning.selection import select
from tl_lightning.metrics.answered import Answered
from tl_lightning.preprocess.image import Preprocess
from tl_lightning.probe import Features, HeadSolution
from tl_lightning.tasks.heads import HeadKind, build_head, linear_layer
from tl_lightning.tasks.losses import l2_sp


@dataclass(frozen=True)
class HeadOptions:
    """What a head is and how it is fitted; see the arguments of the same names of the tasks.

    Attributes:
        kind: ``linear`` or ``mlp``.
        hidden: Width of the MLP's hidden layer.
        dropout: Probability of dropping an input of the last layer.
        solver: How a linear head alone on kept features is fitted; ``sgd`` trains by epochs.
    """

    kind: HeadKind
    hidden: int
    dropout: float
    solver: str


class TransferTask(LightningModule):
    """A pretrained backbone under a head; a task says what is learned: its loss, its figures, its answers.

    A subclass saves its hyper-parameters and sets ``val_metrics`` and ``test_metrics`` in its ``__init__``, and
    implements `losses` and `predictions`; the others have defaults. All hyper-parameters are plain values, so a
    checkpoint loads with torch's safe loader.

    Batches are mappings with ``image`` (prepared images, ``(N, C, S, S)``) and ``label`` (a row each); where images
    count differently also ``weight`` (``(N,)``), and where mixed images are trained on ``target`` (``(N, classes)``,
    the share of each class).

    Attributes:
        problem_type: What is learned: multiclass, ordinal, multilabel or regression.
        metrics: The names of the metrics, and whether the best value is the largest (max) or the smallest (min).
        monitor: The metric that picks the best weights unless the user names another.
        baseline_name: What the prediction without a model is called, which the metrics are shown beside.
        classes: Names of what the outputs stand for.
        phase: What trains now, and how.
        solved: Whether the phase's head is solved rather than trained: its steps move nothing.
        learning_rates: The peak learning rate of each stage and of the head, by name.
    """

    problem_type: ClassVar[str]
    metrics: ClassVar[Mapping[str, str]]
    monitor: ClassVar[str]
    baseline_name: ClassVar[str] = "constant prediction"
    val_metrics: MetricCollection
    test_metrics: MetricCollection

    def __init__(
        self,
        backbone: str,
        classes: Sequence[str],
        *,
        outputs: int,
        head: HeadOptions,
        weights: str,
        preprocess: Mapping[str, Any] | None,
        lr: float,
        weight_decay: float,
        backbone_lr_scale: float,
        bottom_ratio: float,
        drop_path_rate: float,
        l2_sp: float,
        gradient_checkpointing: bool,
    ) -> None:
        """Builds the backbone and the head.

        Args:
            backbone: Such as ``timm/tf_efficientnet_lite0``.
            classes: Names of what is learned.
            outputs: Numbers that the head gives.
            head: What it is.
            weights: ``pretrained``, ``none``, ``package:NAME``, a file, or the run folder of an earlier run.
            preprocess: The preparation in use, `Preprocess.to_dict`; `None` for the weights' own.
            lr: Peak learning rate of the head.
            weight_decay: Of AdamW, for everything but biases and normalisation weights.
            backbone_lr_scale: The top stage's learning rate relative to the head's.
            bottom_ratio: The first stage's learning rate relative to the top stage's.
            drop_path_rate: Stochastic depth of the backbone's trainable stages, 0 to below 1.
            l2_sp: Pull of the backbone's weights towards those it was pretrained with, 0 or more.
            gradient_checkpointing: Computes activations twice instead of keeping them.

        Raises:
            UserError: If a number is out of range, or the backbone or its weights cannot be had.
        """
        super().__init__()
        for name, value in (("lr", lr), ("backbone_lr_scale", backbone_lr_scale), ("bottom_ratio", bottom_ratio)):
            if not 0 < value < math.inf:
                raise UserError(f"model.{name} is {value}; it must be above 0")
        for name, value in (("weight_decay", weight_decay), ("l2_sp", l2_sp)):
            if not 0 <= value < math.inf:
                raise UserError(f"model.{name} is {value}; it must be 0 or more")
        if l2_sp and weights == "none":
            raise UserError(f"model.l2_sp is {l2_sp}, but with model.weights none there is nothing to stay close to")
        prepared = None if preprocess is None else Preprocess.from_dict(preprocess)
        built = build_backbone(backbone, weights, preprocess=prepared, drop_path_rate=drop_path_rate)
        # Depthwise convolutions run 2-4 times faster on a CPU in this layout, and GPUs' tensor cores want it too.
        self.backbone = built.module.to(memory_format=torch.channels_last)
        if gradient_checkpointing:
            checkpoint_gradients(built.module, backbone)
        self.stages = built.stages
        self.num_features = built.num_features
        self.lineage = built.lineage
        self.preprocess = built.preprocess.to_dict()
        self._configured_lr = learning_rates(
            built.stages, lr, backbone_lr_scale=backbone_lr_scale, bottom_ratio=bottom_ratio
        )
        self.learning_rates = self._configured_lr
        self.weight_decay = weight_decay
        self.classes = list(classes)
        self.head_options = head
        self.head = build_head(head.kind, self.num_features, outputs, hidden=head.hidden, dropout=head.dropout)
        # Lightning's own mean over processes truncates the number of examples to whole ones.
        # What is no number counts, too: left out, it would hide a divergence, and to look for it waits for the GPU. So
        # these means, which take no weights, are given the loss of each image.
        self.val_loss, self.test_loss = MeanMetric(nan_strategy="disable"), MeanMetric(nan_strategy="disable")
        self.answered, self._keeps_answers = Answered(), False
        self.phase = Phase()
        # In lists, or their tensors would be in the state dict a second time.
        self._suffix: list[nn.Module] = []
        self._compiled: list[Callable[..., Tensor]] = []
        self.solved = False
        self._seed = 0
        self._l2_sp = l2_sp
        self._start = _copy(self.backbone) if l2_sp else {}
        self._depthwise_prepared = False
        self._validated = False
        self._figures: dict[str, float] = {}  # of that validation, where it came before a resume
        self._optimizer: torch.optim.Optimizer | None = None

    def on_fit_start(self) -> None:
        """Prepares for the machine's arithmetic and for the phase; Lightning calls it at the start of every phase."""
        if self.device.type == "cpu" and not self._depthwise_prepared:
            train_depthwise_in_float32(self.backbone)
            self._depthwise_prepared = True
        self._start = {name: tensor.to(self.device) for name, tensor in self._start.items()}
        if self.phase.bn == "adapt" and self.trainer.ckpt_path is None:  # a checkpoint holds what was estimated
            self._adapt_statistics()

    def _adapt_statistics(self) -> None:
        self.trainer.validating = True  # the images come as evaluation sees them
        with self.trainer.precision_plugin.forward_context():
            estimate_statistics(self.backbone, self._training_images())
        self.trainer.training = True
        if self.trainer.world_size > 1:
            average_statistics(self.backbone, of_all=True)

    def _training_images(self) -> Iterator[Tensor]:
        # Class by class, as a folder lists them, no batch would show how the classes differ.
        loader = self.trainer.datamodule.plain_loader("train", shuffle=True)  # type: ignore[attr-defined]
        for batch in track(loader, "adapting BatchNorm", total=len(loader)):
            images: Tensor = self.trainer.strategy.batch_to_device(batch, self.device)["image"]
            yield images.to(next(self.backbone.parameters()).dtype)

    def start_above(self, suffix: nn.Module | None) -> None:
        """Says what makes features of kept activations.

        Args:
            suffix: The backbone above the cut, which shares its parameters; `None` for the whole, from images.
        """
        self._suffix = [] if suffix is None else [suffix]
        self._compiled = []

    def compile_training(self, backend: str | None) -> None:
        """Has training steps run the backbone, or what is above the cut, compiled; evaluation, whose batches vary, not.

        Args:
            backend: Such as ``inductor``; `None` to run it as it is.
        """
        trunk = self._suffix[0] if self._suffix else self.backbone
        self._compiled = [] if backend is None else [torch.compile(trunk, backend=backend)]

    def features(self, batch: Mapping[str, Any]) -> Tensor:
        """What the backbone makes of a batch: of its images, or of what is kept of them.

        Args:
            batch: With ``image`` (``(N, C, S, S)``) or ``activations`` (the tensors that cross the cut).

        Returns:
            ``(N, num_features)``.
        """
        if "activations" in batch:
            inputs, trunk = batch["activations"], self._suffix[0]
        else:
            dtype = next(self.backbone.parameters()).dtype  # float32, but for the trainer's `bf16-true` and kin
            inputs, trunk = [batch["image"].to(dtype)], self.backbone
        features: Tensor = (self._compiled[0] if self._compiled and self.training else trunk)(*inputs)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """What the head says of prepared images.

        Args:
            images: ``(N, C, S, S)``.

        Returns:
            ``(N, outputs)``, ``float32``; ``float64`` where the weights are.
        """
        return self.outputs(self.features({"image": images}))

    def outputs(self, features: Tensor) -> Tensor:
        """What the head makes of features, from images or kept; training, validation and prediction go through it.

        Args:
            features: ``(N, num_features)``.

        Returns:
            As `forward`.
        """
        # In full precision, which costs next to nothing here: logits rounded to bfloat16 have three digits.
        with torch.autocast(features.device.type, enabled=False):
            outputs: Tensor = self.head(features.to(next(self.head.parameters()).dtype))
        return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss of each image, ``(N,)``.

        Args:
            outputs: Of `outputs`.
            target: The right answers, a row each.
        """
        raise NotImplementedError

    def predictions(self, outputs: Tensor) -> Tensor:
        """What is answered: probabilities of what `classes` names, or numbers, ``(N, len(classes))``.

        Args:
            outputs: Of `outputs`.
        """
        raise NotImplementedError

    def compared(self, predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What the metrics are given; by default the predictions and the right answers as they are.

        Args:
            predictions: Of `predictions`.
            labels: The right answers.
        """
        return predictions, labels

    def finished(self, figures: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Makes the figures that are logged out of what the metrics give at the end of an evaluation."""
        return dict(figures)

    def set_training_targets(self, labels: Tensor) -> None:
        """Tells the task what the answers of the training images are, before it trains.

        Args:
            labels: A row each; see the data module.
        """

    def baseline(self, training: Tensor, labels: Tensor) -> dict[str, float]:
        """Figures of always giving one answer, the best for the training images.

        Args:
            training: The answers of the training images.
            labels: The right answers of the images to score.
        """
        return {}

    def details(self, predictions: Tensor, labels: Tensor, groups: NDArray[np.str_] | None) -> dict[str, Any]:
        """What an evaluation tells beyond its figures, as plain data.

        Args:
            predictions: Of all images, in float32 or more, on the CPU.
            labels: The right answers.
            groups: What images have in common.

        Returns:
            ``standard_errors`` of some figures, and tables of rows such as ``per_class``.
        """
        return {"standard_errors": {}}

    @property
    def unkeepable(self) -> str | None:
        """Why its steps want images and can do nothing with kept activations; `None` where they can."""
        return replaced(self, TransferTask, ("training_step", "validation_step", "forward", "features", "outputs"))

    @property
    def unsolvable(self) -> str | None:
        """Why a head on kept features cannot be solved but has to be trained; `None` where it can."""
        if type(self).solve_head is TransferTask.solve_head:
            return f"{type(self).__name__} has no solver"
        solved = next(cls for cls in type(self).__mro__ if "solve_head" in vars(cls))
        own = replaced(self, TransferTask, ("training_step", "outputs", "penalty")) or replaced(
            self, solved, ("losses",)
        )
        reasons = {
            "model.head_solver is sgd": self.head_options.solver == "sgd",
            "model.head mlp has more than one optimum": self.head_options.kind == "mlp",
            "its head is not one linear layer": linear_layer(self.head) is None,
            "model.head_dropout is above 0": self.head_options.dropout > 0,
        }
        return own or next((reason for reason, holds in reasons.items() if holds), None)

    def solve_head(self, training: Features, answers: Tensor, held_out: Features, held_out_targets: Tensor,
                   row_weights: Tensor | None) -> HeadSolution:  # fmt: skip
        """Solves a linear head on features; a task that has no solver leaves it out.

        Args:
            training: Features that it is fitted to.
            answers: Theirs, a row each.
            held_out: Features that may choose how strongly it is regularised.
            held_out_targets: Theirs.
            row_weights: How much each row of `training` counts; `None` for all the same.
        """
        raise NotImplementedError

    @torch.no_grad()
    def set_linear_head(self, weight: Tensor, bias: Tensor) -> None:
        """Sets what was solved.

        Args:
            weight: ``(outputs, num_features)``.
            bias: ``(outputs,)``.
        """
        linear = linear_layer(self.head)
        assert linear is not None  # or it would have been unsolvable
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The loss to descend."""
        losses = self.losses(self.outputs(self.features(batch)), batch.get("target", batch["label"]))
        if "weight" in batch:
            losses = losses * batch["weight"].to(losses.dtype)
        return losses.mean() + self.penalty()

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Adds a batch to the validation figures."""
        self._add(batch, self.val_metrics, self.val_loss)

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Adds a batch to the test figures."""
        self._add(batch, self.test_metrics, self.test_loss)

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """What is predicted for a batch, as an evaluation computes it."""
        return self.predictions(self.outputs(self.features(batch)))

    def on_validation_epoch_end(self) -> None:
        """Logs the validation figures."""
        self._log_metrics("val/loss", self.val_metrics, self.val_loss)

    def on_test_epoch_end(self) -> None:
        """Logs the test figures."""
        self._log_metrics("test/loss", self.test_metrics, self.test_loss)

    def on_validation_epoch_start(self) -> None:
        """Forgets the answers of the evaluation before; while training nobody reads them, so none are kept."""
        self.answered.reset()
        self._keeps_answers = self.trainer.state.fn != TrainerFn.FITTING

    def on_test_epoch_start(self) -> None:
        """Forgets the answers of the evaluation before."""
        self.answered.reset()
        self._keeps_answers = True

    def _add(self, batch: Mapping[str, Tensor], metrics: MetricCollection, mean_loss: MeanMetric) -> None:
        outputs = self.outputs(self.features(batch))
        mean_loss.update(self.losses(outputs, batch["label"]))
        predictions = self.predictions(outputs)
        metrics.update(*self.compared(predictions, batch["label"]))
        if self._keeps_answers:
            self.answered.update(predictions, batch["label"], batch["index"])

    def _log_metrics(self, loss: str, metrics: MetricCollection, mean_loss: MeanMetric) -> None:
        # torchmetrics gives some degenerate values, such as an MCC of 0, as whole numbers.
        mean = mean_loss.compute()
        figures = {loss: mean, **self.finished(metrics.compute())}
        if not mean.isfinite():  # the largest of outputs that are no numbers is the first class, which is no answer
            figures = dict.fromkeys(figures, torch.full_like(mean, torch.nan))
        # They are the same on all processes already; saying `sync_dist` only keeps Lightning from asking for it.
        self.log_dict({name: value.float() for name, value in figures.items()}, sync_dist=True)
        metrics.reset()
        mean_loss.reset()

    def scale_learning_rates(self, factor: float) -> None:
        """Sets all learning rates to a multiple of those configured; a later call takes the place of an earlier one.

        Args:
            factor: Above 0.
        """
        self.learning_rates = {name: lr * factor for name, lr in self._configured_lr.items()}

    def seed_steps(self, seed: int) -> None:
        """Sets what the random draws of training steps follow, such as dropout's.

        Args:
            seed: With it the draws of a step depend on its epoch, its batch and its process alone.
        """
        self._seed = seed

    def start_phase(self, phase: Phase, *, solved: bool = False) -> None:
        """Sets what trains from here on; the next ``trainer.fit`` gives it a fresh learning-rate schedule.

        Args:
            phase: What trains, and how.
            solved: Whether its head is solved rather than trained.

        Raises:
            UserError: If the phase's selection matches nothing in this backbone.
        """
        freeze_all_but(self.backbone, select(self.stages, phase.train))
        self.phase, self.solved = phase, solved
        self.train()

    def train_by_steps(self) -> None:
        """Has the phase's head trained after all, where what it was to be solved from cannot be had."""
        self.solved = False

    def train(self, mode: bool = True) -> "TransferTask":
        """Sets train or eval mode; what is frozen stays in eval mode."""
        super().train(mode)
        if mode:
            set_training_modes(self.backbone, bn=self.phase.bn)
        return self

    def phase_rows(self) -> list[StageRow]:
        """What each stage does in the current phase, the head last."""
        rates = {name: rate * self.phase.lr_scale for name, rate in self.learning_rates.items()}
        rows = stage_rows(self.backbone, self.head, self.stages, rates=rates, bn=self.phase.bn)
        return [replace(row, learning_rate=None) for row in rows] if self.solved else rows

    def penalty(self) -> Tensor | float:
        """What the loss adds for the way from the pretrained weights: L2-SP (Li et al. 2018, arXiv:1802.01483)."""
        if not self._l2_sp:
            return 0.0
        named = self.backbone.named_parameters()
        return self._l2_sp * l2_sp((tensor, self._start[name]) for name, tensor in named if tensor.requires_grad)

    def build_optimizer(self, *, fused: bool) -> torch.optim.AdamW:
        """A new optimizer over all of the task's parameters, in groups named by stage and head.

        Args:
            fused: See `groups.build_optimizer`.
        """
        return build_optimizer(
            self.backbone,
            {"head": self.head},
            self.stages,
            learning_rates=self.learning_rates,
            weight_decay=self.weight_decay,
            fused=fused,
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The same optimizer in every phase, so that its state lives on, under a schedule of the phase's own."""
        if self._optimizer is None:
            self._optimizer = self.build_optimizer(fused=not self._loss_is_scaled)
        epochs = self.phase.epochs or self.trainer.max_epochs or 1
        steps = self._steps_per_epoch() * epochs
        monitored = self.trainer.checkpoint_callback
        running = build_schedule(
            self._optimizer,
            self.phase.schedule,
            lr_scale=self.phase.lr_scale,
            warmup=self.phase.warmup,
            steps=max(steps, 1),
            epochs=epochs,
            mode=getattr(monitored, "mode", "min"),
        )
        schedule: dict[str, Any] = {"scheduler": running.scheduler, "interval": running.interval}
        if running.plateau:
            schedule["monitor"] = getattr(monitored, "monitor", None)
        return {"optimizer": self._optimizer, "lr_scheduler": schedule}  # type: ignore[return-value]

    def _steps_per_epoch(self) -> int:
        batches = getattr(self.trainer.datamodule, "training_batches", None)  # type: ignore[attr-defined]
        if batches is None:
            return int(self.trainer.estimated_stepping_batches) // (self.trainer.max_epochs or 1)
        # The trainer would make the loaders to count them, and they are to be made once the phase has begun.
        limit = self.trainer.limit_train_batches
        limited = min(batches, limit) if isinstance(limit, int) else int(batches * (1.0 if limit is None else limit))
        return math.ceil(limited / self.trainer.accumulate_grad_batches)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Steps the optimizer; where the head is solved, there is nothing left to descend."""
        if not self.solved:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        elif optimizer_closure is not None:
            optimizer_closure()
            optimizer.zero_grad()

    @property
    def _loss_is_scaled(self) -> bool:
        return str(self.trainer.precision).startswith("16")

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips, also with a fused optimizer, which Lightning refuses: only a scaled loss forbids it.

        Args:
            optimizer: Its parameters' gradients are clipped.
            gradient_clip_val: The largest norm or value; `None` or 0 for no limit.
            gradient_clip_algorithm: ``norm`` or ``value``.
        """
        if self._loss_is_scaled:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not gradient_clip_val:
            return
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(parameters, gradient_clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def share_of_rates(self) -> float:
        """Where the schedule stands: the head's learning rate as a share of what the phase set out with."""
        assert self._optimizer is not None
        rate = next(group["lr"] for group in self._optimizer.param_groups if group["name"].startswith("head"))
        return float(rate) / (self.learning_rates["head"] * self.phase.lr_scale)

    def lr_scheduler_step(self, scheduler: LRSchedulerTypeUnion, metric: Any | None) -> None:  # noqa: ANN401
        """Moves the rates; a plateau is looked for in `on_train_epoch_end`, before the checkpoint is written."""
        if not isinstance(scheduler, ReduceLROnPlateau) and not self.solved:
            super().lr_scheduler_step(scheduler, metric)

    def on_validation_end(self) -> None:
        """Notes that there is a new figure for a schedule that waits for a plateau."""
        self._validated = self._validated or not self.trainer.sanity_checking

    def on_train_epoch_end(self) -> None:
        """Shows the epoch's figure to a schedule that waits for a plateau."""
        for config in self.trainer.lr_scheduler_configs:
            if self._validated and isinstance(config.scheduler, ReduceLROnPlateau):
                figures: dict[str, Any] = {**self._figures, **self.trainer.callback_metrics}
                config.scheduler.step(figures[str(config.monitor)])
        self._validated, self._figures = False, {}

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Seeds the step's random draws, and logs the learning rate that it is about to use in each trainable stage."""
        seed_generators(self._seed, self.current_epoch, batch_idx, self.global_rank, 2)
        if self._optimizer is None or self.global_step % self.trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        if self.solved or batch_idx % self.trainer.accumulate_grad_batches:
            return  # it has no rate, or the step has begun, and is logged already
        rates = {
            f"lr/{group['name'].removesuffix('/no_decay')}": group["lr"]
            for group in self._optimizer.param_groups
            if any(parameter.requires_grad for parameter in group["params"])
        }
        for logger in self.trainer.loggers:
            logger.log_metrics(rates, step=self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds which task it is, what a plateau has yet to see, and a running mean where no callback is asked."""
        own = [cls for cls in type(self).__mro__ if cls.__module__.startswith("tl_lightning.tasks.")]
        checkpoint["task"] = own[0].__name__
        checkpoint["own_task"] = own[0] is not type(self)  # of the user's
        monitored = [config for config in self.trainer.lr_scheduler_configs if self._validated]
        figures: dict[str, Any] = {**self._figures, **self.trainer.callback_metrics}
        names = [str(config.monitor) for config in monitored if isinstance(config.scheduler, ReduceLROnPlateau)]
        checkpoint["plateau"] = {name: float(figures[name]) for name in names if name in figures}
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ExponentialMovingAverage) and "callbacks" not in checkpoint:
                checkpoint["state_dict"] = callback.averaged(checkpoint["state_dict"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on with what a plateau has yet to see."""
        self._figures = dict(checkpoint.get("plateau", {}))
        self._validated = bool(self._figures)

    def on_after_backward(self) -> None:
        """Keeps the BatchNorm statistics of all processes equal."""
        if self.trainer.world_size > 1 and self.phase.bn == "train":
            average_statistics(self.backbone)


def replaced(instance: object, owner: type, names: Sequence[str]) -> str | None:
    """Says which of a class's methods a subclass has its own version of; `None` for none.

    Args:
        instance: Of the class or of a subclass.
        owner: The class, which knows what its own methods do.
        names: Of the methods.
    """
    own = [name for name in names if getattr(type(instance), name) is not getattr(owner, name)]
    return f"{type(instance).__name__} has its own {own[0]}" if own else None


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
