"""How many processes prepare batches, where the user does not say."""

import os
from pathlib import Path

MOST = 8  # more seldom help, and each holds batches in memory


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Processor cores that this process may use: those it is bound to, and no more than a container's share of time.

    Args:
        cgroup: Where Linux tells of the share; of cgroup v2, as it is mounted within a container.

    Returns:
        1 or more.
    """
    # Only Linux knows what a process is bound to.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no file, or the quota is `max`
        return cores


def default_workers(*, processes: int, beside_gpu: bool) -> int:
    """Worker processes for one training process.

    Args:
        processes: Training processes on this machine, which share its cores.
        beside_gpu: Whether the model computes elsewhere; on a CPU it needs every core itself.

    Returns:
        0 on a CPU; else a process's share of the cores less one, 8 at most.
    """
    # SLURM binds each process to cores of its own; these are no longer shared.
    share = usable_cores() // (1 if "SLURM_CPUS_PER_TASK" in os.environ else max(1, processes))
    return max(0, min(MOST, share - 1)) if beside_gpu else 0
