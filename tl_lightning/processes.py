"""Which of several processes this is. Knows no torch, so it can be asked from the first moment."""

import os

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK")


def process_rank() -> int:
    """Which of several processes this is, as the environment says that its launcher made; 0 where there is one.

    The first process of a further machine is not 0 either, whose processes Lightning has yet to start.
    """
    if int(os.environ.get("NODE_RANK", 0)) and "RANK" not in os.environ:
        return int(os.environ["NODE_RANK"])
    return next((int(os.environ[name]) for name in RANKS if name in os.environ), 0)


def work_alone() -> None:
    """Forgets that a launcher such as ``srun`` has started this process as one of several.

    For what only looks like that: each task of an array is a world of its own, and so is all that it starts.
    """
    for name in [name for name in os.environ if name in (*RANKS, "WORLD_SIZE") or name.startswith("SLURM_")]:
        del os.environ[name]
