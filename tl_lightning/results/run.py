"""A finished run: its summary, its model, and what it says of new images."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from tl_lightning import experiment
from tl_lightning.core.files import user_path
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError
from tl_lightning.results.predict import Prediction, predict
from tl_lightning.results.settings import Settings
from tl_lightning.tasks import TransferTask
from tl_lightning.tasks.loading import load_task


class Run:
    """A run and its best weights.

    Args:
        folder: The run's folder.
        checkpoint: The weights to use; by default the best.
    """

    def __init__(self, folder: RunFolder, *, checkpoint: Path | None = None) -> None:
        self.folder = folder
        self._checkpoint = checkpoint
        self._task: TransferTask | None = None

    @property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds."""
        return self.folder.summary

    @property
    def task(self) -> TransferTask:
        """The trained model, in eval mode; loaded when first asked for."""
        if self._task is None:
            with torch.random.fork_rng(devices=[]):
                self._task = load_task(self._checkpoint or self.folder.best_checkpoint)
        return self._task

    def predict(
        self,
        images: str | Path | Iterable[str | Path],
        *,
        batch_size: int | None = None,
        on_error: Literal["stop", "skip"] = "stop",
    ) -> list[Prediction]:
        """Predicts images, prepared as the checkpoint says, in the precision that the run was trained and tested in.

        Args:
            images: Paths of image files, or a single one. Arrays are not taken: whether their channels are red or blue
                first, and where their numbers end, would be a guess.
            batch_size: Images per forward pass; by default the run's.
            on_error: ``stop`` at an image that cannot be read, or ``skip`` it.

        Returns:
            One prediction for each image, in order, without those skipped; of a detector one for each box.

        Raises:
            UserError: If an image cannot be read, naming up to ten of them, or something else than a path is given.
        """
        one = isinstance(images, str | Path) or not isinstance(images, Iterable)
        given: list[Any] = [images] if one else list(images)  # type: ignore[arg-type]
        wrong = [type(image).__name__ for image in given if not isinstance(image, str | Path)]
        if wrong:
            raise UserError(f"predict takes paths of files, but was given {wrong[0]}; save it as a file, and name that")
        settings = Settings.of(self.folder, precision=self.task.trained_in, batch_size=batch_size)
        with torch.random.fork_rng(devices=[]):  # the caller's own draws go on as if there had been no prediction
            return predict(self.task, [user_path(image) for image in given], settings=settings, on_error=on_error)


def fit(config: str | Path | Mapping[str, Any], /, **overrides: Any) -> Run:  # noqa: ANN401 - values of any key
    """Trains as ``tl fit --config`` does.

    Args:
        config: A YAML file, the name of a packaged one such as ``elpv``, or the content as a mapping.
        **overrides: Values for dotted keys, such as ``**{"model.lr": 1e-3}``.

    Returns:
        What was trained, with its ``folder``, its ``summary``, and ``predict``.

    Raises:
        UserError: If a key, a value, the data or the weights are wrong.
    """
    return Run(experiment.fit(config, **overrides))


def load(run_dir: str | Path) -> Run:
    """Opens the folder of an earlier run.

    Args:
        run_dir: Such as ``runs/elpv-1``.

    Raises:
        UserError: If there is no such run.
    """
    return Run(RunFolder.open(run_dir))
