"""The weights a run ends with: the best checkpoint, or an average of weights that validates better."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor

from tl_lightning.core.checkpoint_files import load_checkpoint, read_checkpoint, write_checkpoint
from tl_lightning.core.console import console
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.finetuning.averaging import ALPHAS, greedy_soup, interpolate, mean, wise_ft
from tl_lightning.tasks.base import TransferTask


def keep_start(task: TransferTask, folder: RunFolder, *, head_is_trained: bool) -> None:
    """Writes down where the fine-tuning of the backbone begins; one end of WiSE-FT's line.

    Args:
        task: With the weights it has just before.
        folder: Where the run writes.
        head_is_trained: Whether an earlier phase trained the head. A random head is no end of a line, and left out.
    """
    weights = {
        name: value for name, value in task.state_dict().items() if head_is_trained or not name.startswith("heads.")
    }
    write_checkpoint({"state_dict": weights}, folder.start_checkpoint)


class FinalWeights:
    """Chooses, on validation, between the best checkpoint and averages of weights, and makes them ``best.ckpt``.

    The best single checkpoint stays as ``trained.ckpt`` where an average takes its place.

    Args:
        task: Gets the chosen weights.
        data: The data, whose validation split decides.
        trainer: That of the run; its first checkpoint callback says where the checkpoints are, on every process.
    """

    def __init__(self, task: TransferTask, data: LightningDataModule, trainer: Trainer) -> None:
        self._task = task
        self._data = data
        self._trainer = trainer
        best: Any = trainer.checkpoint_callback
        self._monitor, self._sign = best.monitor, 1 if best.mode == "max" else -1
        self._folder = RunFolder(Path(best.dirpath).parent)

    def choose(self, *, soup: bool, wise: bool | float) -> dict[str, Any]:
        """Tries a greedy soup first, then goes on with it to WiSE-FT.

        Args:
            soup: Whether to average the best few epochs.
            wise: Whether to interpolate with the weights with which fine-tuning began, or the alpha with which to do
                so: validation images of the old domain cannot tell what helps in a new one.

        Returns:
            What was tried, with the monitored metric of each, for the summary.
        """
        trained = self._folder.trained_checkpoint
        checkpoint = load_checkpoint(trained if trained.is_file() else self._folder.best_checkpoint)
        weights, changed, told = checkpoint["state_dict"], False, {}
        if soup:
            weights, told["soup"] = self._soup(weights, int(checkpoint["epoch"]))
            changed = len(told["soup"]["epochs"]) > 1
        if wise is not False:
            start = self._start()
            alphas = ALPHAS if wise is True else (0.0, float(wise), 1.0)
            alpha, scores = wise_ft(start, weights, self._score, alphas=alphas)
            alpha = alpha if wise is True else float(wise)
            told["wise_ft"] = {"alpha": alpha, "scores": {f"{a:g}": self._sign * s for a, s in scores.items()}}
            console.print(
                f"WiSE-FT: alpha {alpha:g}, {self._monitor} {self._sign * scores[alpha]:.4f} "
                f"({self._sign * scores[1.0]:.4f} fine-tuned, {self._sign * scores[0.0]:.4f} at its start)"
            )
            if alpha < 1:
                weights, changed = interpolate(start, weights, alpha), True
        if changed and self._trainer.is_global_zero:
            keep = None if trained.is_file() else trained
            write_checkpoint({**checkpoint, "state_dict": weights}, self._folder.best_checkpoint, keep=keep)
        self._trainer.strategy.barrier()
        self._task.load_state_dict(weights)
        return told

    def _soup(self, best: Mapping[str, Tensor], best_epoch: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        others = [load_checkpoint(path) for path in sorted(self._folder.checkpoints.glob("soup-*.ckpt"))]
        others = [other for other in others if other["epoch"] != best_epoch]
        others.sort(key=lambda other: self._score(other["state_dict"]), reverse=True)
        states = [best, *(other["state_dict"] for other in others)]
        chosen, score = greedy_soup(states, self._score)
        epochs = [best_epoch + 1, *(int(others[position - 1]["epoch"]) + 1 for position in chosen[1:])]
        mixed = ", ".join(map(str, epochs))
        console.print(f"soup: epochs {mixed} of {len(states)} tried, {self._monitor} {self._sign * score:.4f}")
        return mean([states[position] for position in chosen]), {"epochs": epochs, "score": self._sign * score}

    def _start(self) -> dict[str, Tensor]:
        start: dict[str, Tensor] = read_checkpoint(self._folder.start_checkpoint)["state_dict"]
        return start

    def _score(self, weights: Mapping[str, Tensor]) -> float:
        """The monitored metric on validation, the larger the better; not logged."""
        self._task.load_state_dict(weights)
        loggers, self._trainer.loggers = self._trainer.loggers, []
        try:
            (logged,) = self._trainer.validate(self._task, datamodule=self._data, verbose=False)
        finally:
            self._trainer.loggers = loggers
        value = self._sign * float(logged[self._monitor])
        return value if math.isfinite(value) else -math.inf
