"""``tl crossval``: every image is tested once, by a model that has not seen it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from tl_lightning.core.claims import claimed
from tl_lightning.core.console import console, new_table
from tl_lightning.core.options import OptionParser
from tl_lightning.core.predictions_file import PredictionsFile, load_predictions, save_predictions
from tl_lightning.core.run_folder import RunFolder, open_folder
from tl_lightning.data.samples import Samples
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.experiment.many_runs import make_run
from tl_lightning.experiment.preamble import assemble, refuse
from tl_lightning.experiment.tables import score_table
from tl_lightning.metrics.words import TABLES, in_words
from tl_lightning.tasks import TransferTask


def crossval_command(args: list[str]) -> None:
    """``tl crossval``: trains a model per fold, and scores each on the images that it has not seen."""
    parser = OptionParser(
        "crossval",
        "Trains a model for each of --data.folds parts of the images, tests it on that part, and scores all "
        "predictions together, with standard errors. Takes every option of tl fit too (tl fit --help). Interrupted, "
        "the same command with its --run_dir goes on with what is missing.",
    )
    parser.add_argument("--run_dir", help="the folder for the runs; by default a new runs/<config>-crossval-<n>")
    options, rest = parser.parse_known_args(args)
    cross_validate(rest, run_dir=options.run_dir)


def cross_validate(args: Sequence[str], *, run_dir: str | None = None) -> dict[str, Any]:
    """Runs all folds that are missing, and scores what they predicted.

    Args:
        args: Command-line arguments of ``tl fit``, without a fold.
        run_dir: The folder for the runs; `None` for a new one.

    Returns:
        What the folder's ``summary.json`` holds: ``folds``, ``out_of_fold`` metrics, their ``standard_errors`` from the
        images (of whole groups, where there are groups) and from the spread of the folds.

    Raises:
        UserError: If an argument is wrong, or the folder holds something else.
    """
    refuse(args, {"--data.fold": "all folds are run, and tl fit --data.fold runs one"})
    configuration = assemble([*args, "--data.fold", "0"], command="crossval", alone=False)
    splits = draw_folds(configuration)
    folder = open_folder(
        run_dir,
        command="crossval",
        what="cross-validation",
        recipe=configuration.resolved,
        name=configuration.run_name,
        part="fold-",
    )
    runs = []
    with claimed(folder):
        for fold in range(len(splits)):
            console.rule(f"fold {fold + 1} of {len(splits)}")
            options = [*args, "--data.fold", str(fold)]
            runs.append(make_run(folder / f"fold-{fold}", options, configuration, command="crossval"))
        return _summarise(folder, configuration, runs, splits)


def draw_folds(configuration: Configuration) -> list[dict[str, NDArray[np.int64]]]:
    """The splits of all folds; an impossible one is said before anything trains.

    Args:
        configuration: What any of the folds was made with.

    Raises:
        UserError: If a fold cannot be drawn, or images would be in no fold.
    """
    data = configuration.datamodule
    if data.on_leak == "move":
        raise UserError(
            "data.on_leak move would leave images untested, as their copies are in other folds; use warn or "
            "stop, and keep copies together by a group column"
        )
    return [data.split_for(fold) for fold in range(int(configuration.config.data.init_args.folds))]


def _summarise(
    folder: Path,
    configuration: Configuration,
    runs: Sequence[RunFolder],
    splits: Sequence[Mapping[str, NDArray[np.int64]]],
) -> dict[str, Any]:
    task, samples = configuration.model, configuration.datamodule.samples
    parts = [load_predictions(run.test_predictions) for run in runs]
    for one, part, split in zip(runs, parts, splits, strict=True):
        _check_fold(one, part, samples, split["test"])
    if len({run.summary["data"].get("contents_digest") for run in runs} - {None}) > 1:  # older runs lack it
        raise UserError(f"images changed while the folds of {folder} were run: begin anew in another folder")
    predicted = _together(parts)
    task.set_training_targets(torch.from_numpy(samples.labels))
    objective = task.objective
    metrics = objective.evaluate(predicted.predictions, predicted.labels)
    results = [{name: _number(value) for name, value in run.summary["test"].items()} for run in runs]
    constants = [run.summary["baseline"] for run in runs]
    sizes = np.array([len(part.indices) for part in parts])
    metrics["loss"] = float(np.average([result["loss"] for result in results], weights=sizes))
    groups = None if samples.groups is None else samples.groups[predicted.indices.numpy()]
    details: dict[str, Any] = objective.report(predicted.predictions, predicted.labels, groups)
    spread = {name: _standard_error([result[name] for result in results]) for name in metrics}
    summary = {
        "folds": [{"run": str(run.path), "test": result} for run, result in zip(runs, results, strict=True)],
        "images": len(predicted.indices),
        "groups": None if groups is None else len(np.unique(groups)),
        "out_of_fold": metrics,
        "fold_standard_errors": spread,
        # Like the predictions, it comes from each fold's own training images.
        "baseline": {
            name.partition("_")[2]: float(np.average([constant[name] for constant in constants], weights=sizes))
            for name in constants[0]
        },
        **details,
    }
    RunFolder(folder).write_summary(summary)
    save_predictions(folder / "out_of_fold.npz", predicted.predictions, predicted.labels, predicted.indices)
    console.rule("all folds")
    console.print(_table(task, summary, results))
    for table, word in TABLES.items():
        if table in details:
            console.print(score_table(details[table], word, title=f"out of fold, {word} by {word}"))
    console.print(f"folder {folder}: summary.json, out_of_fold.npz and a run per fold")
    return summary


def _check_fold(run: RunFolder, part: PredictionsFile, samples: Samples, tested: NDArray[np.int64]) -> None:
    """Makes sure that a fold was run on these images, with these targets."""
    indices = part.indices.numpy()
    same = len(np.setdiff1d(indices, tested)) == 0 and len(indices) + run.summary["data"]["skipped"] >= len(tested)
    if not same or not np.array_equal(part.labels.numpy(), samples.labels[indices]):
        raise UserError(f"{run.path} was run on other images or targets: begin anew in another folder")


def _number(value: float | None) -> float:
    return math.nan if value is None else value  # what JSON has no word for


def _together(parts: Sequence[PredictionsFile]) -> PredictionsFile:
    indices = torch.cat([part.indices for part in parts])
    order = indices.argsort()
    predictions, labels = (torch.cat([getattr(part, name) for part in parts]) for name in ("predictions", "labels"))
    return PredictionsFile(predictions[order], labels[order], indices[order])


def _standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean over the folds; they share most of their training images, so it is a rough one."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def _table(task: TransferTask, summary: Mapping[str, Any], results: Sequence[Mapping[str, float]]) -> Table:
    what = f"{summary['images']:,} images"
    what += "" if summary["groups"] is None else f" in {summary['groups']:,} groups"
    drawn = "groups" if summary["groups"] is not None else "images"
    numbers = ("value", f"± by {drawn}", "± by folds", task.objective.baseline_name, "folds from", "to")
    table = new_table(f"out of fold: {what}", "metric", numbers=numbers)
    for name, value in summary["out_of_fold"].items():
        noise = summary["standard_errors"].get(name)
        constant = summary["baseline"].get(name)
        table.add_row(
            in_words(name),
            f"{value:.4f}",
            "" if noise is None else f"{noise:.4f}",
            f"{summary['fold_standard_errors'][name]:.4f}",
            "" if constant is None else f"{constant:.4f}",
            f"{min(result[name] for result in results):.3f}",
            f"{max(result[name] for result in results):.3f}",
        )
    return table
