"""A first layer for another number of channels, made from the pretrained one."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tl_lightning.errors import UserError


def adapt_stem(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, before: int, channels: int, name: str
) -> dict[str, Tensor]:
    """Changes the tensors that see the images, by the rule of `adapt_weight`, and leaves all others.

    Args:
        tensors: The state dict of a model for images of `before` channels.
        wanted: That of the same model for images of `channels` channels; only the shapes matter.
        before: Number of channels.
        channels: Number of channels.
        name: The backbone's name, for the error message.

    Returns:
        The tensors for `wanted`; several of them are changed where a model looks at the image more than once.

    Raises:
        UserError: If no tensor or one that is no convolution depends on the number of channels.
    """
    changed = [key for key in wanted if key not in tensors or tensors[key].shape != wanted[key].shape]
    adapted = dict(tensors)
    for key in changed:
        if key in tensors and tensors[key].ndim == 4 and tensors[key].shape[1] % before == 0:
            adapted[key] = adapt_weight(tensors[key], before=before, channels=channels)
    if not changed or any(key not in adapted or adapted[key].shape != wanted[key].shape for key in changed):
        raise UserError(
            f"data.channels is {channels}, but the first layer of {name} cannot be changed from {before} channels; "
            "leave it out, or choose another backbone"
        )
    return adapted


def adapt_weight(weight: Tensor, *, before: int, channels: int) -> Tensor:
    """Makes the weight of a first convolution fit another number of channels, by timm's rule.

    For one channel it is summed, so that a grey image gives what its repetition in all channels gave. For several the
    channels are taken one after another, from the first again where they run out, and divided by how many more there
    are now, so that the sums stay as large (`timm.models.adapt_input_conv`).

    Args:
        weight: The stem's weight, ``(out, blocks * before, height, width)``; a stem that first moves pixels into
            channels has several blocks, all others one.
        before: Number of channels.
        channels: Number of channels.

    Returns:
        Of shape ``(out, blocks * channels, height, width)``, of the same type.
    """
    blocks = weight.float().reshape(len(weight), -1, before, *weight.shape[2:])
    if channels == 1:
        blocks = blocks.sum(2, keepdim=True)
    else:
        blocks = blocks[:, :, torch.arange(channels) % before] * (before / channels)
    return blocks.flatten(1, 2).to(weight.dtype)
