"""BatchNorm that trains on one image at a time: one value per channel has no variance to divide by."""

from collections.abc import Sequence

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from tl_lightning.core.private import BatchNorm, synchronizes_batch_norm
from tl_lightning.data.base import TransferDataModule
from tl_lightning.errors import UserError
from tl_lightning.finetuning.phases import Phase
from tl_lightning.preprocess import Preprocess
from tl_lightning.tasks.base import TransferTask


def check_single_images(
    task: TransferTask, data: TransferDataModule, trainer: Trainer, phases: Sequence[Phase]
) -> None:
    """Makes sure, before anything trains, that no BatchNorm layer will ask one value for its variance.

    A batch of one image is enough where a layer still sees a map of it; where one pixel is left, it is not.

    Args:
        task: The model; its phase is changed.
        data: Knows the sizes of the batches, and of the parts in which they are computed.
        trainer: Knows how many processes share the images.
        phases: What is going to be trained.

    Raises:
        UserError: Naming the phase and the layer.
    """
    rows, part = len(data.training_rows) // trainer.world_size, data.loaded_batch_size
    first = min(rows, part)
    last = rows % part or part if rows < data.batch_size else part  # larger epochs come in whole batches only
    if min(first, last) != 1 or synchronizes_batch_norm(trainer):
        return
    pixels = None
    for phase in phases:
        if phase.bn == "frozen" or (phase.bn == "adapt" and first != 1):  # which leaves smaller batches out
            continue
        if pixels is None:
            inputs = Preprocess.from_dict(task.preprocess).example(1, task.device)
            pixels = layers_of_one_value(task.backbone, task.inputs_of(dict(zip(task.inputs, inputs, strict=True))))
        task.start_phase(phase)
        names = [name for name, layer in pixels.items() if layer.training or phase.bn == "adapt"]
        if names:
            setting = "data.micro_batch_size" if part < data.batch_size else "data.batch_size"
            left = f"of {rows} training images in parts of {part} one is left over" if part > 1 else f"{setting} is 1"
            raise UserError(
                f"phase {phase.name} has batches of one image ({left}), of which BatchNorm {names[0]} sees a single "
                f"value per channel, without a variance; choose another {setting}, or bn: frozen for the phase"
            )


@torch.no_grad()
def layers_of_one_value(backbone: nn.Module, inputs: Sequence[Tensor]) -> dict[str, nn.Module]:
    """The BatchNorm layers that see one value per channel, by their names; nothing of the backbone changes.

    Args:
        backbone: Its modes are afterwards what they were.
        inputs: One prepared sample.
    """
    found: dict[str, nn.Module] = {}

    def look(name: str, layer: nn.Module, given: Tensor) -> None:
        if given.numel() == given.shape[1]:
            found[name] = layer

    def hook(name: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return layer.register_forward_pre_hook(lambda module, given: look(name, module, given[0]))

    handles = [hook(name, layer) for name, layer in backbone.named_modules() if isinstance(layer, BatchNorm)]
    modes = {module: module.training for module in backbone.modules()}
    try:
        backbone.eval()(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return found
