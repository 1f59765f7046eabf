"""What a run shows while it trains: a bar over its steps and a line per epoch."""

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar
from rich.progress import Progress, TaskID

from tl_lightning.core.console import console, progress_bar


class StepBar(ProgressBar):
    """A bar over the steps of the epoch, or of the evaluation, that is under way; gone when it ends.

    Args:
        epochs: How many the whole run has.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._enabled = True

    @property
    def is_enabled(self) -> bool:
        """Whether this process shows bars; Lightning asks before it prints."""
        return self._enabled

    def disable(self) -> None:
        """Shows nothing from here on; Lightning calls it on all ranks but the first."""
        self._stop()
        self._enabled = False

    def enable(self) -> None:
        """Shows the bar again."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the signature is Lightning's
        """Prints above the bar."""
        console.print(*args)

    def _start(self, description: str, total: float) -> None:
        if not self._enabled:
            return
        self._stop()
        self._progress = progress_bar()
        self._task = self._progress.add_task(description, total=total, note="")
        self._progress.start()

    def _advance(self, note: str = "") -> None:
        if self._progress is not None:
            self._progress.update(self._task, advance=1, note=note)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the epoch's bar."""
        self._start(f"epoch {trainer.current_epoch + 1}/{self._epochs}", trainer.num_training_batches)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: object) -> None:  # noqa: ANN401
        """Moves the bar and shows the loss."""
        if self._progress is None or self._progress.disable:
            return  # reading the loss waits for the GPU
        self._advance(f"loss {float(outputs['loss']) * trainer.accumulate_grad_batches:.3f}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the validation's bar."""
        self._start("validating", sum(trainer.num_val_batches))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the test's bar."""
        self._start("testing", sum(trainer.num_test_batches))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the prediction's bar."""
        self._start("predicting", sum(trainer.num_predict_batches))

    def on_validation_batch_end(self, *args: object) -> None:
        """Moves the bar."""
        self._advance()

    def on_test_batch_end(self, *args: object) -> None:
        """Moves the bar."""
        self._advance()

    def on_predict_batch_end(self, *args: object) -> None:
        """Moves the bar."""
        self._advance()

    def on_validation_end(self, *args: object) -> None:
        """Closes the bar."""
        self._stop()

    def on_test_end(self, *args: object) -> None:
        """Closes the bar."""
        self._stop()

    def on_predict_end(self, *args: object) -> None:
        """Closes the bar."""
        self._stop()

    def on_train_end(self, *args: object) -> None:
        """Closes the bar."""
        self._stop()

    def on_exception(self, *args: object) -> None:
        """Gives the terminal back."""
        self._stop()


class EpochLine(Callback):
    """Prints one line per epoch: the losses, each head's headline, the monitored metric, and whether it is the best.

    Args:
        monitor: Name of the metric that picks the best weights.
        mode: ``min`` or ``max``.
        epochs: How many the whole run has.
    """

    def __init__(self, monitor: str, mode: str, epochs: int) -> None:
        self.monitor = monitor
        self.epochs = epochs
        self.sign = 1 if mode == "max" else -1
        self.best: float | None = None
        self.best_loss = math.inf  # of equal values the one with the lower loss is kept

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best, "best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self.best = state_dict["best"]
        self.best_loss = state_dict.get("best_loss", -math.inf)  # as in `BestCheckpoint`

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the line."""
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        headlines = [f"val/{name}" for name in getattr(pl_module, "headlines", ())]
        shown = dict.fromkeys(("train/loss_epoch", "val/loss", *headlines, self.monitor))
        parts = [f"{name.removesuffix('_epoch')} {logged[name]:.4f}" for name in shown if name in logged]
        value = logged.get(self.monitor)
        value = None if value is None or math.isnan(value) else value
        loss = logged.get("val/loss", math.inf)
        rank = (-math.inf if value is None else self.sign * value, -loss)
        if value is not None and (self.best is None or rank > (self.sign * self.best, -self.best_loss)):
            self.best, self.best_loss = value, loss
            parts.append("[green]best[/green]")
        console.print(f"epoch {trainer.current_epoch + 1:>3}/{self.epochs}  " + "  ".join(parts), markup=True)
        if not math.isfinite(logged.get("val/loss", 0.0)):
            console.print("caution    training diverged: the validation loss is no number", style="yellow")
