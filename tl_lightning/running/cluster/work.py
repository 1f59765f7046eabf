"""What is submitted: from the command behind ``--`` to the runs of a job or an array, and what has to come after."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_lightning.core.files import user_path
from tl_lightning.core.options import OptionParser
from tl_lightning.core.run_folder import RunFolder, run_name
from tl_lightning.errors import UserError, nearest
from tl_lightning.running.cluster.resources import Resources
from tl_lightning.running.cluster.script import Command, Runs, Task
from tl_lightning.running.sweeping.fit_options import configuration, options

COMMANDS = ("fit", "resume", "crossval", "compare", "sweep")
FOLDS = 5  # the default of --data.folds, which a test holds to the real one
ANY = ("auto", "-1")  # numbers of devices that fit any


@dataclass(frozen=True)
class Work:
    """What a submission does.

    Attributes:
        name: What it is called, from the configuration.
        folder: Where the run, or all runs together, go.
        first: What is queued.
        after: What is queued behind that, in one process; `None` for nothing.
        after_failure: Whether that is so even where something of the first failed.
        is_shared: Whether others may take part in the same folder.
        checked: Arguments of ``tl fit``, each to be built before anything is queued.
    """

    name: str
    folder: Path
    first: Runs | Command
    after: Command | None = None
    after_failure: bool = False
    is_shared: bool = False
    checked: tuple[tuple[str, ...], ...] = ()


def plan_work(words: Sequence[str], resources: Resources, *, seeds: str | None, keep: bool) -> Work:
    """Reads the command that is to run on the cluster.

    Args:
        words: Such as ``["fit", "--config", "configs/elpv.yaml"]``.
        resources: What each job asks for.
        seeds: With commas; a run is made for each. `None` for one run with its own seed.
        keep: Whether the folder is made, so that a later submission takes another; otherwise only its name is found.

    Raises:
        UserError: If the command cannot be run on a cluster, or contradicts the resources.
    """
    command, *args = words
    if command not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise UserError(f"tl {command} cannot be submitted{nearest(command, COMMANDS)} (what can: {known})")
    for word in args:
        if word.partition("=")[0] in ("-h", "--help", "--print_config"):
            raise UserError(f"{word} trains nothing, so there is nothing to submit: tl {command} {word}")
    if seeds is not None and command != "fit":
        raise UserError(f"--seeds makes a tl fit for each seed; tl {command} takes none: leave it out")
    if command == "sweep":
        return _sweep(args, resources, keep=keep)
    run_dir, rest = _run_dir(command, args)
    check_trainer(rest, resources)
    if command == "resume":
        return _resume(run_dir, rest, resources)
    files = [text for key, text in options(rest) if key in ("config", "c") and not text.startswith("{")]
    name = run_name(files)
    if command == "crossval":
        return _crossval(name, run_dir, rest, resources, keep=keep)
    if command == "compare":
        return _compare(name, run_dir, rest, resources, keep=keep)
    trainer, fit = trainer_options(resources), tuple(rest)
    if seeds is None:
        folder = _folder(run_dir, name, keep=keep)
        return Work(name, folder, Runs(fit, trainer, (Task(folder),)), checked=(fit,))
    numbers = _numbers(seeds)
    if any(key == "seed_everything" for key, _ in options(rest)):
        raise UserError("--seed_everything contradicts --seeds: leave one of them out")
    folder = _folder(run_dir, f"{name}-seeds", keep=keep)
    tasks = tuple(Task(folder / f"seed-{seed}", ("--seed_everything", str(seed))) for seed in numbers)
    return Work(name, folder, Runs(fit, trainer, tasks), checked=((*fit, *tasks[0].options),))


def trainer_options(resources: Resources) -> tuple[str, ...]:
    """The options of ``tl fit`` that say what SLURM gives."""
    accelerator = ("--trainer.accelerator", "gpu") if resources.gpus_per_node else ()
    return (
        *("--trainer.num_nodes", str(resources.nodes), "--trainer.devices", str(resources.processes_per_node)),
        *accelerator,
    )


def check_trainer(args: Sequence[str], resources: Resources) -> None:
    """Makes sure that the configuration does not ask for another machine than the job gets.

    Raises:
        UserError: If it does.
    """
    said = _said(args, "trainer")
    wanted = {"num_nodes": ("nodes", resources.nodes), "devices": ("processes_per_node", resources.processes_per_node)}
    for key, (option, value) in wanted.items():
        asked = said.get(key)
        if asked is not None and str(asked) not in (str(value), *(ANY if key == "devices" else ())):
            named = "gpus_per_node" if key == "devices" and resources.gpus_per_node else option
            raise UserError(f"trainer.{key} is {asked}, but --{named} {value}: leave trainer.{key} out")
    asked, gpus = str(said.get("accelerator", "auto")), resources.gpus_per_node
    if (asked == "cpu" and gpus) or (asked in ("gpu", "cuda") and not gpus):
        raise UserError(f"trainer.accelerator is {asked}, but --gpus_per_node {gpus}: change one of them")


def _said(args: Sequence[str], part: str) -> dict[str, Any]:
    """What the arguments and their configurations say of the trainer or the data; the later wins."""
    said: dict[str, Any] = {}
    for key, text in options(args):
        if key in ("config", "c"):
            content = configuration(text).get(part)
            content = content if isinstance(content, dict) else {}
            said |= {**content, **(content.get("init_args") or {})}
        elif key.startswith(f"{part}."):
            said[key.removeprefix(f"{part}.").removeprefix("init_args.")] = text
    return said


def _run_dir(command: str, args: Sequence[str]) -> tuple[str | None, list[str]]:
    parser = OptionParser(command, add_help=False)
    parser.add_argument("--run_dir")
    known, rest = parser.parse_known_args(args)
    return known.run_dir, rest


def _folder(run_dir: str | None, name: str, *, keep: bool) -> Path:
    if keep:
        folder = RunFolder.create(run_dir, name=name)
        folder.release()  # it is the job that will work there
        return folder.path
    return user_path(run_dir) if run_dir is not None else RunFolder.next_free(name).path


def _numbers(seeds: str) -> list[int]:
    if not re.fullmatch(r"\d+(,\d+)*", seeds):
        raise UserError(f"--seeds is {seeds!r}; write whole numbers with commas, such as 0,1,2")
    numbers = [int(seed) for seed in seeds.split(",")]
    if len(set(numbers)) < len(numbers):
        raise UserError(f"--seeds is {seeds}: a seed stands there twice")
    return numbers


def _resume(run_dir: str | None, args: Sequence[str], resources: Resources) -> Work:
    if run_dir is None:
        raise UserError("tl resume needs --run_dir, the folder of the run that stopped")
    folder = RunFolder.open(run_dir)
    if folder.is_complete:
        raise UserError(f"{folder.path} is complete; there is nothing to resume")
    for key, _ in options(args):
        if not key.startswith("trainer."):
            raise UserError(f"--{key}: only --trainer.* options may change when a run is resumed")
    trainer = (*args, *trainer_options(resources))
    return Work(run_name([folder.config]), folder.path, Runs(None, trainer, (Task(folder.path),)))


def _crossval(name: str, run_dir: str | None, args: Sequence[str], resources: Resources, *, keep: bool) -> Work:
    """A job for each fold; what ``tl crossval`` then finds, it only scores."""
    if any(key == "data.fold" for key, _ in options(args)):
        raise UserError("--data.fold has no effect here: all folds are run; submit tl fit --data.fold for one")
    folds = str(_said(args, "data").get("folds", FOLDS))
    if not folds.isdecimal() or int(folds) < 2:
        raise UserError(f"data.folds is {folds}; it must be 2 or more")
    folder = _folder(run_dir, f"{name}-crossval", keep=keep)
    tasks = tuple(Task(folder / f"fold-{fold}", ("--data.fold", str(fold))) for fold in range(int(folds)))
    score = Command(("crossval", *args, "--run_dir", str(folder)))
    runs = Runs(tuple(args), trainer_options(resources), tasks)
    return Work(name, folder, runs, after=score, checked=((*args, *tasks[0].options),))


def _compare(name: str, run_dir: str | None, args: Sequence[str], resources: Resources, *, keep: bool) -> Work:
    """A job for each run; what ``tl compare`` then finds it compares, and what failed it tries once more."""
    from tl_lightning.choosing.comparing.compare import option_parser
    from tl_lightning.choosing.comparing.plan import check_arguments
    from tl_lightning.choosing.comparing.strategies import list_jobs, parse_fractions, parse_strategies

    known, fit = option_parser().parse_known_args(args)
    if resources.processes > 1:
        raise UserError(
            "a run of tl compare trains in one process: leave --nodes and --processes_per_node out, with "
            "--gpus_per_node 1 at most; its runs are side by side"
        )
    strategies = parse_strategies(known.strategies, reference=known.reference)
    fractions = parse_fractions(known.fractions)
    check_arguments(fit, fractions, more=known.more)
    jobs = list_jobs(strategies, fractions, seeds=known.seeds, first_seed=_seed(fit))
    folder, trainer = _folder(run_dir, f"{name}-compare", keep=keep), trainer_options(resources)
    tasks = tuple(Task(folder / job.name, tuple(job.options)) for job in jobs)
    # What is compared are runs of one configuration, hence with the same trainer, which a strategy's file may change.
    compare = Command(("compare", *args, *trainer, "--run_dir", str(folder)))
    # To build every strategy and every share of the labels once is enough.
    checked = tuple(
        (*fit, *job.options)
        for job in jobs
        if job.seed == jobs[0].seed and (job.fraction == jobs[0].fraction or job.strategy == jobs[0].strategy)
    )
    return Work(name, folder, Runs((*fit, *trainer), (), tasks), after=compare, after_failure=True, checked=checked)


def _seed(args: Sequence[str]) -> int:
    seed = 0
    for key, text in options(args):
        found = text if key == "seed_everything" else seed
        if key in ("config", "c"):
            found = configuration(text).get("seed_everything", seed)
        if not str(found).isdecimal():
            raise UserError(f"seed_everything is {found}; it must be a whole number, 0 or more")
        seed = int(found)
    return seed


def _sweep(args: Sequence[str], resources: Resources, *, keep: bool) -> Work:
    """Workers that share a journal: each task of the array takes part in the sweep."""
    from tl_lightning.running.sweeping.sweep import plan
    from tl_lightning.running.sweeping.sweep_file import read_sweep

    parser = OptionParser("sweep", add_help=False)
    parser.add_argument("file")
    parser.add_argument("--workers", type=int, default=1)
    for name in ("--run_dir", "--storage"):
        parser.add_argument(name)
    parser.add_argument("--run_cap", type=int)
    parser.add_argument("--seed", type=int, default=0)
    known = parser.parse_args(args)
    if resources.nodes > 1 or (resources.processes_per_node > 1 and not resources.gpus_per_node):
        raise UserError(
            "a worker of a sweep is one process on one node: leave --nodes and --processes_per_node out, and say how "
            "many by sweep FILE --workers N"
        )
    if known.workers < 1:
        raise UserError(f"--workers is {known.workers}; it must be 1 or more")
    asked = read_sweep(known.file)
    plan(asked, known.run_cap)
    name = re.sub(r"[^\w.-]+", "-", asked.name).strip(".-") or "sweep"
    if known.storage is not None:
        journal = user_path(known.storage)
    elif known.run_dir is not None:
        journal = user_path(known.run_dir) / "journal.log"
    else:
        journal = _folder(None, f"{name}-sweep", keep=keep) / "journal.log"
    cap = [] if known.run_cap is None else ["--run_cap", str(known.run_cap)]
    worker = ("sweep", known.file, "--storage", str(journal), *cap, "--seed", str(known.seed))
    return Work(name, journal.parent, Command(worker, count=known.workers), is_shared=True)
