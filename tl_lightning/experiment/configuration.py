"""From command-line arguments and YAML to a model, a data module and a trainer: Lightning's own CLI, with our parts."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from jsonargparse import set_parsing_settings
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from tl_lightning.backbones import preprocess_of
from tl_lightning.core.class_path import resolve
from tl_lightning.core.files import user_path
from tl_lightning.core.precision import fast_precision, possible_precision
from tl_lightning.core.processes import process_rank
from tl_lightning.core.run_folder import RunFolder, run_name
from tl_lightning.data.images.configured import plain
from tl_lightning.data.samples import EVALUATION
from tl_lightning.errors import UserError
from tl_lightning.experiment.checks import (
    check_callbacks,
    check_monitor,
    check_own,
    check_phases,
    check_rank,
    check_strategy,
    check_trainer,
)
from tl_lightning.experiment.options import add_options
from tl_lightning.experiment.parser import ExperimentParser, user_error
from tl_lightning.experiment.trained_on import drawn_digest
from tl_lightning.finetuning.audit import Audit
from tl_lightning.finetuning.averaging import ExponentialMovingAverage
from tl_lightning.finetuning.batch_norm import SyncBatchNorm
from tl_lightning.finetuning.phases import PRESETS, parse_phases, plan
from tl_lightning.preprocess.image import SETTINGS
from tl_lightning.tasks import TransferTask
from tl_lightning.tasks.loading import described_task
from tl_lightning.tasks.objectives import Multiclass
from tl_lightning.training.checkpoints import Ingredients, WholeCheckpoints
from tl_lightning.training.compilation import Compilation
from tl_lightning.training.global_batch import lr_factor, share_out
from tl_lightning.training.metrics_csv import MetricsCsv, Watch
from tl_lightning.training.preemption import leave_signals_to_us
from tl_lightning.training.progress import EpochLine, StepBar
from tl_lightning.training.training_loss import TrainingLoss
from tl_lightning.training.wandb import check_wandb, identify, with_wandb

SPLIT_OPTIONS = tuple(
    f"--data.{part}{name}"
    for part in ("", "init_args.")
    for name in ("split", "split_seed", "fold", "folds", "test_fraction", "val_fraction")
)


class Configuration(LightningCLI):
    """One parsed configuration with everything built from it.

    Attributes:
        model: The task.
        datamodule: The data.
        trainer: Lightning's trainer, with our callbacks.
        phases: What to train, in order.
        implied: Settings of the model that the preset of phases brought with it.
        batch: Images of one step, where something is trained.
        lr_factor: What `lr_scaling` has multiplied the learning rates with.
        folder: The run's folder; on the first process of a training run.
        own_split: Whether an evaluation reads the samples that the run began with, split as it split them.
        resolved: The whole configuration as YAML, defaults included; ``tl fit --config`` on it repeats the run.

    Args:
        args: Command-line arguments behind the command's name.
        checkpoint: The checkpoint to evaluate, as loaded; it decides the model, the classes and the preprocessing.
            `None` where something is to be trained.
        folder: Where a training run writes: ``new`` for a folder of its own, the folder of the run that goes on, or
            `None` where nothing is written. Only the first of several processes writes.
        watch: Called with each row that training logs, once it is in ``metrics.csv``.
    """

    def __init__(
        self,
        args: list[str],
        *,
        checkpoint: Mapping[str, Any] | None = None,
        folder: RunFolder | Literal["new"] | None = "new",
        watch: Watch | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self._watch = watch
        self.created = False
        self.own_split = True
        # Whoever asks for a split of another source gets it.
        self._splits_as_asked = any(argument.partition("=")[0] in SPLIT_OPTIONS for argument in args)
        self.folder: RunFolder | None = None
        self._plugins: list[Any] = []
        # A class within a phase or an augmentation is made by what uses it, which knows the rest of its arguments.
        set_parsing_settings(instantiate_subclass_spec_in_any=False)
        self._wanted = folder if checkpoint is None and process_rank() == 0 else None
        super().__init__(
            TransferTask,
            LightningDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={
                "devices": 1,  # Lightning's `auto` would take every GPU of the machine
                "max_epochs": 10,
                "precision": fast_precision(),
                "gradient_clip_val": 1.0,
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 10,
                "logger": False,
                "enable_model_summary": False,
                "use_distributed_sampler": False,  # ours counts no image twice, and knows where an epoch stopped
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
        add_options(parser)
        parser.link_arguments("data.classes", "model.init_args.classes", apply_on="instantiate")
        parser.link_arguments("data.prepared", "model.init_args.preprocess", apply_on="instantiate")
        if self.checkpoint is None:
            parser.link_arguments(
                ("model.init_args.backbone", "model.init_args.weights"),
                "data.init_args.preprocess",
                compute_fn=lambda backbone, weights: preprocess_of(backbone, weights).to_dict(),
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses the arguments; a seed that is none is said before Lightning takes it."""
        super().parse_arguments(parser, args)
        seed = self.config.seed_everything
        if not isinstance(seed, bool) and not 0 <= seed < 2**32:
            raise UserError(f"seed_everything is {seed}; it must be from 0 to {2**32 - 1}")

    def before_instantiate_classes(self) -> None:
        """Checks what can be checked, makes the run folder, and has the run write everything inside it."""
        config = self.config
        task, arguments = resolve(config.model.class_path, "model.class_path"), plain(config.model.init_args)
        for name, value in (("seed", int(config.seed_everything)), ("problem_type", task.problem_types(arguments))):
            if name in config.data.init_args:
                asked = config.data.init_args[name]
                if name == "problem_type" and asked not in (Multiclass.problem_type, value):
                    raise UserError(
                        f"data.problem_type is {asked}, but {task.__name__} learns {value}; leave data.problem_type out"
                    )
                config.data.init_args[name] = value
        if self.checkpoint is not None:
            precision, accelerator = str(config.trainer.precision), str(config.trainer.accelerator)
            config.trainer.precision = possible_precision(precision, accelerator)
            config.trainer.logger, config.trainer.callbacks = False, None  # those of the training run are not reopened
            return
        if config.data.init_args.get("split") == EVALUATION:
            raise UserError(f"data.split {EVALUATION} leaves nothing to train on; it is for tl test and tl validate")
        check_trainer(config.trainer)
        check_callbacks([resolve(callback.class_path, "trainer.callbacks") for callback in _callbacks(config.trainer)])
        check_own(config)
        for name in ("checkpoint", "early_stopping"):
            check_monitor(config[name], f"{name}.monitor", task, arguments)
        if config.checkpoint.save_top_k != 1 or config.checkpoint.filename != "best":
            raise UserError(
                "checkpoint.save_top_k must be 1 and checkpoint.filename must be best: a run keeps best.ckpt and "
                "last.ckpt; add a ModelCheckpoint to trainer.callbacks for others"
            )
        if config.checkpoint.dirpath is not None or config.checkpoint.save_last:
            raise UserError(
                "checkpoint.dirpath and checkpoint.save_last have no effect: a run keeps best.ckpt and last.ckpt in "
                "its folder; leave them out, and name the folder with --run_dir"
            )
        preset = PRESETS.get(config.phases) if isinstance(config.phases, str) else None
        self.implied = {} if preset is None else dict(preset.model)
        for name, value in self.implied.items():
            config.model.init_args[name] = value
        if "weights" in self.implied:
            self._say_preparation()
        self.phases = parse_phases(plain(config.phases), max_epochs=config.trainer.max_epochs or 0)
        self.run_name, run_dir, config.run_dir = run_name(config.config or []), config.run_dir, None
        config.trainer.logger = with_wandb(config.trainer.logger)
        self.resolved = self.parser.dump(config.clone(with_meta=False), skip_unset=False)
        if config.trainer.sync_batchnorm:
            config.trainer.sync_batchnorm = False  # Lightning's own breaks timm's models; ours comes as a plugin
            self._plugins.append(SyncBatchNorm())
        loggers = _loggers(config.trainer.logger)
        if self._wanted is not None:
            check_wandb(loggers)
        if self._wanted == "new":
            self.folder, self.created = RunFolder.create(run_dir, name=self.run_name), True
        else:
            self.folder = self._wanted
        if self.folder is None:
            config.checkpoint.dirpath = None  # Lightning asks the first process
            config.trainer.logger = False
            return
        config.trainer.default_root_dir = str(self.folder.path)
        config.checkpoint.dirpath = str(self.folder.checkpoints)
        for logger in loggers:
            where = logger.init_args.get("save_dir", "elsewhere")
            if isinstance(where, str) and where.startswith("~"):
                logger.init_args.save_dir = str(user_path(where))
            if where in (None, "."):
                # Absolute, as W&B writes from a process of its own, which stays where the first run of this one was.
                logger.init_args.save_dir = str(self.folder.path.absolute())
        identify(loggers, self.folder)

    def _say_preparation(self) -> None:
        """Writes down what the weights that a preset sets aside ask of images: a resumed run no longer knows them."""
        data, linked = self.config.data.init_args, plain(self.config.data.init_args.preprocess)
        own = preprocess_of(self.config.model.init_args.backbone, "none").to_dict()
        for option in SETTINGS:
            name = "size" if option == "image_size" else option
            if option in data and data[option] is None and linked[name] != own[name]:
                data[option] = linked[name]

    def instantiate_classes(self) -> None:
        """Builds data module, model and trainer; a user's mistake leaves no empty run folder behind."""
        try:
            self._instantiate()
            self.datamodule.use_unlabelled(self.model.uses_unlabelled)
            if self.checkpoint is None:
                self.share_out(self.config.global_batch)
                self.phases = plan(self.phases, self.model.stages)
                check_phases(self.phases, self.config.trainer)
        except BaseException as error:
            if self.folder is not None and self.created:
                self.folder.discard()
            if isinstance(error, MisconfigurationException):  # Lightning's word for a user's mistake
                raise UserError(" ".join(str(error).split())) from error
            if (mistake := user_error(error)) is not None:
                raise mistake from error
            raise

    def _instantiate(self) -> None:
        """Builds all three; an evaluation reads what the run did not begin with as a source that is only scored."""
        data = self.config.data.init_args
        drawn = None if self.checkpoint is None else drawn_digest(self.checkpoint, on_leak=data.get("on_leak"))
        if drawn is None:
            super().instantiate_classes()
            return
        try:
            super().instantiate_classes()
            self.own_split = getattr(self.datamodule, "drawn_digest", drawn) == drawn
        except Exception as error:
            if self._splits_as_asked or user_error(error) is None:
                raise
            self.own_split = False  # it cannot be split as the run's own was, or not be read at all
        if not (self.own_split or self._splits_as_asked):
            for name, value in (("split", EVALUATION), ("fold", None), ("on_leak", "ignore")):
                data[name] = value
            super().instantiate_classes()

    def share_out(self, global_batch: int | None) -> None:
        """Shares a step's images out among the processes, and has the learning rates follow; anew on each call.

        Args:
            global_batch: Images of one step; `None` for the data's batch size on each process.

        Raises:
            UserError: If the images cannot be shared out, or the learning rates cannot follow.
        """
        processes, accumulate = self.trainer.world_size, self.trainer.accumulate_grad_batches
        self.batch = share_out(global_batch, self.datamodule, processes=processes, accumulate=accumulate)
        self.lr_factor = lr_factor(self.config.lr_scaling, self.batch, self.config.lr_scaling_batch)
        self.model.scale_learning_rates(self.lr_factor)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 - the signature is Lightning's
        """Builds the trainer with our callbacks; a user's own bar or early stopping takes the place of ours."""
        theirs = self.config_init.trainer.callbacks or []
        theirs = theirs if isinstance(theirs, list) else [theirs]
        ours: list[Callback] = []
        epochs = self.config.trainer.max_epochs or 0
        if not any(isinstance(callback, ProgressBar) for callback in theirs):
            ours += [] if self.config.trainer.enable_progress_bar is False else [StepBar(epochs)]
        if self.checkpoint is None:
            ours.append(TrainingLoss())
            if self.config.compile is not False:
                ours.append(Compilation("inductor" if self.config.compile is True else self.config.compile))
            if self.config.ema is not None:
                ours.append(ExponentialMovingAverage(self.config.ema))
            if not any(isinstance(callback, EarlyStopping) for callback in theirs):
                ours.append(self.config_init.early_stopping)
            monitor, mode, folder = (self.config.checkpoint[key] for key in ("monitor", "mode", "dirpath"))
            # The first of several is the one that picks the best weights, so ours stand before a user's.
            ours.append(self.config_init.checkpoint)
            if self.config.soup:
                ours.append(Ingredients(folder, count=self.config.soup, monitor=monitor, mode=mode))
            ours += [EpochLine(monitor, mode, epochs), Audit()]
        plugins = [*self._plugins, *_listed(self.config_init.trainer.plugins)]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(WholeCheckpoints())
        given = {**self.config_init.trainer, "callbacks": [*ours, *theirs], "plugins": plugins, **kwargs}
        try:
            trainer = Trainer(**given)
        except (
            TypeError,
            ValueError,
            ImportError,
        ) as error:  # there is no such strategy, or its package lacks
            raise UserError(f"trainer: {' '.join(str(error).split())}") from error
        check_rank(trainer)
        leave_signals_to_us(trainer)
        if self.checkpoint is None:
            check_strategy(trainer)
        if self.folder is not None:
            trainer.loggers = [MetricsCsv(self.folder.metrics, self._watch), *trainer.loggers]
        return trainer


def _listed(value: Any) -> list[Any]:  # noqa: ANN401 - nothing, one plugin, or several
    return [] if value is None else value if isinstance(value, list) else [value]


def _decided_by(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that an evaluation takes from the checkpoint, whatever else is configured."""
    kind, arguments = described_task(checkpoint)
    prepared, classes = arguments.pop("preprocess"), arguments.pop("classes")
    own = dict.fromkeys(SETTINGS if prepared.get("kind", "image") == "image" else ())
    model = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments}
    return {"model": model, "data": {**own, "preprocess": prepared, "classes": classes}}


def _callbacks(trainer: Any) -> list[Any]:  # noqa: ANN401 - a namespace of jsonargparse
    return [callback for callback in _listed(trainer.callbacks) if hasattr(callback, "class_path")]


def _loggers(configured: Any) -> list[Any]:  # noqa: ANN401 - true, false, one logger, or a list of them
    candidates = configured if isinstance(configured, list) else [configured]
    return [logger for logger in candidates if hasattr(logger, "init_args")]
