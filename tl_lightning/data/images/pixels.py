"""From the numbers in an image file to bytes, upright and without transparency."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_lightning.data.dataset import BrokenSample

TRANSPOSED = (5, 6, 7, 8)  # the orientations that change width and height


class BrokenImage(BrokenSample):
    """An image file that cannot be read; the text is a short reason."""


@dataclass(frozen=True, eq=False)
class RawImage:
    """An image as its file holds it.

    Attributes:
        values: The numbers, ``(height, width, channels)``.
        opacity: Whether the last channel is the opacity.
        orientation: How it has to be `turned`.
        pages: How many images there are in the file.
        pixel_range: Which numbers the file says are black and white, see `to_bytes`.
        negative: Whether it is the other way round.
    """

    values: NDArray[Any]
    opacity: bool = False
    orientation: int = 1
    pages: int = 1
    pixel_range: tuple[float, float] | None = None
    negative: bool = False


def own_range(values: NDArray[Any]) -> tuple[float, float] | None:
    """From the smallest number to the largest, which black and white are where a file does not say; `None` for bytes.

    Args:
        values: One or more numbers of any type.
    """
    if values.dtype in (np.bool_, np.uint8) or values.dtype.kind not in "uif":
        return None
    low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + 1


def to_bytes(values: NDArray[Any], pixel_range: tuple[float, float] | None) -> NDArray[np.uint8]:
    """Maps the numbers of a file linearly to 0..255; what lies outside of the range is clipped.

    Args:
        values: An array of any shape and type.
        pixel_range: What becomes 0 and 255. `None` goes by the type: 8-bit values stay as they are, integers of more
            bits count as 0..65535 where all lie in there, and floating-point numbers as 0..1, likewise.

    Returns:
        ``uint8`` of the same shape, rounded to the nearest.

    Raises:
        BrokenImage: If some are no finite numbers, or if no range is given and the type does not say it.
    """
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint8 and pixel_range is None:
        return values
    if values.dtype.kind not in "uif":
        raise BrokenImage(f"its pixels are {values.dtype} numbers")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BrokenImage("some of its pixels are NaN or infinite")
    low, high = pixel_range or _range_of(values)
    if values.dtype in (np.uint8, np.uint16):  # by a table, which needs no floating-point copy of the image
        table = _scaled(np.arange(np.iinfo(values.dtype).max + 1), low, high)
        pixels: NDArray[np.uint8] = table[values]
        return pixels
    return _scaled(values, low, high)


def _range_of(values: NDArray[Any]) -> tuple[float, float]:
    lowest, highest = float(values.min()), float(values.max())
    unsigned_or_wide = values.dtype.kind == "u" or values.dtype.itemsize > 1
    usual = 1.0 if values.dtype.kind == "f" else 65535.0
    if 0 <= lowest and highest <= usual and unsigned_or_wide:
        return 0.0, usual
    raise BrokenImage(
        f"its {values.dtype} pixels go from {lowest:g} to {highest:g}, which does not say what is black and what is "
        "white: set data.pixel_range"
    )


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (values.astype(np.float64) - low) * 255 / (high - low)
    rounded: NDArray[np.uint8] = scaled.round().clip(0, 255).astype(np.uint8)
    return rounded


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lays an image on white.

    Args:
        pixels: An array of shape ``(height, width, channels)``; the last channel is the opacity.

    Returns:
        Of shape ``(height, width, channels - 1)``.
    """
    opacity = pixels[:, :, -1:].astype(np.uint16)
    # At most 255 * 255 + 127, which 16 bits hold.
    return ((pixels[:, :, :-1] * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)


def turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turns an image upright.

    Args:
        pixels: An array of shape ``(height, width, channels)``.
        orientation: As EXIF and TIFF number them, 1 to 8; any other leaves it as it is.

    Returns:
        The pixels, perhaps in the same memory.
    """
    if orientation in TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if mirrored_left_right(orientation):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if mirrored_up_down(orientation) else pixels


def mirrored_left_right(orientation: int) -> bool:
    """Whether `turned` puts what was stored first to the right."""
    return orientation in (2, 3, 6, 7)


def mirrored_up_down(orientation: int) -> bool:
    """Whether `turned` puts what was stored first to the bottom."""
    return orientation in (3, 4, 7, 8)
