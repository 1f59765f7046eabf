"""The batch script: from plain data to a text that a person can read, keep, and change."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tl_lightning.core.interruption import PREEMPTED
from tl_lightning.running.cluster.resources import Resources


@dataclass(frozen=True)
class Task:
    """One run of ``tl fit``.

    Attributes:
        folder: The run's folder, made by nobody else.
        options: Options of this task alone, beside those that all tasks share, such as ``--seed_everything 1``.
    """

    folder: Path
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runs:
    """Runs that are trained side by side, each by as many processes as the resources say.

    Attributes:
        fit: What all give to ``tl fit``; `None` where a run that is there is only gone on with.
        trainer: Options of the trainer that follow from the resources.
        tasks: One for a job, several for an array.
    """

    fit: tuple[str, ...] | None
    trainer: tuple[str, ...]
    tasks: tuple[Task, ...]

    @property
    def count(self) -> int:
        """How many tasks the array has."""
        return len(self.tasks)


@dataclass(frozen=True)
class Command:
    """A command of ``tl`` that finds out by itself what is left to do.

    Attributes:
        args: Behind ``tl``.
        count: How often it runs side by side.
    """

    args: tuple[str, ...]
    count: int = 1


@dataclass(frozen=True)
class Batch:
    """Everything that a script says.

    Attributes:
        name: What the job is called.
        folder: What it writes into, by which it is known again; `None` where several may.
        typed: What the user typed, for the first line.
        cwd: Where the job works.
        python: The interpreter that runs ``tl``.
        logs: The folder of the log.
        setup: Lines that come first, such as ``module load cuda``.
        requeues: How often a job that was pre-empted may be queued again.
        at_once: How many tasks of an array may run at a time; `None` for all.
    """

    name: str
    folder: Path | None
    typed: str
    cwd: Path
    python: str
    logs: Path
    setup: tuple[str, ...]
    requeues: int
    at_once: int | None

    def log(self, job: str, *, is_array: bool) -> Path:
        """The log file's name, of a job by its number, or as a pattern."""
        return self.logs / f"{self.name}-{job}{'_%a' if is_array else ''}.log"


def write_script(batch: Batch, resources: Resources, work: Runs | Command) -> str:
    """Writes the batch script.

    Args:
        batch: What is not the work's own.
        resources: What the job asks for.
        work: What it does.
    """
    parts = [
        ["#!/bin/bash", f"# {batch.typed}", *_directives(batch, resources, work.count)],
        ["export PYTHONUNBUFFERED=1", *_threads(resources), *batch.setup],
    ]
    if resources.processes > 1:
        parts.append(_meeting_point())
    parts.append(_runs(work) if isinstance(work, Runs) else [f"command=({shlex.join(work.args)})"])
    parts.append(_launch(batch, resources))
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _directives(batch: Batch, resources: Resources, count: int) -> list[str]:
    is_array = count > 1
    limit = "" if batch.at_once is None else f"%{batch.at_once}"
    options = {
        "job-name": batch.name,
        "nodes": resources.nodes,
        "ntasks-per-node": resources.processes_per_node,
        "cpus-per-task": resources.cpus_per_process,
        "gpus-per-node": resources.gpus_per_node or None,
        "mem": resources.memory,
        "time": resources.time,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "comment": None if batch.folder is None else _quoted(batch.folder),
        "array": f"0-{count - 1}{limit}" if is_array else None,
        "chdir": _quoted(batch.cwd),
        "output": _quoted(batch.log("%A" if is_array else "%j", is_array=is_array)),
        "open-mode": "append",  # a job that is queued again goes on with its log
        "export": "ALL",
        "signal": f"USR1@{resources.signal_before}",  # to the processes, not to this script
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
    return [*lines, "#SBATCH --requeue"]


def _quoted(path: Path) -> str:
    """As sbatch reads it, which is not how a shell would."""
    text = str(path)
    return f'"{text}"' if any(letter.isspace() for letter in text) else text


def _threads(resources: Resources) -> list[str]:
    cpus = resources.cpus_per_process
    return [] if cpus is None else [f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{cpus}}}"]


def _meeting_point() -> list[str]:
    return [
        "# Where the processes find each other: the first node, by its name or the address that SLURM has of it.",
        'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        'getent hosts "$first" > /dev/null ||',
        "    first=$(scontrol show node \"$first\" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')",
        'export MASTER_ADDR="$first" MASTER_PORT=$((15000 + SLURM_JOB_ID % 15000))',
    ]


def _runs(work: Runs) -> list[str]:
    lines = [] if work.fit is None else [f"fit=({shlex.join(work.fit)})"]
    lines += [
        f"trainer=({shlex.join(work.trainer)})",
        *_which(work.tasks),
        "",
        "# Decided once, before any process starts: what has ended is left alone, what was interrupted goes on.",
        'if grep -qs \'^  "status": "completed"\' "$run/summary.json"; then',
        '    echo "$run is complete already"',
        "    exit 0",
    ]
    resume = '    command=(resume --run_dir "$run" "${trainer[@]}")'
    if work.fit is None:
        return [*lines, "fi", resume.strip()]
    return [
        *lines,
        'elif [ -f "$run/config.yaml" ]; then  # without a checkpoint yet, it begins anew',
        resume,
        "else",
        '    rm -f "$run/wandb_run_id" "$run"/.*.tmp  # of a start that was cut off',
        '    command=(fit "${fit[@]}" "${own[@]}" "${trainer[@]}" --run_dir "$run")',
        "fi",
    ]


def _which(tasks: Sequence[Task]) -> list[str]:
    """Lines that set the folder and the own options of the task under way."""

    def setting(task: Task) -> str:
        return f"run={shlex.quote(str(task.folder))} own=({shlex.join(task.options)})"

    if len(tasks) == 1:
        return [setting(tasks[0])]
    cases = [f"    {number}) {setting(task)} ;;" for number, task in enumerate(tasks)]
    return ['case "$SLURM_ARRAY_TASK_ID" in', *cases, "esac"]


def _launch(batch: Batch, resources: Resources) -> list[str]:
    cpus = resources.cpus_per_process
    share = "" if cpus is None else f" --cpus-per-task={cpus}"  # which srun no longer takes from sbatch
    return [
        f'srun --kill-on-bad-exit=1{share} {shlex.quote(batch.python)} -m tl_lightning "${{command[@]}}"',
        "code=$?",
        f"# {PREEMPTED} is pre-emption, behind a checkpoint: queued again, the job comes back to the decision above.",
        f'if [ "$code" -eq {PREEMPTED} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {batch.requeues} ]; then',
        "    # Of an array this task alone: the number of its last one is that of the whole array.",
        "    task=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}",
        '    exec scontrol requeue "${task:-$SLURM_JOB_ID}"',
        "fi",
        'exit "$code"',
    ]
