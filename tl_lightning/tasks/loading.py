"""From a checkpoint to the model that it describes."""

from pathlib import Path

from tl_lightning.core.checkpoint_files import load_checkpoint
from tl_lightning.errors import UserError
from tl_lightning.tasks import TASKS, ClassificationTask, TransferTask


def load_task(path: Path) -> TransferTask:
    """Builds the model that a checkpoint describes, with its weights, in eval mode.

    Raises:
        UserError: If it is none of ours, or of a task of the user's own.
    """
    checkpoint = load_checkpoint(path)
    name = checkpoint.get("task", ClassificationTask.__name__)  # runs of version 0.1 say nothing and had no other
    kind = next((task for task in TASKS if task.__name__ == name), None)
    if kind is None:
        raise UserError(f"{path} is of a task of your own ({name}): build it and load its state_dict")
    task = kind(**{**checkpoint["hyper_parameters"], "weights": "none", "l2_sp": 0.0})
    task.load_state_dict(checkpoint["state_dict"])
    return task.eval()
