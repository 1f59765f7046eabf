"""The predictions of an evaluation as a file, for scores, comparisons and errors without the model."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tl_lightning.core.files import replacing
from tl_lightning.errors import UserError


@dataclass(frozen=True)
class PredictionsFile:
    """What was predicted, a row per image.

    Attributes:
        predictions: Probabilities or numbers, ``(n, outputs)``.
        labels: The targets; see the data module.
        indices: Which sample of the source each row is, ``(n,)`` int64, ascending.
    """

    predictions: Tensor
    labels: Tensor
    indices: Tensor


def save_predictions(path: Path, predictions: Tensor, labels: Tensor, indices: Tensor) -> None:
    """Writes a NumPy archive, whole or not at all.

    Args:
        path: The file, replaced where it exists.
        predictions: See `PredictionsFile`, as are the others.
        labels: The targets.
        indices: Which samples they are.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, predictions=predictions.float().numpy(), labels=labels.numpy(), indices=indices.numpy())


def load_predictions(path: Path) -> PredictionsFile:
    """Reads what `save_predictions` wrote.

    Raises:
        UserError: If there is no such file, or it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            tensors = (torch.from_numpy(content[name]) for name in ("predictions", "labels", "indices"))
            return PredictionsFile(*tensors)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as predictions of a run: {' '.join(str(error).split())}") from error
