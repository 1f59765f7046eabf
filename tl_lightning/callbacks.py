"""What a run shows while it trains, and the CSV log that every run keeps."""

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from rich.progress import Progress, TaskID
from torch import Tensor

from tl_lightning.console import console, progress_bar
from tl_lightning.run_folder import write_text


def last_checkpoint(folder: str) -> ModelCheckpoint:
    """Keeps ``last.ckpt``, the state at the end of the latest epoch, whether or not it was the best.

    Lightning's own ``save_last`` writes one only together with a new best.

    Args:
        folder: Where it goes.
    """
    return ModelCheckpoint(folder, filename="last", monitor=None, enable_version_counter=False)


class StepBar(ProgressBar):
    """A bar over the steps of the epoch, or of the evaluation, that is under way; gone when it ends."""

    def __init__(self) -> None:
        super().__init__()
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
        self._start(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", trainer.num_training_batches)

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        """Moves the bar and shows the loss."""
        if self._progress is None or self._progress.disable:
            return  # reading the loss waits for the GPU
        loss = trainer.callback_metrics.get("train/loss_step")
        self._advance("" if loss is None else f"loss {float(loss):.3f}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the validation's bar."""
        self._start("validating", sum(trainer.num_val_batches))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the test's bar."""
        self._start("testing", sum(trainer.num_test_batches))

    def on_validation_batch_end(self, *args: object) -> None:
        """Moves the bar."""
        self._advance()

    def on_test_batch_end(self, *args: object) -> None:
        """Moves the bar."""
        self._advance()

    def on_validation_end(self, *args: object) -> None:
        """Closes the bar."""
        self._stop()

    def on_test_end(self, *args: object) -> None:
        """Closes the bar."""
        self._stop()

    def on_train_end(self, *args: object) -> None:
        """Closes the bar."""
        self._stop()

    def on_exception(self, *args: object) -> None:
        """Gives the terminal back."""
        self._stop()


class EpochLine(Callback):
    """Prints one line per epoch: the losses, the accuracy, the monitored figure, and whether that is the best so far.

    Args:
        monitor: Name of the figure that picks the best weights.
        mode: ``min`` or ``max``.
    """

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor = monitor
        self.sign = 1 if mode == "max" else -1
        self.best: float | None = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the line."""
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = dict.fromkeys(("train/loss_epoch", "val/loss", "val/accuracy", self.monitor))
        parts = [f"{name.removesuffix('_epoch')} {figures[name]:.4f}" for name in shown if name in figures]
        value = figures.get(self.monitor)
        if value is not None and (self.best is None or self.sign * value > self.sign * self.best):
            self.best = value
            parts.append("[green]best[/green]")
        console.print(f"epoch {trainer.current_epoch + 1:>3}/{trainer.max_epochs}  " + "  ".join(parts))


class MetricsCsv(Logger):
    """Keeps everything that is logged in one CSV file, with a column for each name that ever came.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._columns = ["epoch", "step"]
        self._rows: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        """Of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """Of the run: the folder's name."""
        return self._path.parent.name

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Does nothing: the run's ``config.yaml`` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Adds a row."""
        row = {"step": step, **{name: _plain(value) for name, value in metrics.items()}}
        new = [name for name in row if name not in self._columns]
        self._columns += new
        self._rows.append(row)
        if new or len(self._rows) == 1:
            write_text(self._path, self._table(self._rows, header=True))
        else:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._table([row], header=False))

    def _table(self, rows: list[dict[str, Any]], *, header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def _plain(value: object) -> object:
    return value.item() if isinstance(value, Tensor) else value
