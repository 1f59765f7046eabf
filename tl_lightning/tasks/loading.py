"""From a checkpoint to the model that it describes."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_lightning.core.checkpoint_files import load_checkpoint
from tl_lightning.core.class_path import resolve
from tl_lightning.core.yaml_files import read_mapping
from tl_lightning.errors import UserError
from tl_lightning.tasks import TASKS, ClassificationTask, TransferTask


def load_task(path: Path) -> TransferTask:
    """Builds the model that a checkpoint describes, with its weights, in eval mode.

    Args:
        path: A checkpoint; one in a run folder may be of a class that only the run's ``config.yaml`` names.

    Raises:
        UserError: If it is none of ours, or its class cannot be imported.
    """
    return task_of(load_checkpoint(path), config=path.parent.parent / "config.yaml")


def task_of(checkpoint: Mapping[str, Any], *, config: Path | None = None) -> TransferTask:
    """The same, from the content of a checkpoint; see `load_task` and `described_task`."""
    kind, arguments = described_task(checkpoint, config=config)
    task = kind(**arguments)
    task.load_state_dict(checkpoint["state_dict"])
    task.trained_in = checkpoint.get("precision")
    return task.eval()


def described_task(
    checkpoint: Mapping[str, Any], *, config: Path | None = None
) -> tuple[type[TransferTask], dict[str, Any]]:
    """The class that a checkpoint is of, and the arguments that build it without the weights that it holds itself.

    The class of a user's own is imported by the name that the checkpoint records, or else that the run's configuration
    says; the file itself stays data.

    Args:
        checkpoint: The content of the file.
        config: The configuration of its run, which names the class where an earlier version's checkpoint does not.

    Raises:
        UserError: If the class cannot be imported, or is no task.
    """
    kind: Any = next((task for task in TASKS if task.__name__ == checkpoint.get("task")), None)
    if "class_path" in checkpoint:
        kind = resolve(checkpoint["class_path"], "the checkpoint's class_path")
    elif "task" not in checkpoint:  # runs of version 0.1 say nothing and had no other
        kind = ClassificationTask
    elif kind is None or checkpoint["own_task"]:
        kind = _configured(config)
    if not (isinstance(kind, type) and issubclass(kind, TransferTask)):
        raise UserError(f"the checkpoint is of {kind!r}, which is no TransferTask")
    taken = inspect.signature(kind).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    # Its weights are in the checkpoint, and there is no start to stay close to.
    given = {**checkpoint["hyper_parameters"], "weights": "none", "l2_sp": 0.0}
    return kind, {name: value for name, value in given.items() if takes_all or name in taken}


def _configured(config: Path | None) -> Any:  # noqa: ANN401 - whatever it names
    model = read_mapping(config).get("model") if config is not None and config.is_file() else None
    if not isinstance(model, dict) or "class_path" not in model:
        raise UserError("the checkpoint is of a task of your own, whose class it does not name: give its run folder")
    return resolve(model["class_path"], "model.class_path")
