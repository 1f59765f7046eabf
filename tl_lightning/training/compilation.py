"""``torch.compile`` as an option that says what it gains."""

import statistics
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from tl_lightning.core.console import console
from tl_lightning.tasks.base import TransferTask

STEPS = 5  # timed, eager and compiled


class Compilation(Callback):
    """Compiles what a phase trains, once it is in place, and prints how much faster a step is for that.

    Nothing is decided by what was measured: the same configuration trains the same way on the same machine.

    Args:
        backend: A backend of ``torch.compile``.
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._due = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Has the phase's first batch compile; a solved phase, or a head alone, has nothing to compile."""
        assert isinstance(pl_module, TransferTask)
        self._due = not pl_module.solved and not pl_module.phase.keeps_backbone

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        """Times steps before and after; afterwards all is as it was, but for the compiled code."""
        assert isinstance(pl_module, TransferTask)
        if not self._due:
            return
        self._due = False
        buffers = {name: buffer.clone() for name, buffer in pl_module.backbone.named_buffers()}
        eager = _seconds(trainer, pl_module, batch)
        pl_module.compile_training(self._backend)
        try:
            with console.status("compiling"):
                begun = time.perf_counter()
                _step(trainer, pl_module, batch)
                compiling = time.perf_counter() - begun
            compiled = _seconds(trainer, pl_module, batch)
        except Exception as error:  # whatever compilers say: none is installed, or it cannot do this model
            pl_module.compile_training(None)
            reason = str(error).strip().partition("\n")[0]
            console.print(f"not compiled: {type(error).__name__}: {reason}; going on without", style="yellow")
            return
        finally:
            pl_module.backbone.load_state_dict(buffers, strict=False)
        console.print(
            f"compiled   in {compiling:.0f} s: {eager / compiled:.2f} times the speed of eager steps "
            f"({1e3 * eager:.1f} to {1e3 * compiled:.1f} ms without head and optimizer)"
        )


def _seconds(trainer: Trainer, task: TransferTask, batch: dict[str, Any]) -> float:
    return statistics.median(_step(trainer, task, batch) for _ in range(STEPS + 1))


def _step(trainer: Trainer, task: TransferTask, batch: dict[str, Any]) -> float:
    """Forward and backward pass through what is compiled; seconds."""
    begun = time.perf_counter()
    try:
        with trainer.precision_plugin.forward_context():
            features = task.features(batch)
        features.float().square().mean().backward()  # type: ignore[no-untyped-call]
        if features.device.type == "cuda":
            torch.cuda.synchronize(features.device)
        return time.perf_counter() - begun
    finally:
        for parameter in task.parameters():
            parameter.grad = None
