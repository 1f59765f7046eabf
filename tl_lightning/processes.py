"""Which of several processes this is. Knows no torch, so it can be asked from the first moment."""

import os


def process_rank() -> int:
    """Which of several processes this is, as the environment says that its launcher made; 0 where there is one.

    The first process of a further machine is not 0 either, whose processes Lightning has yet to start.
    """
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK")
    if int(os.environ.get("NODE_RANK", 0)) and "RANK" not in os.environ:
        return int(os.environ["NODE_RANK"])
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)
