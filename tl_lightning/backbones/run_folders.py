"""What an earlier run of ours left behind, read as plain files."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tl_lightning.core.checkpoint_files import read_checkpoint
from tl_lightning.core.run_folder import RunFolder
from tl_lightning.errors import UserError
from tl_lightning.preprocess import Preprocess


@dataclass(frozen=True)
class RunWeights:
    """The backbone of an earlier run.

    Attributes:
        tensors: The backbone's tensors under timm's names.
        preprocess: How the run prepared its images.
        lineage: Where its weights came from, oldest first, ending with the run itself.
    """

    tensors: dict[str, Tensor]
    preprocess: Preprocess
    lineage: tuple[str, ...]


def best_checkpoint(folder: Path) -> Path:
    """Where a run keeps its best weights; a folder is a run of ours if this file exists."""
    return RunFolder(folder).checkpoints / "best.ckpt"


def read_run(folder: Path, name: str) -> RunWeights:
    """Reads the best weights of a run.

    Args:
        folder: The run folder.
        name: The backbone that is wanted, e.g. ``timm/resnet18``.

    Returns:
        The weights and what is known about them.

    Raises:
        UserError: If the run trained another backbone, or its files are not what a run writes.
    """
    path = best_checkpoint(folder)
    checkpoint = read_checkpoint(path)
    try:
        parameters = checkpoint["hyper_parameters"]
        trained, preprocess = parameters["backbone"], Preprocess.from_dict(parameters["preprocess"])
        tensors = {
            key.removeprefix("backbone."): value
            for key, value in checkpoint["state_dict"].items()
            if key.startswith("backbone.")
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"model.weights: {path} was not written by a run of tl_lightning ({error!r})") from error
    if trained != name:
        raise UserError(
            f"model.weights is the run {folder}, which trained {trained}, but model.backbone is {name}; name the same "
            "backbone, or another run"
        )
    return RunWeights(tensors, preprocess, (*_lineage(folder), str(folder)))


def _lineage(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(str(step) for step in RunFolder(folder).summary["backbone"]["lineage"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"model.weights is the run {folder}, but its summary.json, which says where its weights came from, cannot "
            f"be read ({error!r})"
        ) from error
