"""What every task shares: a backbone under one head or several, the phase it is in, and its steps."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import LRSchedulerTypeUnion, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tl_lightning.backbones import Backbone, build_backbone
from tl_lightning.backbones.engines import Compiled, EngineName
from tl_lightning.core.precision import train_depthwise_in_float32
from tl_lightning.core.predictions_file import PredictionsFile
from tl_lightning.core.randomness import seed_generators
from tl_lightning.data.samples import ProblemType
from tl_lightning.errors import UserError
from tl_lightning.finetuning.averaging import ExponentialMovingAverage
from tl_lightning.finetuning.batch_norm import adapt_statistics, average_statistics
from tl_lightning.finetuning.freezing import StageRow, freeze_all_but, set_training_modes, stage_rows
from tl_lightning.finetuning.groups import build_optimizer, learning_rates
from tl_lightning.finetuning.phases import Phase
from tl_lightning.finetuning.selection import select
from tl_lightning.preprocess import Preprocess
from tl_lightning.tasks.by_name import ByName
from tl_lightning.tasks.earlier import rename_weights
from tl_lightning.tasks.evaluating import Evaluation, rows_of_heads
from tl_lightning.tasks.heads import HeadKind, HeadOptions, build_head, run_heads, set_linear
from tl_lightning.tasks.losses import l2_sp
from tl_lightning.tasks.objectives import Objective
from tl_lightning.tasks.optimization import (
    Plateau,
    clip_gradients,
    group_sizes,
    last_step_factor,
    log_learning_rates,
    loss_is_scaled,
    schedule_phase,
    share_of_learning_rate,
)
from tl_lightning.tasks.solvability import replaced, unsolvable_head

TARGET = "target"  # the name of the only head


@dataclass(frozen=True)
class HeadPlan:
    """A head to be built.

    Attributes:
        objective: What it learns.
        options: What it is; `None` for what the arguments ``head...`` of the task say.
        build: Makes a head of another form, from the backbone and the number of outputs; `None` for one by `options`.
    """

    objective: Objective
    options: HeadOptions | None = None
    build: Callable[[Backbone, int], nn.Module] | None = None


class TransferTask(LightningModule):
    """A pretrained backbone under a head for each target; an objective says what is learned of a target.

    All hyper-parameters are plain values, so a checkpoint loads with torch's safe loader.

    Batches are mappings with all of `inputs`, prepared (such as ``image``: ``(N, C, S, S)``), and ``label`` (a row
    each; of several heads a mapping from their names); where samples count differently also ``weight`` (``(N,)``), and
    where mixed images are trained on ``target`` (``(N, classes)``, the share of each class).

    Attributes:
        objective_class: What a task with one head learns; `None` for a task with several.
        uses_unlabelled: Whether its training steps take samples without a label, which ``labelled`` tells in a batch.
        heads: From features to outputs, by the name of the target.
        objectives: What each head learns.
        head_options: How each head is built.
        classes: Names of what the outputs of the only head stand for; of several heads a mapping from their names.
        backbone: The module that makes features.
        transferred: The backbone with all that is known of it, such as how it is cut.
        inputs: Names of what the backbone takes of a batch, in order.
        phase: What trains now, and how.
        trained_in: The precision that its weights were trained in, such as ``32-true``; known of a loaded one.
        solved: Whether the phase's head is solved rather than trained: its steps move nothing.
    """

    objective_class: ClassVar[type[Objective] | None] = None
    uses_unlabelled: ClassVar[bool] = False
    trained_in: str | None = None

    def __init__(
        self,
        backbone: str,
        classes: Sequence[str] | Mapping[str, Sequence[str]],
        *,
        planned: Mapping[str, HeadPlan],
        weights: str = "pretrained",
        preprocess: Mapping[str, Any] | None = None,
        head: HeadKind = "linear",
        head_hidden: int = 512,
        head_dropout: float = 0.0,
        l2_sp: float = 0.0,
        lr: float = 1e-3,
        weight_decay: float = 1e-3,
        backbone_lr_scale: float = 0.1,
        bottom_ratio: float = 0.1,
        drop_path_rate: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Builds the backbone and its heads, and stores the arguments of all classes as hyper-parameters.

        Args:
            backbone: Such as ``timm/tf_efficientnet_lite0`` or ``timm/hf-hub:ORG/MODEL``.
            classes: Names of the classes, levels, labels or numbers, in the order of the outputs; comes from the data.
            planned: What is learned, by the name of each head; comes from the subclass.
            weights: ``pretrained``, ``none``, ``package:NAME``, a file, or the run folder of an earlier run.
            preprocess: The preparation of the images; comes from the weights by way of the data.
            head: ``linear``, or ``mlp`` with one hidden layer.
            head_hidden: Width of the MLP's hidden layer.
            head_dropout: Probability of dropping an input of the head's last layer.
            l2_sp: Pulls the backbone's weights towards where they started, this strongly; 0 for not at all.
            lr: Peak learning rate of the head.
            weight_decay: Weight decay of AdamW, for everything but biases and normalisation weights.
            backbone_lr_scale: The top stage's learning rate relative to the head's.
            bottom_ratio: The first stage's learning rate relative to the top stage's; between them it falls
                geometrically.
            drop_path_rate: Stochastic depth of the backbone's trainable stages.
            gradient_checkpointing: Saves memory by computing the backbone's activations again in the backward pass.

        Raises:
            UserError: If a name, a weight file or a number is wrong.
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
        # From here, it finds the arguments of the subclasses too.
        self.save_hyperparameters(ignore=["planned"])
        prepared = None if preprocess is None else Preprocess.from_dict(preprocess)
        self.transferred = built = build_backbone(
            backbone,
            weights,
            preprocess=prepared,
            drop_path_rate=drop_path_rate,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.backbone = built.module
        self.inputs = built.inputs
        self.stages = built.stages
        self.num_features = built.num_features
        self.lineage = built.lineage
        # The values in force, also where none were given: prediction never falls back to a library's defaults.
        self.preprocess = self.hparams["preprocess"] = built.preprocess.to_dict()
        self.weight_decay = weight_decay
        self.classes = classes if isinstance(classes, Mapping) else list(classes)
        usual = HeadOptions(head, head_hidden, head_dropout)
        self.head_options = {name: plan.options or usual for name, plan in planned.items()}
        self.objectives = ByName({name: plan.objective for name, plan in planned.items()})
        self.heads: ByName[nn.Module] = ByName(
            {
                name: build_head(self.head_options[name], self.num_features, plan.objective.outputs)
                if plan.build is None
                else plan.build(built, plan.objective.outputs)
                for name, plan in planned.items()
            }
        )
        rates = learning_rates(built.stages, lr, backbone_lr_scale=backbone_lr_scale, bottom_ratio=bottom_ratio)
        self._configured_lr = {**rates, **dict.fromkeys(self._head_groups(), lr)}
        if "head" not in self._head_groups():
            del self._configured_lr["head"]
        self.learning_rates = self._configured_lr
        self.evaluations = ByName({split: Evaluation(self.objectives, split) for split in ("val", "test")})
        self.phase = Phase()
        # In lists, or their tensors would be in the state dict a second time.
        self._suffix: list[nn.Module] = []
        self._compiled: list[Callable[..., Tensor]] = []
        self._engine: list[Compiled] = []
        self.solved = False
        self._seed = 0
        self._l2_sp = l2_sp
        self._start = _copy(self.backbone) if l2_sp else {}
        self._depthwise_prepared = False
        self._plateau = Plateau()
        self._optimizer: torch.optim.Optimizer | None = None
        self._decays_embeddings = False
        self.register_load_state_dict_pre_hook(_rename_weights)  # type: ignore[no-untyped-call]

    @property
    def head(self) -> nn.Module:
        """The only head; see `objective`."""
        assert self.objective
        return next(iter(self.heads.values()))

    @property
    def objective(self) -> Objective:
        """What the only head learns.

        Raises:
            UserError: If there are several.
        """
        if len(self.objectives) > 1:
            raise UserError(f"this takes a model with one head, and here there are {', '.join(self.objectives)}")
        return next(iter(self.objectives.values()))

    @classmethod
    def problem_types(cls, arguments: Mapping[str, Any]) -> ProblemType | dict[str, ProblemType]:
        """What kind of target is learned; of several heads a mapping from their names.

        Args:
            arguments: Those that the class is to be built with.
        """
        assert cls.objective_class is not None
        return cls.objective_class.problem_type

    @classmethod
    def logged(cls, arguments: Mapping[str, Any]) -> dict[str, str]:
        """The names of the metrics, and whether the best value is the largest (max) or the smallest (min).

        Args:
            arguments: Those that the class is built with.
        """
        assert cls.objective_class is not None
        return dict(cls.objective_class.metrics)

    @classmethod
    def default_monitor(cls, arguments: Mapping[str, Any]) -> str:
        """The metric that picks the best weights unless the user names another.

        Args:
            arguments: Those that the class is built with.
        """
        assert cls.objective_class is not None
        return cls.objective_class.monitor

    @property
    def metrics(self) -> dict[str, str]:
        """See `logged`."""
        return self.logged(self.hparams)

    @property
    def headlines(self) -> list[str]:
        """The metrics that say the most to people, one of each head."""
        several = len(self.objectives) > 1
        return [f"{name}/{each.headline}" if several else each.headline for name, each in self.objectives.items()]

    @property
    def head_learning_rate(self) -> float:
        """The learning rate that every head sets out with."""
        return float(next(lr for name, lr in self.learning_rates.items() if name.startswith("head")))

    def _head_groups(self) -> dict[str, nn.Module]:
        """The heads by the names of their optimizer groups: ``head``, or ``head/NAME`` where there are several."""
        return {"head" if len(self.heads) == 1 else f"head/{name}": head for name, head in self.heads.items()}

    def on_fit_start(self) -> None:
        """Prepares for the machine's arithmetic and for the phase; Lightning calls it at the start of every phase."""
        if self.device.type == "cpu" and not self._depthwise_prepared:
            train_depthwise_in_float32(self.backbone)
            self._depthwise_prepared = True
        self._start = {name: tensor.to(self.device) for name, tensor in self._start.items()}
        if self.phase.bn == "adapt" and self.trainer.ckpt_path is None:  # a checkpoint holds what was estimated
            adapt_statistics(self.backbone, self.trainer, self.inputs_of)

    def start_above(self, suffix: nn.Module | None) -> None:
        """Says what makes features of cached activations.

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

    @contextmanager
    def evaluating_by(self, engine: EngineName, *, say: bool = True) -> Iterator[None]:
        """Has evaluations and predictions run the backbone by an engine, as long as its weights stay as they are.

        Args:
            engine: See `pick_engine`.
            say: Whether to print what was built.
        """
        self._engine = [] if engine == "eager" else [Compiled(self.backbone, engine, say=say)]
        try:
            yield
        finally:
            self._engine = []

    def inputs_of(self, batch: Mapping[str, Any]) -> list[Tensor]:
        """What the backbone takes of a batch, in the order of its arguments.

        Args:
            batch: With all of `inputs`, prepared.

        Returns:
            The tensors; what is not whole numbers in the type of the backbone's weights.
        """
        dtype = next(self.backbone.parameters()).dtype  # float32, but for the trainer's `bf16-true` and kin
        tensors = [batch[name] for name in self.inputs]
        return [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in tensors]

    def features(self, batch: Mapping[str, Any]) -> Tensor:
        """What the backbone makes of a batch: of its inputs, or of what is cached of them.

        Args:
            batch: With all of `inputs`, or with ``activations`` (the tensors that cross the cut).

        Returns:
            ``(N, num_features)``.
        """
        if "activations" in batch:
            inputs, trunk = batch["activations"], self._suffix[0]
        else:
            inputs, trunk = self.inputs_of(batch), self.backbone
        others = self._compiled if self.training else self._engine if trunk is self.backbone else []
        features: Tensor = (others[0] if others else trunk)(*inputs)
        return features

    def forward(self, *inputs: Tensor) -> Tensor | dict[str, Tensor]:
        """What the heads give for prepared inputs.

        Args:
            inputs: What the backbone takes, a row per sample.

        Returns:
            ``(N, outputs)``, ``float32``; ``float64`` where the weights are. Of several heads, by their names.
        """
        outputs = self.outputs(self.features(dict(zip(self.inputs, inputs, strict=True))))
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def outputs(self, features: Tensor) -> dict[str, Tensor]:
        """What each head makes of features, from images or cached; training and prediction go through it.

        Args:
            features: ``(N, num_features)``.

        Returns:
            ``(N, outputs)`` by the name of each head, ``float32``; ``float64`` where the weights are.
        """
        return run_heads(self.heads, features)

    def predictions(self, outputs: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What each head predicts, ``(N, len(classes))`` by its name.

        Args:
            outputs: From `forward` or `outputs`.
        """
        given = outputs if isinstance(outputs, Mapping) else {name: outputs for name in self.objectives}
        return {name: objective.predictions(given[name]) for name, objective in self.objectives.items()}

    def rows(self, predictions: Mapping[str, Tensor]) -> list[list[dict[str, str | float]]]:
        """The rows of a file of predictions, for each sample; of several heads, side by side with their names.

        Args:
            predictions: What each head predicts, by its name, on the CPU.
        """
        return rows_of_heads(self.objectives, predictions)

    def losses(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """The loss of each sample, ``(N,)``.

        Args:
            outputs: From `outputs`.
            targets: A row each, by the name of each head.
        """
        return torch.stack(
            [objective.losses(outputs[name], targets[name]) for name, objective in self.objectives.items()]
        ).sum(dim=0)

    def set_training_targets(self, targets: Tensor | Mapping[str, Tensor]) -> None:
        """Tells the objectives what the targets of the training samples are, before anything trains.

        Args:
            targets: A row each; of several heads a mapping from their names.
        """
        for name, given in self._by_name(targets).items():
            objective = self.objectives[name]
            objective.set_training_targets(given[objective.known(given)] if len(self.objectives) > 1 else given)

    def _by_name(self, targets: Tensor | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return targets if isinstance(targets, Mapping) else {name: targets for name in self.objectives}

    @property
    def unkeepable(self) -> str | None:
        """Why its steps want images and can do nothing with cached activations; `None` where they can."""
        return replaced(self, TransferTask, ("training_step", "validation_step", "forward", "features", "outputs"))

    @property
    def unsolvable(self) -> str | None:
        """Why the heads on cached features cannot be solved but have to be trained; `None` where they can."""
        own = replaced(self, TransferTask, ("training_step", "outputs", "penalty"))
        if own is None and not type(self).losses.__module__.startswith("tl_lightning."):
            own = f"{type(self).__name__} has its own losses"
        return own or unsolvable_head(self.objectives, self.head_options, self.heads)

    def set_linear_head(self, name: str, weight: Tensor, bias: Tensor) -> None:
        """Sets what was solved.

        Args:
            name: Which head.
            weight: ``(outputs, num_features)``.
            bias: ``(outputs,)``.
        """
        set_linear(self.heads[name], weight, bias)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """The loss to descend."""
        targets = self._by_name(batch.get("target", batch["label"]))
        losses = self.losses(self.outputs(self.features(batch)), targets)
        if "weight" in batch:
            losses = losses * batch["weight"].to(losses.dtype)
        return losses.mean() + self.penalty()

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Adds a batch to the validation metrics."""
        self._add(batch, self.evaluations["val"])

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Adds a batch to the test metrics."""
        self._add(batch, self.evaluations["test"])

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """What each head predicts for a batch, as an evaluation computes it."""
        return self.predictions(self.outputs(self.features(batch)))

    def _add(self, batch: Mapping[str, Any], evaluation: Evaluation) -> None:
        outputs, targets = self.outputs(self.features(batch)), self._by_name(batch["label"])
        evaluation.update(self.objectives, outputs, targets, self.losses(outputs, targets), batch.get("index"))

    def on_validation_epoch_start(self) -> None:
        """Forgets the predictions of the evaluation before; while training nobody reads them, so none are kept."""
        self.evaluations["val"].begin(keeps_predictions=self.trainer.state.fn != TrainerFn.FITTING)

    def on_test_epoch_start(self) -> None:
        """Forgets the predictions of the evaluation before."""
        self.evaluations["test"].begin(keeps_predictions=True)

    def on_validation_epoch_end(self) -> None:
        """Logs the validation metrics."""
        # They are the same on all processes already; saying `sync_dist` only keeps Lightning from asking for it.
        self.log_dict(self.evaluations["val"].results(self.objectives), sync_dist=True)

    def on_test_epoch_end(self) -> None:
        """Logs the test metrics."""
        self.log_dict(self.evaluations["test"].results(self.objectives), sync_dist=True)

    def predicted(self, split: str) -> dict[str, PredictionsFile]:
        """What each head predicted in the last evaluation, by its name, from all processes.

        Args:
            split: ``val`` or ``test``.
        """
        return self.evaluations[split].predicted()

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
        """What each stage does in the current phase, the heads last."""
        rates = {name: rate * self.phase.lr_scale for name, rate in self.learning_rates.items()}
        rows = stage_rows(self.backbone, self._head_groups(), self.stages, rates=rates, bn=self.phase.bn)
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
            self._head_groups(),
            self.stages,
            learning_rates=self.learning_rates,
            weight_decay=self.weight_decay,
            fused=fused,
            decays_embeddings=self._decays_embeddings,
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The same optimizer in every phase, so that its state lives on, under a schedule of the phase's own."""
        if self._optimizer is None:
            self._optimizer = self.build_optimizer(fused=not loss_is_scaled(self.trainer))
        return schedule_phase(self._optimizer, self.phase, self.trainer)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the signature is Lightning's
        """Descends the loss; where the last step of an epoch has fewer batches than others, by as much as they do."""
        super().backward(loss * last_step_factor(self.trainer), *args, **kwargs)

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

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by `clip_gradients`; where the loss is scaled, as Lightning does."""
        if loss_is_scaled(self.trainer):
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def share_of_learning_rate(self) -> float:
        """Where the schedule stands: a head's learning rate as a share of what the phase set out with."""
        assert self._optimizer is not None
        return share_of_learning_rate(self._optimizer, self.phase)

    def lr_scheduler_step(self, scheduler: LRSchedulerTypeUnion, metric: Any | None) -> None:  # noqa: ANN401
        """Moves the learning rates; a plateau is looked for in `on_train_epoch_end`."""
        if not isinstance(scheduler, ReduceLROnPlateau) and not self.solved:
            super().lr_scheduler_step(scheduler, metric)

    def on_validation_end(self) -> None:
        """Notes that there is a new metric for a schedule that waits for a plateau."""
        self._plateau.note(self.trainer)

    def on_train_epoch_end(self) -> None:
        """Shows the epoch's metric to a schedule that waits for a plateau."""
        self._plateau.step(self.trainer)

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Seeds the step's random draws, and logs the learning rate that it is about to use in each trainable stage."""
        seed_generators(self._seed, self.current_epoch, batch_idx, self.global_rank, 2)
        if self._optimizer is None or self.global_step % self.trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        if not self.solved and batch_idx % self.trainer.accumulate_grad_batches == 0:
            log_learning_rates(self._optimizer, self.trainer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds class and precision, what a plateau has yet to see, and a running mean where no callback is asked."""
        checkpoint["class_path"] = f"{type(self).__module__}.{type(self).__qualname__}"
        checkpoint["precision"] = str(self.trainer.precision)
        checkpoint["plateau"] = self._plateau.state(self.trainer)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ExponentialMovingAverage) and "callbacks" not in checkpoint:
                checkpoint["state_dict"] = callback.averaged(checkpoint["state_dict"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on with what a plateau has yet to see, and with the optimizer's groups of the version that saved it."""
        if states := checkpoint.get("optimizer_states"):
            self._decays_embeddings = group_sizes(self.build_optimizer(fused=False)) != group_sizes(states[0])
        for weights in ("state_dict", "unaveraged"):
            rename_weights(checkpoint.get(weights, {}), TARGET)
        self._plateau.load(checkpoint.get("plateau", {}))

    def on_after_backward(self) -> None:
        """Keeps the BatchNorm statistics of all processes equal."""
        if self.trainer.world_size > 1 and self.phase.bn == "train":
            average_statistics(self.backbone)


def _rename_weights(task: nn.Module, state: dict[str, Any], *_: object) -> None:
    rename_weights(state, TARGET)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
