"""From an image file to the pixels that a model expects; the one preparation for training and prediction alike."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tl_lightning.data.images.decoding import DecodedImage
from tl_lightning.data.images.image_files import read_image
from tl_lightning.data.images.pixels import BrokenImage
from tl_lightning.errors import UserError
from tl_lightning.preprocess.image import ImagePreprocess

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def read_resized(path: Path, preprocess: ImagePreprocess) -> NDArray[np.uint8]:
    """Reads an image file, resized as the weights expect it before the crop; for training and prediction alike.

    Args:
        path: The file.
        preprocess: Says to which side, in which crop mode, with which interpolation, and see `read_image`.

    Returns:
        ``uint8`` of shape ``(height, width, channels)``, with the channels of `read_image`.

    Raises:
        BrokenImage: If the file cannot be read, or is so elongated that it would become larger than is safe to hold.
        UserError: If the crop mode or the interpolation is unknown; see also `read_image`.
    """
    return resize(read_image(path, preprocess), preprocess)


def resize(image: DecodedImage, preprocess: ImagePreprocess) -> NDArray[np.uint8]:
    """Resizes an image as read; see `read_resized`."""
    if preprocess.interpolation not in INTERPOLATIONS:
        raise UserError(
            f"data.interpolation {preprocess.interpolation!r} is unknown; valid are {', '.join(INTERPOLATIONS)}"
        )
    size = preprocess.resized_shape(*image.size)
    if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
        raise BrokenImage(f"{image.size[0]} x {image.size[1]} pixels are too elongated")
    pixels = image.pixels
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    # PIL takes no other number of channels at once.
    parts = [pixels] if pixels.shape[2] == 3 else [pixels[:, :, i] for i in range(pixels.shape[2])]
    how = INTERPOLATIONS[preprocess.interpolation]
    resized = [np.asarray(Image.fromarray(part).resize(size, how, image.box)) for part in parts]
    return np.dstack(resized)


def crop(pixels: Tensor, preprocess: ImagePreprocess) -> Tensor:
    """Cuts the square that the model sees out of the middle, and pads what is smaller.

    Args:
        pixels: ``uint8`` of shape ``(channels, height, width)``, as `resize` left it.
        preprocess: Says the size; in crop mode ``border`` the padding has the mean's colour, else it is black.

    Returns:
        ``uint8`` of shape ``(channels, size, size)``; a padded border gives as many channels as the model takes.
    """
    size = preprocess.size
    height, width = pixels.shape[-2:]
    if height < size or width < size:
        if preprocess.crop_mode == "border":
            pixels = to_channels(pixels, preprocess.channels)
            fill = torch.tensor([round(255 * mean) for mean in preprocess.mean], dtype=torch.uint8)
        else:
            fill = torch.zeros(pixels.shape[0], dtype=torch.uint8)
        whole = fill.view(-1, 1, 1).repeat(1, max(height, size), max(width, size))
        top, left = max(0, size - height) // 2, max(0, size - width) // 2
        whole[:, top : top + height, left : left + width] = pixels
        pixels, height, width = whole, *whole.shape[-2:]
    top, left = place_of_square(height, width, size)
    return pixels[:, top : top + size, left : left + size]


def place_of_square(height: int, width: int, size: int) -> tuple[int, int]:
    """Where the square that the model sees begins in an image, from its top and its left; negative in a border."""
    # Python rounds halves to even, and so does torchvision.
    top = round((height - size) / 2) if height >= size else -((size - height) // 2)
    left = round((width - size) / 2) if width >= size else -((size - width) // 2)
    return top, left


def to_channels(pixels: Tensor, channels: int) -> Tensor:
    """Gives pixels the number of channels that the model takes.

    Args:
        pixels: ``uint8`` of shape ``(1 or 3, height, width)``.
        channels: 1 or 3; any number for grey pixels, which are repeated.

    Returns:
        ``uint8`` of shape ``(channels, height, width)``; repeated channels share their memory.

    Raises:
        UserError: If colour cannot become that many channels.
    """
    if pixels.shape[0] == channels:
        return pixels
    if pixels.shape[0] == 1:
        return pixels.expand(channels, -1, -1)
    if channels == 1:
        # The weights of ITU-R 601-2 in PIL's own fixed-point arithmetic.
        red, green, blue = pixels.to(torch.int32)
        grey: Tensor = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
        return grey.to(torch.uint8)[None]
    raise UserError(f"the weights take {channels} channels; images in colour can only become 1 or 3")


def prepare(path: Path, preprocess: ImagePreprocess) -> Tensor:
    """Reads an image file as the model is to see it, but for `ImagePreprocess.normalize`.

    Args:
        path: The file.
        preprocess: What the weights expect.

    Returns:
        ``uint8`` of shape ``(channels, size, size)``.

    Raises:
        BrokenImage: If the file cannot be read.
    """
    # A copy: PIL's memory is read-only, which torch warns about.
    pixels = torch.from_numpy(read_resized(path, preprocess).copy()).permute(2, 0, 1)
    return to_channels(crop(pixels, preprocess), preprocess.channels).contiguous()
