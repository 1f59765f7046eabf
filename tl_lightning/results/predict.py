"""A finished run: its summary, and answers for new images."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from tl_lightning import experiment
from tl_lightning.core.console import console, track
from tl_lightning.core.files import write_text
from tl_lightning.core.options import OptionParser, writable
from tl_lightning.core.precision import fast_precision
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.data.images.image_files import quiet_decoders
from tl_lightning.data.images.pixels import BrokenImage
from tl_lightning.data.images.preparing import prepare
from tl_lightning.data.samples import name_some
from tl_lightning.data.sources.columns import Columns
from tl_lightning.data.sources.folder import find_images
from tl_lightning.data.sources.read import list_source
from tl_lightning.errors import UserError, shown
from tl_lightning.preprocess.image import Preprocess
from tl_lightning.tasks import TransferTask
from tl_lightning.tasks.loading import load_task
from tl_lightning.tasks.ordinal import median_level


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        path: The image.
        label: The most probable class, or the median level; of several labels those above one half, with ``|`` between
            them; empty where the answer is a number.
        probabilities: Of every class, level or label; those of classes and levels add up to 1.
        numbers: By name, in their own units; empty where the answer is a class.
    """

    path: str
    label: str
    probabilities: dict[str, float]
    numbers: dict[str, float] = field(default_factory=dict)


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
            self._task = load_task(self._checkpoint or self.folder.best_checkpoint)
        return self._task

    def predict(
        self, images: Sequence[str | Path], *, batch_size: int = 32, on_error: Literal["stop", "skip"] = "stop"
    ) -> list[Prediction]:
        """Classifies images, prepared as the checkpoint says.

        Args:
            images: Paths of image files.
            batch_size: Images per forward pass.
            on_error: ``stop`` at an image that cannot be read, or ``skip`` it.

        Returns:
            One answer for each image, in order, without those skipped.

        Raises:
            UserError: If an image cannot be read, naming up to ten of them.
        """
        return predict(self.task, [Path(image) for image in images], batch_size=batch_size, on_error=on_error)


