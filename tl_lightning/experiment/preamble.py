"""What commands that make no run folder begin with: options refused, a configuration built, the data read."""

from collections.abc import Mapping, Sequence
from typing import Any

from tl_lightning.core.console import console
from tl_lightning.core.quiet import quiet
from tl_lightning.data.base import TransferDataModule
from tl_lightning.errors import UserError
from tl_lightning.experiment.configuration import Configuration
from tl_lightning.experiment.tables import data_line


def refuse(args: Sequence[str], reasons: Mapping[str, str]) -> None:
    """Says that an option of ``tl fit`` means nothing to a command.

    Args:
        args: What is left for the configuration.
        reasons: Why, by the option's name, such as ``--data.on_leak``.

    Raises:
        UserError: If one of these options is there, also spelled with ``init_args``.
    """
    for argument in args:
        name = argument.partition("=")[0].replace(".init_args.", ".")
        if name in reasons:
            raise UserError(f"{name} has no effect here: {reasons[name]}; leave it out")


def refuse_run_dir(args: Sequence[str], command: str) -> None:
    """Says that a command makes no run folder, where one is named.

    Args:
        args: What is left for the configuration.
        command: The command's name.

    Raises:
        UserError: If ``--run_dir`` is there.
    """
    refuse(args, {"--run_dir": f"tl {command} makes no run folder"})


def assemble(
    args: Sequence[str],
    *,
    command: str,
    status: str = "building the model",
    checkpoint: Mapping[str, Any] | None = None,
    alone: bool = True,
) -> Configuration:
    """Builds what a configuration says, without a run folder.

    Args:
        args: Command-line arguments of ``tl fit``.
        command: Who asks, for messages.
        status: What a terminal shows meanwhile.
        checkpoint: The checkpoint to evaluate, as loaded; `None` where a new model is built.
        alone: Whether the command does it all by itself, on the data, in this process.

    Raises:
        UserError: If it does and several processes are asked for, or the data module is not built on ours; or something
            that ``tl fit`` would say.
    """
    quiet()
    with console.status(status):
        configuration = Configuration(list(args), folder=None, checkpoint=checkpoint)
    data, processes = configuration.datamodule, configuration.trainer.world_size
    if alone and not isinstance(data, TransferDataModule):
        raise UserError(f"data is {type(data).__name__}; tl {command} reads only what builds on a TransferDataModule")
    if alone and processes > 1:
        raise UserError(f"tl {command} runs in one process, and trainer.devices asks for {processes}")
    return configuration


def read_data(configuration: Configuration, *, say: bool = True) -> None:
    """Decodes the training and validation images, and says in one line what they are.

    Args:
        configuration: With the data module.
        say: Whether to print the line.
    """
    data = configuration.datamodule
    data.prepare_data()
    data.setup("fit")
    if say:
        console.print(data_line(data.summary()))
