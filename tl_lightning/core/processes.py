"""Which of several processes this is. Knows no torch, so it can be asked from the first moment."""

import os

from tl_lightning.errors import UserError


class ProcessLost(Exception):
    """Another of several processes has ended, or no longer answers; exit code 1, and one line for people."""


RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "NODE_RANK", "GROUP_RANK")
COUNTS = {  # who says which it is says how many there are
    "RANK": "WORLD_SIZE",
    "SLURM_PROCID": "SLURM_NTASKS",
    "JSM_NAMESPACE_RANK": "JSM_NAMESPACE_SIZE",
}


def check_environment() -> None:
    """Makes sure that what launchers say in the environment are numbers; Lightning reads them when it is imported.

    Raises:
        UserError: If one is none.
    """
    for name in (*RANKS, *COUNTS.values()):
        if not os.environ.get(name, "0").isdecimal():
            raise UserError(
                f"{name} is {os.environ[name]!r} in the environment; a launcher sets it to a number from 0: unset it"
            )


def process_rank() -> int:
    """Which of several processes this is, as the environment says that its launcher made; 0 where there is one.

    The first process of a further machine is not 0 either, whose processes Lightning has yet to start.
    """
    name = rank_variable()
    return 0 if name is None else int(os.environ[name])


def rank_variable() -> str | None:
    """The variable of the environment that says which process this is; `None` where there is none."""
    if "RANK" not in os.environ:
        for name in ("NODE_RANK", "GROUP_RANK"):  # Lightning takes the second where the first lacks
            if name in os.environ:
                if int(os.environ[name]):
                    return name
                break
    return next((name for name in RANKS if name in os.environ), None)


def is_one_of_several() -> bool:
    """Whether there are processes that this one has not started and cannot end.

    Lightning's own launcher starts the others from the first one, and ends them with it.
    """
    several = any(int(os.environ.get(COUNTS[name], 1)) > 1 for name in COUNTS if name in os.environ)
    return several or process_rank() > 0


def is_started_by_lightning() -> bool:
    """Whether this process was started by the first one, which will also end it."""
    others = (*COUNTS, "TORCHELASTIC_RUN_ID")
    return int(os.environ.get("LOCAL_RANK", 0)) > 0 and not any(name in os.environ for name in others)


def work_alone() -> None:
    """Forgets that a launcher such as ``srun`` has started this process as one of several.

    For what only looks like that: each task of an array is a world of its own, and so is all that it starts.
    """
    ours = (*RANKS, "WORLD_SIZE")
    for name in [name for name in os.environ if name in ours or name.startswith(("SLURM_", "JSM_NAMESPACE_"))]:
        del os.environ[name]
