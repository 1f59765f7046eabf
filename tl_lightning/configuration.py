"""From command-line arguments and YAML to a model, a data module and a trainer: Lightning's own CLI, with our parts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from tl_lightning.backbones import preprocess_of
from tl_lightning.callbacks import EpochLine, MetricsCsv, StepBar
from tl_lightning.data.module import ImageDataModule
from tl_lightning.errors import UserError
from tl_lightning.finetuning.phases import PRESETS, parse_phases
from tl_lightning.parser import ExperimentParser, user_error
from tl_lightning.precision import fast_precision
from tl_lightning.run_folder import RunFolder
from tl_lightning.tasks.base import TransferTask
from tl_lightning.tasks.classification import ClassificationTask

REPLACEABLE = (EarlyStopping, ModelCheckpoint, ProgressBar)
MONITOR, MODE = "val/macro_f1", "max"


class Configuration(LightningCLI):
    """One parsed configuration with everything built from it.

    Attributes:
        model: The task.
        datamodule: Its data.
        trainer: Lightning's trainer, with our callbacks.
        phases: What to train, in order; a training run has them.
        folder: The run's folder; a training run has one.
        resolved: The whole configuration as YAML, defaults included; ``tl fit --config`` on it repeats the run.

    Args:
        args: Command-line arguments behind the command's name.
        checkpoint: The checkpoint to evaluate, as loaded; it decides the model, the classes and the preprocessing.
            `None` for a training run, which gets a run folder of its own.
    """

    def __init__(self, args: list[str], *, checkpoint: Mapping[str, Any] | None = None) -> None:
        self.checkpoint = checkpoint
        self.folder: RunFolder | None = None
        super().__init__(
            TransferTask,
            LightningDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={
                "max_epochs": 10,
                "precision": fast_precision(),
                "gradient_clip_val": 1.0,
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 10,
                "logger": False,
                "enable_model_summary": False,
            },
            parser_class=ExperimentParser,
            parser_kwargs={"prog": "tl fit", "description": "Trains, then evaluates.", "allow_abbrev": False},
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            run=False,
            args=args if checkpoint is None else [*args, "--config", json.dumps(_decided_by(checkpoint))],
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds our keys, our defaults and the links between model and data."""
        parser.add_argument(
            "--run_dir", type=str | None, default=None, help="The run's folder; by default a new runs/<config>-<n>."
        )
        parser.add_argument(
            "--phases",
            type=str | list[dict[str, Any]],
            default="full",
            help=f"How to transfer: {', '.join(PRESETS)}, or a list of phases such as [{{epochs: 3, train: head}}].",
        )
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "model": {"class_path": f"{ClassificationTask.__module__}.{ClassificationTask.__qualname__}"},
                "data": {"class_path": f"{ImageDataModule.__module__}.{ImageDataModule.__qualname__}"},
                "early_stopping.monitor": MONITOR,
                "early_stopping.mode": MODE,
                "early_stopping.patience": 10,
                "checkpoint.monitor": MONITOR,
                "checkpoint.mode": MODE,
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
                "checkpoint.enable_version_counter": False,
                "checkpoint.auto_insert_metric_name": False,
            }
        )
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)
        parser.link_arguments("data.classes", "model.init_args.classes", apply_on="instantiate")
        parser.link_arguments("data.prepared", "model.init_args.preprocess", apply_on="instantiate")
        if self.checkpoint is None:
            parser.link_arguments(
                ("model.init_args.backbone", "model.init_args.weights"),
                "data.init_args.preprocess",
                compute_fn=lambda backbone, weights: preprocess_of(backbone, weights).to_dict(),
            )

    def before_instantiate_classes(self) -> None:
        """Checks the phases, makes the run folder, and keeps everything that the run writes inside it."""
        if self.checkpoint is not None:
            return
        config = self.config
        if config.trainer.fast_dev_run:
            raise UserError(
                "trainer.fast_dev_run keeps no checkpoint, which a run needs; "
                "use --trainer.max_epochs 1 --trainer.limit_train_batches 2 --trainer.limit_val_batches 2"
            )
        if isinstance(config.phases, str) and config.phases in PRESETS:
            for name, value in (PRESETS[config.phases].model or {}).items():
                config.model.init_args[name] = value
        self.phases = parse_phases(config.phases, max_epochs=config.trainer.max_epochs or 0)
        self.folder = RunFolder.create(config.run_dir, name=_name(config.config))
        config.run_dir = None  # else repeating the run would collide with it
        self.resolved = self.parser.dump(config.clone(with_meta=False), skip_unset=False)
        config.trainer.default_root_dir = str(self.folder.path)
        config.checkpoint.dirpath = str(self.folder.checkpoints)
        for logger in _loggers(config.trainer.logger):
            if logger.init_args.get("save_dir") in (None, "."):
                logger.init_args.save_dir = str(self.folder.path)

    def instantiate_classes(self) -> None:
        """Builds data module, model and trainer; a user's mistake leaves no empty run folder behind."""
        try:
            super().instantiate_classes()
        except Exception as error:
            if self.folder is not None:
                self.folder.discard()
            if isinstance(error, MisconfigurationException):  # Lightning's word for a user's mistake
                raise UserError(" ".join(str(error).split())) from error
            if (mistake := user_error(error)) is not None:
                raise mistake from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 - the signature is Lightning's
        """Builds the trainer with our callbacks; a user's own of the same class takes the place of ours."""
        extra = [self.config_init[key] for key in self.parser.callback_keys]
        extra.append(EpochLine(self.config.checkpoint.monitor, self.config.checkpoint.mode))
        if self.config.trainer.enable_progress_bar is not False:
            extra.append(StepBar())
        theirs = self.config_init.trainer.callbacks or []
        ours = [callback for callback in extra if not _replaced(callback, theirs)]
        trainer = self._instantiate_trainer({**self.config_init.trainer, **kwargs}, ours)
        if self.folder is not None:
            trainer.loggers = [MetricsCsv(self.folder.metrics), *trainer.loggers]
        return trainer


def _decided_by(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that an evaluation takes from the checkpoint, whatever else is configured."""
    model = dict(checkpoint["hyper_parameters"])
    prepared, classes = model.pop("preprocess"), model.pop("classes")
    model["weights"] = "none"  # the checkpoint holds them all
    return {"model": model, "data": {"preprocess": prepared, "image_size": None, "classes": list(classes)}}


def _name(configs: list[Any] | None) -> str:
    for config in configs or []:
        if config is not None:
            return Path(str(config)).stem
    return "run"


def _loggers(configured: Any) -> list[Any]:  # noqa: ANN401 - true, false, one logger, or a list of them
    candidates = configured if isinstance(configured, list) else [configured]
    return [logger for logger in candidates if hasattr(logger, "init_args")]


def _replaced(ours: Callback, theirs: Callback | list[Callback]) -> bool:
    others = theirs if isinstance(theirs, list) else [theirs]
    return any(isinstance(ours, kind) and any(isinstance(other, kind) for other in others) for kind in REPLACEABLE)
