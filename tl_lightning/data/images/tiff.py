"""TIFF files that PIL cannot read, or not exactly: many channels, colour of more than 8 bits, unusual types."""

import struct
import zlib
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

from tl_lightning.data.images.pixels import BrokenImage, RawImage
from tl_lightning.errors import UserError, shown

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
INSTALL = "pip install 'tl_lightning[tiff]'"
BITS, PHOTOMETRIC, EXTRA, FORMAT, ORIENTATION = 258, 262, 338, 339, 274
WHITE_IS_ZERO, UNSPECIFIED = 0, 0
SUBFILE, REDUCED, MASK = 254, 1, 4


def pil_is_exact(image: Image.Image) -> bool:
    """Whether PIL hands out all numbers of a file.

    Of 16-bit colour it drops the lower half, of four channels one that it does not know; it takes signed bytes for
    unsigned ones, and does not invert 16-bit grey that is stored as a negative.

    Args:
        image: Opened, not loaded yet; of any format.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return True
    tags = image.tag_v2
    formats, bits = set(tags.get(FORMAT, (1,))), max(tags.get(BITS, (1,)))
    if bits <= 8:
        return formats == {1} and UNSPECIFIED not in tags.get(EXTRA, ())
    signed = formats == {2}
    return (
        (image.mode.startswith("I;16") and tags.get(PHOTOMETRIC) != WHITE_IS_ZERO)
        or (image.mode == "I" and signed)
        or (image.mode == "F" and bits == 32)
    )


def read_tiff(file: BinaryIO, number: int = 0) -> RawImage:
    """Reads a page of a TIFF file.

    Args:
        file: Opened for reading.
        number: Of the page, from 0.

    Raises:
        BrokenImage: If it is damaged, or is no image.
        UserError: If a package is missing.
    """
    try:
        import tifffile
    except ImportError as error:
        raise UserError(f"{shown(file.name)} is a TIFF file that needs the package tifffile: {INSTALL}") from error

    file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            pages = len(tiff.pages)
            if not pages:
                raise BrokenImage("damaged: no image in it")
            page = tiff.pages.first if number == 0 else _page(tiff, number)
            if page.axes not in ("YX", "YXS", "SYX"):
                raise BrokenImage(f"its {'first page' if number == 0 else f'page {number}'} has the axes {page.axes}")
            if Image.MAX_IMAGE_PIXELS is not None and page.imagewidth * page.imagelength > 2 * Image.MAX_IMAGE_PIXELS:
                raise BrokenImage("too many pixels to be safe")
            end = file.seek(0, 2)
            parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            # Of a missing part tifffile would make black.
            if not parts or any(size == 0 or start + size > end for start, size in parts):
                raise BrokenImage("damaged: image file is truncated")
            values = np.asarray(page.asarray())
            opacity = page.extrasamples[-1:] in ((1,), (2,))
            orientation = page.tags.valueof(ORIENTATION, 1)
            negative = page.photometric == WHITE_IS_ZERO
    except (tifffile.TiffFileError, struct.error, zlib.error) as error:
        raise BrokenImage(f"damaged: {' '.join(str(error).split())}") from error
    except ValueError as error:
        if "requires the 'imagecodecs' package" not in str(error):
            raise
        raise UserError(f"{shown(file.name)} is a TIFF file that needs the package imagecodecs: {INSTALL}") from error
    values = values[:, :, None] if page.axes == "YX" else values if page.axes == "YXS" else np.moveaxis(values, 0, 2)
    if negative and values.dtype.kind == "u":
        values = np.iinfo(values.dtype).max - values
    return RawImage(values, opacity, orientation, pages)


def _page(tiff: Any, number: int) -> Any:  # noqa: ANN401 - tifffile's file and page
    if number >= len(tiff.pages):
        raise BrokenImage(no_page(number, len(tiff.pages)))
    tiff.pages.useframes = False  # a page by itself, not as the first one but for its pixels
    return tiff.pages[number]


def no_page(number: int, pages: int) -> str:
    """Says that a page is not there."""
    return f"it has no page {number}: there are {pages}, counted from 0"


def full_pages(file: BinaryIO) -> list[int]:
    """The numbers of the pages of a TIFF file that are images, and no smaller version or mask of another.

    Args:
        file: Opened for reading.

    Raises:
        Exception: Whatever a damaged file leads PIL to.
    """
    file.seek(0)
    head = file.read(16)
    if head.startswith(b"MM\0+"):  # which PIL takes for one of the older kind
        import tifffile

        file.seek(0)
        with tifffile.TiffFile(file) as tiff:
            kinds = [int(page.tags.valueof(SUBFILE, 0)) for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
        return [number for number, kind in enumerate(kinds) if not kind & (REDUCED | MASK)]
    directory = TiffImagePlugin.ImageFileDirectory_v2(head[: 16 if head[2:3] == b"+" else 8])
    seen, found = set(), []
    while directory.next and directory.next not in seen:  # damaged ones may go in a circle
        seen.add(directory.next)
        file.seek(directory.next)
        directory.load(file)
        if not int(directory.get(SUBFILE, 0)) & (REDUCED | MASK):
            found.append(len(seen) - 1)
    return found
