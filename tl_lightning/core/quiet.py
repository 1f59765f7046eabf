"""Silence about what Lightning tells people who assemble a trainer by hand."""

import logging
import warnings


def quiet() -> None:
    """Leaves out what Lightning says to people who assemble a trainer by hand."""
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.seed", "fabric.utilities.distributed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    for message in (
        ".*args parameter is intended to run from within Python.*",  # tests and notebooks call the command in-process
        ".*does not have many workers.*",  # the decoded images make workers needless on a CPU
        ".*in eval mode at the start of training.*",  # frozen stages are, on purpose
        ".*is smaller than the logging interval.*",
        ".*LeafSpec.* is deprecated.*",  # Lightning's own use of torch
        ".*Checkpoint directory .* exists and is not empty.*",  # the second phase writes where the first did
        ".*The `srun` command is available on your system.*",  # of a cluster's machine, where one trains without it
        ".*your dataloader is not resumable.*",  # its sampler is, and the data module's state says where it stopped
    ):
        warnings.filterwarnings("ignore", message=message)
