"""Where training stands among its epochs and batches, so that it can go on with the batch that came next."""

from typing import Any

from lightning import Trainer


def progress(trainer: Trainer) -> tuple[Any, Any]:
    """Lightning's counts of epochs, and of batches in the epoch under way; its types leave out half of their fields."""
    loop = trainer.fit_loop
    return loop.epoch_progress.current, loop.epoch_loop.batch_progress.current


def place_of(trainer: Trainer) -> dict[str, int]:
    """The ``epoch`` that is under way or comes next, and how many ``batches`` of it are done.

    Args:
        trainer: The trainer of the run, between any two batches.
    """
    epochs, batches = progress(trainer)
    if epochs.started <= epochs.processed:  # between two epochs, where the batches are those of the last one
        return {"epoch": epochs.processed, "batches": 0}
    if batches.processed >= trainer.num_training_batches:  # only validation or the epoch's end is missing
        return {"epoch": epochs.processed + 1, "batches": 0}
    return {"epoch": epochs.processed, "batches": batches.processed}
