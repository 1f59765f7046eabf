"""``tl predict``: what a run says of new files, read as its own and in the arithmetic that it was tested in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch import Trainer

from tl_lightning.backbones.engines import EngineChoice, pick_engine
from tl_lightning.core.checkpoint_files import load_checkpoint
from tl_lightning.core.console import console
from tl_lightning.core.files import user_path, write_csv
from tl_lightning.core.options import OptionParser, writable
from tl_lightning.core.quiet import quiet
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.core.yaml_files import mapping_in, read_mapping
from tl_lightning.data.images.module import ImageDataModule
from tl_lightning.data.prediction import FilesToPredict
from tl_lightning.data.samples import name_some
from tl_lightning.data.sources.columns import Columns
from tl_lightning.data.sources.read import find_files
from tl_lightning.errors import UserError, nearest, shown
from tl_lightning.experiment.parser import arguments_of
from tl_lightning.preprocess import Preprocess
from tl_lightning.results.settings import Settings
from tl_lightning.tasks import TransferTask
from tl_lightning.tasks.loading import task_of
from tl_lightning.training.preemption import leave_signals_to_us
from tl_lightning.training.progress import StepBar

READ = ("source", "target", "image_column", "label_column")  # of a configuration


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file.

    Attributes:
        path: The file; of several images in it, as ``scan.nii.gz#axial:40``, which one.
        row: The file's columns in a file of predictions; of a model with several heads, all of theirs.
    """

    path: str
    row: dict[str, str | float]

    @property
    def label(self) -> str:
        """The most probable class, or the median level; of several labels those above one half, with ``|`` between.

        Empty where numbers are predicted.
        """
        return str(self.row.get("class", ""))

    @property
    def probabilities(self) -> dict[str, float]:
        """The probability of every class, level or label; those of classes and levels add up to 1."""
        prefix = "probability_"
        return {name.removeprefix(prefix): float(v) for name, v in self.row.items() if name.startswith(prefix)}

    @property
    def numbers(self) -> dict[str, float]:
        """Numbers by name, in their own units; empty where classes are predicted."""
        return {} if "class" in self.row else {name: v for name, v in self.row.items() if isinstance(v, float)}


def predict(
    task: TransferTask, paths: Sequence[Path], *, settings: Settings, on_error: Literal["stop", "skip"]
) -> list[Prediction]:
    """Predicts files by Lightning's trainer, as ``tl test`` scores them; see `Run.predict`.

    A file that holds several images, or of which a task says several things, such as boxes, has as many predictions.
    """
    if not paths:
        return []
    quiet()
    preprocess = Preprocess.from_dict(task.hparams["preprocess"])
    stop = on_error == "stop"
    paths = settings.data.parts_of(paths, preprocess)
    files = FilesToPredict(paths, settings.data, preprocess, batch_size=settings.batch_size, stop=stop)
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        precision=settings.precision,  # type: ignore[arg-type]  # one of Lightning's, as the run's trainer took it
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[StepBar(epochs=0)],
    )
    leave_signals_to_us(trainer)
    device = trainer.strategy.root_device
    engine = pick_engine(settings.engine, task.transferred, samples=len(paths), device=device)
    with task.evaluating_by(engine):
        given: Any = trainer.predict(task, datamodule=files) or []
    broken = [f"{shown(paths[position])} ({reason})" for position, reason in files.broken.items()]
    if broken and stop:
        raise UserError(
            f"{len(broken)} of {len(paths)} {settings.data.noun} cannot be read: {name_some(broken)}; "
            "--on_error skip leaves them out"
        )
    if broken:
        console.print(f"{len(broken)} {settings.data.noun} that cannot be read were left out")
    readable = (path for position, path in enumerate(paths) if position not in files.broken)
    found = (rows for batch in given for rows in task.rows({name: part.cpu() for name, part in batch.items()}))
    return [Prediction(str(path), row) for path, rows in zip(readable, found, strict=True) for row in rows]


def predict_command(args: list[str]) -> None:
    """``tl predict``: writes path, class and the probability of each class for every file."""
    parser = OptionParser("predict", predict_command.__doc__)
    parser.add_argument("--run_dir", help="the run whose best weights predict")
    parser.add_argument("--ckpt_path", help="a checkpoint, instead of the run's best")
    parser.add_argument(
        "--input", help="a file, a folder or archive that is searched for files, or a table that names them"
    )
    parser.add_argument("--config", help="a configuration whose data.source is predicted, instead of --input")
    parser.add_argument(
        "--output", type=writable, default="predictions.csv", help="the CSV file to write (default: %(default)s)"
    )
    parser.add_argument("--batch_size", type=int, help="samples per forward pass (default: the run's)")
    parser.add_argument(
        "--on_error", choices=("stop", "skip"), default="stop", help="what to do at a file that cannot be read"
    )
    parser.add_argument("--engine", choices=get_args(EngineChoice), help="what runs the backbone (default: the run's)")
    known = parser.parse_args(args)
    if known.run_dir is None and known.ckpt_path is None:
        raise UserError("name what predicts: --run_dir RUN or --ckpt_path FILE")
    if (known.input is None) == (known.config is None):
        raise UserError("name what to predict: --input IMAGE_OR_FOLDER_OR_TABLE, or --config FILE for its data.source")
    path = user_path(known.ckpt_path) if known.ckpt_path else RunFolder.open(known.run_dir).best_checkpoint
    folder = RunFolder(path.parent.parent) if known.run_dir is None else RunFolder.open(known.run_dir)
    checkpoint = load_checkpoint(path)
    settings = Settings.of(
        folder, precision=checkpoint.get("precision"), batch_size=known.batch_size, engine=known.engine
    )
    named = user_path(known.config if known.input is None else known.input)
    paths = settings.data.find_files(named) if known.input is not None else _files_of(named)
    task = task_of(checkpoint, config=folder.config)
    predictions = predict(task, paths, settings=settings, on_error=known.on_error)
    write_predictions(known.output, predictions)
    console.print(f"{len(predictions):,} predictions written to {known.output}")


def _files_of(config: Path) -> list[Path]:
    """All files of a configuration's data source, whatever their split."""
    data = mapping_in(read_mapping(config), "data", config)
    data = {**data, **mapping_in(data, "init_args", config)}
    known = arguments_of(ImageDataModule)
    for name, value in data.items():
        if data.get("class_path") is None and name not in (*known, "class_path", "init_args"):
            raise UserError(f"{config}: unknown key 'data.{name}'{nearest(name, known)}")
        if name in READ and not (isinstance(value, str | None) or name == "label_column"):
            raise UserError(f"{config}: data.{name} is {value!r}; it must be text, in quotes where it looks otherwise")
    if "source" not in data:
        raise UserError(f"{config} names no data.source")
    columns = {name: data[f"{name}_column"] for name in ("image", "label") if data.get(f"{name}_column")}
    return find_files(data["source"], Columns(**columns))


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Writes predictions as CSV: ``path``, then ``class`` and each ``probability_<class>``, or the numbers by name."""
    columns = list(dict.fromkeys(column for prediction in predictions for column in prediction.row))
    rows: list[list[object]] = [["path", *columns]]
    for prediction in predictions:
        values = (prediction.row.get(column, "") for column in columns)
        cells = (f"{value:.7g}" if isinstance(value, float) else value for value in values)
        rows.append([prediction.path, *cells])
    write_csv(path, rows)
