"""One experiment from its configuration to its run folder: what the command line and notebooks both call."""

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tl_lightning.core.checkpoint_files import latest_checkpoint
from tl_lightning.core.console import console
from tl_lightning.core.options import OptionParser
from tl_lightning.core.packaged import find_configs
from tl_lightning.core.processes import process_rank
from tl_lightning.core.quiet import quiet
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.experiment.earlier import configuration_of
from tl_lightning.experiment.ending import ending
from tl_lightning.experiment.session import Experiment
from tl_lightning.training.metrics_csv import Watch
from tl_lightning.training.wandb import trial_folder

MOVED = "--data.source"  # the option of a resumed run that says where its data are now


def fit_command(args: list[str]) -> None:
    """``tl fit``: trains, then evaluates the best weights on the test split.

    A trial that W&B's agent gives out again goes on where it was.
    """
    folder = trial_folder(args)
    if folder is None:
        run(args)
    elif folder.is_complete:
        console.print(f"{folder.path} is complete already")
    elif folder.config.is_file():  # for the second of several processes, it is the first that has made it
        resume(folder.path)
    else:
        run([*args, "--run_dir", str(folder.path)])


def fit(config: str | Path | Mapping[str, Any], /, **overrides: Any) -> RunFolder:  # noqa: ANN401 - values of any key
    """Trains as ``tl fit --config`` does.

    Args:
        config: A YAML file, the name of a packaged one such as ``elpv``, or the content as a mapping.
        **overrides: Values for dotted keys, such as ``**{"model.lr": 1e-3}``.

    Returns:
        The run's folder.

    Raises:
        UserError: If a key, a value, the data or the weights are wrong.
    """
    first = json.dumps(dict(config), default=os.fspath) if isinstance(config, Mapping) else str(config)
    args = ["--config", first]
    for key, value in overrides.items():
        nested = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        args += ["--config", json.dumps(nested, default=os.fspath)]
    return run(find_configs(args))


def run(args: list[str], *, watch: Watch | None = None) -> RunFolder:
    """Runs one experiment: phases, best weights, test, summary.

    Args:
        args: Command-line arguments such as ``["--config", "configs/elpv.yaml", "--model.lr", "1e-3"]``.
        watch: Called with each row that training logs, as ``metrics.csv`` has it; it may raise `KeyboardInterrupt`.

    Returns:
        The finished run's folder.

    Raises:
        UserError: If a key, a value, the data or the weights are wrong; nothing is left behind then.
    """
    return _run(args, folder="new", checkpoint=None, watch=watch)


def resume_command(args: list[str]) -> None:
    """``tl resume``: goes on where a run stopped, to the weights that it would have ended with."""
    parser = OptionParser("resume", resume_command.__doc__)
    parser.add_argument("--run_dir", required=True, help="the folder of the run that stopped")
    known, rest = parser.parse_known_args(args)
    for option in rest:
        name = option.partition("=")[0]
        if re.match("--?[a-zA-Z]", option) and not name.startswith("--trainer.") and name != MOVED:
            parser.error(
                f"{name}: only --trainer.* options may change, such as --trainer.devices, and {MOVED}, where the data "
                "have moved"
            )
    resume(known.run_dir, rest)


def resume(run_dir: str | Path, args: Sequence[str] = (), *, watch: Watch | None = None) -> RunFolder:
    """Goes on with a run that was interrupted, killed or failed, to the same final weights as if it had not been.

    Args:
        run_dir: The run's folder.
        args: ``--data.source``, where the same data are now, and ``--trainer.*`` options to change; a run resumed on
            other hardware ends near its weights, not at them. With another number of processes a step keeps its
            images, which those share out anew.
        watch: Called with each row that training logs; see `run`.

    Returns:
        The finished run's folder.

    Raises:
        UserError: If the run is complete, its checkpoints cannot be read, or its data have changed.
    """
    folder = RunFolder.open(run_dir)
    if process_rank() != 0:  # the first process has it
        return _resume(folder, args, watch)
    folder.claim()
    try:
        return _resume(folder, args, watch)
    finally:
        folder.release()


def _resume(folder: RunFolder, args: Sequence[str], watch: Watch | None) -> RunFolder:
    if any(option.partition("=")[0] == "--trainer.max_epochs" for option in args):
        raise UserError("--trainer.max_epochs: the phases' lengths follow from it, so it cannot change in a run")
    if any(option.partition("=")[0] == "--trainer.accumulate_grad_batches" for option in args):
        raise UserError("--trainer.accumulate_grad_batches: a step's images follow from it, so it cannot change")
    if folder.is_complete:
        raise UserError(f"{folder.path} is complete; there is nothing to resume (tl test --run_dir scores it again)")
    for leftover in folder.checkpoints.glob(".*.tmp"):  # of a write that was cut off
        leftover.unlink()
    best = folder.checkpoints / "best.ckpt"
    if folder.trained_checkpoint.is_file() and not best.is_file():  # stopped while an average took its place
        folder.trained_checkpoint.replace(best)
    checkpoint = latest_checkpoint(folder)
    if checkpoint == folder.previous_checkpoint:
        folder.last_checkpoint.unlink(missing_ok=True)  # it cannot be read; at the next save it would replace this one
    # The images of a step, and in how many parts each process takes its share, are those of the checkpoint.
    own = [] if checkpoint is None else ["--global_batch", "null"]
    try:
        return _run([*configuration_of(folder), *args, *own], folder=folder, checkpoint=checkpoint, watch=watch)
    except UserError as error:
        if str(error).startswith("data.source ") and not any(option.partition("=")[0] == MOVED for option in args):
            hint = f"where the data are elsewhere now: tl resume --run_dir {folder.path} {MOVED} PLACE"
            raise UserError(f"{error}; {hint}") from error
        raise


def _run(
    args: list[str], *, folder: RunFolder | Literal["new"], checkpoint: Path | None, watch: Watch | None
) -> RunFolder:
    started = time.perf_counter()
    console.quiet = console.quiet or process_rank() != 0
    quiet()
    with console.status("building the model"):
        configuration = Configuration(args, folder=folder, watch=watch)
    try:
        experiment = _trained(configuration, started, checkpoint)
    finally:
        if configuration.folder is not None:
            configuration.folder.release()
    console.print(f"run folder {experiment.folder.path}   ({time.perf_counter() - started:.0f} s in all)")
    return experiment.folder


def _trained(configuration: Configuration, started: float, checkpoint: Path | None) -> Experiment:
    try:
        experiment = Experiment(configuration, started, checkpoint)
        experiment.prepare()
    except BaseException:
        if configuration.folder is not None and configuration.created:
            configuration.folder.discard()
        raise
    with ending(experiment):
        experiment.training.run()
        experiment.evaluate()
    return experiment
