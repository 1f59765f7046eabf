"""What a job asks of a cluster, and what of it can be found wrong without asking the cluster."""

import argparse
import re
from dataclasses import dataclass

from tl_lightning.errors import UserError

TIMES = "minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS"
MOST_BEFORE = 65535  # seconds; SLURM takes no more


@dataclass(frozen=True)
class Resources:
    """What one job, or each task of an array, gets.

    Attributes:
        nodes: Machines.
        gpus_per_node: 0 for none.
        processes_per_node: Each with one GPU, where there are GPUs.
        cpus_per_process: `None` for what the cluster gives.
        memory: What each node gives, such as ``16G``; `None` for what the cluster gives.
        time: As SLURM writes it.
        partition: `None` for the cluster's own choice; so with the next two.
        account: Who pays.
        qos: Quality of service.
        signal_before: Seconds before the end of the time at which a run is told to write a checkpoint.
    """

    nodes: int = 1
    gpus_per_node: int = 0
    processes_per_node: int = 1
    cpus_per_process: int | None = None
    memory: str | None = None
    time: str = "4:00:00"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    signal_before: int = 120

    @property
    def processes(self) -> int:
        """The processes of one run, on all its nodes."""
        return self.nodes * self.processes_per_node


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `read_resources` reads."""
    group = parser.add_argument_group("what each job gets")
    group.add_argument("--nodes", type=int, default=1, help="machines (default: %(default)s)")
    group.add_argument("--gpus_per_node", type=int, default=0, help="GPUs of each (default: %(default)s)")
    group.add_argument(
        "--processes_per_node", type=int, help="processes on each (default: one for each GPU; without GPUs, one)"
    )
    group.add_argument("--cpus_per_process", type=int, help="cores of each process (default: the cluster's)")
    group.add_argument("--memory", help="of each node, such as 16G (default: the cluster's)")
    group.add_argument("--time", default="4:00:00", help=f"{TIMES} (default: %(default)s)")
    group.add_argument("--partition", help="where to queue (default: the cluster's)")
    group.add_argument("--account", help="who pays")
    group.add_argument("--qos", help="quality of service")
    group.add_argument(
        "--signal_before",
        type=int,
        default=120,
        metavar="SECONDS",
        help="before the time is over, a run is told to write a checkpoint (default: %(default)s)",
    )


def read_resources(options: argparse.Namespace) -> Resources:
    """Checks what was asked for.

    Raises:
        UserError: If a number cannot be, or two of them contradict each other.
    """
    gpus = options.gpus_per_node
    processes = (gpus or 1) if options.processes_per_node is None else options.processes_per_node
    least = {"nodes": 1, "gpus_per_node": 0, "processes_per_node": 1, "cpus_per_process": 1, "signal_before": 1}
    for name, smallest in least.items():
        value = getattr(options, name)
        if value is not None and value < smallest:
            raise UserError(f"--{name} is {value}; it must be {smallest} or more")
    if gpus and processes != gpus:
        raise UserError(
            f"--processes_per_node is {processes}, but --gpus_per_node {gpus}: each process trains on one GPU; leave "
            "--processes_per_node out"
        )
    if options.memory is not None and not re.fullmatch(r"\d+[KMGT]?", options.memory):
        raise UserError(f"--memory is {options.memory!r}; write a number with K, M, G or T, such as 16G")
    time = seconds(options.time, "--time")
    if not options.signal_before < min(time, MOST_BEFORE + 1):
        raise UserError(
            f"--signal_before is {options.signal_before} s; it must be less than --time {options.time}, and at most "
            f"{MOST_BEFORE}"
        )
    return Resources(
        nodes=options.nodes,
        gpus_per_node=gpus,
        processes_per_node=processes,
        cpus_per_process=options.cpus_per_process,
        memory=options.memory,
        time=options.time,
        partition=options.partition,
        account=options.account,
        qos=options.qos,
        signal_before=options.signal_before,
    )


def seconds(text: str, where: str) -> int:
    """Reads a time as SLURM writes it.

    Args:
        text: Such as ``4:00:00`` or ``1-12``.
        where: The option, for the message.

    Raises:
        UserError: If it is none, or no time at all.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if found is None:
        raise UserError(f"{where} is {text!r}; write {TIMES}, such as 4:00:00 for four hours")
    days, *rest = found.groups()
    parts = [int(part) for part in rest if part is not None]
    units = (3600, 60, 1) if days is not None or len(parts) == 3 else (60, 1)  # days come with hours
    total = int(days or 0) * 86400 + sum(part * unit for part, unit in zip(parts, units, strict=False))
    if not total:
        raise UserError(f"{where} is {text}, no time at all")
    return total
