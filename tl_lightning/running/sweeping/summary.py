"""A sweep as plain data, for programs."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tl_lightning.core.run_folder import RunFolder
from tl_lightning.running.sweeping.best import best_trial
from tl_lightning.running.sweeping.showing import number_of
from tl_lightning.running.sweeping.sweep_file import SweepFile
from tl_lightning.running.sweeping.trials import Trial


def write_summary(
    sweep: SweepFile, trials: Sequence[Trial], folder: Path, *, planned: int, importance: Mapping[str, float]
) -> Path:
    """Writes ``summary.json`` into the folder of a sweep, whole or not at all.

    Args:
        sweep: What was asked for.
        trials: All, in any state.
        folder: The sweep's folder.
        planned: How many trials there are to be.
        importance: The share of each parameter, by key; may be empty.

    Returns:
        The file.
    """
    RunFolder(folder).write_summary(summarise(sweep, trials, folder, planned=planned, importance=importance))
    return folder / "summary.json"


def summarise(
    sweep: SweepFile, trials: Sequence[Trial], folder: Path, *, planned: int, importance: Mapping[str, float]
) -> dict[str, Any]:
    """What ``summary.json`` holds; a score that is no number is null.

    Args:
        sweep: What was asked for.
        trials: All, in any state.
        folder: The sweep's folder, from which the folders of the trials are named.
        planned: How many trials there are to be.
        importance: The share of each parameter, by key; may be empty.
    """
    best = best_trial(sweep, trials)
    entries = [_entry(trial, folder) for trial in sorted(trials, key=lambda trial: trial.number)]
    return {
        "sweep": sweep.name,
        "method": sweep.method,
        "metric": sweep.metric,
        "goal": sweep.goal,
        "planned": planned,
        "best": None if best is None else _entry(best, folder),
        "importance": dict(importance),
        "trials": entries,
    }


def _entry(trial: Trial, folder: Path) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "score": number_of(trial.score),
        "values": trial.values,
        "validations": len(trial.history),
        "seconds": trial.seconds,
        "attempts": trial.attempts,
        "worker": trial.worker,
        "folder": os.path.relpath(trial.folder, folder),
        "error": trial.error or None,
    }
