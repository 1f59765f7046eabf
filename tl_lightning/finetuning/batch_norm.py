"""BatchNorm statistics: estimated anew on the target, and shared by processes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import Tensor, nn

from tl_lightning.core.console import track
from tl_lightning.core.private import BatchNorm


def batch_norms(module: nn.Module) -> list[BatchNorm]:
    """The BatchNorm layers of a module that keep running statistics."""
    return [layer for layer in module.modules() if isinstance(layer, BatchNorm) and layer.track_running_stats]


@torch.no_grad()
def estimate_statistics(backbone: nn.Module, batches: Iterable[Sequence[Tensor]]) -> None:
    """Replaces the running statistics of all BatchNorm layers by those of the given samples.

    Each becomes the mean over the batches of the batch's own statistics, as in AdaBN (Li et al. 2016,
    arXiv:1603.04779). Everything else stays in eval mode: no dropout, no stochastic depth. The modes of all modules are
    afterwards what they were.

    Args:
        backbone: The module whose running statistics are changed in place.
        batches: The backbone's inputs, prepared. Batches smaller than the first are left out: their statistics are
            noisier, and those of one sample may not exist.
    """
    layers = batch_norms(backbone)
    modes = {module: module.training for module in backbone.modules()}
    momenta = [layer.momentum for layer in layers]
    backbone.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the batches
        layer.training = True
    try:
        size = 0
        for inputs in batches:
            size = size or len(inputs[0])
            if len(inputs[0]) == size:
                backbone(*inputs)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def average_statistics(module: nn.Module, *, of_all: bool = False) -> None:
    """Gives every process the mean of the running statistics that each has estimated from its own batches.

    Args:
        module: The same on all processes of the default process group.
        of_all: Whether those of layers in eval mode have changed too.
    """
    layers = [layer for layer in batch_norms(module) if of_all or layer.training]
    layers = [layer for layer in layers if not isinstance(layer, nn.SyncBatchNorm)]
    tensors = [tensor for layer in layers for tensor in (layer.running_mean, layer.running_var) if tensor is not None]
    if not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, averaged in zip(tensors, parts, strict=True):
        tensor.copy_(averaged.view_as(tensor))


def adapt_statistics(
    backbone: nn.Module, trainer: Trainer, inputs_of: Callable[[Mapping[str, Any]], Sequence[Tensor]]
) -> None:
    """Estimates the running statistics anew on the training samples, as evaluation sees them.

    Args:
        backbone: The module whose running statistics are changed in place, on all processes alike.
        trainer: Has the samples, and says on which device and in which precision.
        inputs_of: What the backbone takes of a batch.
    """

    def inputs() -> Iterator[Sequence[Tensor]]:
        # Class by class, as a folder lists them, no batch would show how the classes differ.
        loader = trainer.datamodule.plain_loader("train", shuffle=True)  # type: ignore[attr-defined]
        for batch in track(loader, "adapting BatchNorm", total=len(loader)):
            yield inputs_of(trainer.strategy.batch_to_device(batch, trainer.strategy.root_device))

    trainer.validating = True  # the images come as evaluation sees them
    with trainer.precision_plugin.forward_context():
        estimate_statistics(backbone, inputs())
    trainer.training = True
    if trainer.world_size > 1:
        average_statistics(backbone, of_all=True)


class SyncBatchNorm(TorchSyncBatchNorm):
    """Lets BatchNorm see the batches of all processes while a phase trains, in timm's models too.

    Torch's own conversion turns timm's fused normalisation and activation into a bare normalisation: the activation is
    lost without a word. timm's keeps it. Afterwards the original layers return, with the statistics they have learned.
    """

    def __init__(self) -> None:
        self._originals: dict[str, nn.Module] = {}

    def apply(self, model: nn.Module) -> nn.Module:
        """Exchanges the layers for synchronised ones that share their parameters."""
        from timm.layers.norm_act import convert_sync_batchnorm

        self._originals = {name: layer for name, layer in model.named_modules() if isinstance(layer, BatchNorm)}
        converted: nn.Module = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        for name, layer in self._originals.items():
            converted.get_submodule(name).training = layer.training
        return converted

    def revert(self, model: nn.Module) -> nn.Module:
        """Puts the original layers back."""
        for name, layer in self._originals.items():
            parent, _, child = name.rpartition(".")
            synchronised = model.get_submodule(name)
            for key, tensor in synchronised.named_buffers(recurse=False):
                setattr(layer, key, tensor)
            layer.training = synchronised.training
            setattr(model.get_submodule(parent), child, layer)
        self._originals = {}
        return model
