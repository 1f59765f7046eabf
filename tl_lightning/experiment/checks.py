"""Which settings can work together; what cannot is said in one line before anything is built or trained."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from tl_lightning.core.precision import precision_problem
from tl_lightning.core.private import SubprocessLauncher, broadcast_no_buffers
from tl_lightning.core.processes import COUNTS, process_rank, rank_variable
from tl_lightning.errors import UserError, nearest
from tl_lightning.experiment.cautions import check_silenced
from tl_lightning.finetuning.phases import Phase
from tl_lightning.tasks import TASKS
from tl_lightning.tasks.base import TransferTask
from tl_lightning.tasks.objectives import Objective

REFUSED_CALLBACKS: dict[type[Callback], str] = {
    BaseFinetuning: "use --phases, such as gradual",
    StochasticWeightAveraging: "use --ema or --soup",
    WeightAveraging: "use --ema or --soup",
    LearningRateFinder: "use tl lr_find, then --model.lr",
    BatchSizeFinder: "use --data.micro_batch_size auto",
    GradientAccumulationScheduler: "use --trainer.accumulate_grad_batches or --global_batch",
    ModelPruning: "prune the finished model",
    Timer: "use --trainer.max_time",
}


def check_own(config: Namespace) -> None:
    """Checks our own keys; cautions named in one text become a list."""
    if config.soup < 0 or config.soup == 1:
        raise UserError(f"soup is {config.soup}; it must be 0 for none, or 2 or more")
    if config.save_every is not None and config.save_every < 1:
        raise UserError(f"save_every is {config.save_every}; it must be 1 step or more")
    if isinstance(config.compile, str):
        backends = torch.compiler.list_backends(exclude_tags=())
        if config.compile not in backends:
            known = ", ".join(torch.compiler.list_backends())
            raise UserError(f"compile is {config.compile!r}; it must be true, false, or a backend of torch ({known})")
    if not isinstance(config.wise_ft, bool) and not 0 <= config.wise_ft <= 1:
        raise UserError(f"wise_ft is {config.wise_ft}; it must be true, false, or an alpha from 0 to 1, such as 0.5")
    if isinstance(config.silence, str):
        config.silence = [key.strip() for key in config.silence.split(",")]
    check_silenced(config.silence)


def check_callbacks(classes: Sequence[type]) -> None:
    """Refuses Lightning's own ways to do what phases do: the two would undo each other, mostly without a word.

    A finder changes the batch or the learning rates once schedules and the number of steps are fixed, a scheduler of
    accumulation changes the steps of an epoch, an average of weights may be validated before it has seen any
    (Lightning-AI/pytorch-lightning #21724), pruning renames what checkpoints hold, and a timer ends one phase only.

    Args:
        classes: Those of the user's own callbacks.
    """
    for own in classes:
        for kind, instead in REFUSED_CALLBACKS.items():
            if issubclass(own, kind):
                raise UserError(f"trainer.callbacks: {own.__name__} cannot work beside phases; {instead}")


def check_phases(phases: Sequence[Phase], trainer: Namespace) -> None:
    """Makes sure that each phase is validated at its end: only validated weights can become the best ones."""
    every = trainer.check_val_every_n_epoch or 1  # none counts batches across epochs
    for phase in phases:
        for key, epochs in (("epochs", phase.epochs or 0), ("cooldown", phase.cooldown)):
            if epochs % every:
                raise UserError(
                    f"trainer.check_val_every_n_epoch is {every}, but phase {phase.name} has {key} {epochs}: its end "
                    "would not be validated, so it would count for nothing; make the one a multiple of the other"
                )
    if trainer.max_time is not None and len(phases) > 1:
        raise UserError(
            "trainer.max_time would end one phase, and the next would begin; give the phases fewer epochs, or patience"
        )


def check_strategy(trainer: Trainer) -> None:
    """Refuses what cannot follow a trainable set that changes from phase to phase."""
    strategy = trainer.strategy
    if isinstance(strategy, SingleDeviceStrategy):
        return
    if not isinstance(strategy, DDPStrategy):
        raise cannot_shard(type(strategy).__name__)
    if strategy.launcher is not None and not isinstance(strategy.launcher, SubprocessLauncher):
        raise UserError(
            "trainer.strategy starts new processes for every phase, which forget the optimizer; use "
            "--trainer.strategy ddp"
        )
    # The processes' statistics are averaged after each step instead (see `average_statistics`); the broadcast would
    # wait for ever for a process that has fewer batches to evaluate.
    broadcast_no_buffers(strategy)


def check_rank(trainer: Trainer) -> None:
    """Makes sure that the environment and the trainer agree on which process this is: the first one writes the run.

    Raises:
        UserError: If they do not.
    """
    name = rank_variable()
    count = COUNTS.get(name or "", "WORLD_SIZE")
    launched = int(os.environ.get(count, 1)) if name == "RANK" else 1  # a batch script has the tasks of its whole job
    if (process_rank() == 0) == trainer.is_global_zero and not trainer.world_size == 1 < launched:
        return
    said = [f"{each} is {os.environ[each]}" for each in (name, count) if each in os.environ] if name else []
    processes = "1 process" if trainer.world_size == 1 else f"{trainer.world_size} processes"
    raise UserError(
        f"{' and '.join(said) or 'no rank is'} in the environment, but the trainer has {processes}, of which it takes "
        f"this one for number {trainer.global_rank}: train in all that a launcher starts by --trainer.devices and "
        f"--trainer.num_nodes{f', or in one by unsetting {name}' if name else ''}"
    )


def cannot_shard(strategy: str) -> UserError:
    """The mistake of asking for a strategy that shards the parameters."""
    return UserError(
        f"trainer.strategy {strategy} cannot run here: it shards parameters once, but each phase trains others; "
        "use --trainer.strategy ddp"
    )


def check_trainer(trainer: Namespace | None) -> None:
    """Refuses what Lightning's trainer offers and phases cannot live with."""
    if trainer is None:
        raise UserError("trainer is empty: give it a setting, such as max_epochs, or leave it out")
    if trainer.fast_dev_run:
        raise UserError(
            "trainer.fast_dev_run keeps no checkpoint, which a run needs; "
            "use --trainer.max_epochs 1 --trainer.limit_train_batches 2 --trainer.limit_val_batches 2"
        )
    if (trainer.max_epochs or 0) < 1:
        raise UserError(f"trainer.max_epochs is {trainer.max_epochs}; phases need a length: give 1 epoch or more")
    if trainer.log_every_n_steps is not None and trainer.log_every_n_steps < 1:
        raise UserError(f"trainer.log_every_n_steps is {trainer.log_every_n_steps}; it must be 1 or more")
    if trainer.max_steps != -1:
        raise UserError("trainer.max_steps: phases are counted in epochs; use --trainer.max_epochs")
    for name in ("min_epochs", "min_steps"):
        if trainer[name] is not None:
            raise UserError(f"trainer.{name} would count the run, not the phase; give a phase patience instead")
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
        if trainer[name] is not None and trainer[name] < 1:
            raise UserError(f"trainer.{name} is {trainer[name]}; it must be 1 or more")
    if (trainer.gradient_clip_val or 0) < 0:  # torch would turn the gradients around, and the loss would climb
        raise UserError(f"trainer.gradient_clip_val is {trainer.gradient_clip_val}; it must be 0 for none, or more")
    if trainer.val_check_interval == 0:
        raise UserError("trainer.val_check_interval is 0; it must be a share of the epoch, or a number of batches")
    if trainer.overfit_batches:
        raise UserError(
            "trainer.overfit_batches would also validate on what it trains; use --trainer.limit_train_batches"
        )
    if isinstance(trainer.strategy, str) and trainer.strategy.startswith(("fsdp", "deepspeed", "xla")):
        raise cannot_shard(trainer.strategy)  # Lightning looks for their hardware or packages first
    _check_arithmetic(trainer)
    if trainer.use_distributed_sampler:
        raise UserError("trainer.use_distributed_sampler: the data module shares the images out itself; leave it out")
    for name in ("limit_train_batches", "limit_val_batches", "limit_test_batches"):
        if trainer[name] == 0:
            raise UserError(f"trainer.{name} is 0, but a run trains, validates and tests; leave it out")


def _check_arithmetic(trainer: Namespace) -> None:
    """Refuses what the chosen device cannot do, and Lightning would do otherwise, or emulate, or fail at in a step."""
    accelerator, precision = str(trainer.accelerator), str(trainer.precision)
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if accelerator in ("gpu", "cuda") and not has_gpu:
        raise UserError(
            f"trainer.accelerator {accelerator}: torch finds no GPU here; use --trainer.accelerator auto or cpu"
        )
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not has_gpu)
    if (reason := precision_problem(precision, accelerator)) is not None:
        other = "16-mixed" if precision.startswith("bf16") else "bf16-mixed"
        raise UserError(f"trainer.precision {precision} {reason}; use 32-true or {other}")
    if on_cpu and trainer.sync_batchnorm:
        raise UserError("trainer.sync_batchnorm needs GPUs, and this is a CPU; leave it out")


