"""Asks SLURM what there is, and queues scripts."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tl_lightning.errors import UserError, nearest
from tl_lightning.running.cluster.resources import Resources, seconds

PATIENCE = 60  # seconds that a controller may take to answer


@dataclass(frozen=True)
class Partition:
    """A queue of the cluster.

    Attributes:
        name: The partition's.
        is_default: Whether jobs that name none go there.
        nodes: How many it has.
        limit: Seconds that a job may take; `None` for no limit.
    """

    name: str
    is_default: bool
    nodes: int
    limit: int | None


def check_slurm() -> None:
    """Makes sure that this machine can queue jobs.

    Raises:
        UserError: If SLURM's commands are not here.
    """
    for command in ("sbatch", "sinfo", "squeue"):
        if shutil.which(command) is None:
            raise UserError(
                f"there is no {command} on this machine: submit on a login node of the cluster; --dry_run shows the "
                "script anywhere"
            )


def check_resources(resources: Resources) -> None:
    """Makes sure that the cluster has a place for the job, which SLURM itself might queue for ever.

    Raises:
        UserError: If the partition does not exist, or has fewer nodes or less time.
    """
    found = partitions()
    wanted = [] if resources.partition is None else resources.partition.split(",")  # any of which would do
    for name in wanted:
        if name not in found:
            known = ", ".join(found)
            raise UserError(f"--partition {name}: the cluster has none of that name{nearest(name, found)} ({known})")
    chosen = [part for part in found.values() if (part.name in wanted if wanted else part.is_default)]
    if not chosen:
        raise UserError(f"the cluster has no default partition; name one by --partition ({', '.join(found)})")
    mistakes = [_mistake(partition, resources) for partition in chosen]
    if None not in mistakes and mistakes[0] is not None:
        raise mistakes[0]


def check_folder(folder: Path) -> None:
    """Makes sure that no job is there already that writes into a folder, or around it: two would destroy each other's.

    Args:
        folder: Resolved, as the jobs' scripts have theirs in ``--comment``.

    Raises:
        UserError: If there is one.
    """
    found = []
    for line in _ask(["squeue", "--me", "--noheader", "--format=%F|%k"]).splitlines():
        job, _, text = line.strip().partition("|")
        written = Path(text)
        if written.is_absolute() and (written.is_relative_to(folder) or folder.is_relative_to(written)):
            found.append(job)
    if found:
        jobs = " ".join(sorted(set(found), key=int))
        raise UserError(f"{folder} belongs to what is queued already; scancel {jobs} ends that")


def _mistake(partition: Partition, resources: Resources) -> UserError | None:
    """What a partition has too little of for a job."""
    if resources.nodes > partition.nodes:
        has = "1 node" if partition.nodes == 1 else f"{partition.nodes} nodes"
        return UserError(f"--nodes is {resources.nodes}, but partition {partition.name} has {has}")
    if partition.limit is not None and seconds(resources.time, "--time") > partition.limit:
        return UserError(
            f"--time is {resources.time}, but in partition {partition.name} a job may take {partition.limit // 60} min"
        )
    return None


def partitions() -> dict[str, Partition]:
    """The cluster's partitions by name.

    Raises:
        UserError: If the cluster does not answer.
    """
    found: dict[str, Partition] = {}
    for line in _ask(["sinfo", "--noheader", "--format=%P|%D|%l"]).splitlines():
        shown, count, limit = line.strip().split("|")
        name = shown.rstrip("*")
        nodes = int(count) + (found[name].nodes if name in found else 0)  # a line for each kind of node
        most = seconds(limit, f"the limit of partition {name}") if re.fullmatch(r"[\d:-]+", limit) else None
        found[name] = Partition(name, shown.endswith("*"), nodes, most)
    return found


def queue(script: Path, *, after: str | None = None, even_if_failed: bool = False) -> str:
    """Queues a script.

    Args:
        script: The file.
        after: The number of a job, or an array, that has to end before; `None` for none.
        even_if_failed: Whether it need not end well.

    Returns:
        The job's number.

    Raises:
        UserError: If SLURM refuses it.
    """
    end = "afterany" if even_if_failed else "afterok"
    waiting = [] if after is None else [f"--dependency={end}:{after}", "--kill-on-invalid-dep=yes"]
    return _ask(["sbatch", "--parsable", *waiting, str(script)]).partition(";")[0]


def cancel(job: str) -> None:
    """Takes a job back."""
    _ask(["scancel", job])


def _ask(command: list[str]) -> str:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{command[0]} did not answer within {PATIENCE} s; is the cluster up?") from error
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        raise UserError(f"SLURM refuses: {said[-1]}")  # which says most
    return ended.stdout.strip()
