"""From a picture file to the pixels that a model expects; the one preparation for training and prediction alike."""

import errno
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from tl_lightning.errors import UserError
from tl_lightning.preprocess import Preprocess

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class BrokenPicture(Exception):
    """A picture file that cannot be read; the text is a short reason."""


def read_picture(path: Path) -> Image.Image:
    """Reads a picture file of any common kind.

    Turned as its EXIF data says; transparency is laid on white; 16-bit grey is scaled to 8 bits.

    Args:
        path: The file.

    Returns:
        The picture in mode ``L`` (grey) or ``RGB``, 8 bits per channel.

    Raises:
        BrokenPicture: If it cannot be read, for whatever reason.
    """
    try:
        if path.stat().st_size == 0:
            raise BrokenPicture("empty file")
        with Image.open(path) as picture:
            picture.load()
            return _to_grey_or_rgb(_upright(picture))
    except (BrokenPicture, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BrokenPicture("not a picture") from error
    except Image.DecompressionBombError as error:
        raise BrokenPicture("too many pixels to be safe") from error
    except OSError as error:
        reasons = {errno.ENOENT: "no such file", errno.EACCES: "no permission to read it", errno.EISDIR: "a folder"}
        raise BrokenPicture(reasons.get(error.errno or 0, f"damaged: {_one_line(error)}")) from error
    except Exception as error:  # Decoders raise whatever a damaged file leads them to.
        raise BrokenPicture(f"damaged: {_one_line(error)}") from error


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # Damaged EXIF data says nothing about the pixels.
        return picture


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _to_grey_or_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        # PIL's own conversion to L clips 16-bit values at 255, which leaves nearly white pictures.
        return Image.fromarray(np.clip(np.asarray(picture) // 256, 0, 255).astype(np.uint8))
    if picture.mode == "F":
        raise BrokenPicture("floating-point pixels, whose range is unknown")
    grey = picture.mode in ("1", "L", "LA", "La")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("L" if grey else "RGB")


def resize(picture: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Resizes as the weights expect it before the crop.

    Args:
        picture: In mode ``L`` or ``RGB``.
        preprocess: Says to which side, in which crop mode, with which interpolation.

    Returns:
        ``uint8`` of shape ``(height, width, 1 or 3)``.

    Raises:
        BrokenPicture: If the picture is so elongated that it would become larger than is safe to hold.
        UserError: If the crop mode or the interpolation is unknown.
    """
    if preprocess.interpolation not in INTERPOLATIONS:
        raise UserError(
            f"data.preprocess.interpolation {preprocess.interpolation!r} is unknown; "
            f"valid are {', '.join(INTERPOLATIONS)}"
        )
    width, height = _resized_shape(picture.width, picture.height, preprocess)
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise BrokenPicture(f"{picture.width} x {picture.height} pixels are too elongated")
    if (width, height) != picture.size:
        picture = picture.resize((width, height), INTERPOLATIONS[preprocess.interpolation])
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _resized_shape(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
    """Width and height after the resize; the roundings are those of torchvision and timm."""
    side = preprocess.resized
    if preprocess.crop_mode == "squash":
        return side, side
    if preprocess.crop_mode == "center":
        short = min(width, height)
        return (side, int(side * height / short)) if width <= height else (int(side * width / short), side)
    if preprocess.crop_mode == "border":
        ratio = max(width, height) / side
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    raise UserError(f"data.preprocess.crop_mode {preprocess.crop_mode!r} is unknown; valid: center, squash, border")


def crop(pixels: Tensor, preprocess: Preprocess) -> Tensor:
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
    # Python rounds halves to even, and so does torchvision.
    top, left = round((height - size) / 2), round((width - size) / 2)
    return pixels[:, top : top + size, left : left + size]


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
    raise UserError(f"the weights take {channels} channels; pictures in colour can only become 1 or 3")


def prepare(path: Path, preprocess: Preprocess) -> Tensor:
    """Reads a picture file as the model is to see it, but for `Preprocess.normalize`.

    Args:
        path: The file.
        preprocess: What the weights expect.

    Returns:
        ``uint8`` of shape ``(channels, size, size)``.

    Raises:
        BrokenPicture: If the file cannot be read.
    """
    # A copy: PIL's memory is read-only, which torch warns about.
    pixels = torch.from_numpy(resize(read_picture(path), preprocess).copy()).permute(2, 0, 1)
    return to_channels(crop(pixels, preprocess), preprocess.channels).contiguous()
