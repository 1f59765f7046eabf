"""Checkpoint files: written whole or not at all, and read as data, never as code."""

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from tl_lightning.core.console import console
from tl_lightning.core.files import replacing
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_for_want_of_room(error: BaseException) -> bool:
    """Whether an error, or one of those that led to it, says that the disk is full.

    Args:
        error: Any. What led to it may go in a circle: a mistake is raised from the error that it had been wrapped into.
    """
    seen: list[BaseException] = []
    ahead: list[BaseException | None] = [error]
    while ahead:
        current = ahead.pop()
        if current is None or current in seen:
            continue
        if isinstance(current, OSError) and current.errno in NO_SPACE:
            return True
        seen.append(current)
        ahead += [current.__cause__, current.__context__]
    return False


def read_checkpoint(path: Path) -> Any:  # noqa: ANN401  # a checkpoint holds whatever its maker put in
    """Reads a file of torch or safetensors as data: no code in it is ever run.

    Args:
        path: The file; ``.safetensors`` by its ending, anything else as torch's format.

    Returns:
        What the file holds, with all tensors on the CPU.

    Raises:
        UserError: If the file would need code to be run, or is no weight file at all.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path, device="cpu")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):  # torch's words for "this names a class or function"
            raise UserError(
                f"{path} is refused, since reading it would run code from the file; a checkpoint is "
                "data: save its state dict alone, or as safetensors"
            ) from error
        raise UserError(f"{path} is not a weight file that torch can read") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{path} cannot be read as a weight file: {reason}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint with torch's safe loader.

    Raises:
        UserError: If the file is missing, truncated, or not one of ours.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    checkpoint: dict[str, Any] = read_checkpoint(path)
    ours = isinstance(checkpoint, dict) and "state_dict" in checkpoint
    if not ours or "preprocess" not in checkpoint.get("hyper_parameters", {}):
        raise UserError(f"{path} is not a checkpoint of a run: it has no state_dict with hyper_parameters")
    return checkpoint


def latest_checkpoint(folder: RunFolder) -> Path | None:
    """Finds the state from which a run can go on: the last one, or the one before where that cannot be read.

    Returns:
        A checkpoint that can be read; `None` where the run had written none.

    Raises:
        UserError: If there are some, but none can be read.
    """
    mistakes: list[UserError] = []
    for path in (folder.last_checkpoint, folder.previous_checkpoint):
        if not path.is_file():
            continue
        try:
            load_checkpoint(path)
        except UserError as error:
            mistakes.append(error)
        else:
            for mistake in mistakes:
                console.print(f"{mistake}; going on from {path.name}")
            return path
    if mistakes:
        said = "; ".join(map(str, mistakes))
        raise UserError(f"{said}; nothing is left to go on from, so begin again: tl fit --config {folder.config}")
    return None


def write_checkpoint(checkpoint: dict[str, Any], path: Path, *, keep: Path | None = None) -> None:
    """Writes a checkpoint under a temporary name, makes sure that it is on the disk, then renames it.

    Args:
        checkpoint: What torch's safe loader can read.
        path: The file, replaced where it exists.
        keep: Where the file that it replaces goes.

    Raises:
        UserError: If the disk is full; what was there before is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path, keep=keep) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch's writer stumbles over its own end
        if isinstance(cause, OSError) and cause.errno in NO_SPACE:
            raise UserError(
                f"{path} cannot be written: {cause.strerror}; make room, then go on with tl resume"
            ) from error
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the renaming itself
    finally:
        os.close(folder)
