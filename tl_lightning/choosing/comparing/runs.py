"""Makes the runs of a comparison: what is there is taken, what was interrupted goes on, and what fails is a result."""

import gc
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from tl_lightning.choosing.comparing.plan import Plan
from tl_lightning.choosing.comparing.results import Measure, Result, read_result, why_failed
from tl_lightning.choosing.comparing.strategies import Job
from tl_lightning.core.checkpoint_files import is_for_want_of_room
from tl_lightning.core.console import console
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError
from tl_lightning.experiment.many_runs import make_run


def make_runs(plan: Plan, args: Sequence[str], folder: Path, measure: Measure) -> dict[Job, Result | str]:
    """Makes all runs that are missing.

    Args:
        plan: What is compared.
        args: Command-line arguments of ``tl fit`` that all share.
        folder: For the runs.
        measure: What is compared.

    Returns:
        For each run, in order, its result, or why it has none.

    Raises:
        UserError: If the disk is full, or a run that is there was tested on something else, or learned from it.
    """
    check_same_data(plan.jobs, folder)
    made: dict[Job, Result | str] = {}
    seconds: dict[Job, float] = {}
    for number, job in enumerate(plan.jobs, start=1):
        share = "" if job.fraction is None else f", {job.fraction:.4g} of the labels"
        missing = [later for later in plan.jobs[number - 1 :] if not RunFolder(folder / later.name).is_complete]
        left = time_left(missing, seconds) if missing else ""
        console.rule(f"run {number} of {len(plan.jobs)}: {job.strategy.name}{share}, seed {job.seed}{left}")
        path = folder / job.name
        is_new = job in missing
        failed = _make(plan, [*args, *job.options], path)
        if is_new and failed is None:
            alike = [other for other in plan.jobs if (other.fraction, other.seed) == (job.fraction, job.seed)]
            check_same_data(alike, folder)
        made[job] = failed if failed is not None else read_result(job, path, plan.tested, measure)
        if failed is not None:
            console.print(f"failed: {failed}", style="red")
            continue
        seconds[job] = float(RunFolder(path).summary["timing"]["total_s"])
        for checkpoint in (RunFolder(path).last_checkpoint, RunFolder(path).previous_checkpoint):
            checkpoint.unlink(missing_ok=True)  # there is nothing left to go on with, and many runs fill a disk
    return made


def check_same_data(jobs: Sequence[Job], folder: Path) -> None:
    """Makes sure that completed runs with one share of the labels and one seed had the same images and targets.

    Args:
        jobs: The runs of the comparison; those that are not complete are passed over.
        folder: Where the runs lie.

    Raises:
        UserError: If they had not.
    """
    seen: dict[tuple[float | None, int, str], tuple[str, Path]] = {}
    for job in jobs:
        path = folder / job.name
        if not RunFolder(path).is_complete:
            continue
        data = RunFolder(path).summary["data"]
        for key, what in (
            ("split_digest", "are in another split"),
            ("targets_digest", "have other targets"),
            ("contents_digest", "show something else"),
        ):
            digest = data.get(key)
            if digest is None:  # older runs lack it
                continue
            other_digest, other = seen.setdefault((job.fraction, job.seed, key), (digest, path))
            if digest != other_digest:
                raise UserError(
                    f"the data changed between {other} and {path}: their images {what}; remove the runs of the "
                    "earlier data, or compare anew with another --run_dir"
                )


def _make(plan: Plan, args: list[str], path: Path) -> str | None:
    """Makes a run; says why it failed, or `None`."""
    try:
        make_run(path, args, plan.base, command="compare")
        return None
    except Exception as error:  # of any kind: it is this run's result
        if is_for_want_of_room(error):
            raise  # all others would fail, too
        failed = why_failed(error)
    # Only now that the error is gone are its frames, which hold the model, too.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return failed


def time_left(missing: Sequence[Job], seconds: Mapping[Job, float]) -> str:
    """Says how long the runs that are missing will take, as those of the same kind did.

    Args:
        missing: Which.
        seconds: How long each run took that is done.

    Returns:
        Such as ``, about 12 min left``; empty where none is done.
    """
    if not seconds:
        return ""
    overall = sum(seconds.values()) / sum(job.fraction or 1 for job in seconds)

    def expected(job: Job) -> float:
        alike = [taken for done, taken in seconds.items() if _kind(done) == _kind(job)]
        return statistics.mean(alike) if alike else overall * (job.fraction or 1)

    left = sum(map(expected, missing))
    return f", about {left / 60:.0f} min left" if left >= 90 else f", about {max(left, 1):.0f} s left"


def _kind(job: Job) -> tuple[str, float | None]:
    return job.strategy.name, job.fraction
