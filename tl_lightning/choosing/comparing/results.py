"""What single runs of a comparison gave: a score for every test image, and what it took."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_lightning.choosing.comparing.plan import Plan, Yardstick
from tl_lightning.choosing.comparing.strategies import Job
from tl_lightning.core.predictions_file import load_predictions
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError
from tl_lightning.tasks.objectives import OBJECTIVES, Multiclass

DIVERGED = "diverged: "  # how the reason begins where a run completed, but is no result
METRICS = (Multiclass.score, *Multiclass.alternatives)


@dataclass(frozen=True)
class Measure:
    """What is compared.

    Attributes:
        name: The test metric, by its plain name.
        validation: The validation metric that decides which strategy stands for transfer, by its plain name.
        mode: Whether that is best where it is largest (max) or smallest (min).
        baseline: The metric of a prediction without a model, as a run's summary names it; `None` for none.
        is_error: Whether the test metric is an error in units of its own, of which less is better; else it is a share.
    """

    name: str
    validation: str
    mode: str
    baseline: str | None
    is_error: bool = False


def choose_measure(plan: Plan, metric: str | None) -> Measure:
    """Says what is compared for a problem type.

    Args:
        plan: What is compared.
        metric: One of `METRICS`, which only classes have; `None` for the usual one.

    Raises:
        UserError: If the metric is not for this problem type, or the task does not log it.
    """
    measure, task = _measure(plan, metric), plan.base.model
    if measure.validation not in task.metrics:
        raise UserError(
            f"strategies are chosen by validation {measure.validation}, and {type(task).__name__} logs no such metric "
            f"(it has {', '.join(task.metrics)}); add it to the metrics of the task"
        )
    return measure


def _measure(plan: Plan, metric: str | None) -> Measure:
    objective = OBJECTIVES[plan.tested.problem_type]
    if metric is not None and not objective.alternatives:
        raise UserError(
            f"--metric {metric} is for classes, and the problem here is {objective.problem_type}; leave it out"
        )
    name = metric or objective.score
    if name not in objective.metrics:  # as the share of right labels, which is not logged
        return Measure(name, plan.monitor, plan.mode, None)
    mode = objective.metrics[name]
    baseline = f"{objective.baseline_name.split()[0]}_{name}" if name == objective.score else None
    return Measure(name, name, mode, baseline, is_error=mode == "min")


@dataclass(frozen=True, eq=False)
class Result:
    """One run that ended well.

    Attributes:
        job: Which.
        scores: One for each test image, the larger the better, ``float64`` ``(n,)``: 1 or 0 for right or wrong, the
            share of right labels, or minus the absolute error.
        predicted: The predicted class, ``int64`` ``(n,)``; `None` where classes or levels are not predicted.
        validation: The validation metric.
        test: The test metrics by name.
        baseline: The metric of a prediction without a model; `None` for none.
        labelled: Training and validation images.
        trainable: Parameters that trained in any phase.
        seconds: Spent on training, and on filling the feature cache for it.
    """

    job: Job
    scores: NDArray[np.float64]
    predicted: NDArray[np.int64] | None
    validation: float
    test: Mapping[str, float]
    baseline: float | None
    labelled: int
    trainable: int
    seconds: float


def read_result(job: Job, folder: Path, tested: Yardstick, measure: Measure) -> Result | str:
    """Reads what a completed run left.

    Args:
        job: Which.
        folder: The run's folder.
        tested: What it was to be tested on.
        measure: What is compared.

    Returns:
        The result; where it is none, as after a divergence, the reason.

    Raises:
        UserError: If it was tested on something else.
    """
    run = RunFolder(folder)
    summary, saved = run.summary, load_predictions(run.test_predictions)
    indices, labels = saved.indices.numpy(), saved.labels.numpy()
    if not np.array_equal(indices, tested.indices) or not np.array_equal(labels, tested.labels):
        raise UserError(f"{folder} was tested on other images or targets: compare anew with another --run_dir")
    validation = summary["validation"][measure.validation]
    if validation is None or summary["validation"]["loss"] is None or not saved.predictions.isfinite().all():
        return (
            f"{DIVERGED}its predictions are no numbers; as it completed, it is not tried again: remove {folder}, or "
            "compare anew with another model.lr"
        )
    objective = OBJECTIVES[tested.problem_type](tested.classes)
    predicted = objective.decided(saved.predictions)
    timing = summary["timing"]
    return Result(
        job=job,
        scores=objective.score_each(saved.predictions, saved.labels).numpy(),
        predicted=None if predicted is None else predicted.numpy(),
        validation=float(validation),
        test=summary["test"],
        baseline=None if measure.baseline is None else summary["baseline"].get(measure.baseline),
        labelled=summary["data"]["train"] + summary["data"]["validation"],
        trainable=max(phase["trainable_parameters"] for phase in summary["phases"]),
        seconds=timing["fit_s"] + timing["cache_s"],
    )


def why_failed(error: BaseException) -> str:
    """The reason in one line of a table."""
    lines: list[Any] = str(error).splitlines() or [""]
    said = lines[0] if isinstance(error, UserError) else f"{type(error).__name__}: {lines[0]}"
    return said if len(said) <= 160 else f"{said[:157]}..."
