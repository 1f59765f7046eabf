"""Checkpoints: when they are written, whole or not at all, and read as data, never as code."""

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor

from tl_lightning.core.checkpoint_files import load_checkpoint, write_checkpoint
from tl_lightning.core.interruption import defer, finish_undisturbed, interruption
from tl_lightning.core.private import ends_step, validates_next
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.training.preemption import Agreement

LOSS = "val/loss"


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's way to checkpoint files: with `write_checkpoint`; of ``last.ckpt`` the one before is kept."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:  # noqa: ANN401
        """Writes whole or not at all."""
        path = Path(path)
        folder = RunFolder(path.parent.parent)
        write_checkpoint(checkpoint, path, keep=folder.previous_checkpoint if path == folder.last_checkpoint else None)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = None,  # noqa: ANN401
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Reads with torch's safe loader, whatever Lightning asks for."""
        return load_checkpoint(Path(path))


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt``; its memory of what was best moves with the run folder.

    Of two epochs with the same metric the one with the lower validation loss is the better: a few validation images are
    soon all right, and Lightning would keep the first epoch for ever (Lightning-AI/pytorch-lightning #17240).
    """

    _best_loss = math.inf

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether to save now."""
        better = super().check_monitor_top_k(trainer, current)
        loss = float(trainer.callback_metrics.get(LOSS, math.inf))
        if not better and self.save_top_k == 1 and current is not None and current == self.best_model_score:
            better = loss < self._best_loss
        if better:
            self._best_loss = loss
        return better

    def state_dict(self) -> dict[str, Any]:
        """What was best so far, its loss included."""
        return {**super().state_dict(), "best_loss": self._best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the best so far, wherever the folder is now."""
        folder = str(self.dirpath)

        def moved(path: str) -> str:
            return str(Path(folder, Path(path).name)) if path else path

        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        names = ("best_model_path", "kth_best_model_path", "last_model_path")
        paths = {name: moved(state_dict[name]) for name in names}
        super().load_state_dict({**state_dict, **paths, "dirpath": folder, "best_k_models": best})
        self._best_loss = state_dict.get("best_loss", -math.inf)  # runs of earlier versions kept the first of equals


class Ingredients(BestCheckpoint):
    """Keeps the weights of the best few epochs as ``soup-<epoch>.ckpt``, for a greedy soup at the end.

    Args:
        folder: Where they go.
        count: How many.
        monitor: Name of the metric that says which are the best.
        mode: ``min`` or ``max``.
    """

    def __init__(self, folder: str, *, count: int, monitor: str, mode: str) -> None:
        super().__init__(
            folder,
            filename="soup-{epoch}",
            monitor=monitor,
            mode=mode,
            save_top_k=count,
            save_weights_only=True,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``: the state at the start of the phase, then at the end of each epoch, or more often.

    It is what a resumed run goes on from. Lightning's own ``save_last`` writes one only together with a new best.
    Where a signal asked any of the processes to end, all of them do, once it is written.

    Args:
        every: Also after so many steps of the optimizer.
        state: What the run has to remember beside Lightning's own state; plain data.
    """

    def __init__(self, *, every: int | None, state: Callable[[], dict[str, Any]]) -> None:
        self._every = every
        self._due = False
        self._state = state
        self._agreement = Agreement()
        self._asked = 0  # the exit code that all processes agreed on

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the best weights so far under the phase's fresh schedule.

        Twice, so that the one before the last is of this phase too: ``best.ckpt`` may soon hold other weights than
        those with which the phase began.
        """
        defer(True)
        if trainer.ckpt_path is None:
            _save(trainer)
            _save(trainer)
        _end(self._agreement.now())

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        """Saves every so many steps, and where the run is to end; at the end of the epoch it will be saved anyway.

        Before a validation within the epoch it waits for the step after: a resumed run would leave the validation out.
        """
        if not ends_step(trainer):
            return
        self._asked = self._asked or self._agreement.a_step_ago()
        if trainer.is_last_batch:
            return
        self._due = self._due or bool(self._every and trainer.global_step % self._every == 0)
        if (self._due or self._asked) and not validates_next(trainer):
            self._due = False
            _save_and_end(trainer, self._asked)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the epoch."""
        self._due = False
        _save_and_end(trainer, self._asked or self._agreement.now())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal ends a process that is alone at once: nothing would be lost."""
        defer(False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """What comes after a failed run, such as the next one of a comparison, looks at no signals by itself."""
        with suppress(KeyboardInterrupt):  # something is on its way already
            defer(False)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds what the run has to remember."""
        checkpoint["run"] = self._state()


def _save(trainer: Trainer) -> None:
    best: Any = trainer.checkpoint_callback  # whose folder Lightning has told to all processes
    trainer.save_checkpoint(Path(best.dirpath, "last.ckpt"), weights_only=False)


def _save_and_end(trainer: Trainer, code: int) -> None:
    """Saves; then ends this process where all have agreed to, for which the writing may take the time that it takes."""
    if code:
        finish_undisturbed()
    _save(trainer)
    _end(code)


def _end(code: int) -> None:
    if code:
        finish_undisturbed()  # a launcher may ask again as soon as the first process has ended
        raise interruption(code)
