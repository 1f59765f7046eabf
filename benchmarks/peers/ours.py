"""``tl fit`` as a user runs it, in a process of its own; the imports are counted as start-up, everything else as work.

Words: ``head`` (solved on cached features), ``epochs`` (the head by epochs on cached features), ``last2`` or ``full``;
what ``--cache`` is to be; and what is added to the seed.
"""

import json
import sys
import tempfile
from pathlib import Path

import timm  # noqa: F401 - imported late by the package, here so that it counts as start-up
import torchvision  # noqa: F401

from peers.measure import Attempt
from peers.task import Task
from peers.watch import FILE
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError
from tl_lightning.experiment.experiment import run
from tl_lightning.results.run import Run


def arguments(task: Task, way: str, *, cache: str, seed: int, folder: str) -> list[str]:
    """The options of ``tl fit``; what is not named here is at its default."""
    epochs = task.full_epochs if way == "full" else task.epochs
    phases = {"last2": json.dumps([{"train": "last:2", "epochs": epochs}]), "full": "full"}
    return [
        *("--data.source", str(task.images), "--data.image_size", str(task.size), "--data.augmentation", "none"),
        *("--data.batch_size", str(task.batch), "--data.num_workers", "0", "--run_dir", folder),
        *("--model.backbone", f"timm/{task.model}", "--model.weights", task.weights),
        *("--model.lr", "3.0e-3", "--model.backbone_lr_scale", "0.3"),
        *("--model.head_solver", "sgd" if way == "epochs" else "lbfgs"),
        *("--phases", phases.get(way, "feature_extraction"), "--trainer.max_epochs", str(epochs)),
        *("--cache", cache, "--early_stopping.patience", str(epochs), "--seed_everything", str(seed)),
        *("--trainer.enable_progress_bar", "false", "--trainer.callbacks+=peers.watch.Watch"),
    ]


def main() -> None:
    """Runs it once."""
    attempt = Attempt()
    way, cache, added = attempt.words
    seed = attempt.task.seed + int(added)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/run"
        try:
            run(arguments(attempt.task, way, cache=cache, seed=seed, folder=path))
        except UserError as error:
            sys.exit(str(error))
        attempt.done()
        finished = Run(RunFolder(path))
        summary, watched = finished.summary, json.loads(Path(path, FILE).read_text())
        attempt.result.parts = {name.removesuffix("_s"): value for name, value in summary["timing"].items()}
        solved = bool(summary["phases"][0].get("solved"))
        attempt.result.epochs_s = [] if solved else watched["seconds"]
        attempt.result.epoch_images = 0 if solved else watched["images"]
        attempt.result.passed = watched["passed"]
        attempt.result.val_accuracy = summary["validation"]["accuracy"]
        attempt.result.numbers = {"solved": float(solved)}
        predictions = finished.predict([path for path, _ in attempt.task.rows("test")])
    classes = attempt.task.classes
    attempt.report([classes.index(prediction.label) for prediction in predictions])


if __name__ == "__main__":
    main()
