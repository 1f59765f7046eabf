"""What the arguments of a data module may be."""

from typing import get_args

from tl_lightning.data.leaks import OnLeak
from tl_lightning.data.targets import Unlabelled
from tl_lightning.errors import UserError

CHOICES = {
    "sampler": ("shuffled", "balanced"),
    "on_leak": get_args(OnLeak),
    "on_error": ("stop", "skip"),
    "unlabelled": get_args(Unlabelled),
}


def check_arguments(*, num_workers: int | None, sampler: str, on_leak: str, on_error: str, unlabelled: str) -> None:
    """Checks what can be checked before the source is read.

    Args:
        num_workers: Processes that prepare batches, 0 or more; this and the others as `TransferDataModule` takes them.
        sampler: One of its `CHOICES`.
        on_leak: One of its `CHOICES`.
        on_error: One of its `CHOICES`.
        unlabelled: One of its `CHOICES`.

    Raises:
        UserError: Naming the first that cannot be.
    """
    if num_workers is not None and num_workers < 0:
        raise UserError(f"data.num_workers is {num_workers}; it must be 0 or more")
    given = {"sampler": sampler, "on_leak": on_leak, "on_error": on_error, "unlabelled": unlabelled}
    for name, value in given.items():
        if value not in CHOICES[name]:
            raise UserError(f"data.{name} {value!r} is unknown; valid are {', '.join(CHOICES[name])}")


def check_batch_size(batch_size: int, micro_batch_size: int | str | None) -> None:
    """Checks how many samples a step of one process has.

    Args:
        batch_size: How many.
        micro_batch_size: How many of them go through the model at once; ``auto`` and `None` fit always.

    Raises:
        UserError: If there is less than 1, or the parts do not divide the whole.
    """
    if batch_size < 1:
        raise UserError(f"data.batch_size is {batch_size}; it must be 1 or more")
    if isinstance(micro_batch_size, int) and (micro_batch_size < 1 or batch_size % micro_batch_size):
        raise UserError(f"data.micro_batch_size is {micro_batch_size}; it must divide data.batch_size {batch_size}")
