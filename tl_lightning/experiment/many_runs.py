"""One of several runs that belong together: it is made, gone on with, or taken as it is, whichever it needs."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from tl_lightning.core.console import console
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.experiment.experiment import resume, run


def check_tested(configuration: Configuration, *, command: str) -> None:
    """Makes sure that the runs are tested.

    Args:
        configuration: One of the runs'.
        command: The command that makes them, for the message.

    Raises:
        UserError: If they are not.
    """
    if not configuration.config.test:
        raise UserError(f"test is false, but tl {command} compares what runs predict for test images; leave test out")


def make_run(path: Path, args: Sequence[str], configuration: Configuration, *, command: str) -> RunFolder:
    """Trains a run, goes on with it, or takes it as it is.

    Args:
        path: The run's folder.
        args: Command-line arguments of ``tl fit``, without ``--run_dir``.
        configuration: Says in how many processes it would train.
        command: The command that makes it, for the message.

    Raises:
        UserError: If several processes are asked for, no test is, or something that ``tl fit`` would say.
    """
    check_tested(configuration, command=command)
    if RunFolder(path).is_complete:
        console.print(f"{path} is complete already")
        return RunFolder(path)
    if configuration.trainer.world_size > 1:
        raise UserError(
            f"tl {command} trains in one process, and {configuration.trainer.world_size} are asked for: train each run "
            f"by tl fit, this one by tl fit {shlex.join(args)} --run_dir {path}; then the same tl {command} takes what "
            "is there"
        )
    if not RunFolder(path).config.is_file():
        return run([*args, "--run_dir", str(path)])
    return resume(path)
