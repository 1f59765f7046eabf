"""What happens to a training picture by chance, as a function of seed, epoch and sample alone."""

import random
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tl_lightning.data.pictures import crop, to_channels
from tl_lightning.errors import UserError, nearest
from tl_lightning.preprocess import Preprocess

Transform = Callable[[Tensor], Tensor]

# Of the picture's area. timm's 0.08 suits training from scratch; on small sets it often cuts away what the label says.
CROP_SCALE = (0.5, 1.0)
COLOR_JITTER = 0.4


def augmentation(name: str, preprocess: Preprocess, *, key: str = "data.augmentation") -> Transform:
    """Makes the function that turns stored pixels into what the model sees in training.

    Args:
        name: ``none`` is the evaluation's crop and nothing else; ``flips`` adds a left-right mirror half of the time;
            ``dihedral`` adds one of the eight symmetries of the square, for pictures without an up and down;
            ``standard`` is timm's training transform: a random resized crop of 50 to 100 % of the area, a left-right
            mirror, and a colour jitter of 0.4.
        preprocess: What the weights expect.
        key: What an error calls the setting.

    Returns:
        A function from ``uint8`` pixels ``(1 or 3, height, width)`` to ``uint8`` ``(channels, size, size)``. It draws
        from the global generators; see `tl_lightning.randomness.seeded`.

    Raises:
        UserError: If the name is unknown.
    """
    makers: dict[str, Callable[[Preprocess], Transform]] = {
        "none": evaluation,
        "flips": lambda preprocess: partial(_flip, preprocess=preprocess),
        "dihedral": lambda preprocess: partial(_turn, preprocess=preprocess),
        "standard": _standard,
    }
    if name not in makers:
        raise UserError(f"{key} {name!r} is unknown; valid are {', '.join(makers)}" + nearest(name, makers))
    return makers[name](preprocess)


def evaluation(preprocess: Preprocess) -> Transform:
    """Makes the crop that validation, testing and prediction use; shapes as for `augmentation`."""
    return partial(_evaluate, preprocess=preprocess)


# Partial functions rather than closures: worker processes that are spawned get them pickled.
def _evaluate(pixels: Tensor, *, preprocess: Preprocess) -> Tensor:
    return to_channels(crop(pixels, preprocess), preprocess.channels)


# numpy rather than torch, whose threads cost more than they bring for one picture, the more so on a busy machine.
def _flip(pixels: Tensor, *, preprocess: Preprocess) -> Tensor:
    square = crop(pixels, preprocess).numpy()
    if random.random() < 0.5:
        square = square[:, :, ::-1]
    return to_channels(torch.from_numpy(np.ascontiguousarray(square)), preprocess.channels)


def _turn(pixels: Tensor, *, preprocess: Preprocess) -> Tensor:
    symmetry = random.randrange(8)
    square = np.rot90(crop(pixels, preprocess).numpy(), symmetry % 4, (1, 2))
    if symmetry >= 4:
        square = square[:, :, ::-1]
    return to_channels(torch.from_numpy(np.ascontiguousarray(square)), preprocess.channels)


def _standard(preprocess: Preprocess) -> Transform:
    from timm.data.transforms_factory import create_transform

    chain = create_transform(
        input_size=preprocess.size,
        is_training=True,
        scale=CROP_SCALE,
        hflip=0.5,
        color_jitter=COLOR_JITTER,
        interpolation=preprocess.interpolation,
        normalize=False,
    )
    return partial(_through_pil, chain=chain, channels=preprocess.channels)


def _through_pil(pixels: Tensor, *, chain: Callable[[Image.Image], Tensor], channels: int) -> Tensor:
    picture = Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).contiguous().numpy())
    return to_channels(chain(picture), channels)