def check_monitor(callback: Namespace, key: str, task: type[TransferTask], arguments: Mapping[str, Any]) -> None:
    """Checks that the metric exists, and sets whether its largest or its smallest value is the best.

    Args:
        callback: The settings of a callback that monitors.
        key: What they are called.
        task: Knows what is logged.
        arguments: Those that the task is to be built with.
    """
    modes = {f"val/{name}": mode for name, mode in task.logged(arguments).items()}
    if callback.monitor == "auto":
        callback.monitor = f"val/{task.default_monitor(arguments)}"
    if callback.monitor in modes:
        callback.mode = modes[callback.monitor]
    elif task in TASKS:  # a user's own may log more
        known = ", ".join(modes)
        raise UserError(f"{key}: {callback.monitor!r} is never logged{nearest(str(callback.monitor), modes)} ({known})")


def check_monitored(monitor: str, key: str, objectives: Mapping[str, Objective], targets: Mapping[str, Tensor]) -> None:
    """Checks that the validation samples give the metric a value, whatever is predicted for them.

    Args:
        monitor: Such as ``val/auroc``, or ``val/HEAD/auroc`` where there are several heads.
        key: What the setting is called.
        objectives: What each head learns.
        targets: Those of the validation samples, by the name of the head.

    Raises:
        UserError: If it has none, as AUROC has where all are of one class.
    """
    for head, objective in objectives.items():
        metric = monitor.removeprefix(f"val/{head}/" if len(objectives) > 1 else "val/")
        ours = type(objective).__module__.startswith("tl_lightning.")  # else nobody knows which outputs it takes
        if metric == "loss" or metric not in objective.metrics or not ours:
            continue
        found = targets[head]
        constant = objective.predictions(torch.zeros(len(found), objective.outputs))
        if not len(found) or math.isnan(objective.scorer(metric)(constant, found)):
            raise UserError(
                f"{key} is {monitor}, which has no value on the {len(found):,} validation images: their targets do not "
                "differ enough; choose another metric, such as val/loss, or another data.split"
            )
