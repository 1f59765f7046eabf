"""Runs that belong together, in one folder: each is made, gone on with, or taken as it is, whichever it needs."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from tl_lightning.configuration import Configuration
from tl_lightning.console import console
from tl_lightning.errors import UserError
from tl_lightning.experiment import resume, run
from tl_lightning.run import Run
from tl_lightning.run_folder import RunFolder, write_text


def open_folder(
    run_dir: str | None, *, command: str, what: str, recipe: str, name: str, part: str | tuple[str, ...]
) -> Path:
    """Makes the folder, or finds that of an interrupted command with the same recipe.

    Args:
        run_dir: Where the user wants it; `None` for a new ``runs/<name>-<command>-<n>``.
        command: Such as ``crossval``; the recipe is kept as ``<command>.yaml``, by which the folder is known again.
        what: What is made, in words, such as ``cross-validation``.
        recipe: All options, as YAML.
        name: Of the configuration.
        part: How the folders of single runs begin, such as ``fold-``, or several such beginnings; a folder that holds
            only such is taken up.

    Raises:
        UserError: If the folder holds something else, or what was made with other options.
    """
    if run_dir is None:
        folder = RunFolder.create(None, name=f"{name}-{command}").path
    else:
        folder = Path(run_dir)
        kept = folder / f"{command}.yaml"
        if kept.is_file():
            if kept.read_text(encoding="utf-8") != recipe:
                raise UserError(f"--run_dir {run_dir} holds a {what} with other options; name another folder")
            return folder
        if not (folder.is_dir() and all(path.name.startswith(part) for path in folder.iterdir())):
            folder = RunFolder.create(run_dir, name="").path
    write_text(folder / f"{command}.yaml", recipe)
    return folder


def is_complete(path: Path) -> bool:
    """Whether a folder holds a run that ended well."""
    folder = RunFolder(path)
    return folder.config.is_file() and (path / "summary.json").is_file() and folder.summary["status"] == "completed"


def make_run(path: Path, args: Sequence[str], configuration: Configuration, *, command: str) -> Run:
    """Trains a run, goes on with it, or takes it as it is.

    Args:
        path: Its folder.
        args: Command-line arguments of ``tl fit``, without ``--run_dir``.
        configuration: Says in how many processes it would train.
        command: The command that makes it, for the message.

    Raises:
        UserError: If several processes are asked for, or something that ``tl fit`` would say.
    """
    if is_complete(path):
        console.print(f"{path} is complete already")
        return Run(RunFolder(path))
    if configuration.trainer.world_size > 1:
        raise UserError(
            f"tl {command} trains in one process, and {configuration.trainer.world_size} are asked for: train each run "
            f"by tl fit, this one by tl fit {shlex.join(args)} --run_dir {path}; then the same tl {command} takes what "
            "is there"
        )
    if not RunFolder(path).config.is_file():
        return run([*args, "--run_dir", str(path)])
    return resume(path)
