"""The batch of a step over all processes: how it is shared out, and the learning rates that go with it."""

import math
from dataclasses import dataclass
from typing import Literal

from tl_lightning.data.base import TransferDataModule
from tl_lightning.errors import UserError

LrScaling = Literal["none", "sqrt", "linear"]
WORDS = {"sqrt": "square root of ", "linear": ""}


@dataclass(frozen=True)
class GlobalBatch:
    """Images of one optimizer step.

    Attributes:
        images: How many all processes take together.
        batch_size: How many one process takes at once.
        processes: How many train.
        accumulate: Batches of each process whose gradients are added up.
    """

    images: int
    batch_size: int
    processes: int
    accumulate: int

    def __str__(self) -> str:
        """Such as ``64 images a step: 32 in each of 2 processes``."""
        shared = f" in each of {_count(self.processes)}" if self.processes > 1 else ""
        added = f", {self.accumulate} times" if self.accumulate > 1 else ""
        return f"{self.images} images a step: {self.batch_size}{shared}{added}"


def share_out(global_batch: int | None, data: TransferDataModule, *, processes: int, accumulate: int) -> GlobalBatch:
    """Gives every process its share of a global batch.

    Args:
        global_batch: Images of one step over all processes; `None` to leave each process its ``data.batch_size``.
        data: Gets the batch size that follows.
        processes: How many there are.
        accumulate: How many batches each adds up.

    Raises:
        UserError: If the batch cannot be shared out evenly, or a share is one that the data cannot have.
    """
    together = processes * accumulate
    if global_batch is not None:
        share, rest = divmod(global_batch, together)
        if rest or share < 1:
            fitting = " or ".join(str(k * together) for k in (share, share + 1) if k > 0)
            added = f" x trainer.accumulate_grad_batches {accumulate}" if accumulate > 1 else ""
            raise UserError(
                f"global_batch is {global_batch}, which {_count(processes)}{added} "
                f"cannot share evenly; {fitting} would do"
            )
        try:
            data.set_batch_size(share, data.micro_batch_size)
        except UserError as error:
            raise UserError(f"global_batch {global_batch} over {processes} x {accumulate}: {error}") from error
    return GlobalBatch(data.batch_size * together, data.batch_size, processes, accumulate)


def lr_factor(rule: LrScaling, batch: GlobalBatch, reference: int | None) -> float:
    """The factor that takes learning rates from the batch that they were set for to the one that is used.

    Args:
        rule: ``sqrt`` for AdamW (Malladi et al. 2022, arXiv:2205.10287), ``linear`` for SGD (Goyal et al. 2017,
            arXiv:1706.02677), or ``none``.
        batch: What is used.
        reference: The global batch that ``model.lr`` was set for.

    Returns:
        The factor; 1 without a rule.

    Raises:
        UserError: If there is a rule and no reference, or the reference is no batch.
    """
    if reference is not None and reference < 1:
        raise UserError(f"lr_scaling_batch is {reference}; it must be 1 or more")
    if rule == "none":
        return 1.0
    if reference is None:
        raise UserError(
            f"lr_scaling {rule} needs --lr_scaling_batch: the batch, over all processes, that model.lr is for"
        )
    ratio = batch.images / reference
    return math.sqrt(ratio) if rule == "sqrt" else ratio


def _count(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"
