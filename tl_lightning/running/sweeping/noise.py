"""How far a trial's score may be from the truth, as far as its run says so."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tl_lightning.running.sweeping.showing import is_scored, number_of, ranked
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import Trial


def summary_of(folder: Path) -> dict[str, Any]:
    """What a run says of itself in ``summary.json``; nothing where there is none, or it cannot be read."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def metric_of(metric: str) -> str:
    """A metric's plain name, by which a summary has it: ``accuracy`` for ``val/accuracy``."""
    return metric.rpartition("/")[2]


def standard_error(sweep: SweepFile, best: Trial) -> float | None:
    """The standard error of the best trial's score on the validation images.

    The run's summary has that of the same metric on the test images, which is carried over by the number of images;
    that of an accuracy follows from the number alone.

    Args:
        sweep: Says which metric it is.
        best: A trial with a score.

    Returns:
        `None` where nothing is known of it, as of a loss.
    """
    summary = summary_of(best.folder)
    name, score = metric_of(sweep.metric), number_of(best.score)
    images = summary.get("data", {})
    validation, test = number_of(images.get("validation")), number_of(images.get("test"))
    if score is None or not validation:
        return None
    known = number_of(summary.get("standard_errors", {}).get(name))
    if known is not None and not summary.get("test"):  # then they are those of the validation images
        return known
    if known is not None and test:
        return known * math.sqrt(test / validation)
    return math.sqrt(score * (1 - score) / validation) if name == "accuracy" and 0 <= score <= 1 else None


def within_noise(sweep: SweepFile, trials: Sequence[Trial], best: Trial, *, error: float) -> int:
    """How many other completed trials are no more than two standard errors behind the best.

    Args:
        sweep: Says which end is the good one.
        trials: All.
        best: The best of the completed ones.
        error: The standard error of the best trial's score.
    """
    others = [trial for trial in ranked(sweep, trials) if trial.state == "completed" and trial.number != best.number]
    return sum(abs(best.score - trial.score) <= 2 * error for trial in others if is_scored(trial))  # type: ignore[operator]


def test_score(sweep: SweepFile, best: Trial) -> float | None:
    """The best trial's metric on the test images, which decided nothing; `None` where its run was not completed.

    Args:
        sweep: Says which metric it is.
        best: The best trial.
    """
    summary = summary_of(best.folder)
    test = summary.get("test") if summary.get("status") == "completed" else None
    return number_of((test or {}).get(metric_of(sweep.metric)))
