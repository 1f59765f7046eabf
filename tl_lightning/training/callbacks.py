"""What a run shows while it trains, and the CSV log that every run keeps."""

import csv
import io
import math
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from rich.progress import Progress, TaskID
from torch import Tensor, distributed

from tl_lightning.core.console import console, progress_bar
from tl_lightning.core.files import write_text
from tl_lightning.core.private import ends_step

# Sees each row of `metrics.csv` as it is logged, by column; it may raise KeyboardInterrupt to end the run.
Watch = Callable[[Mapping[str, Any]], None]


class TrainingLoss(Callback):
    """Logs the training loss: of single steps as ``train/loss_step``, the mean of an epoch as ``train/loss_epoch``.

    Lightning's own mean forgets, after a resume in the middle of an epoch, what came before; this one is in the
    checkpoint. It stands before the callbacks that write checkpoints, so that what it logs is never lost.
    """

    def __init__(self) -> None:
        self._total: Tensor | float = 0.0
        self._batches = 0
        self._parts: list[Tensor] = []  # the batches of the step under way

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the loss so far in the epoch under way, of each process: that a run was saved must not be seen in it."""
        own = torch.as_tensor(self._total, device=pl_module.device)
        totals = [own.clone() for _ in range(trainer.world_size)]
        if len(totals) > 1:
            distributed.all_gather(totals, own)
        checkpoint["training_loss"] = {"totals": [float(total) for total in totals], "batches": self._batches}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Goes on from there; with another number of processes from the mean."""
        saved = checkpoint["training_loss"]
        totals = saved.get("totals") or [saved["total"]]  # older runs have their mean
        alike = len(totals) == trainer.world_size
        self._total = totals[trainer.global_rank] if alike else sum(totals) / len(totals)
        self._batches = saved["batches"]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: object) -> None:  # noqa: ANN401
        """Adds a batch."""
        loss = outputs["loss"].detach().float() * trainer.accumulate_grad_batches  # Lightning has divided it
        self._total = self._total + loss
        self._batches += 1
        self._parts.append(loss)
        if not ends_step(trainer):
            return
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log(trainer, "train/loss_step", torch.stack(self._parts).mean())
        self._parts = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the mean and starts anew."""
        mean = self._mean(trainer, self._total, pl_module) / max(self._batches, 1)
        pl_module.log("train/loss_epoch", mean.float(), logger=False, sync_dist=True)  # for whoever monitors it
        self._log(trainer, "train/loss_epoch", mean)
        self._total, self._batches = 0.0, 0

    @staticmethod
    def _mean(trainer: Trainer, total: Tensor | float, pl_module: LightningModule) -> Tensor:
        """Over all processes, the same for each."""
        mean: Tensor = trainer.strategy.reduce(torch.as_tensor(total, device=pl_module.device), reduce_op="mean")
        return mean

    def _log(self, trainer: Trainer, name: str, value: Tensor) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, name: float(value)}, step=trainer.global_step - 1)


class StepBar(ProgressBar):
    """A bar over the steps of the epoch, or of the evaluation, that is under way; gone when it ends.

    Args:
        epochs: Of the whole run.
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
        epochs: Of the whole run.
    """

    def __init__(self, monitor: str, mode: str, epochs: int) -> None:
        self.monitor = monitor
        self.epochs = epochs
        self.sign = 1 if mode == "max" else -1
        self.best: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """The best figure so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self.best = state_dict["best"]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the line."""
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        headlines = [f"val/{name}" for name in getattr(pl_module, "headlines", ())]
        shown = dict.fromkeys(("train/loss_epoch", "val/loss", *headlines, self.monitor))
        parts = [f"{name.removesuffix('_epoch')} {figures[name]:.4f}" for name in shown if name in figures]
        value = figures.get(self.monitor)
        value = None if value is None or math.isnan(value) else value
        if value is not None and (self.best is None or self.sign * value > self.sign * self.best):
            self.best = value
            parts.append("[green]best[/green]")
        console.print(f"epoch {trainer.current_epoch + 1:>3}/{self.epochs}  " + "  ".join(parts), markup=True)
        if not math.isfinite(figures.get("val/loss", 0.0)):
            console.print("caution    training diverged: the validation loss is no number", style="yellow")


class MetricsCsv(Logger):
    """Keeps everything that is logged in one CSV file, with a column for each name that ever came.

    Args:
        path: The file; what it holds already is kept.
        watch: Called with each row, once it is in the file; may be set to `None` later.
    """

    def __init__(self, path: Path, watch: Watch | None = None) -> None:
        super().__init__()
        self._path = path
        self.watch = watch
        self._columns = ["epoch", "step"]
        self._rows: list[dict[str, Any]] = []
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]  # a last line that was cut off may still look like a row
            reader = csv.DictReader(io.StringIO(whole))
            self._rows = list(reader)
            self._columns = list(reader.fieldnames or self._columns)

    def drop_from(self, step: int) -> None:
        """Removes the rows of a step and of all later ones, which a resumed run writes again.

        A column that only they had goes too, so that the file is that of a run that was never interrupted.
        """
        self._rows = [row for row in self._rows if _before(row, step)]
        used = {name for row in self._rows for name, value in row.items() if value not in (None, "")}
        self._columns = [name for name in self._columns if name in used or name in ("epoch", "step")]
        self._rows = [{name: row.get(name) for name in self._columns} for row in self._rows]
        if self._path.is_file():
            write_text(self._path, self._table(self._rows, header=True))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What is in the file, by column; as text where it was read from there."""
        return self._rows

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
        if self.watch is not None:
            self.watch(row)

    def _table(self, rows: list[dict[str, Any]], *, header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def _before(row: dict[str, Any], step: int) -> bool:
    try:
        return int(row["step"]) < step
    except (TypeError, ValueError):
        return False  # cut off in the middle


def _plain(value: object) -> object:
    return value.item() if isinstance(value, Tensor) else value
