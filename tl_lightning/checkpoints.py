"""Checkpoints on disk: written whole or not at all, read as data and never as code."""

import errno
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from tl_lightning.backbones.state_dicts import read_checkpoint
from tl_lightning.console import console
from tl_lightning.errors import UserError
from tl_lightning.run_folder import RunFolder


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
                console.print(f"{mistake}; going on from {path.name}", markup=False)
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch's writer stumbles over its own end
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f"{path} cannot be written: {cause.strerror}; make room, then go on with tl resume"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the renaming itself
    finally:
        os.close(folder)


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's way to checkpoint files: with `write_checkpoint`; of ``last.ckpt`` the one before is kept."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:  # noqa: ANN401
        """Writes whole or not at all."""
        path = Path(path)
        folder = RunFolder(path.parent.parent)
        write_checkpoint(checkpoint, path, keep=folder.previous_checkpoint if path == folder.last_checkpoint else None)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = None,  # noqa: ANN401
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Reads with torch's safe loader, whatever Lightning asks for."""
        return load_checkpoint(Path(path))
