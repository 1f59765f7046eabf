"""Which of several processes this is. Knows no torch, so it can be asked from the first moment."""

import os


class ProcessLost(Exception):
    """Another of several processes has ended, or no longer answers; exit code 1, and one line for people."""


RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK")


def process_rank() -> int:
    """Which of several processes this is, as the environment says that its launcher made; 0 where there is one.

    The first process of a further machine is not 0 either, whose processes Lightning has yet to start.
    """
    if int(os.environ.get("NODE_RANK", 0)) and "RANK" not in os.environ:
        return int(os.environ["NODE_RANK"])
    return next((int(os.environ[name]) for name in RANKS if name in os.environ), 0)


def is_one_of_several() -> bool:
    """Whether there are processes that this one has not started and cannot end.

    Lightning's own launcher starts the others from the first one, and ends them with it.
    """
    counts = {"RANK": "WORLD_SIZE", "SLURM_PROCID": "SLURM_NTASKS"}  # who says which it is says how many there are
    several = any(int(os.environ.get(counts[name], 1)) > 1 for name in counts if name in os.environ)
    return several or process_rank() > 0


def is_started_by_lightning() -> bool:
    """Whether this process was started by the first one, which will also end it."""
    others = ("RANK", "SLURM_PROCID", "TORCHELASTIC_RUN_ID")
    return int(os.environ.get("LOCAL_RANK", 0)) > 0 and not any(name in os.environ for name in others)


def work_alone() -> None:
    """Forgets that a launcher such as ``srun`` has started this process as one of several.

    For what only looks like that: each task of an array is a world of its own, and so is all that it starts.
    """
    for name in [name for name in os.environ if name in (*RANKS, "WORLD_SIZE") or name.startswith("SLURM_")]:
        del os.environ[name]
