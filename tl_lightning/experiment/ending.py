"""How a run ends: what it leaves is put in order, and what went wrong is said in one line."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from tl_lightning.core.checkpoint_files import NO_SPACE
from tl_lightning.core.console import console
from tl_lightning.core.interruption import GRACE, INTERRUPTED, asked_to_end, exit_code, finish_undisturbed, interruption
from tl_lightning.core.private import SubprocessLauncher
from tl_lightning.core.processes import ProcessLost, is_started_by_lightning
from tl_lightning.errors import UserError
from tl_lightning.experiment.session import Experiment
from tl_lightning.training.preemption import is_of_a_lost_process


@contextmanager
def ending(experiment: Experiment) -> Iterator[None]:
    """Writes the summary and closes W&B's run, however the training within ends.

    Args:
        experiment: The run.

    Raises:
        KeyboardInterrupt: If the run was asked to end.
        UserError: If it met a mistake that its maker can mend.
        ProcessLost: If another of its processes is lost.
    """
    code = 1
    try:
        yield
        experiment.write_summary("completed")
        code = 0
    except BaseException as error:
        # What was asked to end may meet something else first, such as a worker that has ended already.
        interrupted = exit_code(error) or (None if isinstance(error, UserError) else asked_to_end() or None)
        if interrupted is not None or isinstance(error, SystemExit):
            code = interrupted or INTERRUPTED
            _interrupted(experiment)
            raise interruption(code) from error
        _failed(experiment, error)
        raise
    finally:
        experiment.wandb.end(code)


def _interrupted(experiment: Experiment) -> None:
    finish_undisturbed()
    _end_processes(experiment.trainer)
    # Lightning turns Ctrl-C into an exit of its own, and would leave a notebook's process deaf to the next.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    experiment.write_summary("interrupted")
    console.print(f"interrupted; tl resume --run_dir {experiment.place} goes on with what is there")


def _failed(experiment: Experiment, error: BaseException) -> None:
    """Writes down what failed, and raises what people are told where the error is not fit for them."""
    lost = is_of_a_lost_process(error)
    if lost or isinstance(error, UserError):  # a mistake that all of them meet
        _end_processes(experiment.trainer)
    with suppress(OSError):  # that the disk is full is said below
        experiment.write_summary("failed", error=f"{type(error).__name__}: {error}")
    if lost:
        said = " ".join(str(error).split())[:200]
        raise ProcessLost(
            f"another process of the run was lost ({said}); what was written is whole: "
            f"tl resume --run_dir {experiment.place} goes on from it"
        ) from error
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        where = error.filename or experiment.place
        raise UserError(f"{where}: {error.strerror}; make room, then go on with tl resume") from error
    if isinstance(error, MisconfigurationException):  # Lightning's word for a user's mistake
        raise UserError(" ".join(str(error).split())) from error


def _end_processes(trainer: Trainer) -> None:
    """Ends the processes that Lightning has started: they wait for this one, which will not come.

    One of those waits to be ended: Lightning kills the first as soon as another has ended by itself.
    """
    if is_started_by_lightning():
        time.sleep(GRACE)
    launcher = trainer.strategy.launcher
    if isinstance(launcher, SubprocessLauncher):
        launcher.kill(signal.SIGKILL)
        for process in launcher.procs:
            process.wait()
        launcher.procs.clear()  # or Lightning's observer of them would kill this one within five seconds
