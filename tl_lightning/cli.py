"""``tl``: a table of commands, each imported when it is called, so that ``tl --help`` answers at once."""

import errno
import importlib
import signal
import sys
from dataclasses import dataclass
from types import ModuleType

from tl_lightning.core.interruption import STOPS, end_with_launcher, exit_code, signals_interrupt
from tl_lightning.core.packaged import find_configs
from tl_lightning.core.processes import ProcessLost, check_environment
from tl_lightning.core.screen import Screen, close_streams, open_streams, showing
from tl_lightning.errors import UserError, nearest, shown

SHOWS = {"configs", "cache", "-h", "--help", "--print_config", "--dry_run"}  # where what is shown is all there is
OF_THE_MACHINE = (  # what people can mend, wherever it happens
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENXIO),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.ESTALE),
)


@dataclass(frozen=True)
class Command:
    """Where a command is and what it does.

    Attributes:
        module: Imported when the command is called.
        function: Takes the arguments behind the command's name; gives nothing, or the exit code.
        help: One line.
    """

    module: str
    function: str
    help: str


COMMANDS = {
    "configs": Command(
        "tl_lightning.inspecting.configs", "configs_command", "list the configurations that come with the package"
    ),
    "init": Command("tl_lightning.choosing.init", "init_command", "write a commented configuration for your own data"),
    "show_data": Command(
        "tl_lightning.inspecting.show_data.command", "show_data_command", "make a page of what a model will see"
    ),
    "fit": Command(
        "tl_lightning.experiment.experiment", "fit_command", "train, then evaluate the best weights on the test split"
    ),
    "lr_find": Command(
        "tl_lightning.inspecting.learning_rates.command",
        "lr_find_command",
        "suggest learning rates by a short test",
    ),
    "probe": Command(
        "tl_lightning.inspecting.depth_probe", "probe_command", "show after which stage the useful features sit"
    ),
    "rank": Command("tl_lightning.choosing.ranking.rank", "rank_command", "compare pretrained backbones on your data"),
    "advise": Command("tl_lightning.choosing.advising.advise", "advise_command", "write a configuration, with reasons"),
    "compare": Command("tl_lightning.choosing.comparing.compare", "compare_command", "say whether transfer helped"),
    "sweep": Command("tl_lightning.running.sweeping.sweep", "sweep_command", "search over settings by a W&B file"),
    "submit": Command("tl_lightning.running.cluster.command", "submit_command", "have a SLURM cluster run a command"),
    "leaks": Command("tl_lightning.inspecting.leaks", "leaks_command", "list images that are there more than once"),
    "crossval": Command(
        "tl_lightning.choosing.crossval", "crossval_command", "train a model per fold, score them all together"
    ),
    "resume": Command(
        "tl_lightning.experiment.experiment", "resume_command", "go on where a run stopped, to the same weights"
    ),
    "validate": Command(
        "tl_lightning.experiment.evaluation", "validate_command", "score a run on its validation split"
    ),
    "test": Command("tl_lightning.experiment.evaluation", "test_command", "score a run on its test split"),
    "predict": Command("tl_lightning.results.predict", "predict_command", "predict new images with a run"),
    "check_preprocessing": Command(
        "tl_lightning.inspecting.preprocessing_check.command",
        "check_command",
        "measure what wrong preprocessing would cost a run",
    ),
    "cache": Command("tl_lightning.inspecting.cache", "cache_command", "list what is cached on disk, or clear it"),
}


def usage() -> str:
    """The text of ``tl --help``."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items())
    return (
        "usage: tl COMMAND [OPTIONS]\n\n"
        "From a pretrained model to a model you can trust on your own data, paying only for what trains.\n\n"
        f"commands:\n{commands}\n\n"
        "  tl fit --config elpv             train the demo\n"
        "  tl init mine --source DIR        write mine.yaml for your own images; then tl fit --config mine.yaml\n"
        "  tl COMMAND --help                every option of a command"
    )


def _load(module: str) -> ModuleType:
    """Imports a command; it takes seconds, so a terminal shows that something happens."""
    from tl_lightning.core.console import console

    with console.status("starting"):
        return importlib.import_module(module)


def main(args: list[str] | None = None) -> int:
    """Runs a command.

    Args:
        args: What stands behind ``tl``; by default the process's own arguments.

    Returns:
        0 when all went well, 2 after a user's mistake (one line says which), 130 when interrupted, 138 by SIGUSR1, 143
        by SIGTERM, 1 when another process of the run was lost, or all that a command does could not be shown; otherwise
        what the command gives: of ``tl compare`` 1 when a run failed, and 3 when transfer was negative and that was to
        be reported by ``--fail_on_negative_transfer``.
    """
    args = sys.argv[1:] if args is None else args
    with signals_interrupt(), showing() as screen:  # before the imports that take seconds
        try:
            code = _main(args)
        except SystemExit as stop:  # of --help and --print_config
            screen.flush()
            if screen.lost is None or stop.code:
                raise
            code = 0
    if screen.lost is None or code or not (SHOWS.intersection(args) or not args):
        return code
    if not isinstance(screen.lost, BrokenPipeError):  # what reads our output, such as `head`, has had enough
        _say(f"tl: the output cannot be written: {getattr(screen.lost, 'strerror', None) or screen.lost}")
    return 1


def _main(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        return 0
    name, rest = args[0], args[1:]
    try:
        check_environment()
        end_with_launcher()
        if name not in COMMANDS:
            raise UserError(f"there is no command {name!r}{nearest(name, COMMANDS)} (commands: {', '.join(COMMANDS)})")
        rest = find_configs(rest)  # a misspelt one is found before the imports that take seconds
        command = COMMANDS[name]
        code: int | None = getattr(_load(command.module), command.function)(rest)
    except BaseException as stop:
        interrupted = exit_code(stop)
        if interrupted is not None:
            return interrupted
        if isinstance(stop, UserError | ProcessLost):
            _say(f"tl {name}: {stop}")
            return 2 if isinstance(stop, UserError) else 1
        if isinstance(stop, BrokenPipeError):  # what reads a result, such as `head`, has had enough
            return 1
        if isinstance(stop, OSError) and stop.errno in OF_THE_MACHINE:
            where = "" if stop.filename is None else f"{shown(stop.filename)}: "
            _say(f"tl {name}: {where}{stop.strerror}")
            return 2
        raise
    return code or 0


def _say(line: str) -> None:
    screen = Screen(sys.stderr)
    screen.write(f"{line}\n")
    screen.flush()


def entry_point() -> None:
    """What the ``tl`` script calls."""
    open_streams()
    try:
        code: int | str | None = main()
    except SystemExit as stop:
        code = stop.code
    if code in STOPS:  # srun ends the others as soon as one has ended, and their exit code would hide this one
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    close_streams()
    sys.exit(code)
