"""A training run under way, step by step: checked, begun, trained, scored, written down."""

import time
from pathlib import Path
from typing import Any

from tl_lightning.core.files import write_text
from tl_lightning.core.predictions_file import save_predictions
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError
from tl_lightning.experiment.checks import check_monitored
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.experiment.evaluation import score, show_result, targets_by_head
from tl_lightning.experiment.opening import show_start
from tl_lightning.experiment.phase_loop import Training
from tl_lightning.experiment.summary import Status, summary_of
from tl_lightning.training.final_weights import FinalWeights
from tl_lightning.training.metrics_csv import MetricsCsv
from tl_lightning.training.micro_batches import divide_batches
from tl_lightning.training.single_images import check_single_images
from tl_lightning.training.wandb import WandbRun


class Experiment:
    """A training run under way: what it has done so far is what its summary says.

    Args:
        configuration: Everything built from the arguments.
        started: ``time.perf_counter()`` at the start.
        checkpoint: The state to go on from; `None` at the beginning.
    """

    def __init__(self, configuration: Configuration, started: float, checkpoint: Path | None) -> None:
        self.task = configuration.model
        self.data = configuration.datamodule
        self.trainer = configuration.trainer
        self.configuration = configuration
        self.started = started
        self.checkpoint = checkpoint
        self.training = Training(configuration)
        self.wandb = WandbRun(self.trainer, configuration.folder)
        self.averages: dict[str, Any] = {}
        self.results: dict[str, dict[str, Any]] = {}
        self.scores: dict[str, Any] = {}
        self.timing = {"cache_s": 0.0, "test_s": 0.0}

    @property
    def folder(self) -> RunFolder:
        """Where the run writes; the first process knows it from the start, the others once they have trained."""
        if self.configuration.folder is not None:
            return self.configuration.folder
        return RunFolder(Path(self.trainer.checkpoint_callback.dirpath).parent)  # type: ignore[union-attr]

    @property
    def place(self) -> str:
        """The folder, for people; another process than the first may fail before it has been told."""
        told = self.configuration.folder or self.trainer.checkpoint_callback.dirpath  # type: ignore[union-attr]
        return str(self.folder.path) if told else "RUN"

    def check(self) -> None:
        """Reads the data and checks everything that can be checked before anything is trained or written."""
        begun = time.perf_counter()
        self.data.prepare_data()
        self.data.setup("fit")
        self.timing["cache_s"] = time.perf_counter() - begun
        self.task.set_training_targets(self.data.targets("train").labels)
        config, validated = self.configuration.config, targets_by_head(self.task, self.data, "val")
        for name in ("checkpoint", "early_stopping"):
            check_monitored(config[name].monitor, f"{name}.monitor", self.task.objectives, validated)
        for phase in self.configuration.phases:
            self.training.check(phase)
        self.training.forgetting.prepare()
        if self.configuration.config.wise_ft is not False:
            self._check_wise_ft()
        self._check_interval()
        self._check_limits()

    def prepare(self) -> None:
        """Checks everything, begins the run folder, and shows what is about to be trained on what."""
        if self.checkpoint is not None:
            self.training.read(self.checkpoint)
            self.configuration.share_out(None)  # the learning rates follow the batch of the run, whatever shares it now
        self.check()
        if self.configuration.created:
            write_text(self.folder.config, self.configuration.resolved)
        show_start(self)
        self.training.take_up()
        divide_batches(self.task, self.data, self.trainer, self.configuration.phases)
        check_single_images(self.task, self.data, self.trainer, self.configuration.phases)
        self.wandb.begin(self.configuration.resolved, lambda: self.training.number)

    def _check_wise_ft(self) -> None:
        if self.task.hparams.weights == "none":
            raise UserError("wise_ft goes back towards the pretrained weights, but model.weights is none")
        if all(phase.keeps_backbone for phase in self.configuration.phases):
            raise UserError("wise_ft goes back towards the pretrained weights, but no phase trains the backbone")

    def _check_interval(self) -> None:
        interval = self.trainer.val_check_interval
        batches = max(self.data.summary()["train"] // (self.data.batch_size * self.trainer.world_size), 1)
        if type(interval) is int and self.trainer.check_val_every_n_epoch is not None and interval > batches:
            raise UserError(
                f"trainer.val_check_interval is {interval}, but an epoch has {batches} batches; give fewer, or a share "
                "of the epoch such as 0.5"
            )

    def _check_limits(self) -> None:
        """Lightning would say it when it comes to that split, which is after all of the training."""
        sizes, processes = self.data.summary(), self.trainer.world_size
        for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
            limit = getattr(self.trainer, f"limit_{name}_batches")
            if (
                not isinstance(limit, float)
                or not sizes[split]
                or (name == "test" and not self.configuration.config.test)
            ):
                continue
            whole = max(sizes[split] // (self.data.batch_size * processes), 1)
            batches = whole if name == "train" else len(self.data.plain_loader(name))
            if int(batches * limit) < 1:
                raise UserError(
                    f"trainer.limit_{name}_batches is {limit}, which is less than one of the {batches} batches of the "
                    f"{split} split; give a larger share, or a number of batches such as 1"
                )

    def evaluate(self) -> None:
        """Scores the final weights on the validation split and, where there is one, on the test split."""
        config = self.configuration.config
        for logger in self.trainer.loggers:
            if isinstance(logger, MetricsCsv):
                logger.watch = None  # what comes now is no step of the training
        if config.soup or config.wise_ft is not False:
            final = FinalWeights(self.task, self.data, self.trainer)
            self.averages = final.choose(soup=bool(config.soup), wise=config.wise_ft)
            if (forgotten := self.training.forgetting.measure("averaging")) is not None:
                self.averages["forgetting"] = forgotten
        with self.training.validating():
            self.results["validation"] = score(self.configuration, "validation")
        begun = time.perf_counter()
        split = "validation"
        if self.data.summary()["test"] and config.test:
            self.results["test"] = score(self.configuration, "test")
            predicted = self.task.predicted("test")  # by all processes
            for head, found in predicted.items() if self.configuration.folder is not None else ():
                path = self.folder.test_predictions
                path = path.with_stem(f"{path.stem}-{head}") if len(self.task.objectives) > 1 else path
                save_predictions(path, found.predictions, found.labels, found.indices)
            self.timing["test_s"] = time.perf_counter() - begun
            split = "test"
        training = targets_by_head(self.task, self.data, "train")
        self.scores = show_result(self.task, self.data, self.results[split], split, training=training)

    def write_summary(self, status: Status, *, error: str | None = None) -> None:
        """Writes ``summary.json``, on the first process.

        Args:
            status: How far the run came.
            error: What failed.
        """
        if self.trainer.is_global_zero:
            self.folder.write_summary(summary_of(self, status, error=error))
