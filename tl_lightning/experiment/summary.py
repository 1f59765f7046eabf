"""What ``summary.json`` says of a run."""

import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from tl_lightning.experiment.evaluation import baseline, targets_by_head

if TYPE_CHECKING:
    from tl_lightning.experiment.session import Experiment

Status = Literal["completed", "interrupted", "failed"]


def summary_of(experiment: "Experiment", status: Status, *, error: str | None) -> dict[str, Any]:
    """What a run has done so far, as plain data.

    Args:
        experiment: The run.
        status: How far it came.
        error: What failed.
    """
    checkpoint = experiment.trainer.checkpoint_callback
    best = getattr(checkpoint, "best_model_score", None)
    data = experiment.data.summary()
    hyper_parameters = experiment.task.hparams
    tested = data["test"] if experiment.configuration.config.test else 0
    return {
        "status": status,
        **({} if error is None else {"error": error}),
        "monitor": {
            "name": experiment.configuration.config.checkpoint.monitor,
            "best": None if best is None else float(best),
        },
        "validation": experiment.results.get("validation"),
        "test": experiment.results.get("test"),
        **experiment.scores,
        **({"averages": experiment.averages} if experiment.averages else {}),
        "baseline": baseline(
            experiment.task,
            experiment.data,
            "test" if tested else "val",
            training=targets_by_head(experiment.task, experiment.data, "train"),
        ),
        "batch": {**asdict(experiment.configuration.batch), "lr_factor": experiment.configuration.lr_factor},
        "phases": experiment.training.records,
        "throughput": experiment.training.throughput,
        "timing": {
            "total_s": experiment.training.seconds_before + time.perf_counter() - experiment.started,
            "fit_s": experiment.training.seconds - experiment.training.cache_seconds,
            "cache_s": experiment.timing["cache_s"] + experiment.training.cache_seconds,
            "test_s": experiment.timing["test_s"],
        },
        "data": data,
        "ledger": {
            "trained": data["train"],
            "selected": data["validation"],
            "calibrated": 0,
            "tested": tested,
        },
        "backbone": {
            "name": hyper_parameters.backbone,
            "weights": hyper_parameters.weights,
            "lineage": list(experiment.task.lineage),
            "preprocess": hyper_parameters.preprocess,
        },
        "seed": experiment.configuration.config.seed_everything,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    packages = ("tl_lightning", "torch", "torchvision", "timm", "lightning", "torchmetrics")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