def fit(config: str | Path | Mapping[str, Any], /, **overrides: Any) -> Run:  # noqa: ANN401 - values of any key
    """Trains as ``tl fit --config`` does.

    Args:
        config: A YAML file, or its content as a mapping.
        **overrides: Values for dotted keys, such as ``**{"model.lr": 1e-3}``.

    Returns:
        The run: its ``folder``, its ``summary``, and ``predict``.

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


@quiet_decoders()
def predict(
    task: TransferTask, paths: Sequence[Path], *, batch_size: int, on_error: Literal["stop", "skip"]
) -> list[Prediction]:
    """Classifies image files; see `Run.predict`."""
    if batch_size < 1:
        raise UserError(f"--batch_size is {batch_size}; it must be 1 or more")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task.to(device)
    preprocess = Preprocess.from_dict(task.hparams["preprocess"])
    reduced = fast_precision() == "bf16-mixed"
    predictions: list[Prediction] = []
    broken: list[str] = []
    batches = _prepared(paths, preprocess, batch_size)
    for batch in track(batches, "predicting", total=-(-len(paths) // batch_size)):
        readable = [(path, pixels) for path, pixels in batch if isinstance(pixels, Tensor)]
        broken += [f"{shown(path)} ({reason})" for path, reason in batch if isinstance(reason, str)]
        if not readable or (broken and on_error == "stop"):
            continue  # where it stops, the rest is still read, to name every broken image at once
        pixels = torch.stack([pixels for _, pixels in readable]).to(device)
        images = preprocess.normalize(pixels).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            answers = task.predictions(task(images)).cpu()
        predictions += [_named(task, path, row) for (path, _), row in zip(readable, answers, strict=True)]
    if broken and on_error == "stop":
        raise UserError(
            f"{len(broken)} of {len(paths)} images cannot be read: {name_some(broken)}; --on_error skip leaves them out"
        )
    if broken:
        console.print(f"{len(broken)} images that cannot be read were left out")
    return predictions


def _named(task: TransferTask, path: Path, row: Tensor) -> Prediction:
    values = dict(zip(task.classes, row.tolist(), strict=True))
    if task.problem_type == "regression":
        return Prediction(str(path), "", {}, values)
    if task.problem_type == "multilabel":
        label = "|".join(name for name, value in values.items() if value > 0.5)
    else:
        place = median_level(row[None])[0] if task.problem_type == "ordinal" else row.argmax()
        label = task.classes[int(place)]
    return Prediction(str(path), label, values)


def _prepared(
    paths: Sequence[Path], preprocess: Preprocess, batch_size: int
) -> Iterator[list[tuple[Path, Tensor | str]]]:
    """Prepares batches in threads, one batch ahead of the model; a broken image comes as its reason."""

    def attempt(path: Path) -> tuple[Path, Tensor | str]:
        try:
            return path, prepare(path, preprocess)
        except BrokenImage as error:
            return path, str(error)

    with ThreadPoolExecutor() as pool:
        ahead: list[Future[tuple[Path, Tensor | str]]] = []
        for start in range(0, len(paths) + batch_size, batch_size):
            ready, ahead = ahead, [pool.submit(attempt, path) for path in paths[start : start + batch_size]]
            if ready:
                yield [future.result() for future in ready]


def predict_command(args: list[str]) -> None:
    """``tl predict``: writes path, class and the probability of each class for every image."""
    parser = OptionParser("predict", predict_command.__doc__)
    parser.add_argument("--run_dir", help="the run whose best weights answer")
    parser.add_argument("--ckpt_path", help="a checkpoint, instead of the run's best")
    parser.add_argument("--input", help="an image, or a folder that is searched for images")
    parser.add_argument("--config", help="a configuration whose data.source is classified, instead of --input")
    parser.add_argument(
        "--output", type=writable, default="predictions.csv", help="the CSV file to write (default: %(default)s)"
    )
    parser.add_argument("--batch_size", type=int, default=32, help="images per forward pass (default: %(default)s)")
    parser.add_argument(
        "--on_error", choices=("stop", "skip"), default="stop", help="what to do at an image that cannot be read"
    )
    known = parser.parse_args(args)
    if known.run_dir is None and known.ckpt_path is None:
        raise UserError("name what answers: --run_dir RUN or --ckpt_path FILE")
    if (known.input is None) == (known.config is None):
        raise UserError("name what to classify: --input IMAGE_OR_FOLDER, or --config FILE for its data.source")
    paths = find_images(Path(known.input)) if known.input is not None else _images_of(Path(known.config))
    checkpoint = Path(known.ckpt_path) if known.ckpt_path else RunFolder.open(known.run_dir).best_checkpoint
    task = load_task(checkpoint)
    predictions = predict(task, paths, batch_size=known.batch_size, on_error=known.on_error)
    write_predictions(known.output, predictions, classes=task.classes, numbers=task.problem_type == "regression")
    console.print(f"{len(predictions):,} predictions written to {known.output}")


def _images_of(config: Path) -> list[Path]:
    """All images of a configuration's data source, whatever their split."""
    content = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    data = content.get("data", {})
    data = data.get("init_args", data)
    if "source" not in data:
        raise UserError(f"{config} names no data.source")
    columns = {name: data[f"{name}_column"] for name in ("image", "label") if f"{name}_column" in data}
    return list_source(data["source"], target=data.get("target"), columns=Columns(**columns)).paths


def write_predictions(
    path: Path, predictions: Sequence[Prediction], *, classes: Sequence[str], numbers: bool = False
) -> None:
    """Writes predictions as CSV: ``path``, then ``class`` and each ``probability_<class>``, or the numbers by name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(classes) if numbers else ["class", *(f"probability_{name}" for name in classes)]
    writer.writerow(["path", *names])
    for prediction in predictions:
        if numbers:
            writer.writerow([prediction.path, *(f"{value:.7g}" for value in prediction.numbers.values())])
        else:
            figures = (f"{value:.6f}" for value in prediction.probabilities.values())
            writer.writerow([prediction.path, prediction.label, *figures])
    write_text(path, text.getvalue())
