"""The private names of Lightning and torch that the package cannot do without, each behind a word of our own.

Nobody else in the package uses one. A new version of theirs may change any of them: ``tests/core/test_private.py`` says
what each is taken to do.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher as SubprocessLauncher
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.parallel import DistributedDataParallel

__all__ = [
    "BatchNorm",  # the base of torch's BatchNorm layers of any number of dimensions
    "SubprocessLauncher",  # starts the other processes once, with the command line of the first
    "broadcast_no_buffers",
    "ends_step",
    "exchange_clocks",
    "move_towards",
    "synchronizes_batch_norm",
    "take_over_signals",
    "validates_next",
]


def ends_step(trainer: Trainer) -> bool:
    """Whether the batch that has just been trained on completes a step of the optimizer.

    Args:
        trainer: In the hook ``on_train_batch_end``.
    """
    return not trainer.fit_loop._should_accumulate()


def validates_next(trainer: Trainer) -> bool:
    """Whether a validation follows the batch that has just been trained on.

    Args:
        trainer: In the hook ``on_train_batch_end``.
    """
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None  # while an epoch is under way
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def take_over_signals(trainer: Trainer, *, handled: bool) -> None:
    """Keeps Lightning from queueing a job of SLURM's again, and from handling SIGTERM and SIGUSR1.

    Args:
        trainer: Before it runs.
        handled: Whether somebody else handles the signals; else Lightning goes on to.
    """
    environment: Any = trainer._accelerator_connector.cluster_environment
    if hasattr(environment, "auto_requeue"):
        environment.auto_requeue = False
    if handled:
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def broadcast_no_buffers(strategy: DDPStrategy) -> None:
    """Keeps DDP from sending the first process's buffers to the others before each forward pass.

    Args:
        strategy: Before it wraps the model.
    """
    newer = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters  # torch 2.15 renamed it
    strategy._ddp_kwargs["forward_sync_buffers" if newer else "broadcast_buffers"] = False


def exchange_clocks(model: DistributedDataParallel) -> dict[str, Any]:
    """DDP's own averages over the steps that it has timed, in nanoseconds; on a GPU it waits for none of its events."""
    clocks: dict[str, Any] = model._get_ddp_logging_data()  # type: ignore[no-untyped-call]
    return clocks


def move_towards(tensors: Sequence[Tensor], goals: Sequence[Tensor], share: float) -> None:
    """Moves tensors this share of the way to their goals, in place, all by one kernel."""
    torch._foreach_lerp_(list(tensors), list(goals), share)


def synchronizes_batch_norm(trainer: Trainer) -> bool:
    """Whether Lightning makes the BatchNorm layers of several processes share their statistics.

    Args:
        trainer: Before it runs.
    """
    return getattr(trainer.strategy, "_layer_sync", None) is not None  # strategies of one process have none
