"""How many images fit into memory at once."""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from tl_lightning.core.console import console
from tl_lightning.data.base import TransferDataModule
from tl_lightning.errors import UserError
from tl_lightning.finetuning.phases import Phase
from tl_lightning.preprocess import Preprocess
from tl_lightning.tasks.base import TransferTask

MARGIN = (
    0.6  # of what is free: a backward pass holds more than what the forward pass has kept, and so does the allocator
)


def divide_batches(task: TransferTask, data: TransferDataModule, trainer: Trainer, phases: Sequence[Phase]) -> None:
    """Has batches computed in parts, as small as ``data.micro_batch_size`` says or, with ``auto``, as memory asks for.

    Args:
        task: The model; its phase is changed while it is measured.
        data: Gets the size of the parts.
        trainer: Adds up the gradients of as many parts as make a batch.
        phases: What is going to be trained; the hungriest decides.

    Raises:
        UserError: If several processes, which have to agree, were each to look at the memory of their own.
    """
    whole = data.batch_size
    if data.micro_batch_size == "auto":
        if trainer.world_size > 1:
            raise UserError(
                f"data.micro_batch_size auto is for one process, and here are {trainer.world_size}; give a number that "
                f"divides data.batch_size {whole}"
            )
        device = trainer.strategy.root_device
        kept = max(_bytes_per_image(task, phase, trainer) for phase in phases)
        free = free_bytes(device)
        largest = largest_part(whole, bytes_per_image=kept, bytes_free=free, even=bool(data.mixes))
        data.set_batch_size(whole, largest)
        console.print(
            f"memory     {kept / 2**20:.1f} MiB per image, {free / 2**20:,.0f} MiB free: batches of {whole} go "
            + ("whole" if largest == whole else f"in parts of {largest}")
        )
    parts = whole // data.loaded_batch_size
    trainer.accumulate_grad_batches *= parts
    for name in ("limit_train_batches", "val_check_interval"):
        if isinstance(getattr(trainer, name), int):  # which counts what the loader gives
            setattr(trainer, name, getattr(trainer, name) * parts)


def _bytes_per_image(task: TransferTask, phase: Phase, trainer: Trainer) -> float:
    task.start_phase(phase)
    task.to(trainer.strategy.root_device)
    inputs = Preprocess.from_dict(task.preprocess).example(2, task.device)
    statistics = {name: buffer.clone() for name, buffer in task.named_buffers()}
    with trainer.precision_plugin.forward_context():
        kept = cached_bytes(task, inputs)
    task.load_state_dict(statistics, strict=False)  # BatchNorm that trains has seen nothing
    return kept / len(inputs[0])


def cached_bytes(module: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Measures what a forward pass keeps for the backward pass.

    Args:
        module: In the mode and with the trainable parameters of the phase.
        inputs: A small batch, on the module's device; memory grows in proportion to its size.

    Returns:
        Bytes of all tensors that autograd saves, each storage once, parameters left out.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    saved: dict[int, int] = {}
    alive: list[Tensor] = []  # an address that is free again would be counted once for two tensors

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(*inputs)
    return sum(saved.values())


def free_bytes(device: torch.device) -> int:
    """What a device has free: of a GPU its own memory, else of the machine's or the container's, as Linux says it.

    Args:
        device: Where the model trains.

    Returns:
        Bytes; where nobody says, 4 GiB.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = [4 * 2**30]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text(encoding="utf-8").strip()
        if limit != "max":
            free.append(int(limit) - int((group / "memory.current").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        pass  # another system, or no container
    return min(free)


def largest_part(batch_size: int, *, bytes_per_image: float, bytes_free: float, even: bool) -> int:
    """The largest part into which a batch can be divided evenly and that fits.

    Args:
        batch_size: Images per step.
        bytes_per_image: What each keeps for the backward pass.
        bytes_free: What there is.
        even: Whether only even parts will do, as for mixing.

    Returns:
        A divisor of ``batch_size``; the smallest that will do where nothing fits.
    """
    parts = [part for part in range(1, batch_size + 1) if batch_size % part == 0 and not (even and part % 2)]
    fitting = [part for part in parts if part * bytes_per_image <= MARGIN * bytes_free]
    return max(fitting, default=parts[0])
